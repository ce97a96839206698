"""Rollouts in every order that seeds bring up, by the shipped services."""

from __future__ import annotations

from collections import Counter

import pytest

from sharedcache.core import rollout as core
from tests.simulation.rollout import simulate

SEEDS = 60


def test_no_order_of_a_rollout_loses_a_file_or_stands_still() -> None:
    """I5, finalized for good, and in the end all that is unused is gone."""
    counts: Counter[str] = Counter()
    failures = []
    for seed in range(SEEDS):
        result = simulate(seed)
        counts.update(result.counts)
        failures += [f"rollout {seed}: {why}" for why in result.violations]
    assert failures == []
    for what in ("trouble-upgrade", "trouble-downgrade", "trouble-old-node", "purged"):
        assert counts[what] >= SEEDS // 4, (what, counts)
    assert counts["finalized in trouble"] >= SEEDS // 12, counts


def test_a_rollout_that_is_finalized_unasked_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The schedules need the rule: without it some node is left behind."""
    monkeypatch.setattr(core, "_unready", lambda *_: None)
    said = [why for seed in range(10) for why in simulate(seed).violations]
    assert any("does not support it" in why for why in said), said
