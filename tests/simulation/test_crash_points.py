"""Each operation fails at each of its effects in turn, in every way."""

from __future__ import annotations

import pytest

from tests.simulation.crash_points import MODES, every_point
from tests.simulation.operations import OPERATIONS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_may_fail_at_any_effect(name: str) -> None:
    """Whatever prefix of an operation came about, the cluster recovers from it."""
    for mode in MODES:
        points = every_point(name, mode)
        last = points[-1]
        assert not last.violations, (
            f"change {last.at}, {last.struck}, {mode}: {last.violations[0]}\n"
            f"    replay: make simulate STRIKE={name}:{last.at}:{mode}"
        )
        struck = [point.struck for point in points[:-1]]
        for change, least in OPERATIONS[name].least.items():
            assert struck.count(change) >= least, f"{mode}: {struck}"
