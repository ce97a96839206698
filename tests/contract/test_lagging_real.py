"""What a reader behind a follower sees, on three real servers.

The follower hears of the leader through a proxy.  While that holds everything
back, the follower goes on answering its clients with what it knows.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.adapters.zookeeper_server import (
    LOOPBACK,
    PrivateServer,
    QuorumMember,
    ServerMode,
    ServerSpec,
    ZooKeeperUnavailable,
    free_ports,
)
from tests.contract.lagging_suite import LaggingContract
from tests.support import eventually
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sharedcache.core.ports import Coordination

# Neither sessions nor the follower's place in the ensemble end while it is held.
SESSION_TIMEOUT_S = 30.0
PATIENCE = {"syncLimit": "60", "initLimit": "60"}
READY_S = 60.0


class Servers:
    """Three servers, the first of which follows through proxies."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        ports = iter(free_ports(9))
        members = [
            QuorumMember(
                server_id=1 + i, quorum_port=next(ports), election_port=next(ports)
            )
            for i in range(3)
        ]
        self._proxies = [
            stack.enter_context(Proxy(f"{LOOPBACK}:{one.quorum_port}"))
            for one in members[1:]
        ]
        for proxy in self._proxies:
            proxy.open()
        # Of new servers the one with the highest number that is there leads, so
        # the first one follows whichever does.
        seen = [
            members[0],
            *(
                replace(one, quorum_port=int(proxy.address.partition(":")[2]))
                for one, proxy in zip(members[1:], self._proxies, strict=True)
            ),
        ]
        self.members = [
            PrivateServer(
                ServerSpec(
                    data_dir=root / f"server{one.server_id}",
                    client_port=next(ports),
                    server_id=one.server_id,
                    members=tuple(seen if one.server_id == 1 else members),
                    fsync=False,
                    options=PATIENCE,
                )
            )
            for one in members
        ]
        for server in self.members:
            stack.callback(server.kill)
            server.start()
        eventually(self._ready, READY_S, "one leads and two follow")

    def _ready(self) -> bool:
        first, *others = [server.mode() for server in self.members]
        both = {ServerMode.LEADER, ServerMode.FOLLOWER}
        return first is ServerMode.FOLLOWER and set(others) == both

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the first server from hearing of the leader."""
        for proxy in self._proxies:
            proxy.hold()
        try:
            yield
        finally:
            for proxy in self._proxies:
                proxy.release()


class LaggingWorld:
    """A cluster of its own on those servers."""

    def __init__(self, servers: Servers, cluster: str) -> None:
        self._servers = servers
        self._cluster = cluster
        self._sessions: list[ZooKeeperSession] = []
        self.held = servers.held

    def _session(self, member: str, servers: list[PrivateServer]) -> Coordination:
        session = ZooKeeperSession(
            ",".join(server.address for server in servers),
            self._cluster,
            member,
            session_timeout_s=SESSION_TIMEOUT_S,
        )
        session.start()
        self._sessions.append(session)
        return session

    def session(self, member: str) -> Coordination:
        """Start a session with a server that is in step."""
        return self._session(member, self._servers.members[1:])

    def behind(self, member: str) -> Coordination:
        """Start a session with the follower that can be held."""
        return self._session(member, self._servers.members[:1])

    def close(self) -> None:
        """End every session."""
        for session in self._sessions:
            session.stop()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Start the three servers."""
    try:
        with ExitStack() as stack:
            yield Servers(tmp_path_factory.mktemp("lagging"), stack)
    except ZooKeeperUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.zookeeper
@pytest.mark.ensemble
@pytest.mark.timeout(120)
class TestRealLagging(LaggingContract):
    """The suite."""

    @pytest.fixture
    def world(self, servers: Servers, zk_cluster_name: str) -> Iterator[LaggingWorld]:
        """Give a cluster of its own."""
        world = LaggingWorld(servers, zk_cluster_name)
        yield world
        world.close()
