"""Running one seed, and many of them in several processes."""

from __future__ import annotations

from tests.simulation.profile import Profile
from tests.simulation.remedy import Remedy
from tests.simulation.troubles import Troubles
from tests.simulation.world import CHECK_S, Result, World, profile_of

ROUNDS = 20
"""Within how many rounds after the last trouble all must be settled."""

LASTS_S = 3.0
"""How long all must stay as it is to be so for good."""


def bound_s(profile: Profile) -> float:
    """Within how many seconds after the last trouble all must be settled.

    Sessions of dead processes end, daemons start again, files grow old enough,
    caches forget, and a few rounds of reports are made.
    """
    return (
        16.0
        + 3 * profile.session_timeout_s
        + 2 * profile.min_age_s
        + profile.grace_s
        + 3 * profile.longest_cache_s
        + 4 * profile.pass_interval_s
        + 14 * (profile.report_interval_s + profile.round_interval_s)
        + (40.0 if profile.uneven else 0.0)
    )


def simulate(
    seed: int | str, profile: Profile | None = None, *, tracing: bool = False
) -> Result:
    """Run one seed: troubles for a while, then calm, then judgement."""
    world = World(seed, profile or profile_of(seed), tracing)
    with world.listening():
        try:
            return _run(world)
        finally:
            world.end()


def _run(world: World) -> Result:
    profile, scheduler = world.profile, world.scheduler
    for number in range(profile.nodes):
        world.add_node(f"n{number + 1}")
    for number in range(profile.cleaners):
        world.add_cleaner(f"c{number + 1}")
    Troubles(world, profile.trouble_s)
    broken = world.oracle.violations.__len__
    scheduler.run(profile.trouble_s, lambda: world.over or broken() > 0)
    if broken():
        return world.result(0.0)
    world.calm, calm_s = True, scheduler.now
    before = world.counts["rounds"]
    scheduler.tell("world", "all is calm from now on")
    settled = Settled(world)
    scheduler.after(CHECK_S, settled.check)
    remedy, limit = Remedy(world), calm_s

    def over() -> bool:
        return settled.for_good or broken() > 0

    # What an operator has to set right has a bound of its own after that.
    while not over() and limit < remedy.since_s + bound_s(profile):
        limit = remedy.since_s + bound_s(profile)
        scheduler.run(limit, over)
    if not broken() and not settled.for_good:
        world.oracle.say(
            f"not settled in {bound_s(profile):.0f} s: {world.unsettled()}"
        )
    result = world.result(scheduler.now - calm_s, settled.rounds - before)
    if not broken() and result.rounds > ROUNDS:
        world.oracle.say(f"settled after {result.rounds} rounds only")
        return world.result(result.settled_s, result.rounds)
    return result


class Settled:
    """Looks again and again whether all is as it must be in the end.

    For good is what lasts: a pass that began before may still take what a guest
    began to use meanwhile, and its agent then gives it back.
    """

    def __init__(self, world: World) -> None:
        self.for_good = False
        self.rounds = 0
        self.ready = True
        self._world = world
        self._since: float | None = None

    def check(self, _: object) -> None:
        """Look once, and again later."""
        scheduler = self._world.scheduler
        if not (self.ready and self._world.settled()):
            self._since = None
        elif self._since is None:
            self._since = scheduler.now
            self.rounds = self._world.counts["rounds"]
        elif scheduler.now - self._since >= LASTS_S:
            self.for_good = True
            return
        scheduler.after(CHECK_S, self.check)
