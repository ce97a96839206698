"""One process that is struck at one of its changes, and the operation it is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.simulation.process import Process
from tests.simulation.profile import Profile
from tests.simulation.world import World


@dataclass(slots=True)
class Striker:
    """Strikes one process once, at its change number ``at`` (from 0).

    Nothing counts before ``armed``, nor once the operation is ``over``.
    """

    title: str
    at: int
    mode: str
    armed: bool = True
    count: int = 0
    struck: str = ""
    over: bool = False

    def __call__(self, process: Process, name: str) -> str:
        """See ``World.strike``."""
        if process.title != self.title or not self.armed or self.over:
            return ""
        number, self.count = self.count, self.count + 1
        if number != self.at:
            return ""
        self.struck = name
        return self.mode


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: who is struck, in which world, and what sets it going.

    ``least`` says how often its changes occur, so that a test can tell an operation
    from one that did not come about.  ``shows`` names what ``World.counts`` must have
    of it in the end: it is not over before.
    """

    title: str
    profile: Profile
    begin: Callable[[World, Striker], None]
    least: Mapping[str, int]
    schema: int | None = None
    shows: str = ""
