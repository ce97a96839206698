"""Keeps the parts running: notices an end, tells it, starts again with back-off."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sharedcache.cli.failure import SettingsFailure
from sharedcache.cli.standalone.backoff import Backoff
from sharedcache.cli.standalone.parts import WRONG_SETTINGS, Part, how_it_ended

_TAIL_LINES = 8


@dataclass(slots=True)
class _Watched:
    """One part, since when it runs, and when it is to be started again."""

    part: Part
    backoff: Backoff
    since: float = 0.0
    due: float | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a part is doing, for people to see."""

    name: str
    pid: int | None
    restarts: int


@dataclass(slots=True)
class Supervisor:
    """``tell`` takes a line for the operator; ``note`` which processes run."""

    tell: Callable[[str], None]
    note: Callable[[Mapping[str, int]], None]
    clock: Callable[[], float] = time.monotonic
    backoff: Callable[[], Backoff] = Backoff
    _watched: list[_Watched] = field(default_factory=list)
    _unnoted: bool = False

    def start(self, part: Part) -> None:
        """Start a part and look after it from now on; raises ``OSError``."""
        part.start()
        self._watched.append(_Watched(part, self.backoff(), since=self.clock()))
        self._note()

    @property
    def standing(self) -> Sequence[Standing]:
        """How every part is doing."""
        return [
            Standing(one.part.name, one.part.pid, one.restarts) for one in self._watched
        ]

    def tend(self) -> None:
        """Notice what ended and start again what is due.

        Raises ``SettingsFailure`` if a daemon says that its settings are wrong.
        """
        for one in self._watched:
            if one.due is not None:
                self._start_again(one)
            elif one.part.pid is None:
                self._ended(one)
        if self._unnoted:
            self._note()

    def _ended(self, one: _Watched) -> None:
        part = one.part
        said = how_it_ended(part.exit_code)
        if part.exit_code == WRONG_SETTINGS and part.name != "zookeeper":
            raise SettingsFailure(f"the {part.name} {said}: {part.log.tail(1)}")
        wait_s = one.backoff.ended(self.clock() - one.since)
        one.due = self.clock() + wait_s
        self.tell(f"{part.name} {said}; it is started again in {wait_s:g} s")
        if one.backoff.show_log:
            self.tell(
                f"{part.name} ended {one.backoff.failures} times; the end of its log, "
                f"{part.log.path}:"
            )
            for line in part.log.tail(_TAIL_LINES).splitlines():
                self.tell(f"    {line}")

    def _start_again(self, one: _Watched) -> None:
        if one.due is None or self.clock() < one.due:
            return
        try:
            one.part.start()
        except OSError as error:
            one.due = self.clock() + one.backoff.ended(0.0)
            self.tell(f"{one.part.name} cannot be started: {error}")
            return
        one.due, one.since = None, self.clock()
        one.restarts += 1
        self._note()
        self.tell(f"{one.part.name} was started again, process {one.part.pid}")

    def _note(self) -> None:
        running = {
            one.part.name: pid
            for one in self._watched
            if (pid := one.part.pid) is not None
        }
        try:
            self.note(running)
        except OSError as error:
            # The parts go on on a full disk: nothing else sees that they do.
            if not self._unnoted:
                self.tell(
                    f"which processes run cannot be noted ({error.strerror or error}): "
                    "make room in the data directory, it is tried again until then"
                )
            self._unnoted = True
        else:
            self._unnoted = False

    def stop(self, hurry: Callable[[], bool]) -> bool:
        """Stop the parts, the one that was started last first.

        Whether each ended in order; one that was down counts as that.
        """
        orderly = True
        for one in reversed(self._watched):
            if one.part.pid is None:
                continue
            if one.part.stop(hurry):
                self.tell(f"{one.part.name} stopped")
            else:
                orderly = False
                said = how_it_ended(one.part.exit_code)
                self.tell(f"{one.part.name} did not stop in order: it {said}")
        self._watched.clear()
        return orderly
