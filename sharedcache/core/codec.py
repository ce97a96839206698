"""Records: msgpack in ZooKeeper, JSON text on the storage, with a schema number.

An older reader that meets a newer record stands back: it gets
``NewerRecordError`` and treats the record as one that forbids everything.
Sizes and shapes are bounded, so that no record can do harm by being read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgpack

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
    Unreadable,
    Uses,
)

RECORD_SCHEMA = 1
"""Schema number of the records that this release writes."""

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Largest record that is decoded, put together from its chunks."""

MAX_NUMBER = float(2**63)
"""Largest number that is read where a fraction is allowed."""

_MAX_TEXT = 4096
_MAX_ITEMS = 2_000_000

T = TypeVar("T")


class RecordError(ValueError):
    """A record that cannot be read: cut short, empty, or of the wrong shape."""


class NewerRecordError(RecordError):
    """A record of a schema that this release does not know."""


class Fields:
    """The fields of a decoded record, each read with its type and bounds."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, Mapping):
            raise RecordError("the record is not a map")
        schema = values.get("schema")
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise RecordError("the record has no schema number")
        if schema > RECORD_SCHEMA:
            raise NewerRecordError(
                f"record schema {schema} is newer than {RECORD_SCHEMA}"
            )
        self._values = values

    def integer(self, key: str, least: int = 0, most: int = 2**63 - 1) -> int:
        """Read a whole number within bounds."""
        value = self._values.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RecordError(f"{key} is not a whole number")
        if not least <= value <= most:
            raise RecordError(f"{key} is out of bounds")
        return value

    def number(self, key: str) -> float:
        """Read a number that is not negative."""
        value = self._values.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise RecordError(f"{key} is not a number")
        if not 0 <= value <= MAX_NUMBER:
            raise RecordError(f"{key} is out of bounds")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """Read a number that may be absent."""
        return None if self._values.get(key) is None else self.number(key)

    def text(self, key: str, default: str | None = None) -> str:
        """Read a text of bounded length."""
        return _text(self._values.get(key, default), key)

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """Read a truth value."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise RecordError(f"{key} is not true or false")
        return value

    def items(self, key: str) -> Sequence[object]:
        """Read a list of bounded length."""
        value = self._values.get(key)
        if not isinstance(value, list | tuple) or len(value) > _MAX_ITEMS:
            raise RecordError(f"{key} is not a list, or too long")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Read a list of texts."""
        return tuple(_text(item, key) for item in self.items(key))

    def digests(self, key: str) -> frozenset[bytes]:
        """Read digests of 20 bytes each, one after the other in one binary."""
        value = self._values.get(key)
        size = names.DIGEST_BYTES
        if not isinstance(value, bytes) or len(value) % size:
            raise RecordError(f"{key} is not a row of 20-byte digests")
        return frozenset(value[i : i + size] for i in range(0, len(value), size))

    def part(self, key: str) -> Mapping[str, object] | None:
        """Read a nested map, or nothing."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise RecordError(f"{key} is not a map")
        return {"schema": RECORD_SCHEMA, **value}


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise RecordError(f"{key} is not a text, or too long")
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        # JSON can spell half a character, which could never be written again.
        raise RecordError(f"{key} is not a text that can be encoded")
    return value


def pack(record: Mapping[str, object]) -> bytes:
    """Encode a record, with its schema number, for ZooKeeper."""
    packed: bytes = msgpack.packb({"schema": RECORD_SCHEMA, **record})
    return packed


def unpack(data: bytes) -> Mapping[str, object]:
    """Decode a record from ZooKeeper; raises ``RecordError``."""
    if not data:
        raise RecordError("the record is empty")
    if len(data) > MAX_RECORD_BYTES:
        raise RecordError(f"the record has {len(data)} bytes, which is too many")
    try:
        values = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise RecordError(f"the record is not msgpack ({error})") from error
    except RecursionError as error:
        raise RecordError("the record is nested too deeply") from error
    if not isinstance(values, Mapping):
        raise RecordError("the record is not a map")
    return values


