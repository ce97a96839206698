"""The one state that an operator has to end: a witness of an earlier start."""

from __future__ import annotations

import pytest

from tests.simulation import remedy
from tests.simulation.memory_disk import Inode
from tests.simulation.operations import QUIET
from tests.simulation.run import simulate
from tests.simulation.world import World

SCHEDULES = 12


def test_a_witness_that_lands_late_needs_a_restart_of_the_agent() -> None:
    """The gate names the node; once its agent was restarted, all is well."""
    results = [simulate(f"late-witness:{n}") for n in range(1, SCHEDULES + 1)]
    assert [one.violations for one in results] == [()] * SCHEDULES
    assert sum(one.counts.get(remedy.RESTARTED, 0) for one in results) >= 2


def test_without_it_the_gate_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, nothing is removed, and the gate says why."""
    monkeypatch.setattr(remedy, "PATIENCE_S", float("inf"))
    results = [simulate(f"late-witness:{n}") for n in range(1, SCHEDULES + 1)]
    told = [text for one in results for text in one.violations]
    assert told
    assert all("not settled" in one and "gate: node-unreported" in one for one in told)


def test_a_witness_of_an_earlier_start_is_met_likewise() -> None:
    """A write that its agent gave up on lands when the next start has reported."""
    world = World("an earlier start", QUIET)
    with world.listening():
        for node in ("n1", "n2"):
            world.add_node(node)
        world.scheduler.run(3.0, lambda: False)
        assert world.disk.nodes is not None
        witness = world.disk.nodes.names["n1"]
        assert isinstance(witness, Inode)
        early = witness.data
        world.agents["n1"].kill()
        world.scheduler.run(12.0, lambda: False)
        assert witness.data != early
        witness.data = early
        world.add_cleaner("c1")
        remedy.Remedy(world)
        world.scheduler.run(60.0, world.settled)
        assert world.settled(), world.unsettled()
        world.end()
    assert world.counts[remedy.RESTARTED] == 1
