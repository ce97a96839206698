"""Each operation fails at each of its effects in turn, in every way."""

from __future__ import annotations

import pytest

from tests.simulation.crash_points import MODES, OPERATIONS, run_struck


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_may_fail_at_any_effect(name: str, mode: str) -> None:
    """Whatever prefix of an operation came about, the cluster recovers from it."""
    operation = OPERATIONS[name]
    at = 0
    while True:
        result, striker = run_struck(operation, at, mode)
        where = f"{name}: change {at}, {striker.struck or 'none left'}, {mode}"
        assert not result.violations, f"{where}: {result.violations[0]}"
        if not striker.struck:
            break
        at += 1
    assert at >= operation.least, f"only {at} changes"
