"""One cleaner for one pass: stands for election, cleans, stands down."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from sharedcache.adapters.clock import SystemClock
from sharedcache.cleaner.service import CleanerService
from sharedcache.cli.data import shortened
from sharedcache.core.gate import Gate
from sharedcache.core.model import ManifestEntry

STAND_S = 3.0
"""How long to stand for election against another leader, in seconds."""

_LOOK_S = 0.5
_TELLING = ("pass-failed", "pass-interrupted", "plan-rejected", "standing-down")


class Outcome(enum.Enum):
    """How a one-shot run ended."""

    DONE = "done"
    NOT_LEADER = "not-leader"
    GATE_CLOSED = "gate-closed"
    OUT_OF_TIME = "out-of-time"
    STOPPED = "stopped"


class LastTrouble:
    """A journal that keeps the last thing that went wrong."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.text = ""

    def event(self, name: str, /, **fields: object) -> None:
        """Keep what went wrong; tell everything."""
        line = " ".join([name, *(f"{key}={value}" for key, value in fields.items())])
        if name in _TELLING:
            self.text = line
        self._tell(line)


@dataclass(slots=True)
class OneShot:
    """Drives one cleaner until its pass is made and tended.

    Every takeover starts the rounds of the entries that it finds anew, so a
    run that never waited for reports could never purge anything: it goes on
    while entries wait for nothing but rounds, and, if ``to_the_end``, until
    everything that it took itself is purged.  ``until`` is the boot-time clock's.
    """

    service: CleanerService
    clock: SystemClock
    until: float
    stop: Callable[[], bool]
    to_the_end: bool = False
    show: Callable[[OneShot], None] = lambda _: None
    leader: str | None = None
    gate: Gate | None = None
    _done: tuple[int, int] = (0, 0)
    _epochs: set[int] = field(default_factory=set)
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        """Note when it begins."""
        self._began = self.clock.boottime()

    def run(self) -> Outcome:
        """Go on until there is an outcome."""
        while True:
            wait_s = self.service.step()
            if self.service.harvest.epoch:
                # A run that lost its office and won it again has taken files
                # in both epochs.
                self._epochs.add(self.service.harvest.epoch)
            self.show(self)
            outcome = self._outcome()
            if outcome is not None:
                return outcome
            left_s = max(0.0, self.until - self.clock.boottime())
            self.clock.wait(min(wait_s, _LOOK_S, left_s))

    def pending(self) -> list[str]:
        """Name what this run took and is not purged yet."""
        return [entry.name for entry in self._ours()]

    def waits(self) -> list[str]:
        """Tell what the files that this run took wait for, seconds left out."""
        latest = self.service.harvest.latest
        if latest is None:
            return []
        found = {
            shortened(why)
            for entry in self._ours()
            for why in latest.waiting.get(entry.entry, ())
        }
        return sorted(found)

    def _ours(self) -> list[ManifestEntry]:
        observed = self.service.harvest.observed
        if observed is None:
            return []
        ours = tuple(f"{epoch:010d}-" for epoch in self._epochs)
        return [
            entry
            for batch in observed.seen.manifest
            if batch.batch.startswith(ours)
            for entry in batch.entries
        ]

    def _outcome(self) -> Outcome | None:
        harvest = self.service.harvest
        now = self.clock.boottime()
        if self.stop():
            return Outcome.STOPPED
        if harvest.gate is not None:
            self.gate = harvest.gate
        if not harvest.epoch:
            return self._not_in_office(now)
        if harvest.passes and self.gate is not None and not self.gate.open:
            return Outcome.GATE_CLOSED
        if harvest.passes and self._settled():
            return Outcome.DONE
        return Outcome.OUT_OF_TIME if now >= self.until else None

    def _not_in_office(self, now: float) -> Outcome | None:
        """Say why this cleaner does not lead, once it has stood for a while."""
        if now < self._began + STAND_S and now < self.until:
            return None
        world = self.service.world
        leader = world.coordination.leader()
        if leader is not None and leader != world.name:
            self.leader = leader
            return Outcome.NOT_LEADER
        self.gate = self._gate_from_outside()
        if not self.gate.open:
            return Outcome.GATE_CLOSED
        return Outcome.OUT_OF_TIME if now >= self.until else None

    def _gate_from_outside(self) -> Gate:
        from sharedcache.core.gate_rules import evaluate  # noqa: PLC0415 - rarely needed

        return evaluate(self.service.observer.observe(scan=False).seen.facts)

    def _settled(self) -> bool:
        """Whether going on would not bring anything more."""
        harvest = self.service.harvest
        done = (len(harvest.taken.names), len(harvest.purged.names))
        if done != self._done:
            # What was planned before these acts says nothing of them.
            self._done = done
            return False
        latest, scanned = harvest.latest, harvest.plan
        if latest is None or scanned is None:
            return False
        if latest.purge or scanned.fresh_reports:
            return False
        if any(all(_is_round(why) for why in w) for w in latest.waiting.values()):
            return False
        return not (self.to_the_end and self.pending())


def _is_round(why: str) -> bool:
    """Whether an entry waits only for nodes to look once more."""
    return why.startswith("round ")
