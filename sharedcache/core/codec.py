"""What each record says: values to maps of fields, and back.

The form of records, and what becomes of fields that a later release adds, is in
``core/records.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sharedcache.core import names
from sharedcache.core.model import (
    Authorisation,
    Baseline,
    Cluster,
    EntryState,
    Incarnation,
    KernelNaming,
    ManifestBatch,
    ManifestEntry,
    Report,
    Rollout,
    RosterRecord,
    SourceFailure,
    Uses,
)
from sharedcache.core.records import (
    CAREFUL_SCHEMA,
    MAX_EXTRA_BYTES,
    MAX_NUMBER,
    MAX_RECORD_BYTES,
    MAX_TEXT,
    RECORD_SCHEMA,
    Fields,
    NewerRecordError,
    RecordError,
    from_text,
    pack,
    readable,
    renewed,
    text_of,
    to_text,
    unpack,
    unpacked,
)

__all__ = [
    "CAREFUL_SCHEMA",
    "MAX_EXTRA_BYTES",
    "MAX_NUMBER",
    "MAX_RECORD_BYTES",
    "RECORD_SCHEMA",
    "Fields",
    "NewerRecordError",
    "RecordError",
    "authorisation_from_record",
    "authorisation_to_record",
    "batch_from_record",
    "batch_to_record",
    "cluster_from_record",
    "cluster_to_record",
    "counter_from_record",
    "counter_to_record",
    "from_text",
    "incarnation_from_record",
    "pack",
    "readable",
    "renewed",
    "report_from_record",
    "report_to_record",
    "rollout_from_record",
    "rollout_to_record",
    "roster_from_record",
    "roster_to_record",
    "to_text",
    "unpack",
    "unpacked",
    "witness_to_record",
]


def _row(digests: Iterable[bytes]) -> bytes:
    return b"".join(sorted(digests))


def _uses_to(uses: Uses) -> dict[str, object]:
    return {
        "images": _row(uses.images),
        "kernels": _row(uses.kernels),
        "ramdisks": _row(uses.ramdisks),
        "families": _row(uses.families),
        "names": sorted(uses.names),
    }


def _uses_from(values: Mapping[str, object] | None) -> Uses:
    fields = Fields(values)
    return Uses(
        images=fields.digests("images"),
        kernels=fields.digests("kernels"),
        ramdisks=fields.digests("ramdisks"),
        families=fields.digests("families"),
        names=frozenset(fields.texts("names")),
    )


def _sayable(text: str) -> str:
    """Return a text that any reader can decode: file names may hold any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]


def report_to_record(report: Report) -> dict[str, object]:
    """Turn a report into the map that capabilities and durable records carry.

    The uses of now stand at the top, where scripts that read capabilities
    through tooz find them; ``since`` holds what the window adds.
    """
    return {
        "schema": CAREFUL_SCHEMA,
        "node": report.node,
        "boot_id": report.incarnation.boot_id,
        "start": report.incarnation.start,
        "schema_version": report.schema_version,
        "kernel_naming": report.kernel_naming.value,
        "round": report.upto,
        "since_round": report.since_round,
        "unbroken": report.unbroken,
        **_uses_to(report.now),
        "since": _uses_to(report.since),
        "storage_time_ns": report.storage_time_ns,
        "name_cache_s": report.name_cache_s,
        "sees": sorted(report.sees),
        "saw": sorted(report.saw),
        "intents": sorted(report.intents),
        "failures": [
            [_sayable(f.source), _sayable(f.message)] for f in report.failures
        ],
        "lost": list(report.lost),
        "sealed": report.sealed,
        "release": report.release,
        "caveats": [_sayable(one) for one in report.caveats],
    }


