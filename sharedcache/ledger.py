"""The cluster's records in ZooKeeper: where each lies, and how it is read.

Only this module knows the paths below the cluster's root.  It reaches
ZooKeeper through the port alone, one effect a call of the port.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sharedcache.core import brakecodec, codec
from sharedcache.core.damage import Damage, orders_from_record
from sharedcache.core.model import (
    Authorisation,
    Cluster,
    Incarnation,
    ManifestBatch,
    Report,
    Rollout,
    RosterRecord,
    Unreadable,
    Witness,
)
from sharedcache.core.plan import Remembered
from sharedcache.core.ports import (
    Coordination,
    Create,
    Operation,
    Record,
    Set,
)

IDENTITY = "identity"
EPOCH = "epoch"
ROUND = "round"
ROLLOUT = "rollout"
MANIFEST = "manifest"
AUTHORISATION = "authorisation"
ROSTER = "roster"
PARTS = "parts"
HOLDS = "holds"
PAUSE = "pause"
APPROVAL = "approval"
MEMORY = "memory"
BRAKE = "brake"
INVENTORY = "inventory"
ROLLOUT_HOLD = "rollout-hold"
QUESTIONS = "questions"
DAMAGED = "damaged"
ROSTER_COUNTER = "counters/roster"
VETO_COUNTER = "counters/veto"

BLANK = (
    MANIFEST,
    ROSTER,
    PARTS,
    HOLDS,
    PAUSE,
    APPROVAL,
    MEMORY,
    BRAKE,
    "counters",
    ROSTER_COUNTER,
    VETO_COUNTER,
)
"""Paths of a founded tree that begin without data, parents before children."""

LATER = (INVENTORY, ROLLOUT_HOLD, DAMAGED)
"""Paths that a tree of an earlier release lacks: one that is missing is blank."""

GROUPS = ("groups/nodes", "groups/cleaners")
"""Where tooz keeps the members and the election; the session makes them."""

PART_BYTES = 700_000
"""Largest report that goes into one znode; the servers' limit is about 1 MB."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A record's value with the data version that a transaction can check.

    ``data`` is the record as it was read, for whoever replaces it.
    """

    value: T
    version: int
    data: bytes = b""


def node_path(node: str) -> str:
    """Path of a node's roster record."""
    return f"{ROSTER}/{node}"


def member_path(node: str) -> str:
    """Path of a node's registration in the group ``nodes``."""
    return f"groups/nodes/{node}"


def questions_path(node: str) -> str:
    """Path below which a node is asked; the node itself makes it."""
    return f"{QUESTIONS}/{node}"


def batch_path(batch: str) -> str:
    """Path of a batch of the manifest."""
    return f"{MANIFEST}/{batch}"


def hold_path(name: str) -> str:
    """Path of the hold on a cache name."""
    return f"{HOLDS}/{name}"


def bump(counter: str) -> Set:
    """Raise a counter: its value is its data version, so any write raises it."""
    return Set(counter, b"", None)


def manifest_changed(token: str, version: int | None = None) -> Set:
    """Return the write that goes with every change of the manifest.

    Readers tell by version and ``token`` whether anything changed: a version
    alone may come again when ZooKeeper lost its data or went back.
    """
    return Set(MANIFEST, token.encode("ascii"), version)


def founding(
    cluster: Cluster, finalized_schema: int, who: str, inventory: bytes = b""
) -> list[Operation]:
    """Return the one transaction that founds a cluster's tree.

    ``inventory`` is the record of the raw-id names that are there, for a cluster
    that is finalized from the first.
    """
    return [
        Create(EPOCH, number_data(0)),
        Create(ROUND, number_data(1)),
        Create(ROLLOUT, rollout_data(Rollout(finalized_schema, who))),
        Create(AUTHORISATION, authorisation_data(Authorisation())),
        *(Create(path, b"") for path in BLANK),
        *(Create(path, inventory if path == INVENTORY else b"") for path in LATER),
        Create(IDENTITY, identity_data(cluster)),
    ]


def number_data(value: int, before: bytes = b"", **more: object) -> bytes:
    """Encode an epoch or a round that follows ``before``, with ``more`` fields."""
    return renewed_data(before, {**codec.counter_to_record(value), **more})


def renewed_data(
    before: bytes, fresh: Mapping[str, object], drop: Collection[str] = ()
) -> bytes:
    """Encode a record that replaces ``before``, whose unknown fields it keeps."""
    return codec.pack(codec.renewed(before, fresh, drop))


def rollout_data(rollout: Rollout) -> bytes:
    """Encode the rollout's record."""
    return codec.pack(codec.rollout_to_record(rollout))


