"""The coordination contract on the ZooKeeper in memory that the simulation uses."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from sharedcache.core.ports import Create
from tests.contract.coordination_suite import CoordinationContract
from tests.contract.lagging_suite import LaggingContract
from tests.simulation.memory_zookeeper import NODES, MemorySession, MemoryZooKeeper

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class LaggingWorld(MemoryWorld):
    """The same, with a session whose server is as far behind as it may be."""

    _reader: MemorySession | None = None

    def behind(self, member: str) -> Coordination:
        """Start a session with a server that learns of nothing by itself."""
        self._reader = MemorySession(
            self.server, member, self.boottime, SESSION_TIMEOUT_S, lag_s=3600.0
        )
        self._reader.start()
        return self._reader

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block pass: the server lags inside and after it."""
        yield


class CatchingUp(LaggingWorld):
    """The same, whose server lags inside the block only."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the server catch up when the block is over."""
        assert self._reader is not None
        self._reader.lag_s = 3600.0
        try:
            yield
        finally:
            self._reader.lag_s = 0.0


class TestMemoryLagging(LaggingContract):
    """The suite on lag, which simulated schedules rest on."""

    @pytest.fixture
    def world(self) -> LaggingWorld:
        """Give a cluster of its own."""
        return LaggingWorld()


class TestMemoryCatchingUp(LaggingContract):
    """The same for a server that knows all again right after each block."""

    @pytest.fixture
    def world(self) -> LaggingWorld:
        """Give a cluster of its own."""
        return CatchingUp()


class TestMemoryCoordination(CoordinationContract):
    """The suite."""

    @pytest.fixture
    def world(self) -> MemoryWorld:
        """Give a cluster of its own."""
        return MemoryWorld()
