"""Observing: counters first, then members' reports, then the durable ones.

The order matters: an agent updates its capabilities before it raises a
counter, so a veto is in what is read here, or it makes a transaction that
checks these counters fail, or it comes after that transaction: then the
windows that were relied on cover the common round (``docs/protocol.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sharedcache import inventory, ledger
from sharedcache.core import codec
from sharedcache.core.brakecodec import BrakeNote
from sharedcache.core.damage import Damage
from sharedcache.core.gate import GateFacts, NodeView
from sharedcache.core.inventory import OldNames, old_names
from sharedcache.core.model import (
    Authorisation,
    Cluster,
    FileTable,
    Report,
    Rollout,
    Unreadable,
    Witness,
)
from sharedcache.core.plan import Observation
from sharedcache.core.policy import MissingNodes
from sharedcache.core.ports import (
    Coordination,
    CoordinationError,
    OutcomeUnknownError,
    Record,
    Storage,
    StorageError,
    UndecodableMember,
)
from sharedcache.core.schema import SCHEMAS, SchemaTable

_HEAD = (
    ledger.IDENTITY,
    ledger.EPOCH,
    ledger.ROUND,
    ledger.ROLLOUT,
    ledger.MANIFEST,
    ledger.AUTHORISATION,
    ledger.PAUSE,
    ledger.APPROVAL,
    ledger.MEMORY,
    ledger.BRAKE,
    *ledger.LATER,
)

NEVER = -2
"""A data version that no record has: a transaction that checks it must fail."""

Reports = dict[str, Report | Unreadable | None]
"""Every rostered node's last report; ``None`` for one that never spoke."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The versions of the counters, read before anything else."""

    roster: int
    veto: int


@dataclass(frozen=True, slots=True)
class Observed:
    """An observation with the versions that transactions check.

    ``roster_changes`` is the count of the roster counter's watch from before
    the counters were read.  ``brake`` is the one that a leader told of last.
    ``old_names`` are from the latest scan of the same observer, this one or an
    earlier one.  ``later`` are the data versions of ``ledger.LATER``, ``None`` for
    a path that is not there; ``held`` is the operator's word against finalizing.
    """

    seen: Observation
    counters: Counters
    roster_changes: int
    epoch: ledger.Versioned[int]
    round: ledger.Versioned[int]
    authorisation: Authorisation
    rollout: Rollout | Unreadable
    rollout_version: int
    leader: str | None
    brake: BrakeNote | None = None
    old_names: OldNames = field(default_factory=OldNames)
    later: Mapping[str, int | None] = field(default_factory=dict)
    held: str | None = None


