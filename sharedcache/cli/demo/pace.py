"""The settings of the demo: which waiting times it scales, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sharedcache.core.policy import AgentPolicy, CleanerPolicy

_HOUR_S = 3600.0
DAY_S = 24 * _HOUR_S
YEAR_S = 365 * DAY_S


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the cluster goes.  Times in seconds.

    ``patience_s`` is how long any one thing is waited for before the demo says
    that it did not happen.
    """

    report_interval_s: float = 1.0
    touch_interval_s: float = 5 * YEAR_S
    pass_interval_s: float = 1.0
    round_interval_s: float = 1.0
    grace_s: float = 6.0
    session_timeout_s: float = 4.0
    patience_s: float = 60.0

    def agent(self) -> dict[str, float]:
        """Return what the section ``[agent]`` gets."""
        return {
            "report_interval_s": self.report_interval_s,
            "touch_interval_s": self.touch_interval_s,
            "session_timeout_s": self.session_timeout_s,
        }

    def cleaner(self) -> dict[str, float]:
        """Return what the section ``[cleaner]`` gets."""
        return {
            "pass_interval_s": self.pass_interval_s,
            "round_interval_s": self.round_interval_s,
            "grace_s": self.grace_s,
            "session_timeout_s": self.session_timeout_s,
        }


@dataclass(frozen=True, slots=True)
class Scaled:
    """One setting, as shipped and as the demo sets it, in seconds."""

    setting: str
    production_s: float
    demo_s: float
    why: str


_WHY = {
    "report_interval_s": "a node looks this often",
    "touch_interval_s": "longer, so that a file in use stays visibly old",
    "session_timeout_s": "who says nothing for so long is gone",
    "pass_interval_s": "the leader looks at every file this often",
    "round_interval_s": "least time between two rounds",
    "grace_s": "how long a quarantined file can be restored at least",
}


def scaled(pace: Pace) -> Iterator[Scaled]:
    """Every setting that differs from what is shipped, with both values."""
    # The node's name bears on no default.
    agent, cleaner = AgentPolicy("any"), CleanerPolicy()
    for name, demo_s in pace.agent().items():
        yield Scaled(f"[agent] {name}", getattr(agent, name), demo_s, _WHY[name])
    for name, demo_s in pace.cleaner().items():
        yield Scaled(f"[cleaner] {name}", getattr(cleaner, name), demo_s, _WHY[name])


def in_words(seconds: float) -> str:
    """Return a time as people say it: ``5 s``, ``24 h``, ``40 days``, ``3 years``."""
    for unit_s, unit in ((YEAR_S, "years"), (DAY_S, "days")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    if seconds >= _HOUR_S:
        return f"{seconds / _HOUR_S:.0f} h"
    return f"{seconds:g} s"
