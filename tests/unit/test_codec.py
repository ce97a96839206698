"""Records: round trips, damage, newer schemas, bounds."""

from __future__ import annotations

import json
from dataclasses import replace

import msgpack
import pytest

from sharedcache.core import codec, records
from sharedcache.core.codec import NewerRecordError, RecordError
from sharedcache.core.model import (
    Authorisation,
    Baseline,
    Cluster,
    EntryState,
    Incarnation,
    KernelNaming,
    ManifestBatch,
    Report,
    Rollout,
    RosterRecord,
    SourceFailure,
    Unreadable,
)
from tests.property.strategies import D1, FAILED, K1, entry, report, uses_of
from tests.property.test_codec_property import READERS

FULL = report(
    now=uses_of(D1, K1, families=(D1,)),
    since=uses_of("swap_1"),
    sees=frozenset({"a" * 16}),
    intents=frozenset({"b" * 16}),
    failures=FAILED,
    lost=(D1,),
    sealed=True,
    release="1.0",
)


def _report(**changes: object) -> Report:
    return codec.report_from_record({**codec.report_to_record(FULL), **changes})


def test_records_are_read_back() -> None:
    """Every record that is written is read back as it was."""
    assert _report() == FULL
    for kept in (RosterRecord("n1"), RosterRecord("n1", FULL, 12.0)):
        data = codec.pack(codec.roster_to_record(kept))
        assert codec.roster_from_record(codec.unpack(data)) == kept
    batch = ManifestBatch("b", (entry(), entry(K1, 2, baseline=None)), 4)
    data = codec.pack(codec.batch_to_record(batch))
    assert codec.batch_from_record(codec.unpack(data), 4) == batch
    word = Authorisation("t", 3, {"e" * 16: "leaf"}, 9)
    data = codec.pack(codec.authorisation_to_record(word))
    assert codec.authorisation_from_record(codec.unpack(data), 9) == word
    nothing = codec.pack(codec.authorisation_to_record(Authorisation()))
    assert codec.authorisation_from_record(codec.unpack(nothing), -1) == Authorisation()
    cluster = Cluster("demo", "4b0c")
    text = codec.to_text(codec.cluster_to_record(cluster))
    assert codec.cluster_from_record(codec.from_text(text)) == cluster
    rollout = Rollout(2, "me", 5.0)
    data = codec.pack(codec.rollout_to_record(rollout))
    assert codec.rollout_from_record(codec.unpack(data)) == rollout
    text = codec.to_text(codec.witness_to_record("n1", Incarnation("boot", 2)))
    assert codec.incarnation_from_record(codec.from_text(text)) == Incarnation(
        "boot", 2
    )
    assert codec.counter_from_record({"schema": 1, **codec.counter_to_record(6)}) == 6


def test_the_uses_of_now_stand_at_the_top() -> None:
    """Scripts find image digests, 20 bytes each, at the top of capabilities."""
    record = codec.report_to_record(FULL)
    assert record["images"] == bytes.fromhex(D1)
    assert record["names"] == [K1]
    assert record["kernel_naming"] == "sha1"


@pytest.mark.parametrize("name", sorted(READERS))
@pytest.mark.parametrize(
    "values",
    [None, [], {}, 1, "x", {"schema": 0}, {"schema": True}, {"schema": "1"}, {b"s": 1}],
)
def test_no_schema_number_is_damage(name: str, values: object) -> None:
    """A record without a schema number cannot be read."""
    with pytest.raises(RecordError):
        READERS[name](values)


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_newer_record_makes_an_older_reader_stand_back(name: str) -> None:
    """A newer schema is told apart from damage."""
    with pytest.raises(NewerRecordError):
        READERS[name]({"schema": codec.CAREFUL_SCHEMA + 1})


def test_a_newer_record_within_an_older_one_counts_too() -> None:
    """A newer report in the roster, or a newer entry, is newer, not damage."""
    newer = {**codec.report_to_record(FULL), "schema": codec.CAREFUL_SCHEMA + 1}
    with pytest.raises(NewerRecordError):
        codec.roster_from_record({"schema": 1, "node": "n1", "report": newer})
    with pytest.raises(NewerRecordError):
        codec.batch_from_record(
            {
                "schema": 1,
                "batch": "b",
                "entries": [{"schema": codec.CAREFUL_SCHEMA + 1}],
            },
            0,
        )


def test_readable_turns_errors_into_values() -> None:
    """What cannot be read becomes a value that forbids everything."""

    def newer() -> Report:
        raise NewerRecordError("newer")

    def broken() -> Report:
        raise RecordError("broken")

    assert codec.readable(lambda: FULL) == FULL
    assert codec.readable(newer) == Unreadable("newer", newer=True)
    assert codec.readable(broken) == Unreadable("broken")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81",
        msgpack.packb([1]),
        msgpack.packb({"schema": 1}) + b"x",
        msgpack.packb({1: 2}),
        b"\x81\xa1\xff\x01",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_bytes_that_are_no_record(data: bytes) -> None:
    """Cut short, extended, nested without end, or not a map: not a record."""
    with pytest.raises(RecordError):
        codec.unpack(data)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000, b'{"a":NaN']
)
def test_text_that_is_no_record(data: bytes) -> None:
    """What is not one JSON map is not a record."""
    with pytest.raises(RecordError):
        codec.from_text(data)


