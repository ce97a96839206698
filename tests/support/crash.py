"""Ports that fail at a chosen effect: before it, after it, or with a lost answer."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sharedcache.core.ports import OutcomeUnknownError


class CrashedError(BaseException):
    """The process died here; nothing of it may handle this."""


class Fault(enum.Enum):
    """What happens at the chosen effect."""

    BEFORE = "the process dies before the effect"
    AFTER = "the process dies after the effect"
    UNKNOWN = "the effect happens and its answer is lost"
    LOST = "the effect does not happen and its answer is lost"


EFFECTS = frozenset(
    {
        "commit",
        "ensure",
        "campaign",
        "resign",
        "join",
        "update_capabilities",
        "leave",
        "witness_write",
        "touch",
        "write_schema",
        "epoch_make",
        "epoch_move",
        "epoch_remove",
        "epoch_seal",
        "quarantine",
        "restore",
        "purge",
        "take",
        "release",
    }
)

# Calls whose answer can be lost: the others never say that it was.
ANSWERED = frozenset({"commit", "quarantine", "restore", "purge", "epoch_move"})


@dataclass
class Schedule:
    """Counts effects and strikes once, at effect number ``at`` (from 0)."""

    at: int
    fault: Fault
    count: int = 0
    struck: str | None = None
    dead: bool = False
    log: list[str] = field(default_factory=list)

    def run(self, name: str, call: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Let one effect happen, or not."""
        if self.dead:
            raise CrashedError
        number, self.count = self.count, self.count + 1
        self.log.append(name)
        if number != self.at:
            return call(*args, **kw)
        self.struck = name
        if self.fault in (Fault.UNKNOWN, Fault.LOST):
            if name not in ANSWERED:
                return call(*args, **kw)
            if self.fault is Fault.UNKNOWN:
                call(*args, **kw)
            raise OutcomeUnknownError(f"the answer to {name} was lost")
        if self.fault is Fault.AFTER:
            call(*args, **kw)
        self.dead = True
        raise CrashedError


class Faulty:
    """A port whose effects go through a schedule; looks pass freely."""

    def __init__(self, port: Any, schedule: Schedule) -> None:
        self._port = port
        self._schedule = schedule

    def __getattr__(self, name: str) -> Any:
        """Wrap effects, pass everything else on."""
        found = getattr(self._port, name)
        if name not in EFFECTS:
            return found

        def effect(*args: Any, **kw: Any) -> Any:
            return self._schedule.run(name, found, *args, **kw)

        return effect
