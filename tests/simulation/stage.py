"""A stage for stories: calls that are held back, and a director who waits.

A story aims the seeded scheduler at one neighbourhood of the protocol.  It may
do what the world may do, no more: a call takes long, a host goes down, a guest
moves, an operator speaks.  Everybody else goes on as the seed decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from sharedcache.core.ports import Set
from tests.simulation.scheduler import Actor

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

POLL_S = 0.004
LONGEST_S = 10.0

When = Callable[[tuple[Any, ...]], bool]


@dataclass(slots=True, eq=False)
class Hold:
    """A call of one process that takes as long as the story wants it to.

    ``caught`` is the call that is held now, or was.  A hold catches once.
    ``fails`` is how the call fails afterwards, as in ``World.strike``.  A ``lasting``
    one is not ended by the calm.
    """

    title: str
    calls: frozenset[str]
    when: When | None = None
    caught: str = ""
    args: tuple[Any, ...] = ()
    released: bool = False
    fails: str = ""
    lasting: bool = False

    def release(self) -> None:
        """Let the call go on, or never catch one."""
        self.released = True


class Stage:
    """What a story sees and holds of all calls; made for worlds with a story."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.made: Counter[tuple[str, str]] = Counter()
        self.last: dict[str, str] = {}
        self._holds: list[Hold] = []

    def hold(self, title: str, *calls: str, when: When | None = None) -> Hold:
        """Hold a process back at its next call of these names."""
        found = Hold(title, frozenset(calls), when)
        self._holds.append(found)
        return found

    def before(self, process: Process, name: str, args: tuple[Any, ...]) -> str:
        """Keep a call waiting while it is held; return how it must fail, if so.

        Called in the caller's greenlet.
        """
        actor: Actor = process.actor
        fails = ""
        for hold in self._holds:
            if hold.title != process.title or hold.released or hold.caught:
                continue
            if name not in hold.calls or not (hold.when is None or hold.when(args)):
                continue
            hold.caught, hold.args = name, args
            self.world.scheduler.tell(process.title, f"is held at {name}")
            until = self.world.scheduler.now + LONGEST_S
            while not (hold.released or self._over(hold, until)):
                actor.sleep(POLL_S)
            hold.released, fails = True, hold.fails
        self._holds = [hold for hold in self._holds if not hold.released]
        return fails

    def _over(self, hold: Hold, until: float) -> bool:
        calm = self.world.calm and not hold.lasting
        return calm or self.world.scheduler.now > until

    def after(self, process: Process, name: str) -> None:
        """Count a call that was answered."""
        self.made[process.title, name] += 1
        self.last[process.title] = name


def writes(path: str) -> When:
    """Tell a transaction that creates or changes something below a path."""

    def when(args: tuple[Any, ...]) -> bool:
        return any(
            one.path.startswith(path) and type(one).__name__ in {"Create", "Set"}
            for one in args[0]
        )

    return when


def authorises(args: tuple[Any, ...]) -> bool:
    """Tell the transaction that authorises a batch."""
    return any(
        isinstance(one, Set)
        and one.path == "authorisation"
        and bool(msgpack.unpackb(one.data)["token"])
        for one in args[0]
    )
