"""The pace of renames and unlinks, on a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedcache.cleaner.act import LOOK_S, Pacer
from sharedcache.core.rate import Flow, Pace


class TurnedClock:
    """A clock whose time passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def boottime(self) -> float:
        """Return the turned time."""
        return self.now

    def wall(self) -> float:
        """Return the turned time."""
        return self.now

    def wait(self, seconds: float) -> None:
        """Let the time pass."""
        self.waits.append(seconds)
        self.now += seconds


def test_no_rate_is_no_wait() -> None:
    """0 means no limit, however fast the steps come."""
    pace = Pace(0.0)
    for _ in range(3):
        pace = pace.stepped(5.0)
        assert pace.wait_s(5.0) == 0.0


def test_the_first_step_waits_for_nothing_and_the_next_for_its_turn() -> None:
    """Steps are spread evenly; what was not used is not made up for."""
    pace = Pace(4.0)
    assert pace.wait_s(10.0) == 0.0
    pace = pace.stepped(10.0)
    assert pace.wait_s(10.0) == 0.25
    assert pace.wait_s(10.2) == pytest.approx(0.05)
    assert pace.wait_s(60.0) == 0.0
    assert pace.stepped(60.0).wait_s(60.0) == 0.25


def test_a_clock_that_went_backwards_costs_one_distance_at_most() -> None:
    """No wait is longer than the distance of two steps."""
    assert Pace(4.0).stepped(1000.0).wait_s(1.0) == 0.25


@given(
    st.floats(0.1, 1000.0),
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=30),
)
def test_no_span_has_more_steps_than_the_rate(rate: float, pauses: list[float]) -> None:
    """In any span of s seconds there are at most s times the rate, and one."""
    clock, pacer, steps = TurnedClock(), Pacer(Pace(rate)), []
    for pause in pauses:
        clock.now += pause
        pacer.wait(clock, lambda: None)
        steps.append(clock.now)
    for first, start in enumerate(steps):
        for last, end in enumerate(steps[first:]):
            assert last <= (end - start) * rate + 1e-6


def test_who_waits_for_his_turn_looks_at_the_stop_flag_often() -> None:
    """A slow rate delays no reaction by more than the distance of two looks."""
    clock, pacer, looks = TurnedClock(), Pacer(Pace(0.1)), []

    def look() -> None:
        looks.append(clock.now)
        if len(looks) == 3:
            raise InterruptedError

    pacer.wait(clock, look)
    with pytest.raises(InterruptedError):
        pacer.wait(clock, look)
    assert max(clock.waits) <= LOOK_S
    assert clock.now == pytest.approx(100.0 + 3 * LOOK_S)
    # The step was not made, so it is not counted.
    assert pacer.pace.last == 100.0


def test_bytes_flow_no_faster_than_the_rate() -> None:
    """In any span at most its seconds times the rate, and one piece."""
    flow, now, read = Flow(1000.0), 50.0, []
    for _ in range(40):
        now += flow.wait_s(now)
        read.append((now, flow.piece(2**20)))
        flow = flow.after(read[-1][1], now)
        now += 0.01
    assert {size for _, size in read} == {100}
    for first, (start, _) in enumerate(read):
        for last in range(first, len(read)):
            total = sum(size for _, size in read[first : last + 1])
            assert total <= (read[last][0] - start) * 1000.0 + 100 + 1e-6


def test_a_pause_of_the_reading_is_not_made_up_for() -> None:
    """After an hour without reading the next piece costs as much as ever."""
    flow = Flow(1000.0).after(100, 0.0)
    assert flow.wait_s(3600.0) == 0.0
    assert flow.after(100, 3600.0).wait_s(3600.0) == pytest.approx(0.1)
    assert Flow(0.0).after(10**12, 0.0).wait_s(0.0) == 0.0
    assert Flow(0.0).piece(7) == 7
    assert Flow(1.0).piece(7) == 1
