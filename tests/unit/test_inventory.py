"""The inventory of raw-id names: what is accounted for, and what appeared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedcache.core import codec
from sharedcache.core.gate import Closes, Code
from sharedcache.core.gate_rules import NAMED, evaluate
from sharedcache.core.inventory import (
    ANY,
    Inventory,
    OldName,
    OldNames,
    absent,
    appeared,
    from_record,
    old_names,
    take,
    tended,
    to_record,
)
from sharedcache.core.model import Baseline, Unreadable
from tests.property.strategies import D1, K1, entry, facts, file_facts, report, view
from tests.property.strategies import table as files

K2 = "1c6dce7f-6f3a-4d3c-9a51-0123456789ab"
HERE = OldName(K1, 5)


def test_a_scan_finds_files_and_downloads_of_the_old_naming_only() -> None:
    """Images, links and strange names are none of its business."""
    seen = old_names(
        files(
            (K1, file_facts(inode=5)),
            (K2, file_facts(regular=False)),
            (f"{K2}.part", file_facts()),
            (f"{K1}.4f2a.part", file_facts()),
            (D1, file_facts()),
            (f"{D1}.part", file_facts()),
            ("README", file_facts()),
        )
    )
    assert seen == OldNames((HERE,), frozenset({K1, K2}))


def test_what_is_there_is_accounted_for_and_a_newcomer_is_not() -> None:
    """Files, quarantined files and downloads under way are; another inode is not."""
    quarantined = entry(K2, baseline=Baseline.of(file_facts(inode=7)))
    taken = take(OldNames((HERE,)), [quarantined, entry(D1)])
    assert taken.inodes == {K1: 5, K2: 7}
    assert appeared(taken, [HERE, OldName(K2, 7)]) == ()
    assert appeared(taken, [OldName(K2, 8), OldName(K1, 6)]) == (
        OldName(K1, 6),
        OldName(K2, 8),
    )
    assert not taken.settled


def test_a_restored_file_is_known_by_its_inode() -> None:
    """A restore links the inode that was taken: nothing is to be remembered."""
    taken = take(OldNames((HERE,)))
    while_away = tended(taken, OldNames(), absent(taken, OldNames(), [entry(K1)]))
    assert appeared(while_away, [HERE]) == ()


def test_a_name_that_was_gone_counts_as_new() -> None:
    """Once struck off it is strange even under an inode number used again."""
    taken = take(OldNames((HERE,)))
    gone = absent(taken, OldNames(), [])
    assert gone == {K1}
    assert appeared(tended(taken, OldNames(), gone), [HERE]) == (HERE,)
    assert absent(taken, OldNames(partial=frozenset({K1})), []) == frozenset()


def test_a_download_under_way_may_end_in_one_file() -> None:
    """Any inode is right until the download is over; then it is that one."""
    taken = take(OldNames(partial=frozenset({K1})))
    assert taken.inodes == {K1: ANY}
    assert appeared(taken, [HERE]) == ()
    over = tended(taken, OldNames((HERE,)), frozenset())
    assert over.inodes == {K1: 5}
    assert appeared(over, [OldName(K1, 6)]) == (OldName(K1, 6),)


def test_a_second_download_over_a_file_may_replace_it() -> None:
    """A file and a partial one beside it: whichever inode the name bears in the end."""
    both = OldNames((HERE,), frozenset({K1}))
    taken = take(both)
    assert tended(taken, both, frozenset()).inodes == {K1: ANY}
    assert appeared(taken, [OldName(K1, 6)]) == ()


def test_an_entry_without_a_baseline_is_known_whatever_its_inode() -> None:
    """A rename whose outcome is open says nothing of the inode."""
    assert take(OldNames(), [entry(K1, baseline=None)]).inodes == {K1: ANY}


@given(
    st.dictionaries(
        st.uuids().map(str), st.integers(0, 2**64 - 1), min_size=0, max_size=5
    ),
    st.booleans(),
)
def test_a_record_gives_back_what_was_written(
    inodes: dict[str, int],
    settled: bool,  # noqa: FBT001 - drawn
) -> None:
    """Names and inodes of any size survive, in 24 bytes each."""
    record = to_record(Inventory(inodes, settled))
    assert len(record["names"]) == 24 * len(inodes)  # type: ignore[arg-type]
    values = codec.unpack(codec.pack(record))
    assert from_record(values, 3) == Inventory(inodes, settled, 3)


def test_what_a_later_release_added_is_carried_along() -> None:
    """Unknown fields survive whatever is done to the names."""
    later = {**to_record(Inventory({K1: 5})), "colour": "green"}
    read = from_record(codec.unpack(codec.pack(later)), 0)
    again = to_record(tended(read, OldNames(), frozenset({K1})))
    assert again == {"colour": "green", "names": b"", "settled": True}


@pytest.mark.parametrize(
    "record",
    [
        {"names": b"x" * 25, "settled": True},
        {"names": "x" * 24, "settled": True},
        {"settled": True},
        {"names": b"", "settled": 1},
    ],
)
def test_a_damaged_record_is_refused(record: dict[str, object]) -> None:
    """Half a name is no name."""
    with pytest.raises(codec.RecordError):
        from_record(codec.unpack(codec.pack(record)), 0)


def test_a_file_that_appeared_closes_the_gate_by_its_name() -> None:
    """Everything closes, and the message says how it is opened again."""
    known = facts(view(report()), inventory=Inventory(), old_names=[HERE])
    (reason,) = evaluate(known).reasons
    assert (reason.code, reason.closes) == (Code.OLD_NAME_APPEARED, Closes.ALL)
    assert reason.subject == K1
    assert f"rollout acknowledge {K1}" in reason.message


def test_before_finalization_old_names_are_the_rule() -> None:
    """Nothing has appeared while they are still written."""
    known = facts(view(report()), finalized_schema=1, inventory=None, old_names=[HERE])
    assert Code.OLD_NAME_APPEARED not in {r.code for r in evaluate(known).reasons}


@pytest.mark.parametrize(
    ("inventory", "words"),
    [
        (None, "takes one at its next pass"),
        (Unreadable("cut short"), "acknowledge --all"),
        (Unreadable("schema 9", newer=True), "upgrade this cleaner"),
    ],
)
def test_doubt_about_the_inventory_closes_the_gate(
    inventory: Unreadable | None, words: str
) -> None:
    """Without one nothing can be told, whether a raw-id file is there or not."""
    (reason,) = evaluate(facts(view(report()), inventory=inventory)).reasons
    assert (reason.code, reason.subject) == (Code.OLD_NAME_APPEARED, "inventory")
    assert words in reason.message


def test_thousands_that_appeared_are_counted() -> None:
    """The first ones are named, the others are one reason."""
    many = [OldName(f"{n:08x}-0000-4000-8000-000000000000", 1) for n in range(3000)]
    reasons = evaluate(
        facts(view(report()), inventory=Inventory(), old_names=many)
    ).reasons
    assert len(reasons) == NAMED + 1
    assert reasons[-1].subject == f"{3000 - NAMED} more"