def authorisation_data(authorisation: Authorisation) -> bytes:
    """Encode an authorisation."""
    return codec.pack(codec.authorisation_to_record(authorisation))


def identity_data(cluster: Cluster) -> bytes:
    """Encode the cluster's identity."""
    return codec.pack(codec.cluster_to_record(cluster))


def cluster_of(record: Record | None) -> Cluster | Unreadable | None:
    """Read the identity's record."""
    if record is None:
        return None
    data = record.data
    return codec.readable(lambda: codec.cluster_from_record(codec.unpack(data)))


def marker_of(data: bytes | None) -> Cluster | Unreadable | None:
    """Read the cluster marker of the storage."""
    if data is None:
        return None
    text = data
    return codec.readable(lambda: codec.cluster_from_record(codec.from_text(text)))


def schema_of(data: bytes | None) -> Rollout | Unreadable | None:
    """Read the finalized schema of the storage."""
    if data is None:
        return None
    text = data
    return codec.readable(lambda: codec.rollout_from_record(codec.from_text(text)))


def incarnation_of(data: bytes) -> Incarnation | Unreadable:
    """Read the incarnation that a witness bears."""
    return codec.readable(lambda: codec.incarnation_from_record(codec.from_text(data)))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Name the record in a ``RecordError``, and say what to do about it."""
    try:
        yield
    except codec.NewerRecordError as error:
        raise codec.NewerRecordError(
            f"{what} in ZooKeeper cannot be read ({error}): upgrade this host"
        ) from error
    except codec.RecordError as error:
        raise codec.RecordError(
            f"{what} in ZooKeeper cannot be read ({error}): `sharedcache recover` "
            "shows what to do"
        ) from error


def counter_of(record: Record | None) -> Versioned[int]:
    """Read an epoch or a round; raises ``RecordError``."""
    if record is None:
        raise codec.RecordError("the record is not there")
    value = codec.counter_from_record(codec.unpack(record.data))
    return Versioned(value, record.version, record.data)


def rollout_of(record: Record | None) -> Rollout | Unreadable:
    """Read the rollout's record."""
    if record is None:
        return Unreadable("the record is not there")
    data = record.data
    return codec.readable(lambda: codec.rollout_from_record(codec.unpack(data)))


def authorisation_of(record: Record | None) -> Authorisation:
    """Read the authorisation; raises ``RecordError``."""
    if record is None:
        raise codec.RecordError("the authorisation is not there")
    values = codec.unpack(record.data)
    return codec.authorisation_from_record(values, record.version)


def note_of(record: Record | None, key: str) -> str | None:
    """Read one text of an operator's record; ``None`` if nothing is said.

    Doubt about an operator's word is shown as that word.
    """
    if record is None or not record.data:
        return None
    try:
        return codec.Fields(codec.unpack(record.data)).text(key)
    except codec.RecordError as error:
        return f"unreadable ({error})"


def approval_of(record: Record | None, storage_now_ns: int) -> str | None:
    """Read the digest of the plan that is approved; ``None`` once it expired.

    An approval that cannot be read approves nothing.
    """
    if record is None or not record.data:
        return None
    try:
        fields = codec.Fields(codec.unpack(record.data))
        expired = fields.integer("until_ns") <= storage_now_ns
        return None if expired else fields.text("digest")
    except codec.RecordError:
        return None


def memory_of(record: Record | None) -> Mapping[str, Remembered] | Unreadable:
    """Read what leaders remember of the nodes' uses; nothing before the first pass."""
    if record is None or not record.data:
        return {}
    data = record.data
    return codec.readable(lambda: brakecodec.memory_from_record(codec.unpack(data)))


def brake_of(record: Record | None) -> brakecodec.BrakeNote | None:
    """Read the brake that a leader told of; ``None`` if there is none.

    It only tells: one that cannot be read stops nobody and approves nothing.
    """
    if record is None or not record.data:
        return None
    data = record.data
    found = codec.readable(lambda: brakecodec.brake_from_record(codec.unpack(data)))
    return None if isinstance(found, Unreadable) else found


def damaged_of(record: Record | None) -> Mapping[str, Damage] | Unreadable:
    """Read the orders of damaged files; a tree of an earlier release has none."""
    if record is None or not record.data:
        return {}
    data = record.data
    return codec.readable(lambda: orders_from_record(codec.unpack(data)))


def read_holds(coordination: Coordination) -> frozenset[str]:
    """Read which names an operator ordered to keep."""
    return frozenset(coordination.children(HOLDS))


