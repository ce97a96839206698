"""How soon a part that ended is started again, and when its log is shown.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

_TROUBLE = 3
"""So many ends in a row are no accident any more."""


@dataclass(slots=True)
class Backoff:
    """Counts the ends of one part.  Times in seconds.

    The first end is mended after ``first_s``; the wait doubles with every
    further one, up to ``longest_s``.  A part that ran for ``calm_s`` before it
    ended has had a run of its own, and the counting begins anew.
    """

    first_s: float = 0.5
    longest_s: float = 60.0
    calm_s: float = 120.0
    failures: int = 0

    def ended(self, ran_s: float) -> float:
        """Count an end after ``ran_s``; return how long to wait before a start."""
        if ran_s >= self.calm_s:
            self.failures = 0
        self.failures += 1
        doublings = min(self.failures - 1, 30)
        return min(self.longest_s, self.first_s * 2.0**doublings)

    @property
    def show_log(self) -> bool:
        """Whether the end that was just counted is one to show the log for.

        That is the third in a row, the sixth, the twelfth, and so on, so that
        one that never mends does not fill the screen.
        """
        times, rest = divmod(self.failures, _TROUBLE)
        return times > 0 and rest == 0 and times & (times - 1) == 0
