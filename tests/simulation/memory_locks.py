"""Nova's locks in memory: one table for a lock directory, and its holders.

A lock is held by a helper of its own, so it ends by itself after its time
whether its owner runs, stands still, or is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

FOR_EVER = float("inf")


@dataclass(slots=True, eq=False)
class Holding:
    """One lock that somebody holds until a time, in seconds."""

    name: str
    until: float


@dataclass(slots=True)
class LockTable:
    """The lock files of one lock directory.  ``now`` is in seconds."""

    now: Callable[[], float]
    held: dict[str, Holding] = field(default_factory=dict)

    def hold(self, name: str, hold_s: float = FOR_EVER) -> Holding | None:
        """Take a lock if it is free; ``None`` if it is busy."""
        present = self.held.get(name)
        if present is not None and present.until > self.now():
            return None
        holding = Holding(name, self.now() + hold_s)
        self.held[name] = holding
        return holding

    def keeps(self, holding: Holding) -> bool:
        """Whether a lock is still held by whoever took it."""
        return self.held.get(holding.name) is holding and holding.until > self.now()

    def let_go(self, holding: Holding) -> None:
        """Let a lock go; harmless if it ended before."""
        if self.held.get(holding.name) is holding:
            del self.held[holding.name]


class MemoryLocks:
    """The port ``NameLocks`` over a ``LockTable``.

    ``wait`` lets this process wait some seconds, ``poll_s`` is how long it waits
    between two tries.  ``broken`` makes every ``take`` fail with that error.
    """

    def __init__(
        self, table: LockTable, wait: Callable[[float], None], poll_s: float = 0.05
    ) -> None:
        self.last_error = ""
        self.broken = ""
        self._table = table
        self._wait = wait
        self._poll_s = poll_s
        self._holding: Holding | None = None

    def take(self, name: str, wait_s: float, hold_s: float) -> bool:
        """See the port."""
        self.last_error = self.broken
        if self.broken or (
            self._holding is not None and self._table.keeps(self._holding)
        ):
            return False
        until = self._table.now() + wait_s
        while True:
            self._holding = self._table.hold(name, hold_s)
            if self._holding is not None:
                return True
            left = until - self._table.now()
            if left <= 0:
                return False
            self._wait(min(left, self._poll_s))

    def release(self) -> bool:
        """See the port."""
        holding, self._holding = self._holding, None
        if holding is None:
            return False
        kept = self._table.keeps(holding)
        self._table.let_go(holding)
        return kept

    def end(self) -> None:
        """End the helper, as the process's end does."""
        self.release()