@dataclass(slots=True)
class ManifestReader:
    """Reads the manifest, and again only what may have changed.

    Every transaction that writes the manifest also writes its parent, whose
    version and token therefore tell whether anything changed.
    """

    _state: tuple[int, bytes] | None = None
    _batches: tuple[ManifestBatch, ...] = ()
    _broken: dict[str, Unreadable] = field(default_factory=dict)

    def read(
        self, coordination: Coordination, parent: Record | None
    ) -> tuple[ManifestBatch, ...]:
        """Return the manifest as of ``parent``, the record of its parent."""
        state = (-1, b"") if parent is None else (parent.version, parent.data)
        if state != self._state:
            self._read_all(coordination)
            self._state = state
        return self._batches

    @property
    def broken(self) -> Mapping[str, Unreadable]:
        """The records of the manifest that could not be read."""
        return self._broken

    def _read_all(self, coordination: Coordination) -> None:
        # What is read after the parent is as new or newer, and a newer change
        # has raised the parent's version, so that the next read sees it.
        batches = coordination.children(MANIFEST)
        records = coordination.get_many([batch_path(batch) for batch in batches])
        good: list[ManifestBatch] = []
        self._broken = {}
        for batch, record in zip(batches, records, strict=True):
            if record is None:
                continue
            found = read_batch(record)
            if isinstance(found, Unreadable):
                self._broken[batch] = found
            else:
                good.append(found)
        self._batches = tuple(good)


def read_batch(record: Record) -> ManifestBatch | Unreadable:
    """Read one batch of the manifest."""
    return codec.readable(
        lambda: codec.batch_from_record(codec.unpack(record.data), record.version)
    )


def batch_data(batch: ManifestBatch) -> bytes:
    """Encode one batch of the manifest."""
    return codec.pack(codec.batch_to_record(batch))


@dataclass(frozen=True, slots=True)
class Packed:
    """A report as it goes into ZooKeeper: whole, or a head with its parts."""

    capabilities: Mapping[str, object]
    parts: Mapping[str, bytes]


def pack_report(report: Report, token: str) -> Packed:
    """Encode a report; one too large for a znode is split, never cut.

    ``token`` makes the parts' names new ones.
    """
    return pack_record(report, codec.report_to_record(report), token)


