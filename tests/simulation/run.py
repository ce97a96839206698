"""Running one seed, and many of them in several processes."""

from __future__ import annotations

from tests.simulation.profile import Profile
from tests.simulation.troubles import Troubles
from tests.simulation.world import CHECK_S, Result, World, profile_of


def bound_s(profile: Profile) -> float:
    """Within how many seconds after the last trouble all must be settled.

    Sessions of dead processes end, daemons start again, files grow old enough,
    caches forget, and a few rounds of reports are made.
    """
    return (
        12.0
        + 3 * profile.session_timeout_s
        + 2 * profile.min_age_s
        + profile.grace_s
        + 3 * profile.cache_s
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
    scheduler.run(profile.trouble_s, lambda: broken() > 0)
    if broken():
        return world.result(0.0)
    world.calm = True
    scheduler.tell("world", "all is calm from now on")
    flag: list[float] = []

    def check(_: object) -> None:
        if world.settled():
            flag.append(scheduler.now)
        else:
            scheduler.after(CHECK_S, check)

    # Longer than any trouble that was under way.
    scheduler.after(CHECK_S, check)
    limit = scheduler.now + bound_s(profile)
    scheduler.run(limit, lambda: bool(flag) or broken() > 0)
    if not broken() and not flag:
        world.oracle.say(
            f"not settled in {bound_s(profile):.0f} s: {world.unsettled()}"
        )
    if flag:
        # It stays as it is: nothing that is used goes now.
        scheduler.run(scheduler.now + 3.0, lambda: broken() > 0)
        if not broken() and not world.settled():
            world.oracle.say(f"settled and not for good: {world.unsettled()}")
    return world.result(scheduler.now - profile.trouble_s)
