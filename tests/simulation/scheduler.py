"""A seeded scheduler on a clock of its own: actors run one at a time.

Each actor is synchronous code in a greenlet.  Whenever it asks the world for
something it is put aside until a later time, so that everything that others do
can come between any two of its effects.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Any

import greenlet

Action = Callable[[Any], None]


class KilledError(BaseException):
    """The process was killed here; nothing of it may handle this."""


class Scheduler:
    """Simulated time, in seconds, and what is to happen when.

    Things of one moment happen in the order in which they were asked for, so
    that a seed alone decides everything.
    """

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.now = 0.0
        self.hub = greenlet.getcurrent()
        self.current: Actor | None = None
        self.trace: list[str] | None = None
        self.steps = 0
        self.actors: list[Actor] = []
        self._heap: list[tuple[float, int, Action, Any]] = []
        self._numbers = count()

    def at(self, when: float, action: Action, argument: Any = None) -> None:
        """Let an action happen at a time."""
        number = next(self._numbers)
        heapq.heappush(self._heap, (max(when, self.now), number, action, argument))

    def after(self, seconds: float, action: Action, argument: Any = None) -> None:
        """Let an action happen some seconds from now."""
        self.at(self.now + seconds, action, argument)

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Let things happen until a time; whether ``done`` became true before.

        ``done`` is asked after everything that happens, so it must be cheap.
        """
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, action, argument = heapq.heappop(heap)
            self.now = when
            self.steps += 1
            action(argument)
            if done is not None and done():
                return True
        self.now = max(self.now, until)
        return False

    def tell(self, who: str, what: str) -> None:
        """Write a line of the trace, if one is kept."""
        if self.trace is not None:
            self.trace.append(f"{self.now:9.3f} {who:<12} {what}")

    def chance(self, odds: float) -> bool:
        """Toss a coin; one that cannot fall takes nothing from the seed."""
        return odds > 0 and self.random.random() < odds

    def stretch(self, low: float, high: float) -> float:
        """Draw a time between two bounds, short and long ones alike."""
        return float(low * (high / low) ** self.random.random())


class Actor:
    """One process, or one other doer: a body that runs in a greenlet.

    ``ended`` is called once, with the exception that ended the body, ``None``
    if it returned.  A killed actor's body is unwound, but nothing that it still
    asks for happens.
    """

    __slots__ = (
        "_body",
        "_ended",
        "_greenlet",
        "_ticket",
        "_wakeable",
        "awake_at",
        "dead",
        "in_flight",
        "name",
        "scheduler",
    )

    def __init__(
        self,
        scheduler: Scheduler,
        name: str,
        body: Callable[[Actor], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self.scheduler = scheduler
        self.name = name
        self.dead = False
        self.awake_at = 0.0
        self.in_flight: Callable[[], object] | None = None
        self._body = body
        self._ended = ended
        self._ticket = 0
        self._wakeable = False
        self._greenlet = greenlet.greenlet(self._main, parent=scheduler.hub)
        scheduler.actors.append(self)
        scheduler.after(0.0, self._resume, 0)

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            self._body(self)
        except KilledError:
            return
        except Exception as caught:  # noqa: BLE001 - how a body ends is the supervisor's to judge
            error = caught
        self.dead = True
        self._ended(error)

    def _resume(self, ticket: int) -> None:
        """Go on, unless this waiting is over already or the process stands still."""
        if self.dead or ticket != self._ticket:
            return
        scheduler = self.scheduler
        if self.awake_at > scheduler.now:
            scheduler.at(self.awake_at, self._resume, ticket)
            return
        self._ticket += 1
        self._wakeable = False
        scheduler.current = self
        self._greenlet.switch()
        scheduler.current = None

    def sleep(self, seconds: float, *, wakeable: bool = False) -> None:
        """Let others go on for some seconds; called in this actor's greenlet."""
        if self.dead:
            raise KilledError
        self._wakeable = wakeable
        self.scheduler.after(seconds, self._resume, self._ticket)
        self.scheduler.hub.switch()
        if self.dead:
            raise KilledError

    def wake(self, _: object = None) -> None:
        """End a waiting that may be ended early."""
        if self._wakeable:
            self._resume(self._ticket)

    def stand_still(self, until: float) -> None:
        """Do nothing before a time, as a stopped process."""
        self.awake_at = max(self.awake_at, until)

    def kill(self) -> None:
        """End this actor where it stands; called from the hub."""
        if self.dead:
            return
        self.dead = True
        if self._greenlet:
            self._greenlet.throw(KilledError)
