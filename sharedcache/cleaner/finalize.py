"""Founding a cluster, and committing it to a schema: an operator's acts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sharedcache import audit, inventory, ledger
from sharedcache.cleaner.observe import Observed
from sharedcache.core import codec, rollout
from sharedcache.core.acts import Act, By, Deed, Doer, Signature
from sharedcache.core.gate_rules import way_out
from sharedcache.core.inventory import Inventory, appeared, old_names, take
from sharedcache.core.model import Cluster, Rollout, Unreadable
from sharedcache.core.names import Kind
from sharedcache.core.ports import (
    Check,
    ConflictError,
    Coordination,
    Create,
    NameExistsError,
    Operation,
    OutcomeUnknownError,
    Set,
    Storage,
)
from sharedcache.core.schema import SCHEMAS


class RefusedError(Exception):
    """An operator's act is refused; the message says why and what to do."""


def finalize(
    coordination: Coordination,
    storage: Storage,
    observed: Observed,
    who: str,
    now: float,
    *,
    epoch: int | None = None,
) -> Rollout:
    """Commit the cluster to the newest schema that all support, durably and once.

    ``now`` is for people to read, in seconds since 1970; ``epoch`` that of the
    leader who does it by itself, ``None`` for an operator.
    Raises ``RefusedError`` while any rostered node, in whatever state, does
    not support it, or an operator holds it.  Finalizing what is finalized changes
    nothing, and whoever was a moment later than another finds it done.  The
    inventory of raw-id names is taken in the same transaction.
    """
    found, facts = observed.rollout, observed.seen.facts
    if isinstance(found, Unreadable):
        raise RefusedError(
            f"the rollout's record cannot be read ({found.why}): "
            + way_out(found, "sharedcache here")
        )
    if not isinstance(facts.on_storage, Cluster) or (
        facts.on_storage != facts.in_zookeeper
    ):
        # The schema would be told to writers of another cluster's directory.
        raise RefusedError(
            "directory and ZooKeeper do not name one cluster: see `sharedcache status`"
        )
    status = rollout.status(found.finalized_schema, facts.nodes, facts.schemas)
    if status.stage is rollout.Stage.FINALIZED:
        publish_schema(storage, found)
        return found
    if status.stage is rollout.Stage.MIXED:
        raise RefusedError(_why_not(status))
    if facts.strangers:
        raise RefusedError(
            f"{facts.strangers[0]} left a trace but is not on the "
            "roster: start its agent, or expunge it"
        )
    if observed.held is not None:
        raise RefusedError(
            f"an operator holds the rollout: {observed.held}; `sharedcache rollout "
            "release` ends that"
        )
    done = replace(
        found, finalized_schema=status.target, finalized_by=who, finalized_at=now
    )
    audit.prepare(coordination)
    take_inventory = _inventory_writes(coordination, storage, observed)
    try:
        coordination.commit(
            [
                Check(ledger.ROSTER_COUNTER, observed.counters.roster),
                _unheld(observed),
                Set(
                    ledger.ROLLOUT, ledger.rollout_data(done), observed.rollout_version
                ),
                *take_inventory,
                *audit.operations([finalized_act(done, epoch)]),
            ]
        )
    except (ConflictError, OutcomeUnknownError) as error:
        done = _finalized_meanwhile(coordination, done.finalized_schema, error)
    publish_schema(storage, done)
    _settle_inventory(coordination, storage)
    return done


def _inventory_writes(
    coordination: Coordination, storage: Storage, observed: Observed
) -> list[Operation]:
    """Return what takes the inventory, at the first finalization that needs one.

    One that is there stays: what appeared since is not to be covered up.
    """
    if observed.seen.facts.inventory is not None:
        return []
    taken = take(old_names(storage.scan()), observed.seen.entries)
    version = observed.later[ledger.INVENTORY]
    return inventory.writing(coordination, taken, version)


def _unheld(observed: Observed) -> Operation:
    """Return what makes a transaction fail if the rollout is held meanwhile."""
    version = observed.later[ledger.ROLLOUT_HOLD]
    if version is None:
        # A tree of an earlier release has no such record.
        return Create(ledger.ROLLOUT_HOLD, b"")
    return Check(ledger.ROLLOUT_HOLD, version)


def _finalized_meanwhile(
    coordination: Coordination, target: int, error: Exception
) -> Rollout:
    """Return the rollout if it is finalized, by whomsoever; else say what failed."""
    coordination.sync()
    found = ledger.rollout_of(coordination.get(ledger.ROLLOUT))
    if isinstance(found, Rollout) and found.finalized_schema >= target:
        return found
    if isinstance(error, OutcomeUnknownError):
        raise error
    raise RefusedError(
        "the roster or the rollout changed meanwhile: look at `sharedcache rollout "
        "status` and try again"
    ) from error


def _settle_inventory(coordination: Coordination, storage: Storage) -> None:
    """Add what was being downloaded under an old name at that very moment.

    A writer that read the old schema has made its partial file before it looks
    at the schema for the last time, so whatever it publishes is here by now, as
    a partial file or a whole one.  If this is not reached, or a leader's pass was
    faster, such a file counts as one that appeared.
    """
    record = coordination.get(ledger.INVENTORY)
    found = inventory.read(coordination, record)
    if not isinstance(found, Inventory) or found.settled:
        return
    seen = old_names(storage.scan())
    late = take(seen).inodes
    strange = {one.name for one in appeared(found, seen.files)}
    added = {n: i for n, i in late.items() if n in strange or n in seen.partial}
    settled = replace(found, inodes={**found.inodes, **added}, settled=True)
    try:
        coordination.commit(inventory.writing(coordination, settled, found.version))
    except (ConflictError, OutcomeUnknownError):
        # A leader's pass closed it, or another operator was here, or it is done.
        return
    inventory.drop_parts(coordination)


