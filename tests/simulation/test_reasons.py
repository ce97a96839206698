"""The oracle objects to a gate that says what is not so, and to one that is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sharedcache.cleaner import service
from sharedcache.core import planner
from sharedcache.core.gate import Closes, Code, Gate, Reason
from tests.simulation.mutants.registry import Patch
from tests.simulation.run import simulate

FIRST = 700_000
SOON = 5
"""Within how many schedules a reason that nothing accounts for is objected to."""

SILENT = {
    Code.NODE_UNREPORTED: 150,
    Code.PAUSED: 150,
    Code.UNROSTERED_NODE: 150,
}
"""Within how many schedules it is noticed that a reason is never given.

Nodes that are missing or degraded confirm nothing, and the schema of old nodes
closes the gate too, so those reasons have a second protection behind them.
"""


@pytest.fixture
def patch() -> Iterator[Patch]:
    """Give replacements that end with the test; plans go unchecked meanwhile."""
    made = Patch()
    made.set(service, "check_plan", lambda *_: None)
    yield made
    made.undo()


def _objection(patch: Patch, change: Callable[[Gate], Gate], schedules: int) -> str:
    """Return what the oracle says first of a gate that was changed."""
    real = planner.evaluate_gate
    patch.set(planner, "evaluate_gate", lambda facts: change(real(facts)))
    for seed in range(FIRST, FIRST + schedules):
        for violation in simulate(seed).violations:
            return violation
    return ""


@pytest.mark.parametrize(
    ("code", "subject"),
    [
        (Code.PAUSED, "operator"),
        (Code.BRAKE, "n1"),
        (Code.NODE_MISSING, "n1"),
        (Code.NODE_DEGRADED, "n1"),
        (Code.NODE_UNREPORTED, "n1"),
        (Code.NODE_OLD_KERNEL_NAMING, "n1"),
        (Code.NODE_SCHEMA_TOO_OLD, "n1"),
        (Code.UNROSTERED_NODE, "n1"),
        (Code.ROLLOUT_NOT_FINALIZED, "rollout"),
        (Code.CLUSTER_MISMATCH, "storage"),
    ],
)
def test_a_reason_that_is_not_so(patch: Patch, code: Code, subject: str) -> None:
    """A leader that gives a reason which nothing accounts for is objected to."""
    false = Reason(code, Closes.ALL, subject, "simulated")
    seen = _objection(patch, lambda found: found.with_reason(false), SOON)
    assert f"says {code.value} of {subject}, which was not so" in seen, seen


@pytest.mark.timeout(600)
@pytest.mark.parametrize("code", SILENT)
def test_a_reason_that_is_not_given(patch: Patch, code: Code) -> None:
    """A removal while a reason stood that the leader must have seen is objected to."""

    def without(found: Gate) -> Gate:
        return Gate(tuple(r for r in found.reasons if r.code is not code))

    assert "a removal was" in _objection(patch, without, SILENT[code])