def pack_record(report: Report, record: Mapping[str, object], token: str) -> Packed:
    """Encode the record of a report, which may hold more than this release knows."""
    data = codec.pack(record)
    if len(data) <= PART_BYTES:
        return Packed(record, {})
    pieces = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
    parts = {
        f"{PARTS}/{report.node}.{token}.{index}": piece
        for index, piece in enumerate(pieces)
    }
    head = {
        "schema": codec.RECORD_SCHEMA,
        "node": report.node,
        "boot_id": report.incarnation.boot_id,
        "start": report.incarnation.start,
        "parts": list(parts),
        "length": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return Packed(head, parts)


_ROSTER_FIELDS = frozenset(
    {"node", "report", "expunged_at", "boot_id", "start", "unreadable"}
)
"""Every field of a roster record or a tombstone that this release knows."""


def tombstone_data(
    node: str,
    incarnation: Incarnation | Unreadable | None,
    now: float,
    before: bytes = b"",
) -> bytes:
    """Encode the record of an expunged node; ``incarnation`` is its witness's."""
    witness: dict[str, object] = {}
    if isinstance(incarnation, Incarnation):
        witness = {"boot_id": incarnation.boot_id, "start": incarnation.start}
    elif incarnation is not None:
        witness = {"unreadable": True}
    fresh = {"node": node, "report": None, "expunged_at": now, **witness}
    return renewed_data(before, fresh, _ROSTER_FIELDS)


def roster_data(node: str, packed: Packed | None, before: bytes = b"") -> bytes:
    """Encode a roster record with its report, or the head of its report.

    ``before`` is the record that it replaces.
    """
    report = None if packed is None else packed.capabilities
    fresh = {"node": node, "report": report, "expunged_at": None}
    return renewed_data(before, fresh, _ROSTER_FIELDS)


def parts_of(values: object) -> tuple[str, ...]:
    """Paths of a report's parts; none if the report is whole."""
    if not isinstance(values, Mapping) or "parts" not in values:
        return ()
    paths = codec.Fields(values).texts("parts")
    if any(not path.startswith(f"{PARTS}/") or ".." in path for path in paths):
        raise codec.RecordError("a part of the report lies elsewhere")
    return paths


def read_reports(
    coordination: Coordination, heads: Mapping[str, object]
) -> dict[str, Report | Unreadable]:
    """Read reports from their records or heads, by node."""
    wanted: dict[str, tuple[str, ...]] = {}
    result: dict[str, Report | Unreadable] = {}
    for node, values in heads.items():
        found = codec.readable(lambda values=values: parts_of(values))  # type: ignore[misc]
        if isinstance(found, Unreadable):
            result[node] = found
        elif found:
            wanted[node] = found
        else:
            result[node] = _report(node, values)
    for node, paths in wanted.items():
        result[node] = _assemble(node, heads[node], coordination.get_many(paths))
    return result


def _assemble(
    node: str, head: object, parts: Sequence[Record | None]
) -> Report | Unreadable:
    values = codec.readable(lambda: _joined(head, parts))
    return values if isinstance(values, Unreadable) else _report(node, values)


def _joined(head: object, parts: Sequence[Record | None]) -> Mapping[str, object]:
    """Put a report's record together from its parts; raises ``RecordError``."""
    data = b"".join(part.data for part in parts if part is not None)
    fields = codec.Fields(head)
    whole = len(data) == fields.integer("length") and (
        hashlib.sha256(data).hexdigest() == fields.text("sha256")
    )
    if not whole:
        raise codec.RecordError("parts of the report are missing or damaged")
    return codec.unpack(data)


def report_values(
    record: Record, coordination: Coordination
) -> Mapping[str, object] | None:
    """Return the record of a node's durable report as it stands; ``None`` without one.

    Raises ``RecordError``.
    """
    head = codec.Fields(codec.unpack(record.data)).part("report")
    paths = parts_of(head)
    return _joined(head, coordination.get_many(paths)) if paths else head


def _report(node: str, values: object) -> Report | Unreadable:
    report = codec.readable(lambda: codec.report_from_record(values))
    if isinstance(report, Report) and report.node != node:
        return Unreadable(f"the report is {report.node}'s")
    return report


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What stays of an expunged node.

    ``incarnation`` is that of its witness when it was expunged, ``None`` if it
    had none, or one that was ``unreadable``: a witness of any other is the trace
    of an agent that came back.
    """

    expunged_at: float
    incarnation: Incarnation | None
    unreadable: bool = False

    def covers(self, witness: Witness) -> bool:
        """Whether a witness is still the one that was there then."""
        return self.bears(witness.incarnation)

    def bears(self, incarnation: Incarnation | None) -> bool:
        """Whether its witness was of this incarnation, ``None`` for an unreadable."""
        if incarnation is None:
            return self.unreadable
        return incarnation == self.incarnation


@dataclass(frozen=True, slots=True)
class Roster:
    """The roster's records, by node, as read at one time.

    ``heads`` are the reports' records or heads as they were stored; an
    unreadable record has none and counts as rostered.
    """

    heads: Mapping[str, object]
    silent: frozenset[str]
    unreadable: Mapping[str, Unreadable]
    expunged: Mapping[str, Tombstone]
    versions: Mapping[str, int]


def read_roster(coordination: Coordination) -> Roster:
    """Read every roster record, all requests sent together."""
    nodes = coordination.children(ROSTER)
    records = coordination.get_many([node_path(node) for node in nodes])
    return roster_of(zip(nodes, records, strict=True))


def roster_of(records: Iterable[tuple[str, Record | None]]) -> Roster:
    """Sort roster records by what can be read of them."""
    heads: dict[str, object] = {}
    silent: set[str] = set()
    unreadable: dict[str, Unreadable] = {}
    expunged: dict[str, Tombstone] = {}
    versions: dict[str, int] = {}
    for node, record in records:
        if record is None:
            continue
        versions[node] = record.version
        try:
            fields = codec.Fields(codec.unpack(record.data))
            gone_at = fields.optional_number("expunged_at")
            report = fields.part("report")
        except codec.RecordError as error:
            newer = isinstance(error, codec.NewerRecordError)
            unreadable[node] = Unreadable(str(error), newer=newer)
            continue
        if gone_at is not None:
            values = codec.unpack(record.data)
            unread = values.get("unreadable") is True
            expunged[node] = Tombstone(gone_at, _last_incarnation(values), unread)
        elif report is None:
            silent.add(node)
        else:
            heads[node] = report
    return Roster(heads, frozenset(silent), unreadable, expunged, versions)


def _last_incarnation(values: Mapping[str, object]) -> Incarnation | None:
    """Read the incarnation in a tombstone; ``None`` if the node had no witness."""
    found = codec.readable(lambda: codec.incarnation_from_record(values))
    return None if isinstance(found, Unreadable) else found


def durable_report(
    record: Record, node: str, coordination: Coordination
) -> RosterRecord | Unreadable:
    """Read one roster record with its report, parts and all."""
    roster = roster_of([(node, record)])
    if node in roster.unreadable:
        return roster.unreadable[node]
    if node in roster.expunged:
        return RosterRecord(node, None, roster.expunged[node].expunged_at)
    if node in roster.silent:
        return RosterRecord(node)
    report = read_reports(coordination, roster.heads)[node]
    if isinstance(report, Unreadable):
        return report
    return RosterRecord(node, report)
