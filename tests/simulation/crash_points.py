"""Operations that fail at a chosen effect, and what must come of it all the same."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.operations import OPERATIONS
from tests.simulation.run import CHECK_S, Settled
from tests.simulation.strikes import Operation, Striker
from tests.simulation.world import Result, World

MODES = ("before", "after", "unknown", "lost", "late")
LIMIT_S = 90.0


@dataclass(frozen=True, slots=True)
class Point:
    """One point at which an operation was made to fail, and what came of it.

    ``struck`` names the change, empty if the operation has no such change any
    more.
    """

    at: int
    struck: str
    violations: tuple[str, ...]


def every_point(name: str, mode: str) -> list[Point]:
    """Let an operation fail at each of its changes in turn, until one objects."""
    points: list[Point] = []
    while True:
        result, striker = run_struck(name, len(points), mode)
        points.append(Point(len(points), striker.struck, result.violations))
        if result.violations or not striker.struck:
            return points


def run_struck(
    name: str, at: int, mode: str, *, tracing: bool = False
) -> tuple[Result, Striker]:
    """Run an operation that is struck at one effect, then let it recover.

    The operation's name is the seed, so that up to the strike each run is the same:
    what is struck are the effects of one run, one after the other.
    """
    operation = OPERATIONS[name]
    striker = Striker(operation.title, at, mode)
    world = World(name, operation.profile, tracing, striker, operation.schema)
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
    settled, shows = Settled(world), operation.shows

    def shown() -> bool:
        return not shows or world.counts[shows] > 0

    def watch(_: object) -> None:
        """Begin to judge once the strike is over, or can come no more.

        An operation is over once it has shown what it shows, and all is as it must be
        in the end.
        """
        ended = striker.armed and shown() and world.settled()
        striker.over = striker.over or ended
        done = striker.struck or striker.over or scheduler.now > 20.0
        settled.ready = striker.armed and bool(done) and shown()
        scheduler.after(CHECK_S, watch)

    watch(None)
    scheduler.after(CHECK_S, settled.check)
    scheduler.run(LIMIT_S, lambda: settled.for_good or bool(broken))
    if not settled.for_good and not broken:
        missed = "" if shown() else f"nothing was {shows}; "
        world.oracle.say(f"not settled: {missed}{world.unsettled()}")
    return world.result(scheduler.now)
