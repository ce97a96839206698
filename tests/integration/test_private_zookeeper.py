"""The launcher of private servers does what it says, with real servers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError
from kazoo.protocol.states import KazooState

from sharedcache.adapters import zookeeper_server
from sharedcache.adapters.zookeeper_server import (
    LOOPBACK,
    DirectoryInUseError,
    PrivateEnsemble,
    PrivateServer,
    ServerFailedError,
    ServerMode,
    ServerSpec,
    ZooKeeperUnavailable,
    find_classpath,
    find_installation,
    find_java,
    four_letter_word,
    free_ports,
    render_config,
)
from tests.support import eventually, expire_session, restore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import ExternalServer

_REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def _installed_zookeeper() -> None:
    """Skip where no server can be started, even if one to connect to is named."""
    try:
        find_installation(os.environ)
    except ZooKeeperUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def server(tmp_path: Path, _installed_zookeeper: None) -> Iterator[PrivateServer]:
    """Start a server of the test's own."""
    with PrivateServer(ServerSpec(data_dir=tmp_path, fsync=False)) as ready:
        yield ready


def _process_is_gone(pid: int) -> bool:
    """Whether no such process runs; one that only awaits its parent is gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def _write(address: str, path: str) -> None:
    client = KazooClient(hosts=address)
    client.start(timeout=15)
    try:
        client.retry(client.create, path, b"x", makepath=True)
    finally:
        client.stop()
        client.close()


class TestFinding:
    """What is missing is named, with the command that installs it."""

    def test_missing_jars_name_the_package_and_the_variable(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without jars the message says what to install or set."""
        monkeypatch.setattr(
            zookeeper_server.installation, "_DEBIAN_JAR", Path("/nonexistent.jar")
        )
        with pytest.raises(ZooKeeperUnavailable) as caught:
            find_classpath({})
        assert "sudo apt-get install -y zookeeper" in str(caught.value)
        assert "ZOOKEEPER_CLASSPATH" in str(caught.value)

    def test_missing_java_names_the_package_and_the_variable(self) -> None:
        """Without Java the message says what to install or set."""
        with pytest.raises(ZooKeeperUnavailable) as caught:
            find_java({"PATH": "/nonexistent"})
        assert "default-jre-headless" in str(caught.value)
        assert "JAVA_HOME" in str(caught.value)

    def test_everything_missing_is_named_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One visit to the package manager is enough."""
        monkeypatch.setattr(
            zookeeper_server.installation, "_DEBIAN_JAR", Path("/nonexistent.jar")
        )
        with pytest.raises(ZooKeeperUnavailable) as caught:
            find_installation({"PATH": "/nonexistent"})
        assert "ZOOKEEPER_CLASSPATH" in str(caught.value)
        assert "JAVA_HOME" in str(caught.value)

    def test_the_variable_replaces_the_package(self) -> None:
        """`ZOOKEEPER_CLASSPATH` is taken as it is."""
        assert find_classpath({"ZOOKEEPER_CLASSPATH": "/opt/zk/*"}) == "/opt/zk/*"

    def test_an_empty_variable_is_no_class_path(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A variable that is set but empty counts as unset."""
        jar = tmp_path / "zookeeper.jar"
        jar.touch()
        monkeypatch.setattr(zookeeper_server.installation, "_DEBIAN_JAR", jar)
        assert str(jar) in find_classpath({"ZOOKEEPER_CLASSPATH": ""})


class TestPortsAndConfiguration:
    """What can be said of a server before it runs."""

    def test_free_ports_differ_and_can_be_bound(self) -> None:
        """No port is given twice, and each is free."""
        ports = free_ports(20)
        assert len(set(ports)) == 20
        for port in ports:
            with socket.socket() as listener:
                listener.bind((LOOPBACK, port))

    def test_sessions_may_be_as_short_as_two_ticks(self, tmp_path: Path) -> None:
        """The tick sets the shortest session, and extra options win."""
        spec = ServerSpec(
            data_dir=tmp_path, tick_time_ms=200, options={"syncLimit": "3"}
        )
        lines = render_config(spec, 2181).splitlines()
        assert "minSessionTimeout=400" in lines
        assert "syncLimit=3" in lines
        assert f"clientPortAddress={LOOPBACK}" in lines


