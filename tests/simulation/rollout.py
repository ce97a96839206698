"""Rollouts under seeded schedules: nodes begin at schema 1, in every order of events.

Nodes are upgraded, sent back, restarted, crashed and joined while an operator
presses finalize; in the calm at the end all are upgraded and it is finalized.
"""

from __future__ import annotations

import random

from sharedcache.cleaner.finalize import finalize
from sharedcache.cleaner.observe import Observer
from tests.simulation.desk import Desk, say
from tests.simulation.ports import Odds
from tests.simulation.profile import Profile
from tests.simulation.run import Settled, bound_s
from tests.simulation.troubles import Troubles
from tests.simulation.world import CHECK_S, Result, World

TROUBLES = (
    *("upgrade", "upgrade", "upgrade", "upgrade", "upgrade", "upgrade"),
    *("downgrade", "finalize", "finalize", "finalize"),
    *("kill", "crash", "reboot", "expire", "stall", "cut", "newcomer", "old-node"),
)
AGAIN_S = 2.0
"""How often the operator tries to finalize in the calm."""


def profile_of(seed: int) -> Profile:
    """Draw a cluster at schema 1, which hurries more or less."""
    rng = random.Random(f"rollout {seed}")  # noqa: S311 - a schedule
    return Profile(
        nodes=3,
        cleaners=2,
        images=3,
        guests=1,
        trouble_s=rng.choice((12.0, 25.0)),
        report_interval_s=rng.choice((0.3, 1.0)),
        pass_interval_s=0.5,
        min_age_s=0.5,
        guest_interval_s=3.0,
        odds=Odds(lost_answer=rng.choice((0.0, 0.01)), late=rng.choice((0.0, 0.01))),
        troubles=TROUBLES,
        trouble_interval_s=rng.choice((0.5, 1.0, 2.0)),
        founding_schema=1,
    )


class RolloutTroubles(Troubles):
    """What befalls a cluster between two releases, beside all else."""

    def upgrade(self) -> None:
        """Let a node of the old release be upgraded, and its agent restarted."""
        self._install(1, 2)

    def downgrade(self) -> None:
        """Let a node go back to the old release, which asks nobody."""
        self._install(2, 1)

    def finalize(self) -> None:
        """Let an operator press finalize, whoever else does."""
        self._say(_finalize)

    def _install(self, old: int, new: int) -> None:
        schemas = self._world.schemas
        found = sorted(name for name in self._world.agents if schemas[name] == old)
        if found:
            name = self._random.choice(found)
            self._scheduler.tell(name, f"is at schema {new} from now on")
            schemas[name] = new
            self._world.agents[name].kill()


def _finalize(at: Desk) -> None:
    observed = Observer(at.zookeeper, at.storage).observe(scan=False)
    finalize(at.zookeeper, at.storage, observed, "operator", 0.0)


class Rollout:
    """Watches the finalized schema, and ends the rollout in the calm."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._highest = 1
        self._pressed = 0

    @property
    def finalized(self) -> int:
        """The finalized schema as ZooKeeper has it."""
        return int(self._world.oracle._read("rollout")["finalized_schema"])

    def watch(self, _: object) -> None:
        """See that it never goes back."""
        now = self.finalized
        if now < self._highest:
            self._world.oracle.say(f"the finalized schema went back to {now}")
        if now > self._highest and not self._world.calm:
            self._world.counts["finalized in trouble"] += 1
        self._highest = max(self._highest, now)
        self._world.scheduler.after(0.2, self.watch)

    def complete(self, _: object) -> None:
        """Upgrade who is left, and press finalize until it is."""
        world = self._world
        for name in sorted(world.agents):
            if world.schemas[name] == 1:
                world.schemas[name] = 2
                world.agents[name].kill()
        if self.finalized == 1:
            self._pressed += 1
            say(world, f"last-operator-{self._pressed}", 0.1, _finalize)
            world.scheduler.after(AGAIN_S, self.complete)


def simulate(seed: int) -> Result:
    """Run one rollout: troubles, then calm, then judgement."""
    world = World(f"rollout {seed}", profile_of(seed))
    with world.listening():
        try:
            return _run(world)
        finally:
            world.end()


def _run(world: World) -> Result:
    profile, scheduler, broken = world.profile, world.scheduler, world.oracle.violations
    for number in range(profile.nodes):
        world.add_node(f"n{number + 1}", schema=1)
    for number in range(profile.cleaners):
        world.add_cleaner(f"c{number + 1}")
    RolloutTroubles(world, profile.trouble_s)
    rollout = Rollout(world)
    scheduler.after(0.2, rollout.watch)
    scheduler.run(profile.trouble_s, lambda: bool(broken))
    world.calm = True
    settled = Settled(world)
    scheduler.after(0.0, rollout.complete)
    scheduler.after(CHECK_S, settled.check)
    limit = scheduler.now + bound_s(profile) + 10 * AGAIN_S
    scheduler.run(limit, lambda: settled.for_good or bool(broken))
    if not broken and not settled.for_good:
        world.oracle.say(
            f"not settled, finalized schema {rollout.finalized}: {world.unsettled()}"
        )
    return world.result(scheduler.now)