@dataclass(slots=True)
class Observer:
    """Takes observations; keeps what need not be read again."""

    coordination: Coordination
    storage: Storage
    missing_nodes: MissingNodes = MissingNodes.HOLD
    schemas: SchemaTable = SCHEMAS
    _manifest: ledger.ManifestReader = field(default_factory=ledger.ManifestReader)
    _old_names: OldNames = field(default_factory=OldNames)

    def observe(self, *, scan: bool, epoch: int | None = None) -> Observed:
        """Take one observation; ``epoch`` is the observer's own, if it leads.

        A used directory whose ZooKeeper has no cluster any more is observed as it
        is: the gate is closed, and every transaction made from it fails.  Raises
        ``CoordinationError`` if ZooKeeper cannot be read, or neither side knows a
        cluster, and ``StorageError`` if the storage cannot.
        """
        coordination = self.coordination
        roster_changes = coordination.watch(ledger.ROSTER_COUNTER)
        # Before ZooKeeper's word: finalizing is on the storage after that.
        told = schema_told(self.storage)
        coordination.sync()
        counters = _counters(coordination)
        reports, members, tombstones = self._reports()
        head = dict(zip(_HEAD, coordination.get_many(_HEAD), strict=True))
        lost = head[ledger.IDENTITY] is None
        if lost and self.storage.read_marker() is None:
            raise CoordinationError(
                "ZooKeeper holds no such cluster: run `sharedcache init`, or look at "
                "[sharedcache] zookeeper and cluster"
            )
        epoch_record, round_record = _numbers(head, lost=lost)
        rollout_record = head[ledger.ROLLOUT]
        rollout = ledger.rollout_of(rollout_record)
        manifest = self._manifest.read(coordination, head[ledger.MANIFEST])
        known = inventory.read(coordination, head[ledger.INVENTORY])
        disk = self._disk(epoch, scan=scan)
        for node in self._returning(reports, members, disk.witnesses):
            del reports[node]
        if scan:
            self._old_names = old_names(disk.files)
        facts = GateFacts(
            on_storage=disk.cluster,
            in_zookeeper=ledger.cluster_of(head[ledger.IDENTITY]),
            storage_epoch=disk.highest_epoch,
            zookeeper_epoch=epoch_record.value,
            nodes=_views(reports, members, disk.witnesses),
            strangers=_strangers(disk.witnesses, members, reports, tombstones),
            finalized_schema=rollout
            if isinstance(rollout, Unreadable)
            else rollout.finalized_schema,
            paused=ledger.note_of(head[ledger.PAUSE], "why"),
            missing_nodes=self.missing_nodes,
            schemas=self.schemas,
            unreadable=[f"{b} ({u.why})" for b, u in self._manifest.broken.items()],
            inventory=known,
            old_names=self._old_names.files,
            storage_schema=told if isinstance(disk.cluster, Cluster) else None,
        )
        seen = Observation(
            facts=facts,
            files=disk.files,
            storage_now_ns=disk.now_ns,
            round=round_record.value,
            manifest=manifest,
            name_cache_s=disk.name_cache_s,
            holds=ledger.read_holds(coordination),
            approved=ledger.approval_of(head[ledger.APPROVAL], disk.now_ns),
            space=disk.space,
            remembered=ledger.memory_of(head[ledger.MEMORY]),
            damaged=_damaged(head[ledger.DAMAGED]),
        )
        return Observed(
            seen=seen,
            counters=counters,
            roster_changes=roster_changes,
            epoch=epoch_record,
            round=round_record,
            authorisation=_authorisation(head[ledger.AUTHORISATION], lost=lost),
            rollout=rollout,
            rollout_version=NEVER if rollout_record is None else rollout_record.version,
            leader=coordination.leader(),
            brake=ledger.brake_of(head[ledger.BRAKE]),
            old_names=self._old_names,
            later={path: _version(head[path]) for path in ledger.LATER},
            held=ledger.note_of(head[ledger.ROLLOUT_HOLD], "why"),
        )

    def _reports(self) -> tuple[Reports, set[str], Mapping[str, ledger.Tombstone]]:
        """Read every rostered node's last report, and who is registered now.

        A node that registers between the two readings counts as not live for
        this once: its durable report is read, which says no less.
        """
        coordination = self.coordination
        members = coordination.members()
        rostered = coordination.children(ledger.ROSTER)
        live = {node: members[node] for node in rostered if node in members}
        absent = [node for node in rostered if node not in members]
        records = coordination.get_many([ledger.node_path(n) for n in absent])
        roster = ledger.roster_of(zip(absent, records, strict=True))
        heads: dict[str, object] = dict(roster.heads)
        reports: Reports = {}
        for node, values in live.items():
            if isinstance(values, UndecodableMember):
                reports[node] = Unreadable(values.why)
            else:
                heads[node] = values
        reports.update(ledger.read_reports(coordination, heads))
        reports.update(roster.unreadable)
        reports.update(dict.fromkeys(roster.silent))
        return reports, set(members), roster.expunged

    def _returning(
        self, reports: Reports, members: set[str], witnesses: Mapping[str, Witness]
    ) -> list[str]:
        """Name registered nodes that are expunged, and have not joined anew yet.

        A registration that its node's witness bears speaks for its node.  Of any
        other it is asked whether it stands for a rostered one.
        """
        views = _views(reports, members, witnesses)
        doubted = [view.node for view in views if view.member and not view.witnessed]
        if not doubted:
            return []
        paths = [ledger.node_path(node) for node in doubted]
        records = self.coordination.get_many(paths)
        roster = ledger.roster_of(zip(doubted, records, strict=True))
        return sorted(roster.expunged)

    def _disk(self, epoch: int | None, *, scan: bool) -> _Disk:
        """Read the storage; its clock first, then every witness by name.

        The clock comes first because a purge asks that the witnesses were
        opened no earlier than a certain time of the storage.
        """
        storage = self.storage
        cluster = ledger.marker_of(storage.read_marker())
        if not isinstance(cluster, Cluster):
            return _Disk(cluster, 0, {}, 0, FileTable(), 0.0, None)
        epochs = storage.epochs()
        now_ns = None if epoch is None else storage.epoch_time(epoch)
        witnesses = read_witnesses(storage)
        if now_ns is None:
            # Nobody's own clock file to touch: the latest touch of a witness
            # is a time that the storage gave, and no later than now.
            now_ns = max((w.mtime_ns for w in witnesses.values()), default=0)
        files = storage.scan() if scan else FileTable()
        return _Disk(
            cluster,
            max(epochs, default=0),
            witnesses,
            now_ns,
            files,
            storage.name_cache_s(),
            self._space(),
        )

    def _space(self) -> tuple[int, int] | None:
        """Ask how much space is left; no answer only means that it is not low."""
        try:
            return self.storage.space()
        except (StorageError, OutcomeUnknownError):
            return None


