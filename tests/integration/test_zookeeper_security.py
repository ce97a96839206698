"""Credentials, access lists and TLS, against servers that really ask for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from kazoo.client import KazooClient

from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.adapters.zookeeper_server import (
    LOOPBACK,
    PrivateServer,
    ServerSpec,
    ZooKeeperUnavailable,
    find_classpath,
    free_ports,
)
from sharedcache.core.ports import CoordinationError, Create, DisconnectedError
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(90), pytest.mark.zookeeper]

SOON_S = 10.0
PASSWORD = "hunter2/:@"  # noqa: S105 - the test's own.
QUOTED = "hunter2%2F%3A%40"
STORE_PASSWORD = "changeit"  # noqa: S105 - the test's own.

# Debian's ZooKeeper does not name these jars, and speaks TLS only with them.
NETTY = ("/usr/share/java/netty-codec.jar", "/usr/share/java/netty-resolver.jar")


def started(spec: ServerSpec) -> PrivateServer:
    """Make a server, or skip where none can be."""
    try:
        classpath = ":".join((find_classpath(os.environ), *NETTY))
        return PrivateServer(spec, {**os.environ, "ZOOKEEPER_CLASSPATH": classpath})
    except ZooKeeperUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateServer]:
    """Start a server whose tree is empty: access lists start at the root."""
    with started(ServerSpec(data_dir=tmp_path, fsync=False)) as ready:
        yield ready


def use(session: ZooKeeperSession) -> None:
    """Make every kind of node that the session makes."""
    session.start()
    session.join({"a": 1})
    assert eventually(session.campaign, SOON_S, "the election is won") is not None
    session.ensure("deep/in/the/tree")
    session.commit([Create("record", b"secret"), Create("record/chunk", b"")])


def access(address: str, credentials: str) -> dict[str, list[tuple[str, int]]]:
    """Read who may do what on every node below /sharedcache."""
    client = KazooClient(hosts=address, auth_data=[("digest", credentials)])
    client.start()
    found = {}
    paths = ["/sharedcache"]
    try:
        while paths:
            path = paths.pop()
            acls, _ = client.get_acls(path)
            found[path] = [(f"{acl.id.scheme}:{acl.id.id}", acl.perms) for acl in acls]
            paths += [f"{path}/{child}" for child in client.get_children(path)]
    finally:
        client.stop()
        client.close()
    return found


def test_every_node_belongs_to_the_credentials(server: PrivateServer) -> None:
    """With a password no node is open to anyone, those that tooz makes included."""
    session = ZooKeeperSession(
        f"zookeeper://user:{QUOTED}@{server.address}", "prod", "node-1"
    )
    try:
        use(session)
        found = access(server.address, f"user:{PASSWORD}")
    finally:
        session.stop()
    owners = {who for entry in found.values() for who, _ in entry}
    assert len(owners) == 1
    assert owners.pop().startswith("digest:user:")
    assert all(perms == 31 for entry in found.values() for _, perms in entry)
    kinds = {"groups/nodes/node-1", "record/chunk", "deep/in/the/tree"}
    assert {f"/sharedcache/prod/{kind}" for kind in kinds} <= set(found)
    assert any("__lock__" in path for path in found)


@pytest.mark.parametrize("credentials", ["", "user:wrong@", "other:hunter2@"])
def test_others_are_refused(server: PrivateServer, credentials: str) -> None:
    """Without the credentials nothing can be read or written, and that is said."""
    owner = ZooKeeperSession(
        f"zookeeper://user:{QUOTED}@{server.address}", "prod", "node-1"
    )
    stranger = ZooKeeperSession(
        f"zookeeper://{credentials}{server.address}", "prod", "node-2"
    )
    try:
        use(owner)
        with pytest.raises(CoordinationError, match="not permit") as caught:
            stranger.start()
        assert not isinstance(caught.value, DisconnectedError)
        owner.sync()
        assert set(owner.members()) == {"node-1"}
    finally:
        owner.stop()
        stranger.stop()


def test_without_credentials_nodes_are_open(server: PrivateServer) -> None:
    """Without credentials every node is open, explicitly so."""
    session = ZooKeeperSession(server.address, "prod", "node-1")
    try:
        use(session)
        found = access(server.address, "nobody:at-all")
    finally:
        session.stop()
    assert {who for entry in found.values() for who, _ in entry} == {"world:anyone"}


# TLS.


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a key for the host name `localhost`, and its certificate beside it."""
    keytool = shutil.which("keytool")
    if keytool is None:
        pytest.skip("keytool is missing: it comes with Java")
    store = tmp_path / "store.p12"
    common = ["-alias", "zk", "-keystore", str(store), "-storepass", STORE_PASSWORD]
    subprocess.run(
        [
            *(
                keytool,
                "-genkeypair",
                *common,
                "-keyalg",
                "RSA",
                "-storetype",
                "PKCS12",
            ),
            *("-dname", "CN=zk", "-ext", "san=dns:localhost", "-validity", "2"),
        ],
        check=True,
        capture_output=True,
    )
    exported = subprocess.run(
        [keytool, "-exportcert", "-rfc", *common], check=True, capture_output=True
    )
    (tmp_path / "ca.pem").write_bytes(exported.stdout)
    return store


