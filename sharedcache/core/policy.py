"""What an operator decides: settings as the core and the services see them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from sharedcache.core.model import NANOSECONDS, NEWEST_SCHEMA, KernelNaming
from sharedcache.core.names import Kind, is_node_name


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
    """How a cleaner works.  Times in seconds, shares in percent."""

    pass_interval_s: float = 300.0
    session_timeout_s: float = 10.0
    round_interval_s: float = 10.0
    grace_s: float = 3600.0
    min_age_s: Mapping[Kind, float] = field(default_factory=lambda: dict(_AGES_S))
    missing_nodes: MissingNodes = MissingNodes.HOLD
    max_share_percent: float = 20.0
    max_share_floor: int = 100
    batch: int = 1000
    lock_hold_s: float = 5.0
    auto_finalize: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the setting."""
        _require_durations(
            "cleaner",
            pass_interval_s=self.pass_interval_s,
            session_timeout_s=self.session_timeout_s,
            round_interval_s=self.round_interval_s,
            lock_hold_s=self.lock_hold_s,
        )
        ages_s = {
            f"min_age_{kind.label}_s": self.min_age_s.get(kind, -1.0)
            for kind in Kind
            if kind is not Kind.UNRECOGNISED
        }
        _require_not_negative("cleaner", grace_s=self.grace_s, **ages_s)
        if not 0 < self.max_share_percent <= 100:  # noqa: PLR2004 - percent
            raise PolicyError("[cleaner] max_share_percent must be in (0, 100]")
        if self.max_share_floor < 0:
            raise PolicyError("[cleaner] max_share_floor must not be negative")
        if not 1 <= self.batch <= MAX_BATCH:
            raise PolicyError(f"[cleaner] batch must be from 1 to {MAX_BATCH} files")

    def min_age_ns(self, kind: Kind) -> int:
        """Minimum age of a kind, in nanoseconds."""
        return int(self.min_age_s[kind] * NANOSECONDS)


MAX_BATCH = 1500
"""Largest batch: with the longest names its record must fit one znode."""


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """How an agent works.  Times in seconds.

    ``schema_version`` 1 stands for a node of the old release.
    """

    node: str
    report_interval_s: float = 30.0
    touch_interval_s: float = 3600.0
    session_timeout_s: float = 10.0
    lock_wait_s: float = 5.0
    lock_hold_s: float = 5.0
    kernel_naming: KernelNaming = KernelNaming.SHA1
    schema_version: int = NEWEST_SCHEMA

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the setting."""
        if not is_node_name(self.node):
            raise PolicyError(f"[agent] node: {self.node!r} cannot name a node")
        _require_durations(
            "agent",
            report_interval_s=self.report_interval_s,
            touch_interval_s=self.touch_interval_s,
            session_timeout_s=self.session_timeout_s,
            lock_hold_s=self.lock_hold_s,
        )
        _require_not_negative("agent", lock_wait_s=self.lock_wait_s)
        if not 1 <= self.schema_version <= NEWEST_SCHEMA:
            raise PolicyError(
                f"[agent] schema_version must be from 1 to {NEWEST_SCHEMA}: "
                "this release knows no other"
            )
