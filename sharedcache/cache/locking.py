"""Nova's locks for names, for as many threads as ask, each for a bounded time."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.cache.errors import BusyError

MOST_IDLE = 8
"""Helpers that are kept for later; more are ended when they are done."""

_ATTEMPT_S = 0.05
_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5
_FAILURES = 3


@dataclass(slots=True)
class NameLock:
    """A lock that is held.  ``kept`` tells at the end whether it never was lost."""

    locks: NovaNameLocks
    kept: bool = False

    def renew(self, hold_s: float) -> bool:
        """Hold it for ``hold_s`` seconds from now; ``False`` if it was lost."""
        return self.locks.renew(hold_s)


class LockPool:
    """Helpers for Nova's locks; one lock each, made as they are needed."""

    def __init__(self, lock_dir: str) -> None:
        self._lock_dir = lock_dir
        self._guard = threading.Lock()
        self._pid = os.getpid()
        self._idle: list[NovaNameLocks] = []
        self._closed = False
        self._interrupted = threading.Event()

    @contextmanager
    def taken(self, name: str, until: float, hold_s: float) -> Iterator[NameLock]:
        """Hold the lock of a name, for at most ``hold_s`` seconds unless renewed.

        Waits until ``until`` on the monotonic clock, in seconds; ``BusyError``
        after that, and once waiting was ended.
        """
        locks = self._get()
        try:
            self._take(locks, name, until, hold_s)
            lock = NameLock(locks)
            try:
                yield lock
            finally:
                # A child that leaves this block would let go what its parent holds.
                if os.getpid() == self._pid:
                    lock.kept = locks.release()
        finally:
            if os.getpid() == self._pid:
                self._put(locks)

    def interrupt(self) -> None:
        """End all waiting, now and from now on; what is held is held on."""
        self._interrupted.set()

    def close(self) -> None:
        """End every helper that is idle; one in use ends when it is given back."""
        with self._guard:
            idle, self._idle, self._closed = self._idle, [], True
        for locks in idle:
            locks.close()

    def _get(self) -> NovaNameLocks:
        with self._guard:
            if self._idle:
                return self._idle.pop()
        return NovaNameLocks(self._lock_dir)

    def _put(self, locks: NovaNameLocks) -> None:
        with self._guard:
            if not self._closed and len(self._idle) < MOST_IDLE:
                self._idle.append(locks)
                return
        locks.close()

    def _take(
        self, locks: NovaNameLocks, name: str, until: float, hold_s: float
    ) -> None:
        pause_s, failures = _PAUSE_S, 0
        while True:
            left_s = until - time.monotonic()
            if locks.take(name, max(0.0, min(_ATTEMPT_S, left_s)), hold_s):
                return
            failures += bool(locks.last_error)
            if failures >= _FAILURES:
                raise BusyError(f"the lock of {name} fails: {locks.last_error}")
            if left_s <= 0:
                raise BusyError(
                    f"somebody holds the lock of {name} for longer than this was "
                    "to wait: is a fetch of it under way?"
                )
            # Waiters ask apart from each other, and ever more seldom: each
            # attempt is several requests to the storage.
            longest_s = min(pause_s * random.uniform(0.5, 1.0), max(left_s, 0.0))  # noqa: S311 - no secret
            if self._interrupted.wait(longest_s):
                raise BusyError(f"waiting for the lock of {name} was interrupted")
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
