"""Recovering ZooKeeper's side after it lost its data or went back.

``survey`` only reads; ``Recoverer`` makes what was judged true, in transactions
that fail if anything changed since.  The last of them opens the way: a recovery
that died half-way leaves the gate closed, and is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sharedcache import audit, ledger
from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import RefusedError, publish_schema
from sharedcache.cleaner.observe import read_witnesses, schema_told
from sharedcache.core import codec
from sharedcache.core.acts import Act, Deed, Signature
from sharedcache.core.model import (
    Authorisation,
    Cluster,
    ManifestBatch,
    Report,
    Rollout,
    RosterRecord,
    Unreadable,
)
from sharedcache.core.ports import (
    ConflictError,
    Coordination,
    Create,
    Delete,
    Operation,
    Record,
    Set,
    Storage,
    Tokens,
)
from sharedcache.core.recovery import Recovery, Standing, doubted

_SINGLE = (
    ledger.IDENTITY,
    ledger.EPOCH,
    ledger.ROUND,
    ledger.ROLLOUT,
    ledger.AUTHORISATION,
)


@dataclass(frozen=True, slots=True)
class Survey:
    """What both sides say, with the versions that the transactions check."""

    standing: Standing
    records: dict[str, Record | None]
    batches: dict[str, int]
    manifest: Record | None
    roster: dict[str, int]
    members: frozenset[str]


def survey(coordination: Coordination, storage: Storage) -> Survey:
    """Read everything that a recovery is judged from; nothing is changed."""
    coordination.sync()
    paths = (*_SINGLE, *ledger.BLANK)
    records = dict(zip(paths, coordination.get_many(paths), strict=True))
    names = coordination.children(ledger.MANIFEST)
    batches, broken, versions = _manifest(coordination, names)
    roster = ledger.read_roster(coordination)
    reports: dict[str, Report | Unreadable | None] = dict.fromkeys(roster.silent)
    reports.update(roster.unreadable)
    reports.update(ledger.read_reports(coordination, roster.heads))
    marker = ledger.marker_of(storage.read_marker())
    ours = isinstance(marker, Cluster)
    witnesses = read_witnesses(storage) if ours else {}
    found = ledger.rollout_of(records[ledger.ROLLOUT])
    rollout: int | Unreadable | None = None
    if records[ledger.ROLLOUT] is not None:
        rollout = found if isinstance(found, Unreadable) else found.finalized_schema
    standing = Standing(
        on_storage=marker,
        in_zookeeper=ledger.cluster_of(records[ledger.IDENTITY]),
        storage_epoch=max(storage.epochs(), default=0) if ours else 0,
        zookeeper_epoch=_number(records[ledger.EPOCH]),
        round=_number(records[ledger.ROUND]),
        entry_rounds=[e.round for batch in batches for e in batch.entries],
        storage_schema=schema_told(storage) if ours else None,
        zookeeper_schema=rollout,
        authorisation=_authorisation(records[ledger.AUTHORISATION]),
        witnesses=witnesses,
        reports=reports,
        expunged=frozenset(
            node
            for node, tombstone in roster.expunged.items()
            if node not in witnesses or tombstone.covers(witnesses[node])
        ),
        broken=broken,
        gaps=[path for path, record in records.items() if record is None],
    )
    return Survey(
        standing,
        records,
        versions,
        records[ledger.MANIFEST],
        dict(roster.versions),
        frozenset(coordination.members()),
    )


def _manifest(
    coordination: Coordination, names: list[str]
) -> tuple[list[ManifestBatch], dict[str, Unreadable], dict[str, int]]:
    records = coordination.get_many([ledger.batch_path(name) for name in names])
    good: list[ManifestBatch] = []
    broken: dict[str, Unreadable] = {}
    versions: dict[str, int] = {}
    for name, record in zip(names, records, strict=True):
        if record is None:
            continue
        versions[name] = record.version
        batch = ledger.read_batch(record)
        if isinstance(batch, Unreadable):
            broken[name] = batch
        else:
            good.append(batch)
    return good, broken, versions


def _number(record: Record | None) -> int | Unreadable | None:
    if record is None:
        return None
    found = codec.readable(lambda: ledger.counter_of(record))
    return found if isinstance(found, Unreadable) else found.value


def _authorisation(record: Record | None) -> Unreadable | None:
    if record is None:
        return None
    found = codec.readable(lambda: ledger.authorisation_of(record))
    return found if isinstance(found, Unreadable) else None


@dataclass(frozen=True, slots=True)
class Recoverer:
    """Makes one recovery true.  ``who`` and ``now`` are for people to read.

    With ``paused`` the gate stays closed, and says this.
    """

    coordination: Coordination
    storage: Storage
    tokens: Tokens
    who: str
    now: float
    paused: str = ""

    def run(
        self, seen: Survey, recovery: Recovery, tell: Callable[[str], None]
    ) -> None:
        """Change what ``recovery`` names; ``tell`` hears of each node.

        Raises ``RefusedError`` if somebody changed what was judged meanwhile.
        """
        self._fill_gaps(seen)
        for node in recovery.expect:
            tell(node)
            operator.expect(self.coordination, node, self._signature)
        for node in recovery.doubt:
            tell(node)
            self._doubt(node, seen.roster[node])
        for node in sorted(seen.members):
            tell(node)
            self._unregister(node)
        signed = self._signature
        why = f"epoch {recovery.epoch}, schema {recovery.schema}"
        act = Act(Deed.RECOVERED, signed.doer, signed.when, why, round=recovery.round)
        try:
            opening = self._opening(seen, recovery)
            self.coordination.commit(audit.riding(opening, [act]))
        except ConflictError as error:
            raise RefusedError(
                "something changed meanwhile, so nothing was opened: look again with "
                "`sharedcache recover`"
            ) from error
        publish_schema(self.storage, Rollout(recovery.schema, self.who, self.now))

    @property
    def _signature(self) -> Signature:
        return Signature(self.who, self.now)

    def _fill_gaps(self, seen: Survey) -> None:
        """Create the groups and the empty records that are missing, parents first."""
        for path in (*ledger.GROUPS, audit.TRAIL):
            self.coordination.ensure(path)
        missing = [p for p in ledger.BLANK if seen.records[p] is None]
        if not missing:
            return
        try:
            self.coordination.commit([Create(path, b"") for path in missing])
        except ConflictError as error:
            raise RefusedError(
                "somebody else makes this cluster's records: look again"
            ) from error

    def _doubt(self, node: str, version: int) -> None:
        """Make a last report incomplete, unless its node has just spoken itself."""
        path = ledger.node_path(node)
        record = self.coordination.get(path)
        if record is None or record.version != version:
            return
        found = ledger.durable_report(record, node, self.coordination)
        if not isinstance(found, RosterRecord) or found.report is None:
            return
        # Whatever a later release has said in it stays: only the doubt is added.
        values = dict(ledger.report_values(record, self.coordination) or {})
        values["failures"] = codec.report_to_record(doubted(found.report))["failures"]
        packed = ledger.pack_record(found.report, values, self.tokens.token())
        for part, data in packed.parts.items():
            self.coordination.commit([Create(part, data)])
        data = ledger.roster_data(node, packed, record.data)
        try:
            self.coordination.commit([Set(path, data, version), *_interrupting()])
        except ConflictError:
            # It reports into this very tree: that is its last word.
            return

    def _unregister(self, node: str) -> None:
        """Take a registration back, whose report may be as old as the copy.

        A restored ZooKeeper brings sessions back for as long as their timeout.
        Whose agent lives registers anew, with what it sees now.
        """
        try:
            self.coordination.commit([Delete(ledger.member_path(node), None)])
        except ConflictError:
            # Its session ended meanwhile.
            return

    def _opening(self, seen: Survey, recovery: Recovery) -> list[Operation]:
        """Return the one transaction after which the cluster goes on.

        The manifest is emptied: the next leader finds every quarantined file in
        the epochs' directories once it has sealed them, and starts its wait.
        """
        disk = seen.standing.on_storage
        if not isinstance(disk, Cluster):
            raise RefusedError("the storage has no cluster marker")
        records = seen.records
        rollout = Rollout(recovery.schema, self.who, self.now)
        manifest = 0 if seen.manifest is None else seen.manifest.version
        pause = codec.pack({"why": self.paused}) if self.paused else None
        return [
            *([] if pause is None else [Set(ledger.PAUSE, pause, None)]),
            _put(ledger.EPOCH, codec.counter_to_record(recovery.epoch), records),
            _put(ledger.ROUND, codec.counter_to_record(recovery.round), records),
            _put(ledger.ROLLOUT, codec.rollout_to_record(rollout), records),
            _put(
                ledger.AUTHORISATION,
                codec.authorisation_to_record(Authorisation()),
                records,
            ),
            *(Delete(ledger.batch_path(n), v) for n, v in seen.batches.items()),
            ledger.manifest_changed(self.tokens.token(), manifest),
            *_interrupting(),
            _put(ledger.IDENTITY, codec.cluster_to_record(disk), records),
        ]


def _interrupting() -> list[Operation]:
    """Return what makes every leader and every agent look again."""
    return [ledger.bump(ledger.ROSTER_COUNTER), ledger.bump(ledger.VETO_COUNTER)]


def _put(
    path: str, fresh: dict[str, object], records: dict[str, Record | None]
) -> Operation:
    """Return the write of a record as it was read: replaced, or created.

    What a later release has added stays, but for a leader's and an
    authorisation's: these are over.
    """
    record = records[path]
    if record is None:
        return Create(path, codec.pack(fresh))
    data = codec.pack(fresh)
    if path not in {ledger.EPOCH, ledger.AUTHORISATION}:
        data = ledger.renewed_data(record.data, fresh)
    return Set(path, data, record.version)
