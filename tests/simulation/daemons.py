"""The bodies of the two daemons: the shipped ones, on ports of this world."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import agents.cleaner
import agents.node
from agents import process as shipped
from sharedcache.cleaner.observe import Observed, Observer
from sharedcache.cleaner.service import CleanerService
from sharedcache.cleaner.world import CleanerWorld
from sharedcache.core.model import KernelNaming
from sharedcache.core.names import Kind
from sharedcache.core.policy import AgentPolicy, CleanerPolicy
from sharedcache.node.world import World as NodeWorld
from tests.simulation.memory_storage import MemoryStorage
from tests.simulation.ports import Scheduled
from tests.simulation.process import (
    Process,
    SeededTokens,
    SimulatedClock,
    TracingJournal,
)

CLUSTER = "simulated"
LOCK_S = 1.0


def _ports(process: Process, member: str) -> tuple[Any, Any, Any]:
    """Make storage, coordination and locks of one run of a daemon."""
    timeout_s = process.world.profile.session_timeout_s
    session = process.connect_with(member, timeout_s)
    return (
        Scheduled(process, "storage", MemoryStorage(process.host.mount)),
        Scheduled(process, "zookeeper", session),
        Scheduled(process, "locks", process.lock_port()),
    )


def agent(process: Process) -> None:
    """Run an agent as `sharedcache-agent` does, from its start on."""
    world, host = process.world, process.host
    storage, coordination, locks = _ports(process, host.name)
    profile, schema = world.profile, world.schemas[host.name]
    clock = SimulatedClock(process)
    policy = AgentPolicy(
        host.name,
        report_interval_s=profile.report_interval_s * host.slowness,
        touch_interval_s=profile.touch_interval_s,
        session_timeout_s=profile.session_timeout_s,
        lock_wait_s=LOCK_S,
        lock_hold_s=LOCK_S,
        kernel_naming=KernelNaming.SHA1 if schema > 1 else KernelNaming.RAW_ID,
        schema_version=schema,
    )
    ports = NodeWorld(
        policy=policy,
        storage=storage,
        coordination=coordination,
        locks=locks,
        sources=[cast("Any", Scheduled(process, "source", world.new_source(host)))],
        clock=clock,
        tokens=SeededTokens(world),
        host=host,
        journal=TracingJournal(world, process.title),
    )
    parts: Any = SimpleNamespace(world=ports, session=coordination, socket=None)
    settings: Any = SimpleNamespace(cluster=CLUSTER, base="/base")
    agents.node._run(parts, settings, cast("Any", clock), cast("Any", process.stop))


def cleaner_policy(process: Process) -> CleanerPolicy:
    """Return the policy of this world's cleaners."""
    profile = process.world.profile
    ages_s = {k: profile.min_age_s for k in Kind if k is not Kind.UNRECOGNISED}
    return CleanerPolicy(
        pass_interval_s=profile.pass_interval_s,
        session_timeout_s=profile.session_timeout_s,
        round_interval_s=profile.round_interval_s,
        grace_s=profile.grace_s,
        min_age_s=ages_s,
        batch=profile.batch,
        lock_hold_s=LOCK_S,
        max_share_percent=profile.share_percent,
        max_share_floor=0,
        max_shrink_percent=100.0,
    )


@dataclass(frozen=True, slots=True)
class Followed:
    """A leader's observer, of which the oracle knows when it begins to look."""

    process: Process
    observer: Observer

    def observe(self, *, scan: bool, epoch: int | None = None) -> Observed:
        """Look as the shipped observer does."""
        oracle, who = self.process.world.oracle, self.process.title
        for why in oracle.reasons.looking(who):
            oracle.say(why)
        seen = self.observer.observe(scan=scan, epoch=epoch)
        oracle.reasons.looked(who)
        return seen


def cleaner(process: Process) -> None:
    """Run a cleaner as `sharedcache-cleaner` does."""
    world = process.world
    storage, coordination, locks = _ports(process, process.title)
    clock: Any = SimulatedClock(process)
    service = CleanerService(
        CleanerWorld(
            name=process.title,
            policy=cleaner_policy(process),
            storage=storage,
            coordination=coordination,
            locks=locks,
            clock=clock,
            tokens=SeededTokens(world),
            journal=TracingJournal(world, process.title),
            stopping=process.stop.wanted,
        )
    )
    service.observer = cast("Any", Followed(process, service.observer))
    stop: Any = process.stop
    try:
        if shipped.connect(coordination, clock, stop):
            agents.cleaner._lead(service, clock, stop)
    finally:
        service.stand_down()
