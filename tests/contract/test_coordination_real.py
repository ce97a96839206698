"""The coordination contract on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kazoo.client import KazooClient

from sharedcache.adapters.zookeeper.client import boottime
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from tests.contract.coordination_suite import CoordinationContract
from tests.support import expire_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sharedcache.adapters.zookeeper_server import PrivateServer
    from sharedcache.core.ports import Coordination

SESSION_TIMEOUT_S = 4.0


class RealWorld:
    """A cluster of its own on a real server."""

    def __init__(self, address: str, cluster: str) -> None:
        self._address = address
        self._cluster = cluster
        self._sessions: list[ZooKeeperSession] = []
        self._raw: KazooClient | None = None

    def session(self, member: str) -> Coordination:
        """Start one more session."""
        session = ZooKeeperSession(
            self._address,
            self._cluster,
            member,
            session_timeout_s=SESSION_TIMEOUT_S,
        )
        session.start()
        self._sessions.append(session)
        return session

    @staticmethod
    def _own(session: Coordination) -> ZooKeeperSession:
        assert isinstance(session, ZooKeeperSession)
        return session

    def expire(self, session: Coordination) -> None:
        """Let the server end a session."""
        link = self._own(session)._link
        assert link is not None
        identity = link.raw.client_id
        assert identity is not None
        expire_session(self._address, identity)

    def end(self, session: Coordination) -> None:
        """End a session in good order."""
        self._own(session).stop()

    def plant_member(self, name: str, data: bytes) -> None:
        """Write a member's node past tooz."""
        if self._raw is None:
            self._raw = KazooClient(hosts=self._address)
            self._raw.start()
        self._raw.create(
            f"/sharedcache/{self._cluster}/groups/nodes/{name}", data, ephemeral=True
        )

    def boottime(self) -> float:
        """Read this host's clock."""
        return boottime()

    def close(self) -> None:
        """End every session."""
        for session in self._sessions:
            session.stop()
        if self._raw is not None:
            self._raw.stop()
            self._raw.close()


@pytest.mark.timeout(60)
class TestRealCoordination(CoordinationContract):
    """The suite, and nothing else: what only a real server has is elsewhere."""

    @pytest.fixture
    def world(
        self, zookeeper: PrivateServer, zk_cluster_name: str
    ) -> Iterator[RealWorld]:
        """Give a cluster of its own."""
        world = RealWorld(zookeeper.address, zk_cluster_name)
        yield world
        world.close()
