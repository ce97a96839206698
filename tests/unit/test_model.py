"""The values: unions, look-ups, columns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedcache.core.model import (
    Baseline,
    FileTable,
    Incarnation,
    ManifestBatch,
    UseIndex,
    Uses,
)
from sharedcache.core.names import Kind
from tests.property.strategies import (
    D1,
    D2,
    D3,
    FAILED,
    K1,
    entry,
    file_facts,
    observation,
    report,
    uses_of,
)


def test_a_union_holds_everything_of_both() -> None:
    """The union of uses loses nothing, in any column."""
    one = Uses(images=frozenset({b"a" * 20}), names=frozenset({"swap_1"}))
    two = Uses(kernels=frozenset({b"b" * 20}), families=frozenset({b"c" * 20}))
    both = one | two
    assert (both.images, both.kernels) == (one.images, two.kernels)
    assert (both.families, both.names) == (two.families, one.names)
    assert one | one == one
    assert Uses() | two == two | Uses() == two


def test_uses_count_distinct_names() -> None:
    """One file used as image and as kernel is one use."""
    digest = bytes.fromhex(D1)
    same = Uses(images=frozenset({digest}), ramdisks=frozenset({digest}))
    assert len(same) == 1
    assert sorted(same.cache_names()) == [D1]
    assert len(uses_of(D1, K1, "swap_1")) == 3


def test_exact_names_are_sorted_into_columns() -> None:
    """Hexadecimal names become digests; every other name stays a name."""
    uses = Uses.of_names([D1, f"{D1}_20", K1, "README"])
    assert uses.images == {bytes.fromhex(D1)}
    assert uses.names == {f"{D1}_20", K1, "README"}


@pytest.mark.parametrize("column", ["images", "kernels", "ramdisks"])
def test_every_column_protects_the_hashed_name(column: str) -> None:
    """A digest protects its name, whatever it is used as, and not its copies."""
    index = UseIndex.over([Uses(**{column: frozenset({bytes.fromhex(D1)})})])
    assert index.covers(D1)
    assert not index.covers(f"{D1}_20")
    assert not index.covers(D2)


def test_a_family_protects_every_resized_copy() -> None:
    """A source that knows only the id protects all its resized copies."""
    index = UseIndex.over([uses_of(families=(D1,)), uses_of(D3)])
    assert index.covers(f"{D1}_20")
    assert index.covers(f"{D1}_sm")
    assert not index.covers(f"{D2}_20")
    assert not index.covers(D1)
    assert index.covers(D3)


def test_a_report_is_complete_unless_a_source_failed() -> None:
    """One failed source makes a report incomplete."""
    assert report().complete
    assert not report(failures=FAILED).complete


def test_the_columns_keep_what_the_storage_said() -> None:
    """A row holds every fact, and its kind follows from its name."""
    files = FileTable()
    facts = file_facts(inode=2**63, mtime_ns=-5, links=3, regular=False)
    files.append(D1, facts)
    files.append("README", file_facts())
    assert len(files) == 2
    assert (files.names[0], files.kinds[0]) == (D1, Kind.IMAGE)
    assert (files.inodes[0], files.mtimes_ns[0]) == (2**63, -5)
    assert (files.links[0], files.sizes[0], files.regular[0]) == (3, 4096, 0)
    assert files.kinds[1] == Kind.UNRECOGNISED


def test_a_baseline_is_what_a_purge_compares() -> None:
    """The baseline takes inode, size, times and links."""
    facts = file_facts(inode=5, size=6, mtime_ns=7, ctime_ns=8, links=9)
    assert Baseline.of(facts) == Baseline(5, 6, 7, 8, 9)


def test_the_entries_of_an_observation_can_be_read_again() -> None:
    """Every reading of the entries starts anew."""
    batches = (ManifestBatch("a", (entry(),)), ManifestBatch("b", (entry(D2, 2),)))
    seen = observation(manifest=batches)
    assert list(seen.entries) == list(seen.entries) == [entry(), entry(D2, 2)]


def test_an_incarnation_is_shown_short() -> None:
    """Tables show the boot's beginning and the start's number."""
    assert str(Incarnation("0123456789abcdef", 4)) == "01234567/4"


def test_an_operators_restore_has_asked_for_a_link() -> None:
    """The mark of the link stays when the operator's own mark is taken off."""
    under_way = entry(restoring=True)
    assert under_way.asked
    assert replace(under_way, restoring=False).asked
    assert not entry().asked
