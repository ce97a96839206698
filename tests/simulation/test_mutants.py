"""The simulation can fail: protections taken out are found soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import simulate
from tests.simulation.table import require_sound, seeds_of

FIRST = 500_000

DOCUMENT = Path(__file__).parents[2] / "docs" / "simulation.md"

SOON = 40
"""Within how many schedules of its story each must be found.

That is several times the median in ``docs/simulation.md``.
"""

QUICK = (
    "no-since",
    "reread-unsynced",
    "round-after",
    "manifest-first",
    "no-common",
    "broken-coverage",
    "silent-source",
    "restore-unasked",
    "no-intent",
    "old-leaf",
    "no-lock",
    "no-seal",
    "clear-first",
    "name-again",
    "no-veto",
    "counters-last",
    "no-stop-flag",
    "finalize-unchecked",
    "pause-unheard",
    "expect-unheard",
    "empty-join",
    "ephemeral-roster",
    "no-incarnation",
    "no-strangers",
    "cache-untold",
    "early-seal",
    "guests-first",
    "expunge-live",
    "any-witness",
    "no-readd-no-strangers",
    "no-round-no-guard",
    "kept-round",
    "no-restart-no-doubt-kept-round",
    "any-age",
    "no-grace",
    "no-holds",
    "refused-for-ever",
)
"""Those that a few dozen short schedules find; the table has all of them."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", QUICK)
def test_a_protection_taken_out_is_found(name: str) -> None:
    """Without this rule the oracle objects within the stated number of schedules."""
    mutant = MUTANTS[name]
    with mutant.applied():
        for seed in seeds_of(mutant, FIRST, SOON):
            violations = simulate(seed).violations
            if violations:
                require_sound(mutant, violations[0])
                return
    pytest.fail(f"{name} was not found in {SOON} schedules")


def _rows(part: str) -> list[list[str]]:
    """Return the cells of each row that tells of a mutant."""
    rows = [line.split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return [row for row in rows if MUTANTS.keys() & {cell.strip("`") for cell in row}]


def test_the_document_has_a_row_for_each() -> None:
    """``docs/simulation.md`` tells of every mutant once, and counts them rightly."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, after = text.partition("\n### Not found, and why\n")
    found, covered = _rows(before), _rows(after)
    names = [row[2] for row in found] + [row[1] for row in covered]
    assert sorted(names) == sorted(f"`{name}`" for name in MUTANTS)
    told = " ".join(before.split())
    assert f" {len(found)} of {len(names)} mutants are found" in told
    at_once = sum(row[4] in {"1", "2"} for row in found)
    assert f" for {at_once} the median is 1 or 2" in told


def test_mutants_leave_nothing_behind() -> None:
    """A mutant is gone when its block is over."""
    before = simulate(FIRST).steps
    for mutant in MUTANTS.values():
        with mutant.applied():
            pass
    assert simulate(FIRST).steps == before
