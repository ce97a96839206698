"""A cluster in memory, and agents of it that a test steps through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sharedcache.adapters.clock import RandomTokens, SystemClock
from sharedcache.cleaner.finalize import found
from sharedcache.core.policy import AgentPolicy
from sharedcache.core.ports import Source
from sharedcache.node.service import NodeService, start
from sharedcache.node.world import World
from tests.simulation.desk import OPERATOR
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


@dataclass
class MemoryCluster:
    """One disk and one ZooKeeper, on which no time passes."""

    disk: MemoryDisk = field(default_factory=lambda: MemoryDisk(lambda: 1000.0))
    servers: MemoryZooKeeper = field(
        default_factory=lambda: MemoryZooKeeper(lambda: 0.0)
    )

    def __post_init__(self) -> None:
        """Found it."""
        session = self.session("founder")
        found(session, self.storage(), "prod", "identity", None, by=OPERATOR)

    def session(self, member: str) -> MemorySession:
        """Return a new session."""
        session = MemorySession(self.servers, member, lambda: 0.0)
        session.start()
        return session

    def storage(self, cache_s: float = 0.0) -> MemoryStorage:
        """Return the storage through a mount that keeps names so long."""
        return MemoryStorage(Mount(self.disk, lambda: 0.0, cache_s))

    def agent(
        self, node: str, cache_s: float = 0.0, sources: Sequence[Source] = ()
    ) -> NodeService:
        """Start an agent; its first step reports."""
        quiet: Any = Quiet()
        world = World(
            policy=AgentPolicy(node),
            storage=self.storage(cache_s),
            coordination=self.session(node),
            locks=cast("Any", None),
            sources=sources,
            clock=SystemClock(),
            tokens=RandomTokens(),
            host=quiet,
            journal=quiet,
        )
        return NodeService(world, start(world, "prod"))
