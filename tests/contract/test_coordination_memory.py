"""The coordination contract on the ZooKeeper in memory that the simulation uses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sharedcache.core.ports import Create
from tests.contract.coordination_suite import CoordinationContract
from tests.simulation.memory_zookeeper import NODES, MemorySession, MemoryZooKeeper

if TYPE_CHECKING:
    from sharedcache.core.ports import Coordination

SESSION_TIMEOUT_S = 0.4


class MemoryWorld:
    """One cluster in one ZooKeeper in memory, on this host's clock."""

    def __init__(self) -> None:
        self.server = MemoryZooKeeper(self.boottime)

    def session(self, member: str) -> Coordination:
        """Start one more session."""
        session = MemorySession(self.server, member, self.boottime, SESSION_TIMEOUT_S)
        session.start()
        return session

    def expire(self, session: Coordination) -> None:
        """End a session behind its process's back."""
        assert isinstance(session, MemorySession)
        self.server.end_session(session.raw_session)

    def end(self, session: Coordination) -> None:
        """End a session in good order."""
        assert isinstance(session, MemorySession)
        session.stop()

    def plant_member(self, name: str, data: bytes) -> None:
        """Register a member past the port."""
        owner = self.server.open_session()
        self.server.commit([Create(f"{NODES}/{name}", data)], owner, ephemeral=True)

    def boottime(self) -> float:
        """Read this host's clock."""
        return time.monotonic()


class TestMemoryCoordination(CoordinationContract):
    """The suite."""

    @pytest.fixture
    def world(self) -> MemoryWorld:
        """Give a cluster of its own."""
        return MemoryWorld()
