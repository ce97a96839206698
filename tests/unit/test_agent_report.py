"""What an agent's report says of its host's client of the storage."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sharedcache import ledger
from sharedcache.adapters.clock import RandomTokens, SystemClock
from sharedcache.cleaner.finalize import found
from sharedcache.core.acts import Signature
from sharedcache.core.model import Report, RosterRecord
from sharedcache.core.policy import AgentPolicy
from sharedcache.node.service import NodeService, start
from sharedcache.node.world import World
from tests.simulation.memory_disk import MemoryDisk
from tests.simulation.memory_storage import MemoryStorage, Mount
from tests.simulation.memory_zookeeper import MemorySession, MemoryZooKeeper


class Quiet:
    """A host on which nothing happens, and a journal that nobody reads."""

    def boot_id(self) -> str:
        """See the port ``Host``."""
        return "boot-1"

    def seen_otherwise(self, marker: bytes) -> tuple[str, ...]:
        """See the port ``Host``."""
        del marker
        return ()

    def event(self, name: str, /, **fields: object) -> None:
        """See the port ``Journal``."""


def _reported(mount_cache_s: float) -> Report:
    """Return the durable report of an agent whose mount keeps names so long."""
    disk = MemoryDisk(lambda: 1000.0)
    servers = MemoryZooKeeper(lambda: 0.0)
    session = MemorySession(servers, "n1", lambda: 0.0)
    session.start()
    storage = MemoryStorage(Mount(disk, lambda: 0.0, mount_cache_s))
    by = Signature("operator@desk", 0.0)
    found(session, storage, "prod", "identity", None, by=by)
    quiet: Any = Quiet()
    world = World(
        policy=AgentPolicy("n1"),
        storage=storage,
        coordination=session,
        locks=cast("Any", None),
        sources=[],
        clock=SystemClock(),
        tokens=RandomTokens(),
        host=quiet,
        journal=quiet,
    )
    NodeService(world, start(world, "prod")).step()
    record = session.get(ledger.node_path("n1"))
    assert record is not None
    head = ledger.durable_report(record, "n1", session)
    assert isinstance(head, RosterRecord)
    assert head.report is not None
    return head.report


@pytest.mark.parametrize("cache_s", [0.0, 2.5, 60.0])
def test_the_report_tells_how_long_the_mount_keeps_names(cache_s: float) -> None:
    """The floor of every grace rests on it: a cleaner's own mount may keep less."""
    assert _reported(cache_s).name_cache_s == cache_s