def report_from_record(values: object) -> Report:
    """Read a report back; raises ``RecordError``.

    An unknown kernel naming is doubt, not an error: the gate closes on it.  A
    report of release 0.1.0 does not tell what its window saw, so it confirms
    nothing: it counts as degraded, and its coverage as broken.
    """
    fields = Fields(values)
    node = fields.text("node")
    if not names.is_node_name(node):
        raise RecordError("node is no node name")
    unsaid = _unsaid(fields)
    return Report(
        node=node,
        incarnation=_incarnation(fields),
        schema_version=fields.integer("schema_version", least=1),
        kernel_naming=_naming(fields.text("kernel_naming")),
        upto=fields.integer("round"),
        since_round=fields.integer("since_round"),
        unbroken=fields.flag("unbroken") and not unsaid,
        now=_uses_from(fields._values),  # noqa: SLF001 - the uses of now are its fields
        since=_uses_from(fields.part("since")),
        storage_time_ns=fields.integer("storage_time_ns"),
        name_cache_s=fields.number("name_cache_s"),
        sees=frozenset(fields.texts("sees")),
        saw=frozenset(() if unsaid else fields.texts("saw")),
        intents=frozenset(fields.texts("intents")),
        failures=(*map(_failure, fields.items("failures")), *unsaid),
        lost=fields.texts("lost"),
        sealed=fields.flag("sealed"),
        release=fields.text("release"),
        caveats=fields.texts("caveats") if fields.has("caveats") else (),
    )


def _naming(word: str) -> KernelNaming:
    try:
        return KernelNaming(word)
    except ValueError:
        return KernelNaming.UNKNOWN


def _incarnation(fields: Fields) -> Incarnation:
    return Incarnation(fields.text("boot_id"), fields.integer("start"))


def _unsaid(fields: Fields) -> Sequence[SourceFailure]:
    """Return what a report of another release leaves out, as a failure."""
    if fields.has("saw") or fields.schema >= CAREFUL_SCHEMA:
        return ()
    return (SourceFailure("release", "its agent does not tell what it saw: upgrade"),)


def _failure(item: object) -> SourceFailure:
    if not isinstance(item, list | tuple) or len(item) != 2:  # noqa: PLR2004 - a pair
        raise RecordError("failures is not a list of pairs")
    return SourceFailure(text_of(item[0], "failures"), text_of(item[1], "failures"))


def roster_to_record(record: RosterRecord) -> dict[str, object]:
    """Turn a roster record into a map."""
    report = None if record.report is None else report_to_record(record.report)
    return {
        "node": record.node,
        "report": report,
        "expunged_at": record.expunged_at,
    }


def roster_from_record(values: object) -> RosterRecord:
    """Read a roster record back; raises ``RecordError``."""
    fields = Fields(values)
    report = fields.part("report")
    return RosterRecord(
        node=fields.text("node"),
        report=None if report is None else report_from_record(report),
        expunged_at=fields.optional_number("expunged_at"),
    )


_BATCH_FIELDS = frozenset({"schema", "batch", "entries"})
_ENTRY_FIELDS = frozenset(
    {
        *("schema", "name", "entry", "epoch", "leaf", "state", "round", "since_ns"),
        *("moved_ns", "size", "baseline", "restoring", "asked"),
    }
)


def batch_to_record(batch: ManifestBatch) -> dict[str, object]:
    """Turn a batch of the manifest into a map."""
    return {
        **unpacked(batch.extra),
        "schema": CAREFUL_SCHEMA,
        "batch": batch.batch,
        "entries": [_entry_to(entry) for entry in batch.entries],
    }


def batch_from_record(values: object, version: int) -> ManifestBatch:
    """Read a batch of the manifest back; raises ``RecordError``."""
    fields = Fields(values)
    entries = tuple(
        _entry_from({"schema": fields.schema, **item})
        if isinstance(item, Mapping)
        else _entry_from(item)
        for item in fields.items("entries")
    )
    return ManifestBatch(
        fields.text("batch"), entries, version, fields.unknown(_BATCH_FIELDS)
    )


def _entry_to(entry: ManifestEntry) -> dict[str, object]:
    base = entry.baseline
    return {
        **unpacked(entry.extra),
        "name": entry.name,
        "entry": entry.entry,
        "epoch": entry.epoch,
        "leaf": entry.leaf,
        "state": entry.state.value,
        "round": entry.round,
        "since_ns": entry.since_ns,
        "moved_ns": entry.moved_ns,
        "size": entry.size,
        "baseline": None
        if base is None
        else [base.inode, base.size, base.mtime_ns, base.ctime_ns, base.links],
        "restoring": entry.restoring,
        "asked": entry.asked,
    }


