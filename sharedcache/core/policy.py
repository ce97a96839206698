"""What an operator decides: settings as the core and the services see them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from sharedcache.core.model import NANOSECONDS, KernelNaming
from sharedcache.core.names import Kind, is_node_name
from sharedcache.core.schema import SCHEMAS, SchemaTable


class PolicyError(ValueError):
    """Settings that contradict each other or that no service can run with."""


LONGEST_S = 10 * 365 * 86400.0
"""Longest time that a setting may name: later sums still fit 63 bits of ns."""


def _require_durations(section: str, **settings: float) -> None:
    for name, seconds in settings.items():
        if not 0 < seconds <= LONGEST_S:
            raise PolicyError(
                f"[{section}] {name} must be above 0 seconds, and at most ten years"
            )


def _require_not_negative(section: str, **settings: float) -> None:
    for name, seconds in settings.items():
        if not 0 <= seconds <= LONGEST_S:
            raise PolicyError(f"[{section}] {name} must be from 0 seconds to ten years")


class MissingNodes(enum.Enum):
    """What a missing node's last report is worth to a purge."""

    HOLD = "hold"
    LAST_REPORT = "last-report"


_AGES_S: Mapping[Kind, float] = {
    Kind.IMAGE: 86400.0,
    Kind.RESIZED: 3600.0,
    Kind.KERNEL: 86400.0,
    Kind.SWAP: 86400.0,
    Kind.EPHEMERAL: 86400.0,
    Kind.PARTIAL: 86400.0,
}


@dataclass(frozen=True, slots=True)
class CleanerPolicy:
    """How a cleaner works.  Times in seconds, shares in percent.

    ``max_shrink_percent`` 100, ``low_water_percent`` 0 and ``rate_per_s`` 0
    switch off what they set.
    """

    pass_interval_s: float = 300.0
    session_timeout_s: float = 10.0
    round_interval_s: float = 10.0
    grace_s: float = 3600.0
    min_age_s: Mapping[Kind, float] = field(default_factory=lambda: dict(_AGES_S))
    missing_nodes: MissingNodes = MissingNodes.HOLD
    max_share_percent: float = 20.0
    max_share_floor: int = 100
    max_shrink_percent: float = 50.0
    max_shrink_floor: int = 20
    shrink_lasts_s: float = 259200.0
    batch: int = 1000
    rate_per_s: float = 0.0
    low_water_percent: float = 0.0
    low_water_grace_s: float = 600.0
    lock_hold_s: float = 5.0
    auto_finalize: bool = False
    schemas: SchemaTable = SCHEMAS

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the setting."""
        _require_durations(
            "cleaner",
            pass_interval_s=self.pass_interval_s,
            session_timeout_s=self.session_timeout_s,
            round_interval_s=self.round_interval_s,
            lock_hold_s=self.lock_hold_s,
            shrink_lasts_s=self.shrink_lasts_s,
        )
        ages_s = {
            f"min_age_{kind.label}_s": self.min_age_s.get(kind, -1.0)
            for kind in Kind
            if kind is not Kind.UNRECOGNISED
        }
        _require_not_negative(
            "cleaner",
            grace_s=self.grace_s,
            low_water_grace_s=self.low_water_grace_s,
            **ages_s,
        )
        self._require_brakes()
        if not 1 <= self.batch <= MAX_BATCH:
            raise PolicyError(f"[cleaner] batch must be from 1 to {MAX_BATCH} files")

    def _require_brakes(self) -> None:
        """Refuse brakes, a mark or a rate that make no sense, naming the setting."""
        for name, percent in (
            ("max_share_percent", self.max_share_percent),
            ("max_shrink_percent", self.max_shrink_percent),
        ):
            if not 0 < percent <= 100:  # noqa: PLR2004 - percent
                raise PolicyError(f"[cleaner] {name} must be in (0, 100]")
        for name, floor in (
            ("max_share_floor", self.max_share_floor),
            ("max_shrink_floor", self.max_shrink_floor),
        ):
            if floor < 0:
                raise PolicyError(f"[cleaner] {name} must not be negative")
        if not 0 <= self.low_water_percent < 100:  # noqa: PLR2004 - percent
            raise PolicyError("[cleaner] low_water_percent must be in [0, 100)")
        if self.rate_per_s and not LEAST_RATE <= self.rate_per_s <= MOST_RATE:
            raise PolicyError(
                f"[cleaner] rate_per_s must be 0 (no limit) or from {LEAST_RATE:g} "
                f"to {MOST_RATE:g} files"
            )

    def low_on_space(self, space: tuple[int, int] | None) -> bool:
        """Whether free space is below the mark; what is not known is not low.

        ``space`` is the file system's size and what is free of it, in bytes.
        """
        if space is None:
            return False
        size, free = space
        return free * 100 < self.low_water_percent * size

    def grace_now_s(self, space: tuple[int, int] | None) -> float:
        """Least time in quarantine, in seconds: shorter while space is low."""
        if self.low_on_space(space):
            return min(self.grace_s, self.low_water_grace_s)
        return self.grace_s

    def paced_batch(self) -> int:
        """Return how many files go into one batch, the rate being what it is.

        A batch is over within about ``round_interval_s``: until then agents
        cannot restore what is in it.
        """
        if not self.rate_per_s:
            return self.batch
        return max(1, min(self.batch, int(self.rate_per_s * self.round_interval_s)))

    def min_age_ns(self, kind: Kind) -> int:
        """Minimum age of a kind, in nanoseconds."""
        return int(self.min_age_s[kind] * NANOSECONDS)


LEAST_RATE, MOST_RATE = 0.1, 1e6
"""Slowest and fastest pace of renames and unlinks, in files a second."""

MAX_BATCH = 1500
"""Largest batch: with the longest names its record must fit one znode."""


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """How an agent works.  Times in seconds.

    ``schema_version`` 1 stands for a node of the old release.  ``schemas`` are the
    versions that the agent knows.
    """

    node: str
    report_interval_s: float = 30.0
    touch_interval_s: float = 3600.0
    session_timeout_s: float = 10.0
    lock_wait_s: float = 5.0
    lock_hold_s: float = 5.0
    kernel_naming: KernelNaming = KernelNaming.SHA1
    schema_version: int = SCHEMAS.newest
    schemas: SchemaTable = SCHEMAS

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the setting."""
        if not is_node_name(self.node):
            raise PolicyError(
                f"[agent] node: {self.node!r} cannot name a node: set letters, digits, "
                "dot, dash and underscore, up to 200"
            )
        _require_durations(
            "agent",
            report_interval_s=self.report_interval_s,
            touch_interval_s=self.touch_interval_s,
            session_timeout_s=self.session_timeout_s,
            lock_hold_s=self.lock_hold_s,
        )
        _require_not_negative("agent", lock_wait_s=self.lock_wait_s)
        if self.schemas.row(self.schema_version) is None:
            raise PolicyError(
                f"[agent] schema_version must be from 1 to {self.schemas.newest}: "
                "this release knows no other"
            )