@pytest.mark.zookeeper
@pytest.mark.usefixtures("_installed_zookeeper")
class TestServer:
    """One server, started, watched, disturbed and stopped."""

    def test_serves_and_then_is_gone(self, tmp_path: Path) -> None:
        """Inside the context it serves clients, after it there is no process."""
        with PrivateServer(ServerSpec(data_dir=tmp_path)) as server:
            assert server.mode() is ServerMode.STANDALONE
            assert four_letter_word(server.port, "ruok") == "imok"
            _write(server.address, "/a")
            pid = server.pid
            assert pid is not None
        assert not server.running
        assert _process_is_gone(pid)
        assert server.mode() is None
        server.stop()

    def test_listens_on_loopback_only(self, server: PrivateServer) -> None:
        """Nobody outside this machine reaches it."""
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection(("127.0.0.2", server.port), 1.0),
        ):
            pass

    def test_its_log_is_the_servers_own(self, server: PrivateServer) -> None:
        """`server.log` has ZooKeeper's messages, not only the JVM's."""
        assert "INFO" in server.log_tail(1000)
        assert "ZooKeeperServer" in server.log_path.read_text()
        assert len(server.log_tail(2).splitlines()) == 2

    def test_data_outlives_a_kill(self, server: PrivateServer) -> None:
        """Killed and started again, it has the same address and its data."""
        _write(server.address, "/kept")
        address = server.address
        server.kill()
        assert not server.running
        assert not server.wanted
        server.start()
        server.wait_ready()
        assert server.address == address
        with pytest.raises(NodeExistsError):
            _write(server.address, "/kept")

    def test_two_never_run_from_one_directory(self, server: PrivateServer) -> None:
        """A server that is there refuses another, whoever noted it or did not.

        One that hangs has its directory still; one that ended has not.
        """
        other = PrivateServer(ServerSpec(data_dir=server.spec.data_dir, fsync=False))
        port = server.port
        server.pause()
        with pytest.raises(DirectoryInUseError, match="has not ended yet"):
            other.start()
        server.resume()
        assert not other.running
        assert f"clientPort={port}\n" in (server.spec.data_dir / "zoo.cfg").read_text()
        server.kill()
        with other:
            assert other.mode() is ServerMode.STANDALONE

    def test_a_paused_server_is_silent_and_goes_on(self, server: PrivateServer) -> None:
        """Frozen it keeps its sockets and does not answer."""
        server.pause()
        assert server.paused
        assert server.mode() is None
        with socket.create_connection((LOOPBACK, server.port), 1.0):
            pass
        server.resume()
        assert not server.paused
        server.wait_ready(10)

    def test_a_paused_server_can_be_stopped(self, tmp_path: Path) -> None:
        """A stop need not wait for its deadline to end a frozen server."""
        server = PrivateServer(ServerSpec(data_dir=tmp_path))
        server.start()
        server.wait_ready()
        server.pause()
        server.stop()
        assert not server.running

    def test_a_server_that_ended_cannot_be_paused(self, tmp_path: Path) -> None:
        """The error says which server it was."""
        server = PrivateServer(ServerSpec(data_dir=tmp_path))
        with pytest.raises(ServerFailedError, match="does not run"):
            server.pause()

    def test_a_bad_configuration_fails_at_once_with_the_log(
        self, tmp_path: Path
    ) -> None:
        """The error carries what ZooKeeper said, and no deadline is waited for."""
        spec = ServerSpec(data_dir=tmp_path, options={"tickTime": "soon"})
        server = PrivateServer(spec)
        server.start()
        with pytest.raises(ServerFailedError, match=r"(?s)has ended.*soon"):
            server.wait_ready()

    def test_moves_to_another_port_if_its_own_is_taken(self, tmp_path: Path) -> None:
        """A port lost between choice and bind costs a second start only."""
        server = PrivateServer(ServerSpec(data_dir=tmp_path))
        with socket.socket() as thief:
            thief.bind((LOOPBACK, server.port))
            thief.listen()
            stolen = server.port
            with server:
                assert server.port != stolen
                assert server.mode() is ServerMode.STANDALONE

    def test_another_server_on_its_port_is_not_taken_for_it(
        self, server: PrivateServer, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """An answer counts only if it is this server's own."""
        double = PrivateServer(
            ServerSpec(
                data_dir=tmp_path_factory.mktemp("double"), client_port=server.port
            )
        )
        assert double.mode() is None
        double.start()
        with pytest.raises(ServerFailedError, match="Address already in use"):
            double.wait_ready()
        assert server.mode() is ServerMode.STANDALONE

    def test_dies_with_its_parent(self, tmp_path: Path) -> None:
        """A parent killed outright leaves no server behind."""
        program = (
            "import sys; from pathlib import Path\n"
            "from sharedcache.adapters.zookeeper_server import *\n"
            "server = PrivateServer(ServerSpec(data_dir=Path(sys.argv[1])))\n"
            "server.start(); server.wait_ready()\n"
            "print(server.pid, flush=True); sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=_REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as parent:
            try:
                assert parent.stdout is not None
                pid = int(parent.stdout.readline())
                assert not _process_is_gone(pid)
            finally:
                parent.send_signal(signal.SIGKILL)
        eventually(lambda: _process_is_gone(pid), 10, "the server's end")

    def test_outlives_the_thread_that_started_it(self, tmp_path: Path) -> None:
        """A fault-injecting thread may restart a server and end."""
        server = PrivateServer(ServerSpec(data_dir=tmp_path))
        try:
            starter = threading.Thread(target=server.start)
            starter.start()
            starter.join()
            server.wait_ready()
            assert server.running
        finally:
            server.kill()


@pytest.mark.zookeeper
@pytest.mark.ensemble
@pytest.mark.usefixtures("_installed_zookeeper")
class TestEnsemble:
    """Three servers that elect a leader."""

    def test_survives_the_kill_of_its_leader(self, ensemble: PrivateEnsemble) -> None:
        """The other two elect a new leader and take writes."""
        modes = [member.mode() for member in ensemble.members]
        assert sorted(map(str, modes)) == ["follower", "follower", "leader"]
        leader = ensemble.find_leader()
        assert leader is not None
        leader.kill()
        ensemble.wait_ready(30)
        assert ensemble.find_leader() not in {leader, None}
        _write(ensemble.addresses, f"/after-{leader.port}")

    def test_has_no_leader_without_a_majority(self, ensemble: PrivateEnsemble) -> None:
        """One server of three does not serve."""
        for member in ensemble.members[:2]:
            member.kill()
        eventually(
            lambda: ensemble.members[2].mode() is None, 30, "the last server's silence"
        )
        with pytest.raises(ServerFailedError, match=r"not ready after 0\.2 s"):
            ensemble.wait_ready(0.2)

    def test_is_put_right_after_each_test(self, ensemble: PrivateEnsemble) -> None:
        """The shared servers are well again whatever a test did to them."""
        ensemble.members[0].kill()
        ensemble.members[1].pause()
        restore(ensemble)
        assert all(member.mode() is not None for member in ensemble.members)

    def test_moves_if_a_port_is_taken(self) -> None:
        """A port lost between choice and bind moves the whole ensemble."""
        servers = PrivateEnsemble()
        first = servers.addresses
        with socket.socket() as thief:
            election = servers.members[0].spec.members[0].election_port
            thief.bind((LOOPBACK, election))
            thief.listen()
            with servers:
                assert servers.addresses != first
                assert servers.find_leader() is not None
            directory = servers.members[0].spec.data_dir
        assert not directory.exists()


class TestExpiry:
    """A session's real end, as the server sees it."""

    def test_expire_session_ends_it_at_the_server(
        self, zookeeper: PrivateServer | ExternalServer
    ) -> None:
        """The client learns that it lost its session, and gets another one."""
        client = KazooClient(hosts=zookeeper.address)
        states: list[str] = []
        client.add_listener(states.append)
        client.start(timeout=15)
        try:
            before = client.client_id[0]
            expire_session(zookeeper.address, client.client_id)
            eventually(lambda: KazooState.LOST in states, 15, "the client's LOST")
            eventually(
                lambda: client.connected and client.client_id[0] != before,
                15,
                "a session with another id",
            )
        finally:
            client.stop()
            client.close()
