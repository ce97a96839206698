"""Records: what was written is read back, and nothing else does any harm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedcache.core import brakecodec, codec, questions
from sharedcache.core.acts import (
    Act,
    Deed,
    Doer,
    Subject,
    act_from_bytes,
    act_from_record,
    act_to_record,
)
from sharedcache.core.brakecodec import BrakeNote
from sharedcache.core.gate import Closes, Code, Reason
from sharedcache.core.model import (
    Baseline,
    EntryState,
    Incarnation,
    KernelNaming,
    ManifestBatch,
    ManifestEntry,
    Report,
    RosterRecord,
    SourceFailure,
    Uses,
)
from sharedcache.core.names import leaf_of
from sharedcache.core.plan import Remembered
from sharedcache.core.questions import Answer
from sharedcache.core.referrers import Referrer, Sighting, Span
from tests.property.strategies import RECOGNISED, entry, report, uses_of

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_COUNT = st.integers(0, 2**63 - 1)
_SIGNED = st.integers(-(2**63), 2**63 - 1)
_DIGESTS = st.frozensets(st.binary(min_size=20, max_size=20), max_size=3)
_TOKEN = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")
_USES = st.builds(
    Uses, _DIGESTS, _DIGESTS, _DIGESTS, _DIGESTS, st.frozensets(_TEXT, max_size=3)
)
_REPORTS = st.builds(
    Report,
    node=st.from_regex(
        r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True
    ).filter(str.isascii),
    incarnation=st.builds(Incarnation, _TEXT, _COUNT),
    schema_version=st.integers(1, 9),
    kernel_naming=st.sampled_from(KernelNaming),
    upto=_COUNT,
    since_round=_COUNT,
    unbroken=st.booleans(),
    now=_USES,
    since=_USES,
    storage_time_ns=_COUNT,
    caveats=st.lists(_TEXT, max_size=2).map(tuple),
    name_cache_s=st.floats(0, 1e9),
    sees=st.frozensets(_TOKEN, max_size=3),
    saw=st.frozensets(_TOKEN, max_size=3),
    intents=st.frozensets(_TOKEN, max_size=3),
    failures=st.lists(st.builds(SourceFailure, _TEXT, _TEXT), max_size=2).map(tuple),
    lost=st.lists(_TEXT, max_size=2).map(tuple),
    sealed=st.booleans(),
    release=_TEXT,
)

_MAYBE = st.none() | _COUNT
_ACTS = st.builds(
    Act,
    deed=st.sampled_from([str(deed) for deed in Deed]) | _TEXT,
    doer=st.builds(Doer, _TEXT, _TEXT, _MAYBE),
    when=st.floats(0, 1e12),
    why=_TEXT,
    subjects=st.lists(
        st.builds(
            Subject, _TEXT, st.none() | _TEXT, _MAYBE, st.none() | st.integers(-9, 9)
        ),
        max_size=3,
    ).map(tuple),
    plan=st.none() | _TEXT,
    round=_MAYBE,
    asked=st.none() | _TEXT,
    left_off=_COUNT,
)


@st.composite
def _entries(draw: st.DrawFn) -> ManifestEntry:
    name, token = draw(st.sampled_from(sorted(RECOGNISED))), draw(_TOKEN)
    epoch = draw(st.integers(1, 2**31))
    some = st.builds(Baseline, _COUNT, _COUNT, _SIGNED, _SIGNED, _COUNT)
    return ManifestEntry(
        name,
        token,
        epoch,
        leaf_of(name, token, epoch),
        draw(st.sampled_from(EntryState)),
        draw(_COUNT),
        draw(_COUNT),
        draw(_COUNT),
        draw(_COUNT),
        draw(st.none() | some),
        draw(st.booleans()),
        draw(st.booleans()),
    )


READERS: dict[str, Callable[[object], object]] = {
    "report": codec.report_from_record,
    "roster": codec.roster_from_record,
    "batch": lambda values: codec.batch_from_record(values, 0),
    "authorisation": lambda values: codec.authorisation_from_record(values, 0),
    "cluster": codec.cluster_from_record,
    "rollout": codec.rollout_from_record,
    "incarnation": codec.incarnation_from_record,
    "counter": codec.counter_from_record,
    "memory": brakecodec.memory_from_record,
    "brake": brakecodec.brake_from_record,
    "question": questions.question_from_record,
    "answer": questions.answer_from_record,
    "act": act_from_record,  # type: ignore[dict-item]
}


@settings(max_examples=150)
@given(_REPORTS)
def test_any_report_is_read_back(said: Report) -> None:
    """A report that was written is read back as it was, alone and in the roster."""
    data = codec.pack(codec.report_to_record(said))
    assert codec.report_from_record(codec.unpack(data)) == said
    kept = RosterRecord(said.node, said, expunged_at=1.5)
    data = codec.pack(codec.roster_to_record(kept))
    assert codec.roster_from_record(codec.unpack(data)) == kept


@settings(max_examples=100)
@given(_ACTS)
def test_any_act_is_read_back(act: Act) -> None:
    """An act that was written is read back as it was, whatever later readers add."""
    assert act_from_bytes(codec.pack(act_to_record(act))) == act


@settings(max_examples=100)
@given(_TEXT, st.lists(_entries(), max_size=3))
def test_any_manifest_is_read_back(batch: str, entries: list[ManifestEntry]) -> None:
    """A batch that was written is read back, times before 1970 included."""
    wrote = ManifestBatch(batch, tuple(entries), 7)
    data = codec.pack(codec.batch_to_record(wrote))
    assert codec.batch_from_record(codec.unpack(data), 7) == wrote


@settings(max_examples=100)
@given(
    st.dictionaries(
        _TEXT,
        st.builds(
            Remembered,
            _COUNT,
            st.frozensets(st.binary(min_size=6, max_size=6), max_size=3),
            st.none() | _COUNT,
            _COUNT,
        ),
        max_size=3,
    )
)
def test_any_memory_is_read_back(memory: dict[str, Remembered]) -> None:
    """What leaders remember of uses is read back as it was."""
    data = codec.pack(brakecodec.memory_to_record(memory))
    assert brakecodec.memory_from_record(codec.unpack(data)) == memory


@settings(max_examples=100)
@given(_COUNT, _TEXT, _COUNT, st.lists(st.tuples(_TEXT, _TEXT), max_size=2))
def test_any_brake_is_read_back(
    epoch: int, digest: str, files: int, said: list[tuple[str, str]]
) -> None:
    """What a leader tells of its brake is read back as it was told."""
    reasons = tuple(
        Reason(Code.BRAKE, Closes.ALL, subject, message) for subject, message in said
    )
    note = BrakeNote(epoch, digest, files, reasons, 1.5)
    data = codec.pack(brakecodec.brake_to_record(note))
    assert brakecodec.brake_from_record(codec.unpack(data)) == note


def _read(data: bytes, decode: Callable[[bytes], object]) -> None:
    for read in READERS.values():
        try:
            read(decode(data))
        except codec.RecordError:
            continue


@settings(max_examples=200)
@given(st.binary(max_size=64))
def test_arbitrary_bytes_raise_nothing_but_record_errors(data: bytes) -> None:
    """Bytes that nobody wrote are a record that cannot be read, no worse."""
    _read(data, codec.unpack)
    _read(data, codec.from_text)


_DAMAGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | _TEXT
    | st.binary(max_size=21),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(_TEXT | st.binary(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)
_GOOD: list[dict[str, object]] = [
    codec.report_to_record(report(now=uses_of(*RECOGNISED), sees=frozenset("a"))),
    codec.roster_to_record(RosterRecord("n1", report())),
    codec.batch_to_record(ManifestBatch("b1", (entry(),))),
    {"token": "t", "epoch": 1, "leaves": {"e": "l"}},
    {"cluster": "c", "identity": "i", "boot_id": "b", "start": 1, "value": 1},
    act_to_record(
        Act("purged", Doer("cleaner", "c", 1), 1.0, "w", (Subject("n", "e", 1, 1),))
    ),
    {"finalized_schema": 2, "finalized_by": "x", "finalized_at": 1.0},
    questions.question_to_record("a" * 40),
    questions.answer_to_record(
        Answer(
            "a" * 40,
            (Sighting("s", Span(1.0), referrers=((Referrer("disk"), Span(1.0)),)),),
            1.0,
        )
    ),
    brakecodec.memory_to_record({"n1": Remembered(2, frozenset({b"sixkey"}), 5, 1)}),
    {"nodes": [["n1", 1, b"sixkey", None, 0]]},
    {"nodes": [["n1", 1, b"five5", None, 0], ["n1"], 3]},
    brakecodec.brake_to_record(BrakeNote(1, "d", 2, (), 1.0)),
]


@settings(max_examples=300)
@given(st.data())
def test_any_damaged_field_raises_nothing_but_record_errors(
    data: st.DataObject,
) -> None:
    """One field of another type, out of bounds or gone is a ``RecordError``."""
    good = dict(data.draw(st.sampled_from(_GOOD)))
    key = data.draw(st.sampled_from(sorted(good)))
    if data.draw(st.booleans()):
        good[key] = data.draw(_DAMAGE)
    else:
        del good[key]
    _read(codec.pack(good), codec.unpack)


@settings(max_examples=100)
@given(_REPORTS, st.integers(0, 400), st.integers(1, 255))
def test_a_record_cut_short_is_never_read(said: Report, cut: int, flip: int) -> None:
    """A report cut short is refused; with a changed byte it is at worst another."""
    data = codec.pack(codec.report_to_record(said))
    with pytest.raises(codec.RecordError):
        codec.report_from_record(codec.unpack(data[: cut % len(data)]))
    at = cut % len(data)
    _read(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], codec.unpack)