def to_text(record: Mapping[str, object]) -> bytes:
    """Encode a record as one line of JSON for the storage, where people read it."""
    return (json.dumps({"schema": RECORD_SCHEMA, **record}) + "\n").encode()


def from_text(data: bytes) -> Mapping[str, object]:
    """Decode a record from the storage; raises ``RecordError``."""
    try:
        values = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the record is not JSON ({error})") from error
    if not isinstance(values, Mapping):
        raise RecordError("the record is not a map")
    return values


def readable(read: Callable[[], T]) -> T | Unreadable:
    """Turn a record that cannot be read into a value that forbids everything."""
    try:
        return read()
    except NewerRecordError as error:
        return Unreadable(str(error), newer=True)
    except RecordError as error:
        return Unreadable(str(error))


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
    return text.encode("utf-8", "backslashreplace").decode()[:_MAX_TEXT]


def report_to_record(report: Report) -> dict[str, object]:
    """Turn a report into the map that capabilities and durable records carry.

    The uses of now stand at the top, where scripts that read capabilities
    through tooz find them; ``since`` holds what the window adds.
    """
    return {
        "schema": RECORD_SCHEMA,
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
    }


def report_from_record(values: object) -> Report:
    """Read a report back; raises ``RecordError``.

    An unknown kernel naming is doubt, not an error: the gate closes on it.
    """
    fields = Fields(values)
    node = fields.text("node")
    if not names.is_node_name(node):
        raise RecordError("node is no node name")
    return Report(
        node=node,
        incarnation=_incarnation(fields),
        schema_version=fields.integer("schema_version", least=1),
        kernel_naming=_naming(fields.text("kernel_naming")),
        upto=fields.integer("round"),
        since_round=fields.integer("since_round"),
        unbroken=fields.flag("unbroken"),
        now=_uses_from(fields._values),  # noqa: SLF001 - the uses of now are its fields
        since=_uses_from(fields.part("since")),
        storage_time_ns=fields.integer("storage_time_ns"),
        name_cache_s=fields.number("name_cache_s"),
        sees=frozenset(fields.texts("sees")),
        saw=frozenset(fields.texts("saw")),
        intents=frozenset(fields.texts("intents")),
        failures=tuple(_failure(item) for item in fields.items("failures")),
        lost=fields.texts("lost"),
        sealed=fields.flag("sealed"),
        release=fields.text("release"),
    )


def _naming(word: str) -> KernelNaming:
    try:
        return KernelNaming(word)
    except ValueError:
        return KernelNaming.UNKNOWN


def _incarnation(fields: Fields) -> Incarnation:
    return Incarnation(fields.text("boot_id"), fields.integer("start"))


def _failure(item: object) -> SourceFailure:
    if not isinstance(item, list | tuple) or len(item) != 2:  # noqa: PLR2004 - a pair
        raise RecordError("failures is not a list of pairs")
    return SourceFailure(_text(item[0], "failures"), _text(item[1], "failures"))


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


def batch_to_record(batch: ManifestBatch) -> dict[str, object]:
    """Turn a batch of the manifest into a map."""
    return {
        "batch": batch.batch,
        "entries": [_entry_to(entry) for entry in batch.entries],
    }


def batch_from_record(values: object, version: int) -> ManifestBatch:
    """Read a batch of the manifest back; raises ``RecordError``."""
    fields = Fields(values)
    entries = tuple(
        _entry_from({"schema": RECORD_SCHEMA, **item})
        if isinstance(item, Mapping)
        else _entry_from(item)
        for item in fields.items("entries")
    )
    return ManifestBatch(fields.text("batch"), entries, version)


def _entry_to(entry: ManifestEntry) -> dict[str, object]:
    base = entry.baseline
    return {
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
    if fields._values.get("baseline") is not None:  # noqa: SLF001 - may be absent
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
        asked=fields.flag("asked"),
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
            _text(entry, "leaves"): _text(leaf, "leaves")
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
