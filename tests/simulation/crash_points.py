"""Operations that fail at a chosen effect, and what must come of it all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.cleaner.observe import Observer
from tests.simulation.memory_disk import Inode, Removal
from tests.simulation.process import Process
from tests.simulation.profile import Profile
from tests.simulation.run import CHECK_S, Settled
from tests.simulation.troubles import OPERATOR, Desk, say
from tests.simulation.world import Result, World

MODES = ("before", "after", "unknown", "lost", "late")
LIMIT_S = 90.0

QUIET = Profile(
    nodes=2,
    images=3,
    guest_interval_s=1e9,
    report_interval_s=0.5,
    pass_interval_s=0.5,
    min_age_s=0.2,
    batch=2,
)


@dataclass(slots=True)
class Striker:
    """Strikes one process once, at its change number ``at`` (from 0).

    Nothing counts before ``armed``.
    """

    title: str
    at: int
    mode: str
    armed: bool = True
    count: int = 0
    struck: str = ""

    def __call__(self, process: Process, name: str) -> str:
        """See ``World.strike``."""
        if process.title != self.title or not self.armed:
            return ""
        number, self.count = self.count, self.count + 1
        if number != self.at:
            return ""
        self.struck = name
        return self.mode


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: who is struck, in which world, and what sets it going."""

    title: str
    profile: Profile
    begin: Callable[[World, Striker], None]
    least: int
    schema: int | None = None


def _guest(world: World, host: str, image: int) -> None:
    inode = world.disk.base.names[world.images[image]]
    if not isinstance(inode, Inode):
        raise TypeError("no file")
    world.guests.begin(world.hosts[host], world.images[image], inode)


def _clean(world: World, _: Striker) -> None:
    """One image is used, two are not; a second cleaner comes later."""
    _guest(world, "n1", 0)
    world.add_cleaner("c1")
    world.scheduler.after(3.0, lambda _: world.add_cleaner("c2"))


def _takeover(world: World, striker: Striker) -> None:
    """Let the leader die for good with entries in quarantine."""
    striker.armed = False
    world.add_cleaner("c1")
    world.scheduler.after(3.0, lambda _: world.add_cleaner("c2"))

    def die(_: object) -> None:
        world.cleaners["c1"].wanted = False
        world.cleaners["c1"].kill()
        striker.armed = True

    world.scheduler.after(4.0, die)


def _restore(world: World, striker: Striker) -> None:
    """Begin a guest by a name that its host still remembers: the agent restores."""
    striker.armed = False
    world.add_cleaner("c1")
    judge = world.disk.on_removal

    def begin_guest(removal: Removal) -> None:
        if judge is not None:
            judge(removal)
        if removal.name == world.images[0] and not world.guests.all:
            world.guests.begin(world.hosts["n1"], removal.name, removal.inode)
            striker.armed = True

    world.disk.on_removal = begin_guest


def _start(world: World, _: Striker) -> None:
    """Let an agent start and join whose host has a guest."""
    _guest(world, "n1", 0)
    world.add_cleaner("c1")


def _finalize(world: World, _: Striker) -> None:
    """Let an operator finalize the rollout; nothing goes before that."""
    world.add_cleaner("c1")

    def word(at: Desk) -> None:
        observed = Observer(at.zookeeper, at.storage).observe(scan=False)
        try:
            finalize(at.zookeeper, at.storage, observed, "operator", 0.0)
        except RefusedError as error:
            raise operator.CoordinationError(str(error)) from error

    world.scheduler.after(3.0, lambda _: say(world, "operator-1", 1.0, word, word))


def _expunge(world: World, _: Striker) -> None:
    """Let an operator expunge a node that is off for good."""
    world.add_cleaner("c1")
    world.add_node("n3")

    def off(_: object) -> None:
        world.agents["n3"].wanted = False
        world.agents["n3"].kill()

    world.scheduler.after(2.0, off)

    def word(at: Desk) -> None:
        try:
            operator.expunge(at.zookeeper, at.storage, "n3", OPERATOR)
        except RefusedError as error:
            # Its session has not ended yet.
            raise operator.CoordinationError(str(error)) from error

    world.scheduler.after(4.0, lambda _: say(world, "operator-1", 1.0, word))


def _profile(**changes: Any) -> Profile:
    values = {name: getattr(QUIET, name) for name in QUIET.__slots__}
    return Profile(**{**values, **changes})


OPERATIONS: dict[str, Operation] = {
    "clean": Operation("c1", QUIET, _clean, 18),
    "takeover": Operation("c2", _profile(grace_s=6.0), _takeover, 15),
    "restore": Operation("agent@n1", _profile(grace_s=4.0), _restore, 8),
    "start": Operation("agent@n1", QUIET, _start, 5),
    "finalize": Operation("operator-1", QUIET, _finalize, 2, schema=1),
    "expunge": Operation("operator-1", QUIET, _expunge, 1),
}


def run_struck(
    operation: Operation, at: int, mode: str, *, tracing: bool = False
) -> tuple[Result, Striker]:
    """Run an operation that is struck at one effect, then let it recover."""
    striker = Striker(operation.title, at, mode)
    world = World(
        f"{operation.title} {at} {mode}",
        operation.profile,
        tracing,
        striker,
        operation.schema,
    )
    with world.listening():
        try:
            return _judge(world, operation, striker), striker
        finally:
            world.end()


def _judge(world: World, operation: Operation, striker: Striker) -> Result:
    scheduler, broken = world.scheduler, world.oracle.violations
    for number in range(operation.profile.nodes):
        world.add_node(f"n{number + 1}")
    operation.begin(world, striker)
    settled = Settled(world)

    def watch(_: object) -> None:
        """Begin to judge once the strike is over, or can come no more."""
        settled.ready = striker.armed and bool(striker.struck or scheduler.now > 20.0)
        scheduler.after(CHECK_S, watch)

    watch(None)
    scheduler.after(CHECK_S, settled.check)
    scheduler.run(LIMIT_S, lambda: settled.for_good or bool(broken))
    if not settled.for_good and not broken:
        world.oracle.say(f"not settled: {world.unsettled()}")
    return world.result(scheduler.now)
