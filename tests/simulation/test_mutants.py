"""The simulation can fail: protections taken out are found soon."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import simulate

FIRST = 500_000

SOON = {
    "old-look": 150,
    "restore-by-rename": 100,
    "no-restore": 250,
    "ephemeral-roster": 250,
    "no-gone-check": 500,
    "no-veto": 500,
}
"""Within how many schedules each must be found: about ten times what it takes."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SOON)
def test_a_protection_taken_out_is_found(name: str) -> None:
    """Without this rule the oracle objects within the stated number of schedules."""
    with MUTANTS[name].applied():
        for seed in range(FIRST, FIRST + SOON[name]):
            if simulate(seed).violations:
                return
    pytest.fail(f"{name} was not found in {SOON[name]} schedules")


def test_mutants_leave_nothing_behind() -> None:
    """A mutant is gone when its block is over."""
    before = simulate(FIRST).steps
    for mutant in MUTANTS.values():
        with mutant.applied():
            pass
    assert simulate(FIRST).steps == before
