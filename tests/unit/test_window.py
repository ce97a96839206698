"""Windows: which uses a report carries, and since which round."""

from __future__ import annotations

import pytest

from sharedcache.core.model import Uses
from sharedcache.core.window import Coverage, Look, Windows
from tests.property.strategies import D1, D2, D3, uses_of


def _after(*looks: tuple[int, int, Uses, bool]) -> Windows:
    windows = Windows()
    for upto, reread, uses, unbroken in looks:
        windows = windows.after(Look(upto, reread, uses, unbroken))
    return windows


ONE, TWO, THREE = uses_of(D1), uses_of(D2), uses_of(D3)


def test_without_a_look_there_is_nothing_to_report() -> None:
    """An agent that has not looked claims nothing."""
    with pytest.raises(ValueError, match="no look"):
        Windows().coverage()


def test_the_first_look_is_only_a_first_look() -> None:
    """One look covers no instant: it is broken, and begins with itself."""
    windows = _after((4, 5, ONE, False))
    assert windows.coverage() == Coverage(5, ONE, unbroken=False)


def test_looks_of_one_round_do_not_make_a_window() -> None:
    """However often a node looks within a round, it has covered no raise."""
    windows = _after((4, 4, ONE, False), (4, 4, TWO, True))
    assert windows.coverage() == Coverage(4, ONE | TWO, unbroken=False)


def test_a_window_begins_with_the_first_look_of_the_round_before() -> None:
    """All looks since that one count, those within the present round too."""
    windows = _after(
        (4, 4, ONE, False), (4, 4, TWO, True), (5, 5, Uses(), True), (5, 5, THREE, True)
    )
    assert windows.coverage() == Coverage(4, ONE | TWO | THREE, unbroken=True)


def test_a_use_is_forgotten_two_rounds_later() -> None:
    """What ended before the round before began is no longer reported."""
    windows = _after((4, 4, ONE, False), (5, 5, Uses(), True))
    assert windows.coverage().since == ONE
    assert windows.after(Look(6, 6, Uses(), unbroken=True)).coverage().since == Uses()


def test_since_round_was_read_after_the_looks() -> None:
    """A round that was raised during the first look is not claimed."""
    windows = _after((4, 5, ONE, False), (5, 5, Uses(), True))
    assert windows.coverage() == Coverage(5, ONE, unbroken=True)


def test_broken_coverage_starts_anew() -> None:
    """After lost events the look is a first look again."""
    windows = _after((4, 4, ONE, False), (5, 5, TWO, True), (6, 6, THREE, False))
    assert windows.coverage() == Coverage(6, THREE, unbroken=False)


def test_a_round_that_went_back_starts_anew() -> None:
    """A lower round than before means another ZooKeeper: nothing is carried over."""
    windows = _after((4, 4, ONE, False), (5, 5, TWO, True), (3, 3, THREE, True))
    assert windows.coverage() == Coverage(3, THREE, unbroken=False)


def test_a_skipped_round_keeps_the_window() -> None:
    """A node that missed a round covers both raises, with all that it used."""
    windows = _after((4, 4, ONE, False), (7, 7, TWO, True))
    assert windows.coverage() == Coverage(4, ONE | TWO, unbroken=True)


def test_what_was_seen_by_name_counts_over_the_whole_window() -> None:
    """A name that still opened may have started a guest that moved on since.

    With scans only, one migration would otherwise be enough to be missed: the
    guest starts by the cached name after the look that saw it, and is on
    another node, behind that one's last look, when this one looks again.
    """
    windows = Windows()
    windows = windows.after(Look(1, 1, Uses(), unbroken=False))
    windows = windows.after(Look(2, 2, Uses(), unbroken=True, sees=frozenset({"e"})))
    windows = windows.after(Look(3, 3, Uses(), unbroken=True))
    assert windows.coverage().saw == {"e"}
    windows = windows.after(Look(3, 3, Uses(), unbroken=True))
    assert windows.coverage().saw == {"e"}
    windows = windows.after(Look(4, 4, Uses(), unbroken=True))
    assert windows.coverage().saw == frozenset()
