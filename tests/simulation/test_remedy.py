"""The one state that an operator has to end: a witness of an earlier boot."""

from __future__ import annotations

import pytest

from tests.simulation import remedy
from tests.simulation.run import simulate

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
