"""The oracle objects to a gate that says what is not so, and to one that is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgpack
import pytest

from sharedcache.cleaner import service
from sharedcache.core import planner
from sharedcache.core.gate import Closes, Code, Gate, Reason
from sharedcache.core.ports import Create
from tests.simulation.mutants.registry import Patch
from tests.simulation.profile import Profile
from tests.simulation.run import simulate
from tests.simulation.world import World

FIRST = 700_000
SOON = 5
"""Within how many schedules a reason that nothing accounts for is objected to."""

WITHIN = 40
SILENT = {
    Code.NODE_UNREPORTED: "sealed-host",
    Code.PAUSED: "news-in-between",
    Code.UNROSTERED_NODE: "newcomer",
}
"""In which story it is noticed, within 40 schedules, that a reason is never given.

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


def _objection(
    patch: Patch, change: Callable[[Gate], Gate], seeds: Iterable[int | str]
) -> str:
    """Return what the oracle says first of a gate that was changed."""
    real = planner.evaluate_gate
    patch.set(planner, "evaluate_gate", lambda facts: change(real(facts)))
    for seed in seeds:
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
    seeds = range(FIRST, FIRST + SOON)
    seen = _objection(patch, lambda found: found.with_reason(false), seeds)
    assert f"says {code.value} of {subject}, which was not so" in seen, seen


@pytest.mark.timeout(600)
@pytest.mark.parametrize("code", SILENT)
def test_a_reason_that_is_not_given(patch: Patch, code: Code) -> None:
    """A removal while a reason stood that the leader must have seen is objected to."""

    def without(found: Gate) -> Gate:
        return Gate(tuple(r for r in found.reasons if r.code is not code))

    seeds = [f"{SILENT[code]}:{n}" for n in range(FIRST, FIRST + WITHIN)]
    assert "a removal was" in _objection(patch, without, seeds)


def _objections_to_a_removal(
    registered: dict[str, Any], durable: dict[str, Any]
) -> Any:
    """Announce a removal right after a node's registration ended with its session."""
    world = World("words", Profile(), False)
    servers = world.zookeeper
    record = {"node": "n3", "report": durable, "expunged_at": None}
    servers.commit([Create("roster/n3", msgpack.packb(record))], 0)
    servers.sessions[99] = set()
    member = Create("groups/nodes/n3", msgpack.packb(registered))
    servers.commit([member], 99, ephemeral=True)
    servers.end_session(99)
    world.oracle._require_gate("announced", purging=False)
    return world.oracle.violations


def _said(start: int, naming: str) -> dict[str, Any]:
    return {
        "start": start,
        "kernel_naming": naming,
        "schema_version": 2,
        "failures": [],
    }


def test_a_registration_that_ended_is_a_nodes_last_word() -> None:
    """An upgraded agent registers first; its durable report may come too late."""
    seen = _objections_to_a_removal(_said(2, "sha1"), _said(1, "raw-id"))
    assert seen == []


def test_a_later_report_outdoes_a_registration_that_ended() -> None:
    """What an agent wrote after that registration is the node's last word."""
    seen = _objections_to_a_removal(_said(2, "sha1"), _said(3, "raw-id"))
    assert len(seen) == 1
    assert seen[0].endswith("a removal was announced while n3 is of the old naming")
