"""The pace of renames and unlinks: a token bucket that holds one token."""

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
