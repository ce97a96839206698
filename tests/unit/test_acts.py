"""Acts: what is on record is bounded, readable later, and told of once."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from sharedcache import audit
from sharedcache.core import codec
from sharedcache.core.acts import (
    LISTED,
    MAX_PART_BYTES,
    Act,
    By,
    Changes,
    Deed,
    Doer,
    Signature,
    Subject,
    act_from_bytes,
    act_to_record,
    as_written,
    changes,
    concerning,
    parts,
    rows,
    spread,
    subjects_of,
    upon,
)
from sharedcache.core.model import Baseline, EntryState, ManifestEntry, Unreadable
from sharedcache.core.names import leaf_of
from sharedcache.core.ports import Append, Operation, Record, Set

CLEANER = Doer(By.CLEANER, "host-7", 3)
KEYS = [
    *("act", "when", "by", "who", "epoch", "name", "entry", "bytes", "last_use"),
    *("plan", "round", "asked", "why"),
]
D = "da39a3ee5e6b4b0d3255bfef95601890afd80709"


def an_act(*subjects: Subject, why: str = "unused") -> Act:
    """Make an act of a cleaner's."""
    return Act(Deed.PURGED, CLEANER, 1.5, why, subjects, "f" * 64, 7)


def an_entry(token: str, state: EntryState = EntryState.TAKEN) -> ManifestEntry:
    """Make an entry; a taken one has a baseline."""
    taken = state is EntryState.TAKEN
    base = Baseline(1, 500, 12 * 10**9 + 5, 0, 1) if taken else None
    leaf = leaf_of(D, token, 1)
    return ManifestEntry(D, token, 1, leaf, state, 1, 1, 1, 500, base)


A, B, C = (f"{number:016x}" for number in range(3))


def test_rows_have_the_promised_keys_in_their_order() -> None:
    """Scripts rely on the keys: all are there, null where there is nothing."""
    act = an_act(Subject(D, A, 500, 12), Subject("x"))
    first, second = rows(act)
    assert list(first) == KEYS
    assert first == {
        "act": "purged",
        "when": 1.5,
        "by": "cleaner",
        "who": "host-7",
        "epoch": 3,
        "name": D,
        "entry": A,
        "bytes": 500,
        "last_use": 12,
        "plan": "f" * 64,
        "round": 7,
        "asked": None,
        "why": "unused",
    }
    assert (second["name"], second["bytes"]) == ("x", None)
    operator = Signature("root@desk", 2.0)
    (paused,) = rows(Act(Deed.PAUSED, operator.doer, operator.when, "storage"))
    assert (paused["by"], paused["who"], paused["epoch"]) == (
        "operator",
        "root@desk",
        None,
    )


def test_what_is_written_is_read_back() -> None:
    """An act survives its record, with everything that it says."""
    act = replace(an_act(Subject(D, A, 500, -3)), asked="purge", left_off=4)
    assert act_from_bytes(codec.pack(act_to_record(act))) == act


def test_texts_that_no_reader_could_decode_are_escaped_and_cut() -> None:
    """A file name or an error may hold any bytes, and be of any length."""
    act = as_written(an_act(Subject("a\udce9b" + "x" * 999), why="y" * 9999))
    assert act.subjects[0].name.startswith("a\\udce9bxx")
    assert len(act.subjects[0].name) == 300
    assert len(act.why) == 500


def test_a_batch_of_the_longest_names_is_split_and_loses_nothing() -> None:
    """Every part fits far below the size of one node of ZooKeeper."""
    subjects = tuple(Subject(f"{n:04d}" + "ü" * 250, A, n, n) for n in range(1500))
    split = list(parts(an_act(*subjects)))
    assert len(split) > 5
    assert [s for part in split for s in part.subjects] == list(subjects)
    sizes = [len(codec.pack(act_to_record(part))) for part in split]
    assert max(sizes) < MAX_PART_BYTES + 2000


def test_a_thousand_usual_names_are_one_part() -> None:
    """The usual batch is one record of the trail."""
    subjects = tuple(Subject(D, A, 2**40, 2**31) for _ in range(1000))
    assert len(list(parts(an_act(*subjects)))) == 1