@dataclass(frozen=True, slots=True)
class _Disk:
    """What the storage said."""

    cluster: Cluster | Unreadable | None
    highest_epoch: int
    witnesses: Mapping[str, Witness]
    now_ns: int
    files: FileTable
    name_cache_s: float
    space: tuple[int, int] | None


def schema_told(storage: Storage) -> int | Unreadable | None:
    """Read the finalized schema as the storage tells it; ``None`` if it does not."""
    found = ledger.schema_of(storage.read_schema())
    return found.finalized_schema if isinstance(found, Rollout) else found


def read_witnesses(storage: Storage) -> dict[str, Witness]:
    """List the witnesses and open each by its name."""
    witnesses: dict[str, Witness] = {}
    for node in storage.witness_list():
        found = storage.witness_read(node)
        if found is not None:
            data, facts = found
            born = ledger.incarnation_of(data)
            incarnation = None if isinstance(born, Unreadable) else born
            witnesses[node] = Witness(node, incarnation, facts.mtime_ns)
    return witnesses


def _version(record: Record | None) -> int | None:
    return None if record is None else record.version


def _counters(coordination: Coordination) -> Counters:
    paths = (ledger.ROSTER_COUNTER, ledger.VETO_COUNTER)
    versions = [
        NEVER if record is None else record.version
        for record in coordination.get_many(paths)
    ]
    return Counters(*versions)


def _numbers(
    head: Mapping[str, Record | None], *, lost: bool
) -> tuple[ledger.Versioned[int], ledger.Versioned[int]]:
    if lost:
        return ledger.Versioned(0, NEVER), ledger.Versioned(0, NEVER)
    try:
        with ledger.reading("the epoch"):
            epoch = ledger.counter_of(head[ledger.EPOCH])
        with ledger.reading("the round"):
            return epoch, ledger.counter_of(head[ledger.ROUND])
    except codec.RecordError as error:
        raise CoordinationError(str(error)) from error


def _authorisation(record: Record | None, *, lost: bool) -> Authorisation:
    if lost:
        return Authorisation(version=NEVER)
    with ledger.reading("the authorisation"):
        return ledger.authorisation_of(record)


def _damaged(record: Record | None) -> Mapping[str, Damage]:
    """Read the orders; ones that cannot be read let nothing be taken sooner."""
    found = ledger.damaged_of(record)
    return {} if isinstance(found, Unreadable) else found


def _strangers(
    witnesses: Mapping[str, Witness],
    members: set[str],
    reports: Reports,
    tombstones: Mapping[str, ledger.Tombstone],
) -> list[str]:
    """Name who left a trace and is not on the roster.

    An expunged node's own witness is no trace, as long as it bears the
    incarnation that it bore then: no agent ran there since.
    """
    traces = {
        node
        for node, witness in witnesses.items()
        if node not in tombstones or not tombstones[node].covers(witness)
    }
    return sorted((traces | members) - set(reports))


def _views(
    reports: Reports,
    members: set[str],
    witnesses: Mapping[str, Witness],
) -> list[NodeView]:
    return [
        NodeView(node, node in members, reports[node], witnesses.get(node))
        for node in sorted(reports)
    ]
