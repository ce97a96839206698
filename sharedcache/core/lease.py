"""Lease arithmetic: until when a leader may believe that it leads."""

from __future__ import annotations

from dataclasses import dataclass

MARGIN_SHARE = 0.25
"""Share of the session timeout by which the lease ends before the session."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The leader's right to act.

    ``sent_at`` is when the last confirmed renewal was *sent*, in seconds on
    the boot-time clock: ZooKeeper heard of us no earlier, so it cannot expire
    the session before ``sent_at`` plus the session's timeout.
    """

    sent_at: float
    session_timeout_s: float

    @property
    def deadline(self) -> float:
        """The instant, on the boot-time clock, from which the lease is over."""
        return self.sent_at + self.session_timeout_s * (1 - MARGIN_SHARE)

    def good(self, now: float) -> bool:
        """Whether the lease still holds at ``now`` (boot-time clock, seconds).

        A clock that went backwards is doubt, and doubt is no lease.
        """
        return self.sent_at <= now < self.deadline

    def left_s(self, now: float) -> float:
        """Seconds left, 0 when the lease is over."""
        return max(0.0, self.deadline - now) if self.good(now) else 0.0
