"""Waiting ends when it should: woken, over, or after the host was suspended."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.clock import RandomTokens, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sharedcache.core.ports import Clock, Tokens

_FOR_EVER_S = 3600.0


@pytest.fixture
def clock() -> Iterator[SystemClock]:
    """Give a clock."""
    with SystemClock() as clock:
        yield clock


def test_clock_is_the_port(clock: SystemClock) -> None:
    """Boot time is the kernel's, wall time the world's."""
    port: Clock = clock
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= port.boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(port.wall() - time.time()) < 60


def test_wake_before_the_wait_counts(clock: SystemClock) -> None:
    """A wake is never missed, and several before one wait are one."""
    clock.wake()
    clock.wake()
    clock.wait(_FOR_EVER_S)
    start = clock.boottime()
    clock.wait(0.02)
    assert clock.boottime() - start >= 0.02


def test_wait_of_nothing_returns(clock: SystemClock) -> None:
    """A time that is over already is no error."""
    clock.wait(0)
    clock.wait(-1)


def test_wake_from_a_thread(clock: SystemClock) -> None:
    """Any thread may wake the waiting one."""
    waker = threading.Thread(target=clock.wake)
    waker.start()
    clock.wait(_FOR_EVER_S)
    waker.join()


def test_wake_from_a_signal_handler(clock: SystemClock) -> None:
    """A handler that interrupts the very wait may wake it, at any moment."""
    before = signal.signal(signal.SIGUSR1, lambda *_: clock.wake())
    try:
        for _ in range(200):
            sender = threading.Thread(
                target=os.kill, args=(os.getpid(), signal.SIGUSR1)
            )
            sender.start()
            clock.wait(_FOR_EVER_S)
            sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


class _Suspended:
    """Stands for a poll during which the host sleeps for much longer."""

    def __init__(self, now: list[float], step_s: float) -> None:
        self.now, self.step_s = now, step_s
        self.asked_ms: list[float] = []

    def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
        """Let time pass."""
        self.asked_ms.append(timeout_ms)
        self.now[0] += self.step_s
        return []


def test_suspended_host_does_not_prolong_a_wait(
    clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poll's clock stands still in suspend, so no single poll is a long one."""
    now = [100.0]
    poll = _Suspended(now, 2000.0)
    monkeypatch.setattr(clock, "_poll", poll)
    monkeypatch.setattr(time, "clock_gettime", lambda _: now[0])
    clock.wait(3600)
    assert poll.asked_ms == [1000.0, 1000.0, 0.0]


def test_closed_clock_takes_wakes() -> None:
    """A late wake, say from a signal, does not hit a stranger's descriptor."""
    clock = SystemClock()
    clock.close()
    clock.wake()
    clock.close()


def test_tokens() -> None:
    """16 hexadecimal digits, new every time."""
    tokens: Tokens = RandomTokens()
    seen = {tokens.token() for _ in range(1000)}
    assert len(seen) == 1000
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in seen)