@pytest.fixture
def secure_port(tmp_path: Path, certificate: Path) -> Iterator[int]:
    """Start a server that speaks TLS, and asks for no client certificate."""
    (port,) = free_ports(1)
    spec = ServerSpec(
        data_dir=tmp_path / "data",
        fsync=False,
        options={
            "secureClientPort": str(port),
            "secureClientPortAddress": LOOPBACK,
            "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "ssl.keyStore.location": str(certificate),
            "ssl.keyStore.password": STORE_PASSWORD,
            "ssl.trustStore.location": str(tmp_path / "ca.pem"),
            "ssl.clientAuth": "none",
        },
    )
    with started(spec):
        yield port


def try_tls(host: str, port: int, options: str) -> None:
    """Start and stop a session."""
    session = ZooKeeperSession(
        f"zookeeper://{host}:{port}?use_ssl=true{options}", "prod", "node-1"
    )
    try:
        session.start(within_s=3.0)
        session.sync()
    finally:
        session.stop()


def test_tls(secure_port: int, tmp_path: Path) -> None:
    """A server that proves its name to the authority given is trusted."""
    try_tls("localhost", secure_port, f"&ca={tmp_path / 'ca.pem'}")


def test_tls_checks_the_host_name(secure_port: int, tmp_path: Path) -> None:
    """A good certificate of another host is refused, unless told not to look."""
    ca = f"&ca={tmp_path / 'ca.pem'}"
    with pytest.raises(DisconnectedError, match="certificate is not valid for"):
        try_tls(LOOPBACK, secure_port, ca)
    try_tls(LOOPBACK, secure_port, ca + "&check_hostname=false")


def test_tls_wants_an_authority(secure_port: int) -> None:
    """A certificate of no known authority is refused, unless told not to look."""
    with pytest.raises(DisconnectedError, match=r"self.signed certificate"):
        try_tls("localhost", secure_port, "")
    try_tls("localhost", secure_port, "&verify_certs=false")


def test_a_missing_file_is_named(secure_port: int, tmp_path: Path) -> None:
    """A file that cannot be read is the reason given, not silence."""
    with pytest.raises(DisconnectedError, match="No such file"):
        try_tls("localhost", secure_port, f"&ca={tmp_path / 'no.pem'}")


# SASL.

_JAAS = """\
Server {
  org.apache.zookeeper.server.auth.DigestLoginModule required
  user_node="hunter2";
};
"""


@pytest.fixture
def sasl_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """Start a server that knows the user `node`."""
    pytest.importorskip("puresasl", reason="needs the package pure-sasl")
    jaas = tmp_path / "jaas.conf"
    jaas.write_text(_JAAS)
    provider = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
    spec = ServerSpec(
        data_dir=tmp_path / "data",
        fsync=False,
        options={"authProvider.1": provider},
        java_options=(f"-Djava.security.auth.login.config={jaas}",),
    )
    with started(spec) as ready:
        yield ready


def sasl_url(server: PrivateServer, password: str) -> str:
    """Write a URL with SASL."""
    return (
        f"zookeeper://{server.address}?sasl_mechanism=DIGEST-MD5&sasl_username=node"
        f"&sasl_password={password}"
    )


def test_sasl(sasl_server: PrivateServer) -> None:
    """With SASL every node belongs to the user that the server has recognised."""
    session = ZooKeeperSession(sasl_url(sasl_server, "hunter2"), "prod", "node-1")
    stranger = ZooKeeperSession(sasl_server.address, "prod", "node-2")
    try:
        use(session)
        session.leave()
        session.join({"a": 2})
        with pytest.raises(CoordinationError, match="not permit"):
            stranger.start()
    finally:
        session.stop()
        stranger.stop()


def test_a_wrong_sasl_password(sasl_server: PrivateServer) -> None:
    """Wrong credentials end a start with that reason, and can be tried again."""
    session = ZooKeeperSession(sasl_url(sasl_server, "wrong"), "prod", "node-1")
    with pytest.raises(DisconnectedError, match="credentials were refused"):
        session.start(within_s=2.0)


def test_sasl_without_its_package(
    monkeypatch: pytest.MonkeyPatch, zk_cluster_name: str
) -> None:
    """A missing package is named at once."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    session = ZooKeeperSession(
        "zookeeper://localhost?sasl_mechanism=GSSAPI", zk_cluster_name, "node-1"
    )
    with pytest.raises(CoordinationError, match="pip install pure-sasl"):
        session.start(within_s=0.5)