def _entry_from(values: object) -> ManifestEntry:
    fields = Fields(values)
    name, leaf = fields.text("name"), fields.text("leaf")
    parsed = names.parse_leaf(leaf)
    if parsed is None or parsed != (name, fields.text("entry")):
        raise RecordError("an entry's leaf does not fit its name")
    try:
        state = EntryState(fields.text("state"))
    except ValueError as error:
        raise RecordError("an entry is in no known state") from error
    baseline = None
    if fields.has("baseline"):
        baseline = _baseline(fields.items("baseline"))
    return ManifestEntry(
        name=name,
        entry=fields.text("entry"),
        epoch=fields.integer("epoch", least=1),
        leaf=leaf,
        state=state,
        round=fields.integer("round"),
        since_ns=fields.integer("since_ns"),
        moved_ns=fields.integer("moved_ns"),
        size=fields.integer("size"),
        baseline=baseline,
        restoring=fields.flag("restoring"),
        # Release 0.1.0 does not say: a link of this very leaf may be on its way.
        asked=fields.flag("asked", default=fields.schema < CAREFUL_SCHEMA or None),
        extra=fields.unknown(_ENTRY_FIELDS),
    )


def _baseline(parts: Sequence[object]) -> Baseline:
    numbers = [p for p in parts if isinstance(p, int) and not isinstance(p, bool)]
    if len(parts) != 5 or len(numbers) != 5:  # noqa: PLR2004 - its five fields
        raise RecordError("an entry's baseline has the wrong shape")
    base = Baseline(*numbers)
    # A file's times may lie before 1970: anybody who may write it can set them.
    if min(base.inode, base.size, base.links) < 0 or max(map(abs, numbers)) >= 2**64:
        raise RecordError("an entry's baseline is out of bounds")
    return base


def authorisation_to_record(authorisation: Authorisation) -> dict[str, object]:
    """Turn the authorisation into a map."""
    return {
        "token": authorisation.token,
        "epoch": authorisation.epoch,
        "leaves": dict(authorisation.leaves),
    }


def authorisation_from_record(values: object, version: int) -> Authorisation:
    """Read the authorisation back; raises ``RecordError``."""
    fields = Fields(values)
    leaves = fields.part("leaves") or {}
    return Authorisation(
        token=fields.text("token"),
        epoch=fields.integer("epoch"),
        leaves={
            text_of(entry, "leaves"): text_of(leaf, "leaves")
            for entry, leaf in leaves.items()
            if entry != "schema"
        },
        version=version,
    )


def cluster_to_record(cluster: Cluster) -> dict[str, object]:
    """Turn a cluster's identity into a map."""
    return {"cluster": cluster.name, "identity": cluster.identity}


def cluster_from_record(values: object) -> Cluster:
    """Read a cluster's identity back; raises ``RecordError``."""
    fields = Fields(values)
    identity = fields.text("identity")
    if not identity:
        raise RecordError("the cluster has no identity")
    return Cluster(fields.text("cluster"), identity)


def rollout_to_record(rollout: Rollout) -> dict[str, object]:
    """Turn the rollout into a map."""
    return {
        **unpacked(rollout.extra),
        "finalized_schema": rollout.finalized_schema,
        "finalized_by": rollout.finalized_by,
        "finalized_at": rollout.finalized_at,
    }


def rollout_from_record(values: object) -> Rollout:
    """Read the rollout back; raises ``RecordError``."""
    fields = Fields(values)
    return Rollout(
        fields.integer("finalized_schema", least=1),
        fields.text("finalized_by", ""),
        fields.number("finalized_at"),
        fields.unknown({"schema", "finalized_schema", "finalized_by", "finalized_at"}),
    )


def witness_to_record(node: str, incarnation: Incarnation) -> dict[str, object]:
    """Turn a witness into a map."""
    return {"node": node, "boot_id": incarnation.boot_id, "start": incarnation.start}


def incarnation_from_record(values: object) -> Incarnation:
    """Read a witness's incarnation back; raises ``RecordError``."""
    return _incarnation(Fields(values))


def counter_to_record(value: int) -> dict[str, object]:
    """Turn an epoch's or a round's number into a map."""
    return {"value": value}


def counter_from_record(values: object) -> int:
    """Read an epoch's or a round's number back; raises ``RecordError``."""
    return Fields(values).integer("value")
