"""What every step of the story works with, and how it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sharedcache.cli.demo.claims import Claims
from sharedcache.cli.demo.evidence import Found
from sharedcache.cli.demo.fleet import Answer, Fleet, FleetError
from sharedcache.cli.demo.pace import Pace
from sharedcache.cli.demo.screen import Column, Screen, Waiting
from sharedcache.cli.demo.world import World

POLL_S = 0.1
"""How often the state is looked at while something is waited for, in seconds."""


class NotSeenError(Exception):
    """Something was waited for and did not happen; the message says what."""


@dataclass(frozen=True, slots=True)
class Start:
    """The cache directory before any process ran: the measure of what came."""

    files: Mapping[str, Found]
    digests: Mapping[str, str]
    allocated: Mapping[str, int]


@dataclass(slots=True)
class Stage:
    """One demo: its directory, its processes, its viewer, and its claims."""

    world: World
    fleet: Fleet
    pace: Pace
    screen: Screen
    claims: Claims = field(default_factory=Claims)

    def wait_for(self, what: str, look: Callable[[Waiting], bool]) -> None:
        """Look again and again until ``look`` says that it is so.

        Raises ``NotSeenError`` when the pace's patience is over, and
        ``FleetError`` if a process ended meanwhile.
        """
        allowed_s = self.pace.patience_s
        until = time.monotonic() + allowed_s
        trouble = ""
        with self.screen.waiting(what) as waiting:
            while True:
                # Late is decided before the look, so that a machine that stood
                # still gets one more look.
                late = time.monotonic() >= until
                try:
                    if look(waiting):
                        return
                    trouble = ""
                except FleetError as error:
                    # A command may fail while servers and daemons come up.
                    trouble = f"; the last look: {error}"
                self.fleet.check()
                if late:
                    seen = f"; last seen: {waiting.last}" if waiting.last else ""
                    raise NotSeenError(
                        f"{what}: not seen within {allowed_s:g} s{seen}{trouble}"
                    )
                time.sleep(POLL_S)

    def status(self) -> Any:
        """Ask for the cluster's state, as scripts do."""
        return self.fleet.ask("status")

    def command(self, *arguments: str) -> Answer:
        """Run an operator's command in front of the viewer."""
        answer = self.fleet.operate(*arguments)
        self.screen.say(f"  $ {answer.command}", style="bold")
        self.screen.lines(answer.text)
        self.screen.say(f"    (exit code {answer.code})", style="dim")
        return answer

    def show_gate(self, status: Mapping[str, Any]) -> None:
        """Print whether the gate is open, and every reason why not."""
        gate = status["gate"]
        how = "open" if gate["open"] else "CLOSED"
        if gate["open"] and not gate["purge_open"]:
            how = "open for quarantine, CLOSED for purging"
        self.screen.say(f"The gate is {how}.")
        if gate["reasons"]:
            self.screen.table(
                (Column("Code"), Column("Closes"), Column("Subject"), Column("What")),
                (
                    (r["code"], r["closes"], r["subject"], r["message"])
                    for r in gate["reasons"]
                ),
            )


def reasons_of(status: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the gate's reasons as pairs of code and subject."""
    return {(r["code"], r["subject"]) for r in status["gate"]["reasons"]}


def spelled(reasons: set[tuple[str, str]]) -> str:
    """Return the gate's reasons in one line."""
    pairs = ", ".join(f"{code} ({subject})" for code, subject in sorted(reasons))
    return pairs or "no reason"
