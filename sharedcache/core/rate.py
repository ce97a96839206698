"""The pace of renames and unlinks, and of bytes read: buckets of one token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """When the next step may be made, so that no more than a rate are made.

    ``rate_per_s`` 0 means no limit.  The bucket holds one token, so steps are
    spread evenly and a pause is never made up for by a burst: in any span of
    ``s`` seconds there are at most ``s * rate_per_s + 1`` steps.  ``last`` is
    when the last step was made, in seconds on the boot-time clock, ``None``
    before the first.
    """

    rate_per_s: float
    last: float | None = None

    def wait_s(self, now: float) -> float:
        """Seconds until the next step may be made, 0 for at once.

        A clock that went backwards costs one whole distance and no more.
        """
        if not self.rate_per_s or self.last is None:
            return 0.0
        distance_s = 1.0 / self.rate_per_s
        return min(distance_s, max(0.0, self.last + distance_s - now))

    def stepped(self, now: float) -> Pace:
        """Return the pace after a step at ``now``."""
        return Pace(self.rate_per_s, now)


@dataclass(frozen=True, slots=True)
class Flow:
    """When the next bytes may be read, so that no more than a rate are read.

    ``rate_per_s`` in bytes, 0 for no limit.  In any span of ``s`` seconds at most
    ``s * rate_per_s`` bytes are read, and one piece; a pause is never made up for.
    ``due`` is when the next piece may begin, in seconds on the caller's clock.
    """

    rate_per_s: float
    due: float | None = None

    def wait_s(self, now: float) -> float:
        """Seconds until the next piece may be read, 0 for at once."""
        if self.due is None:
            return 0.0
        return max(0.0, self.due - now)

    def after(self, size: int, now: float) -> Flow:
        """Return the flow after a piece of so many bytes, begun at ``now``."""
        if not self.rate_per_s:
            return self
        begun = now if self.due is None else max(self.due, now)
        return Flow(self.rate_per_s, begun + size / self.rate_per_s)

    def piece(self, most: int) -> int:
        """How many bytes to read at a time: about a tenth of a second's worth."""
        if not self.rate_per_s:
            return most
        return max(1, min(most, int(self.rate_per_s / 10)))