def finalized_act(done: Rollout, epoch: int | None) -> Act:
    """Tell of a finalization: an operator's, or that of the epoch's leader."""
    doer = Doer(By.OPERATOR if epoch is None else By.CLEANER, done.finalized_by, epoch)
    why = f"schema {done.finalized_schema}"
    return Act(Deed.FINALIZED, doer, done.finalized_at, why)


def _why_not(status: rollout.RolloutStatus) -> str:
    if not status.waiting_for:
        return "no node is rostered: start sharedcache-agent on every node first"
    who = "; ".join(f"{node} {why}" for node, why in status.waiting_for[:20])
    more = len(status.waiting_for) - 20
    return who + (f"; and {more} more" if more > 0 else "")


def publish_schema(storage: Storage, finalized: Rollout) -> None:
    """Write the finalized schema to the storage, unless it says as much already.

    The storage's word never goes back: finalizing is one way.  What a later
    release has added to it stays.
    """
    found = ledger.schema_of(storage.read_schema())
    if isinstance(found, Unreadable) and found.newer:
        return
    extra = b""
    if isinstance(found, Rollout):
        if found.finalized_schema >= finalized.finalized_schema:
            return
        extra = found.extra
    record = codec.rollout_to_record(replace(finalized, extra=extra))
    storage.write_schema(codec.to_text(record))


@dataclass(frozen=True, slots=True)
class Founded:
    """What ``found`` found or made."""

    cluster: Cluster
    created: bool
    finalized_schema: int


def found(
    coordination: Coordination,
    storage: Storage,
    name: str,
    identity: str,
    schema_version: int | None,
    *,
    by: Signature,
) -> Founded:
    """Bind a directory and a tree of ZooKeeper to one new cluster identity.

    The marker on the storage comes first, so that a founding that died
    half-way is finished by the next one, with the same identity.  Raises
    ``RefusedError`` when either side belongs to something else.
    """
    coordination.sync()
    tree = ledger.cluster_of(coordination.get(ledger.IDENTITY))
    disk = ledger.marker_of(storage.read_marker())
    if isinstance(disk, Unreadable) or isinstance(tree, Unreadable):
        raise RefusedError("an identity cannot be read: nothing was changed")
    if disk is not None and disk.name != name:
        raise RefusedError(
            f"the directory belongs to cluster {disk.name} ({disk.identity}) already"
        )
    if tree is not None and disk != tree:
        has = "has no marker" if disk is None else f"belongs to {disk.identity}"
        raise RefusedError(
            f"ZooKeeper's cluster {tree.name} has identity {tree.identity}, the "
            f"directory {has}: choose another cluster name, or the right directory"
        )
    if tree is not None and disk is not None:
        return Founded(disk, created=False, finalized_schema=_finalized(coordination))
    if disk is not None and (storage.epochs() or storage.witness_list()):
        raise RefusedError(
            f"the directory was used by cluster {disk.name} ({disk.identity}), which "
            "this ZooKeeper does not know: is it the right one? If it lost its data, "
            "`sharedcache recover`"
        )
    version = schema_version or _fitting_schema(storage)
    cluster = _mark(storage, Cluster(name, identity)) if disk is None else disk
    # Only here, so that an `init` that is refused leaves nothing in ZooKeeper.
    for group in ledger.GROUPS:
        coordination.ensure(group)
    act = Act(
        Deed.FOUNDED,
        by.doer,
        by.when,
        f"cluster {cluster.name}, identity {cluster.identity}, schema {version}",
    )
    founding = [
        *ledger.founding(cluster, version, "init", _first_inventory(storage, version)),
        *audit.founding(),
        *audit.operations([act]),
    ]
    try:
        coordination.commit(founding)
    except ConflictError as error:
        if ledger.cluster_of(coordination.get(ledger.IDENTITY)) != cluster:
            raise RefusedError(f"somebody else founded {name} meanwhile") from error
        # Whoever was faster chose the schema, and the storage's word never goes back.
        return Founded(
            cluster, created=False, finalized_schema=_finalized(coordination)
        )
    publish_schema(storage, Rollout(version, "init"))
    return Founded(cluster, created=True, finalized_schema=version)


def _first_inventory(storage: Storage, version: int) -> bytes:
    """Return the inventory of a cluster that is finalized from the first."""
    if not SCHEMAS.may_clean(version):
        return b""
    found = replace(take(old_names(storage.scan())), settled=True)
    data = inventory.data_of(found)
    # One that needs parts is taken by the first leader, which finds none.
    return data if len(data) <= ledger.PART_BYTES else b""


def _mark(storage: Storage, cluster: Cluster) -> Cluster:
    """Create the marker; if another founder was faster, take its identity."""
    try:
        storage.create_marker(codec.to_text(codec.cluster_to_record(cluster)))
    except NameExistsError:
        found = ledger.marker_of(storage.read_marker())
        if not isinstance(found, Cluster) or found.name != cluster.name:
            raise
        return found
    return cluster


def _finalized(coordination: Coordination) -> int:
    found = ledger.rollout_of(coordination.get(ledger.ROLLOUT))
    return 0 if isinstance(found, Unreadable) else found.finalized_schema


def _fitting_schema(storage: Storage) -> int:
    """Choose the newest schema for a directory without old-style names."""
    files = storage.scan()
    old = any(kind == Kind.KERNEL for kind in files.kinds)
    return SCHEMAS.rows[0].version if old else SCHEMAS.newest
