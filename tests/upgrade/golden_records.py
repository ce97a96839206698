"""Every kind of record, with a value that fills it: what the golden files are made of.

A golden file is a record as a release wrote it.  Those of a release are never
changed; those in ``golden/next`` are what the release to come writes, and are
written anew when a record's form changes on purpose:

    python -m tests.upgrade.golden_records
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgpack

from sharedcache import audit, ledger
from sharedcache.cleaner import operator
from sharedcache.core import (
    acts,
    brakecodec,
    codec,
    damage,
    digests,
    inventory,
    questions,
)
from sharedcache.core.gate import Closes, Code, Reason
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
    SourceFailure,
    Uses,
)
from sharedcache.core.names import leaf_of
from sharedcache.core.plan import Remembered
from sharedcache.core.ports import Record
from sharedcache.core.referrers import Referrer, Sighting, Span
from sharedcache.inventory import data_of

FOLDER = Path(__file__).parent / "golden"
NEXT = "next"

D1, D2, D3 = (bytes([number]) * 20 for number in (1, 2, 3))
RAW_ID = "0b5cbd6e-6f3a-4d3c-9a51-0123456789ab"
CLUSTER = Cluster("demo", "b4276bb6ec0d4be5808a85265ca3cc10")
INCARNATION = Incarnation("5e0f2d5c-2f8e-4a7b-9d0e-0123456789ab", 3)
REPORT = Report(
    node="n1",
    incarnation=INCARNATION,
    schema_version=2,
    kernel_naming=KernelNaming.SHA1,
    upto=12,
    since_round=11,
    unbroken=True,
    now=Uses(
        frozenset({D1, D2}),
        frozenset({D2}),
        frozenset({D3}),
        frozenset({D1}),
        frozenset({"swap_512", RAW_ID}),
    ),
    since=Uses(images=frozenset({D3}), names=frozenset({"ephemeral_2_40d1d2c"})),
    storage_time_ns=10**18,
    name_cache_s=60.0,
    sees=frozenset({"a" * 16}),
    saw=frozenset({"b" * 16}),
    intents=frozenset({"c" * 16}),
    failures=(SourceFailure("libvirt", "no answer"),),
    lost=("swap_1",),
    caveats=("a disk of domain db-1 has no lock",),
    sealed=True,
    release="0.1.0",
)


def _entry(name: str, token: str, state: EntryState, **more: Any) -> ManifestEntry:
    leaf = leaf_of(name, token, 4)
    return ManifestEntry(
        name, token, 4, leaf, state, since_ns=9**18, moved_ns=9**18 + 1, size=7, **more
    )


BATCH = ManifestBatch(
    "4-feed",
    (
        _entry("swap_512", "1" * 16, EntryState.INTENDED, round=0),
        _entry(
            RAW_ID,
            "2" * 16,
            EntryState.TAKEN,
            round=12,
            baseline=Baseline(11, 7, -5, 10**18, 1),
        ),
        _entry(
            D1.hex(),
            "3" * 16,
            EntryState.TAKEN,
            round=13,
            baseline=Baseline(12, 7, 10**18, 10**18, 2),
            restoring=True,
        ),
    ),
)
AUTHORISATION = Authorisation("t" * 16, 4, {"2" * 16: leaf_of(RAW_ID, "2" * 16, 4)})
MEMORY = {
    "n1": Remembered(3, frozenset({b"sixkey"}), 10**18, 2),
    "n2": Remembered(1, frozenset()),
}
BRAKE = brakecodec.BrakeNote(
    4, "d" * 64, 9, (Reason(Code.BRAKE, Closes.ALL, "n1", "too much"),), 1.5
)
ACT = acts.Act(
    "purged",
    acts.Doer("cleaner", "c1", 4),
    1.5,
    "confirmed",
    (acts.Subject("swap_512", "1" * 16, 7, -5), acts.Subject("swap_1")),
    plan="d" * 64,
    round=12,
    asked="purge",
    left_off=1,
)
ACT_ON_MANY = acts.Act(
    "acknowledged",
    acts.Doer("operator", "me@desk"),
    1.5,
    "appeared",
    together=(RAW_ID, RAW_ID.replace("0", "1")),
)
PUBLISHED = digests.Published(
    D1.hex(), 2**64 - 1, 7, digests.Digest.parse(f"sha256:{'0' * 64}")
)
INVENTORY = inventory.Inventory({RAW_ID: 11}, settled=True, version=0)
DAMAGE = damage.Damage(
    RAW_ID, 11, 7, -5, f"sha256:{'0' * 64}", f"sha256:{'1' * 64}", "me@desk", 1.5
)
ANSWER = questions.Answer(
    RAW_ID,
    (
        Sighting(
            "libvirt",
            Span(1.5, at_least=True, until_s=None),
            by_family=False,
            referrers=((Referrer("domain", "db-1", "/x"), Span(1.5, at_least=False)),),
            more=3,
        ),
    ),
    2.5,
)
OPERATOR = acts.Signature("me@desk", 1.5)


@dataclass(frozen=True)
class Kind:
    """One kind of record: what it says, how it is written, how it is read."""

    value: object
    write: Callable[[], bytes]
    read: Callable[[bytes], object]
    suffix: str = "msgpack"


class Listener:
    """Stands where ZooKeeper would, and keeps what is written."""

    def __init__(self, **records: bytes) -> None:
        self.records = records

    def commit(self, operations: Sequence[Any]) -> None:
        """Keep the data of every write."""
        for one in operations:
            if getattr(one, "data", None) is not None and hasattr(one, "path"):
                self.records[one.path] = one.data

    def get(self, path: str) -> Record | None:
        """Read what was kept."""
        return Record(self.records[path], 0) if path in self.records else None

    def get_many(self, paths: Sequence[str]) -> list[Record | None]:
        """Read what was kept, together."""
        return [self.get(path) for path in paths]

    def sync(self) -> None:
        """Nothing is behind."""


def _said(path: str, say: Callable[[Any], object]) -> bytes:
    heard = Listener()
    say(heard)
    return heard.records[path]


def _expunged() -> bytes:
    witness = codec.to_text(codec.witness_to_record("n1", INCARNATION))
    storage: Any = SimpleNamespace(witness_read=lambda _: (witness, None))
    return _said(
        "roster/n1", lambda heard: operator.expunge(heard, storage, "n1", OPERATOR)
    )


def _in_parts() -> bytes:
    """Write a report in parts; the file holds the record and its parts by path."""
    with mock.patch.object(ledger, "PART_BYTES", 300):
        packed = ledger.pack_report(REPORT, "t" * 16)
    record = {"roster/n1": ledger.roster_data("n1", packed)}
    data: bytes = msgpack.packb(record | dict(packed.parts))
    return data


def _from_parts(data: bytes) -> object:
    there: Any = Listener(**msgpack.unpackb(data))
    return ledger.durable_report(there.get("roster/n1"), "n1", there)


def _roster(data: bytes) -> object:
    there: Any = Listener()
    return ledger.durable_report(Record(data, 0), "n1", there)


def _tombstone(data: bytes) -> object:
    return ledger.roster_of([("n1", Record(data, 0))]).expunged["n1"]


def _note(data: bytes) -> object:
    return ledger.note_of(Record(data, 0), "why")


def _text(record: Mapping[str, object]) -> Callable[[], bytes]:
    return lambda: codec.to_text(record)


def _report_of(value: Report) -> object:
    return ledger.RosterRecord("n1", value)


KINDS: Mapping[str, Kind] = {
    "identity": Kind(
        CLUSTER,
        lambda: ledger.identity_data(CLUSTER),
        lambda data: ledger.cluster_of(Record(data, 0)),
    ),
    "epoch": Kind(
        7,
        lambda: ledger.number_data(7, cleaner="c1"),
        lambda data: ledger.counter_of(Record(data, 0)).value,
    ),
    "round": Kind(
        12,
        lambda: ledger.number_data(12),
        lambda data: ledger.counter_of(Record(data, 0)).value,
    ),
    "rollout": Kind(
        Rollout(2, "me@desk", 1.5),
        lambda: ledger.rollout_data(Rollout(2, "me@desk", 1.5)),
        lambda data: ledger.rollout_of(Record(data, 0)),
    ),
    "report": Kind(
        REPORT,
        lambda: codec.pack(codec.report_to_record(REPORT)),
        lambda data: codec.report_from_record(codec.unpack(data)),
    ),
    "roster": Kind(
        _report_of(REPORT),
        lambda: ledger.roster_data("n1", ledger.pack_report(REPORT, "t" * 16)),
        _roster,
    ),
    "roster-in-parts": Kind(_report_of(REPORT), _in_parts, _from_parts),
    "roster-expected": Kind(
        ledger.RosterRecord("n1"), lambda: ledger.roster_data("n1", None), _roster
    ),
    "roster-expunged": Kind(ledger.Tombstone(1.5, INCARNATION), _expunged, _tombstone),
    "manifest": Kind(
        BATCH,
        lambda: ledger.batch_data(BATCH),
        lambda data: ledger.read_batch(Record(data, -1)),
    ),
    "authorisation": Kind(
        AUTHORISATION,
        lambda: ledger.authorisation_data(AUTHORISATION),
        lambda data: ledger.authorisation_of(Record(data, -1)),
    ),
    "authorisation-blank": Kind(
        Authorisation(),
        lambda: ledger.authorisation_data(Authorisation()),
        lambda data: ledger.authorisation_of(Record(data, -1)),
    ),
    "memory": Kind(
        MEMORY,
        lambda: codec.pack(brakecodec.memory_to_record(MEMORY)),
        lambda data: ledger.memory_of(Record(data, 0)),
    ),
    "brake": Kind(
        BRAKE,
        lambda: codec.pack(brakecodec.brake_to_record(BRAKE)),
        lambda data: ledger.brake_of(Record(data, 0)),
    ),
    "hold": Kind(
        "for the audit",
        lambda: _said(
            "holds/swap_1",
            lambda heard: operator.hold(heard, "swap_1", "for the audit", OPERATOR),
        ),
        _note,
    ),
    "pause": Kind(
        "maintenance",
        lambda: _said("pause", lambda h: operator.pause(h, "maintenance", OPERATOR)),
        _note,
    ),
    "approval": Kind(
        "d" * 64,
        lambda: _said(
            "approval", lambda h: operator.approve(h, "d" * 64, 10**18, OPERATOR)
        ),
        lambda data: ledger.approval_of(Record(data, 0), 10**18),
    ),
    "act": Kind(ACT, lambda: codec.pack(acts.act_to_record(ACT)), acts.act_from_bytes),
    "act-on-many": Kind(
        ACT_ON_MANY,
        lambda: codec.pack(acts.act_to_record(ACT_ON_MANY)),
        acts.act_from_bytes,
    ),
    "trail": Kind(
        audit.Mark(3, 9, 6, 0),
        lambda: audit.mark_data(audit.Mark(3, 9, 6, 0)),
        lambda data: audit.mark_of(Record(data, 0)),
    ),
    "inventory": Kind(
        INVENTORY,
        lambda: data_of(INVENTORY),
        lambda data: inventory.from_record(codec.unpack(data), 0),
    ),
    "damaged": Kind(
        {RAW_ID: DAMAGE},
        lambda: codec.pack(damage.orders_to_record([DAMAGE])),
        lambda data: damage.orders_from_record(codec.unpack(data)),
    ),
    "question": Kind(
        RAW_ID,
        lambda: codec.pack(questions.question_to_record(RAW_ID)),
        lambda data: questions.question_from_record(codec.unpack(data)),
    ),
    "answer": Kind(
        ANSWER,
        lambda: codec.pack(questions.answer_to_record(ANSWER)),
        lambda data: questions.answer_from_record(codec.unpack(data)),
    ),
    "storage-cluster": Kind(
        CLUSTER, _text(codec.cluster_to_record(CLUSTER)), ledger.marker_of, "json"
    ),
    "storage-schema": Kind(
        Rollout(2, "me@desk", 1.5),
        _text(codec.rollout_to_record(Rollout(2, "me@desk", 1.5))),
        lambda data: codec.rollout_from_record(codec.from_text(data)),
        "json",
    ),
    "storage-witness": Kind(
        INCARNATION,
        _text(codec.witness_to_record("n1", INCARNATION)),
        lambda data: codec.incarnation_from_record(codec.from_text(data)),
        "json",
    ),
    "storage-digest": Kind(
        PUBLISHED,
        _text(digests.to_record(PUBLISHED)),
        lambda data: digests.from_record(codec.from_text(data)),
        "json",
    ),
}

_FIRST = replace(
    REPORT,
    unbroken=False,
    saw=frozenset(),
    caveats=(),
    failures=(
        *REPORT.failures,
        SourceFailure("release", "its agent does not tell what it saw: upgrade"),
    ),
)
OTHERWISE: Mapping[str, Mapping[str, object]] = {
    "0.1.0": {
        # It did not say what the window saw, nor whether a link may land.
        "report": _FIRST,
        "roster": _report_of(_FIRST),
        "roster-in-parts": _report_of(_FIRST),
        "manifest": replace(
            BATCH, entries=tuple(replace(one, asked=True) for one in BATCH.entries)
        ),
    }
}
"""What records of a release are read to where it said less than is said today."""


def golden(release: str, kind: str) -> Path:
    """Return the path of a golden file."""
    return FOLDER / release / f"{kind}.{KINDS[kind].suffix}"


def main() -> None:
    """Write what the release to come writes."""
    (FOLDER / NEXT).mkdir(parents=True, exist_ok=True)
    for name, kind in KINDS.items():
        golden(NEXT, name).write_bytes(kind.write())


if __name__ == "__main__":
    main()