def test_an_act_without_subjects_is_one_part_and_one_row() -> None:
    """A pause has nothing that it was done to."""
    act = Act(Deed.PAUSED, CLEANER, 1.0)
    assert list(parts(act)) == [act]
    assert [row["name"] for row in rows(act)] == [None]
    assert act.count == 1


NAMES = [f"{n:08x}-0000-4000-8000-{n:012x}" for n in range(10_000)]


def test_an_order_on_ten_thousand_names_is_a_few_rows_and_loses_none() -> None:
    """The trail counts rows: one order must not push everything else out of it."""
    order = Act(Deed.ACKNOWLEDGED, CLEANER, 1.0, "appeared")
    transaction = audit.riding([], [upon(order, NAMES)])
    data = [one.data for one in transaction if isinstance(one, Append)]
    written = [act_from_bytes(one) for one in data]
    assert sum(act.count for act in written) == len(written) < 5
    assert [name for act in written for name in act.together] == NAMES
    assert max(map(len, data)) < MAX_PART_BYTES + 2000
    (row,) = rows(written[0])
    count = len(written[0].together)
    assert row["name"] is None
    assert row["why"] == (
        f"appeared; {count} names: {', '.join(NAMES[:3])} and {count - 3} more"
    )


def test_each_name_of_an_order_on_many_is_in_the_log_and_found_in_history() -> None:
    """The log has them all; the history of one name tells of it, by its name."""
    act = upon(Act(Deed.ACKNOWLEDGED, CLEANER, 1.0, "appeared"), NAMES[: LISTED + 1])
    assert [row["name"] for row in rows(spread(act))] == NAMES[: LISTED + 1]
    (row,) = rows(concerning(act, NAMES[LISTED]))
    assert (row["name"], row["why"]) == (NAMES[LISTED], "appeared")
    assert concerning(act, D) == act


def test_an_order_on_few_names_is_a_row_for_each() -> None:
    """Where they push nothing out, names are told one by one."""
    act = upon(Act(Deed.ACKNOWLEDGED, CLEANER, 1.0), NAMES[:LISTED])
    assert act.subjects == tuple(Subject(name) for name in NAMES[:LISTED])
    assert act.count == LISTED
    assert spread(act) == act


def test_names_for_which_a_transaction_has_no_room_are_counted() -> None:
    """Nobody takes a shortened order for the whole."""
    order = upon(Act(Deed.ACKNOWLEDGED, CLEANER, 1.0), NAMES)
    full = audit.riding([Set("m", b"x" * 800_000, 1)], [order])
    acts = [act_from_bytes(o.data) for o in full if isinstance(o, Append)]
    assert _bytes(full) < audit.MAX_TRANSACTION_BYTES
    assert 0 < sum(len(act.together) for act in acts) < len(NAMES)
    assert sum(len(act.together) + act.left_off for act in acts) == len(NAMES)


def test_what_a_later_release_adds_is_no_error() -> None:
    """Keys, words and columns that this release does not know are left alone."""
    record = act_to_record(an_act(Subject(D, A, 1, 2)))
    record["subjects"] = [[D, A, 1, 2, "more"]]
    data = codec.pack({**record, "act": "polished", "by": "robot", "colour": "red"})
    act = act_from_bytes(data)
    assert (act.deed, act.doer.by) == ("polished", "robot")
    assert act.subjects == (Subject(D, A, 1, 2),)


@pytest.mark.parametrize(
    "values",
    [
        {"when": -1.0},
        {"when": "now"},
        {"subjects": None},
        {"subjects": [[D, A, 1]]},
        {"subjects": [[D, A, -1, 0]]},
        {"subjects": [[7, A, 1, 0]]},
        {"subjects": [[D, A, 1, True]]},
        {"subjects": ["name"]},
        {"epoch": "3"},
        {"act": None},
        {"together": D},
        {"together": [7]},
    ],
)
def test_damage_is_an_error_of_the_record(values: dict[str, object]) -> None:
    """Whatever shape a record has, reading it ends with one kind of error."""
    record = {**act_to_record(an_act(Subject(D, A, 1, 2))), **values}
    with pytest.raises(codec.RecordError):
        act_from_bytes(codec.pack(record))


