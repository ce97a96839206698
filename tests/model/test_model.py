"""Spin on the protocol: invariants hold, and every rule that is taken out is missed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.model import spin
from tests.model.catalogue import CONFIGURATIONS, LIVENESS, MUTANTS, RUNS, SPARE
from tests.model.spin import Outcome, Run

LONG = "SHAREDCACHE_LONG_MODELS"

PATIENCE = 8
"""How much longer than its bound a search may take on a busy machine."""

_LACKING = spin.missing()

pytestmark = [
    pytest.mark.skipif(
        _LACKING is not None, reason=f"the package {_LACKING} is missing"
    ),
    pytest.mark.timeout(240),
]


def _params(runs: tuple[Run, ...]) -> list[object]:
    """Make one test of each run; the long ones have a longer timeout."""
    return [
        pytest.param(
            run,
            id=run.name,
            marks=[
                pytest.mark.skipif(
                    run.long and LONG not in os.environ,
                    reason=f"a long run: set {LONG}=1",
                ),
                pytest.mark.timeout(PATIENCE * run.limit_s + 2 * spin.COMPILE_S),
            ],
        )
        for run in runs
    ]


def _demand(run: Run) -> spin.Result:
    result = spin.run(run)
    assert result.outcome is run.expected, result.output
    return result


def test_every_mutant_is_named_beside_its_rule() -> None:
    """docs/protocol.md names each run that takes a rule out, and no other."""
    text = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")
    table = text.partition("### Which run of the model")[2].partition("[The model]")[0]
    named = set(re.findall(r"`((?:[a-z]+[-_])+[a-z_]+)`", table))
    events = {"rounds-no_events", "whole-no_since"}
    assert named == {run.name for run in MUTANTS} - events


def test_every_run_has_its_row() -> None:
    """docs/model.md tells what came of each run, in the words of the catalogue."""
    text = (Path(__file__).parents[2] / "docs/model.md").read_text(encoding="utf-8")
    rows = [text.count(f"\n{spin.heading(run)}") for run in RUNS]
    assert [run.name for run, n in zip(RUNS, rows, strict=True) if n != 1] == []


@pytest.mark.parametrize("run", _params(CONFIGURATIONS))
def test_invariants_hold_in_every_reachable_state(run: Run) -> None:
    """No interleaving of a configuration breaks an invariant: all are searched."""
    _demand(run)


@pytest.mark.parametrize("run", _params(LIVENESS))
def test_what_is_unused_goes_in_the_end(run: Run) -> None:
    """With nodes that report and a leader that lives, nothing waits for ever."""
    _demand(run)


@pytest.mark.parametrize("run", _params(MUTANTS))
def test_each_rule_is_needed(run: Run) -> None:
    """Without the rule there is a way to break the invariant that it serves."""
    result = _demand(run)
    assert result.depth > 0


@pytest.mark.parametrize("run", _params(SPARE))
def test_rules_without_a_counterexample_are_known(run: Run) -> None:
    """Without these rules nothing breaks within the bounds: docs/model.md says why.

    A model that comes to need one of them after all fails here.
    """
    assert run.expected is Outcome.HOLDS
    _demand(run)