def test_a_record_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is too large is not even decoded."""
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 10)
    with pytest.raises(RecordError, match="too many"):
        codec.unpack(codec.pack(codec.report_to_record(FULL)))


@pytest.mark.parametrize(
    "changes",
    [
        {"node": "a/b"},
        {"node": ""},
        {"boot_id": 7},
        {"start": -1},
        {"start": True},
        {"schema_version": 0},
        {"round": 1.0},
        {"round": 2**63},
        {"since_round": None},
        {"unbroken": 1},
        {"images": b"x" * 19},
        {"images": "x" * 20},
        {"names": "swap_1"},
        {"names": [b"swap_1"]},
        {"since": None},
        {"since": {"images": b""}},
        {"storage_time_ns": -1},
        {"name_cache_s": -0.5},
        {"name_cache_s": float("nan")},
        {"name_cache_s": float("inf")},
        {"name_cache_s": True},
        {"sees": {}},
        {"failures": [["libvirt"]]},
        {"failures": ["ab"]},
        {"failures": [["libvirt", 1]]},
        {"sealed": None},
        {"release": "x" * 5000},
    ],
)
def test_a_damaged_report_is_refused(changes: dict[str, object]) -> None:
    """One field of another type or out of bounds makes the report unreadable."""
    with pytest.raises(RecordError):
        _report(**changes)


@pytest.mark.parametrize(
    "key", sorted(codec.report_to_record(FULL).keys() - {"caveats"})
)
def test_a_report_without_a_field_is_refused(key: str) -> None:
    """No field of a report is taken for granted: absent uses are not no uses."""
    record = codec.report_to_record(FULL)
    del record[key]
    with pytest.raises(RecordError):
        codec.report_from_record(record)


def test_a_report_of_a_release_without_caveats() -> None:
    """No rule reads them, so a report from before they were told is as good."""
    record = codec.report_to_record(replace(FULL, caveats=("nolock",)))
    del record["caveats"]
    assert codec.report_from_record(record) == replace(FULL, caveats=())


def test_an_unknown_naming_is_doubt() -> None:
    """A naming that this release does not know closes the gate later."""
    assert _report(kernel_naming="sha512").kernel_naming is KernelNaming.UNKNOWN


def test_a_long_failure_is_cut_so_that_it_can_be_read() -> None:
    """What a source said never makes the report unreadable."""
    long = replace(FULL, failures=(replace(FAILED[0], message="x" * 9000),))
    record = codec.report_to_record(long)
    assert len(codec.report_from_record(record).failures[0].message) == 4096


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "README"},
        {"name": "swap_1"},
        {"entry": "0" * 15},
        {"entry": "f" * 16},
        {"leaf": "../x"},
        {"epoch": 0},
        {"state": "purged"},
        {"round": -1},
        {"since_ns": -1},
        {"size": "1"},
        {"baseline": [1, 2, 3, 4]},
        {"baseline": [1, 2, 3, 4, "5"]},
        {"baseline": [True, 2, 3, 4, 5]},
        {"baseline": [-1, 2, 3, 4, 5]},
        {"baseline": {}},
        {"restoring": 0},
        {"restoring": None},
        {"asked": 1},
        {"asked": None},
    ],
)
def test_a_damaged_entry_is_refused(changes: dict[str, object]) -> None:
    """An entry that does not fit itself makes its whole batch unreadable."""
    record = codec.batch_to_record(ManifestBatch("b", (entry(),)))
    whole = {"schema": 1, **record, "entries": [{**_only(record), **changes}]}
    with pytest.raises(RecordError):
        codec.batch_from_record(whole, 0)


def _only(record: dict[str, object]) -> dict[str, object]:
    entries = record["entries"]
    assert isinstance(entries, list)
    return dict(entries[0])


def test_a_file_from_before_1970_can_be_quarantined() -> None:
    """Anybody who may write a file can give it any time: it is still an entry."""
    old = replace(entry(), baseline=Baseline(2**64 - 1, 0, -1, -(2**62), 1))
    assert old.state is EntryState.TAKEN
    data = codec.pack(codec.batch_to_record(ManifestBatch("b", (old,))))
    assert codec.batch_from_record(codec.unpack(data), 0).entries == (old,)


@pytest.mark.parametrize("leaves", [[], {"e": 1}, {b"e": "l"}, {"e": None}])
def test_a_damaged_authorisation_is_refused(leaves: object) -> None:
    """Nothing that was not spelled out is authorised."""
    record = {"schema": 1, "token": "t", "epoch": 1, "leaves": leaves}
    with pytest.raises(RecordError):
        codec.authorisation_from_record(record, 0)


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": 1, "cluster": "c", "identity": ""}',
        '{"schema": 1, "cluster": "c", "identity": "\\ud800"}',
        '{"schema": 1, "identity": "i"}',
    ],
)
def test_a_damaged_marker_is_refused(text: str) -> None:
    """An identity is a text that is not empty and can be written again."""
    with pytest.raises(RecordError):
        codec.cluster_from_record(codec.from_text(text.encode()))


def test_a_number_without_bounds_is_refused() -> None:
    """A number that no clock gives is damage, however it is spelled."""
    for at in (10**400, "1", -1):
        record = {"schema": 1, "finalized_schema": 2, "finalized_at": at}
        with pytest.raises(RecordError):
            codec.rollout_from_record(codec.from_text(json.dumps(record).encode()))


def test_a_failure_that_names_undecodable_bytes_can_still_be_reported() -> None:
    """A file name of any bytes must not keep a node from reporting."""
    failure = SourceFailure("instances", "disk \udcff: permission denied")
    report = replace(FULL, failures=(failure,))
    record = codec.unpack(codec.pack(codec.report_to_record(report)))
    found = codec.report_from_record(record)
    assert found.failures == (
        SourceFailure("instances", "disk \\udcff: permission denied"),
    )
