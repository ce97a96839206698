"""Each operation fails at each of its effects in turn, in every way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.simulation import farm
from tests.simulation.crash_points import MODES, Point, every_point
from tests.simulation.operations import OPERATIONS

Outcomes = dict[tuple[str, str], "Future[list[Point]]"]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    """Begin on every operation that is asked for, on all processors."""
    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and hasattr(item, "callspec")
    }
    with farm.pool() as processes:
        yield {
            (name, mode): processes.submit(every_point, name, mode)
            for name in OPERATIONS
            for mode in MODES
            if name in asked
        }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_may_fail_at_any_effect(name: str, outcomes: Outcomes) -> None:
    """Whatever prefix of an operation came about, the cluster recovers from it."""
    for mode in MODES:
        points = outcomes[name, mode].result()
        last = points[-1]
        where = f"{name}: change {last.at}, {last.struck}, {mode}"
        assert not last.violations, (
            f"{where}: {last.violations[0]}\n"
            f"    replay: make simulate STRIKE={name}:{last.at}:{mode}"
        )
        struck = [point.struck for point in points[:-1]]
        for change, least in OPERATIONS[name].least.items():
            assert struck.count(change) >= least, f"{name}, {mode}: {struck}"
