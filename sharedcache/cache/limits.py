"""Bounds of a writer: how long it waits, and for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a writer.  Times in seconds, the reserve in percent.

    ``touch_s`` must be well below the cleaner's shortest minimum age; a fetch
    that makes no progress for ``stall_s`` loses its turn; nobody waits longer
    than ``patience_s`` for others, or than ``restore_s`` for the agent.
    """

    touch_s: float = 300.0
    stall_s: float = 60.0
    patience_s: float = 1800.0
    restore_s: float = 3.0
    lock_hold_s: float = 5.0
    reserve_percent: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        times = (self.touch_s, self.stall_s, self.patience_s, self.lock_hold_s)
        # Asked so that what is no number at all is refused, too.
        if not (all(time_s > 0 for time_s in times) and self.restore_s >= 0):
            raise ValueError("times must be above 0 seconds")
        if not 0 <= self.reserve_percent < 100:  # noqa: PLR2004 - percent
            raise ValueError("reserve_percent must be from 0 to below 100")
