"""Held names in the end, and refusals that do occur."""

from __future__ import annotations

from collections import Counter

from sharedcache.cleaner import operator
from tests.simulation.desk import OPERATOR
from tests.simulation.memory_zookeeper import MemorySession
from tests.simulation.operations import QUIET
from tests.simulation.run import simulate
from tests.simulation.world import World

SCHEDULES = 12


def test_all_is_as_it_must_be_though_a_name_is_held() -> None:
    """What nobody uses and somebody holds stays, and is not waited for."""
    world = World("held", QUIET)
    name = world.images[1]
    session = MemorySession(world.zookeeper, "desk", world.storage_time)
    session.start()
    operator.hold(session, name, "simulated", OPERATOR)
    with world.listening():
        for node in ("n1", "n2"):
            world.add_node(node)
        world.add_cleaner("c1")
        world.scheduler.run(30.0, world.settled)
        assert world.settled(), world.unsettled()
        assert list(world.disk.base.names) == [name]
        operator.release(session, name, OPERATOR)
        assert not world.settled()
        world.end()
    assert world.oracle.violations == []


def test_the_storage_refuses_unlinks_and_new_names() -> None:
    """Each kind of step that a leader tries again later is refused in some story."""
    counts: Counter[str] = Counter()
    for number in range(1, SCHEDULES + 1):
        result = simulate(f"refused:{number}")
        assert result.violations == ()
        counts.update(result.counts)
    assert counts["purge-refused"] >= 2, counts
    assert counts["renewal-refused"] >= 2, counts
