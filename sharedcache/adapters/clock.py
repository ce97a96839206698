"""Time, waiting and randomness."""

from __future__ import annotations

import os
import secrets
import select
import time
from contextlib import suppress
from typing import Self

_SLICE_S = 1.0


class SystemClock:
    """The port of the clock over Linux.

    One thread waits; any thread, and any signal handler, may wake it.  Waking
    is one write to an eventfd: a ``threading.Event`` takes a lock, which a
    handler that interrupts the waiting thread could wait for, for ever.
    """

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._event, select.POLLIN)

    def __enter__(self) -> Self:
        """Use the clock for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the clock."""
        self.close()

    def boottime(self) -> float:
        """Seconds on CLOCK_BOOTTIME, which runs on while the host is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since 1970, for people to read."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Wait, at most this long; returns early once for ``wake``.

        A wake that came before the call counts, so none is ever missed.
        """
        until = self.boottime() + seconds
        while True:
            left = until - self.boottime()
            # Poll's own clock stands still while the host is suspended, so it
            # is never asked to wait for long.
            if self._poll.poll(min(max(left, 0.0), _SLICE_S) * 1000):
                with suppress(BlockingIOError):
                    os.eventfd_read(self._event)
                return
            if left <= _SLICE_S:
                return

    def wake(self) -> None:
        """End the present wait, or the next one."""
        if self._event >= 0:
            # Only a counter that is full blocks, and then there is a wake.
            with suppress(BlockingIOError):
                os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Close the clock's descriptor; nobody may wait any more."""
        event, self._event = self._event, -1
        if event >= 0:
            os.close(event)


class RandomTokens:
    """The port of randomness over the system's generator."""

    def token(self) -> str:
        """Return 16 hexadecimal digits that were never returned before."""
        return secrets.token_hex(8)
