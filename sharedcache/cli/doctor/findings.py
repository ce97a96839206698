"""Findings: one line each, with what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``advice`` is what to do, empty if nothing."""

    check: str
    level: Level
    message: str
    advice: str = ""

    def row(self) -> dict[str, str]:
        """Return it as the JSON that scripts rely on."""
        return {
            "check": self.check,
            "result": self.level.value,
            "message": self.message,
            "what_to_do": self.advice,
        }


def ok(check: str, message: str) -> Finding:
    """Tell that all is well."""
    return Finding(check, Level.OK, message)


def warn(check: str, message: str, advice: str) -> Finding:
    """Tell of something that works and should be looked at."""
    return Finding(check, Level.WARN, message, advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """Tell of something that does not work."""
    return Finding(check, Level.FAIL, message, advice)