def test_a_newer_record_is_told_apart_from_a_damaged_one() -> None:
    """A later release's act is nothing to be alarmed about."""
    data = msgpack.packb({"schema": codec.CAREFUL_SCHEMA + 1, "act": 7})
    found = codec.readable(lambda: act_from_bytes(data))
    assert isinstance(found, Unreadable)
    assert found.newer


def test_the_changes_of_a_record_tell_what_became_of_files() -> None:
    """Taken once, gone once; what was only intended was never renamed."""
    taken, also = an_entry(A), an_entry(B)
    intended = an_entry(C, EntryState.INTENDED)
    became = replace(an_entry(C), round=2)
    assert changes((taken, intended), (taken, became), ()) == Changes((became,))
    assert changes((), (taken,), ()) == Changes(quarantined=(taken,))
    assert changes((taken, also), (), {A}) == Changes(purged=(taken,), vanished=(also,))
    assert changes((intended,), (), {C}) == Changes()
    assert changes((taken,), (replace(taken, round=9),), {A}) == Changes()


def test_a_file_that_was_never_looked_at_has_no_time() -> None:
    """What a record says of it is told, and nothing is made up."""
    blank = replace(an_entry(A), baseline=None)
    (subject,) = subjects_of((blank,), freed=True)
    assert subject == Subject(blank.name, blank.entry, blank.size)


def test_a_purge_frees_nothing_while_another_name_is_left() -> None:
    """A restored file lives on under its cache name."""
    once = an_entry(A)
    assert once.baseline is not None
    twice = replace(once, baseline=replace(once.baseline, links=2))
    freed = subjects_of((once, twice), freed=True)
    assert [(s.size, s.last_use_s) for s in freed] == [(500, 12), (0, 12)]
    assert [s.size for s in subjects_of((twice,))] == [500]


def test_acts_never_make_a_transaction_too_large() -> None:
    """Subjects for which there is no room are counted, and the rest is written."""
    subjects = tuple(Subject(f"{n:04d}" + "x" * 290, A, n, n) for n in range(1500))
    whole = audit.riding([Set("m", b"x" * 400_000, 1)], [an_act(*subjects)])
    assert _subjects(whole) == (1500, 0)
    full = audit.riding([Set("m", b"x" * 800_000, 1)], [an_act(*subjects)])
    assert full[0] == Set("m", b"x" * 800_000, 1)
    written, left_off = _subjects(full)
    assert written + left_off == 1500
    assert written > 100
    assert _bytes(full) < audit.MAX_TRANSACTION_BYTES


def _bytes(transaction: list[Operation]) -> int:
    return sum(len(o.data) for o in transaction if isinstance(o, Set | Append))


def _subjects(transaction: list[Operation]) -> tuple[int, int]:
    acts = [act_from_bytes(o.data) for o in transaction if isinstance(o, Append)]
    return sum(len(a.subjects) for a in acts), sum(a.left_off for a in acts)


def test_what_was_left_off_is_a_row_of_its_own() -> None:
    """Nobody takes a shortened record for the whole."""
    *_, last = rows(replace(an_act(Subject(D)), left_off=7))
    assert last["name"] is None
    assert last["why"] == "unused; 7 more, which only the log names"


def test_the_mark_is_read_back_and_doubt_is_doubt() -> None:
    """A trail without a mark has just begun; one that is damaged has not."""
    mark = audit.Mark(3, 9, 40, 5)
    assert audit.mark_of(Record(audit.mark_data(mark), 5)) == mark
    assert audit.mark_of(None) == audit.Mark()
    assert audit.mark_of(Record(b"", 2)) == audit.Mark(version=2)
    for damaged in (replace(mark, seen=2), replace(mark, acts=-1)):
        record = Record(audit.mark_data(damaged), 5)
        assert isinstance(audit.mark_of(record), Unreadable)
    assert isinstance(audit.mark_of(Record(b"\xc1", 5)), Unreadable)
