"""Fixtures and rules that all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.zookeeper_server import (
    PrivateEnsemble,
    PrivateServer,
    ServerSpec,
    ZooKeeperUnavailable,
    find_installation,
)
from tests.support import EXTERNAL_SERVER, ExternalServer, restore
from tests.support.cluster import Cluster
from tests.support.inprocess import Site
from tests.support.nfs.needs import missing
from tests.support.nfs.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

_LOG_LINES = 60

NFS = "SHAREDCACHE_NFS"
"""Set in the environment to run what needs an NFS server and two guests."""

# The private servers of this session, by the name of their fixture.
_SERVERS = pytest.StashKey[dict[str, PrivateServer | PrivateEnsemble | Rig]]()

# What a test marks itself with by using a fixture, so that `-m "not zookeeper"`
# leaves out every test that would start a server.
_MARKS_OF_FIXTURE = {
    "zookeeper": ("zookeeper",),
    "ensemble": ("zookeeper", "ensemble"),
    "nfs": ("nfs",),
}


def pytest_configure(config: pytest.Config) -> None:
    """Make the place where running servers are known, and let Ctrl-C be heard."""
    config.stash[_SERVERS] = {}
    # A shell's background job ignores SIGINT, and so would every program that
    # is started here; tests interrupt some of them as a person would.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use, before `-m` selects."""
    for item in items:
        for fixture, marks in _MARKS_OF_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                for mark in marks:
                    item.add_marker(mark)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine or user cannot run, and say what is missing."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("must run as root")
    if item.get_closest_marker("qemu") and shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is missing: install the package qemu-utils")
    if item.get_closest_marker("nfs") and NFS not in os.environ:
        pytest.skip("needs an NFS server and two guests: run `make test-nfs`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the servers' logs with the failure of a test that uses them."""
    del call
    report = yield
    if report.failed:
        for fixture, server in item.config.stash[_SERVERS].items():
            if fixture in getattr(item, "fixturenames", ()):
                section = f"server log ({fixture}, {report.when})"
                report.sections.append((section, server.log_tail(_LOG_LINES)))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the random order after a failure, also where `-q` hides the header."""
    seed = config.getoption("randomly_seed", None)
    if terminalreporter.stats.keys() & {"failed", "error"} and seed is not None:
        terminalreporter.write_line(f"to repeat this order: --randomly-seed={seed}")


def _skip_without_zookeeper(alternative: str = "") -> None:
    try:
        find_installation(os.environ)
    except ZooKeeperUnavailable as error:
        pytest.skip(f"{error}{alternative}")


@pytest.fixture(scope="session")
def zookeeper(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateServer | ExternalServer]:
    """One standalone server; its `address` is `host:port`."""
    external = os.environ.get(EXTERNAL_SERVER, "")
    if external:
        yield ExternalServer(external)
        return
    _skip_without_zookeeper(
        f"; or set {EXTERNAL_SERVER} to the host:port of a running server"
    )
    spec = ServerSpec(data_dir=tmp_path_factory.mktemp("zookeeper"), fsync=False)
    with PrivateServer(spec) as server:
        request.config.stash[_SERVERS]["zookeeper"] = server
        yield server


@pytest.fixture(scope="session")
def ensemble(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateEnsemble]:
    """Three servers that elected a leader; `addresses` is `host:port,...`.

    A test may kill or freeze them: they are put right after it.
    """
    _skip_without_zookeeper()
    spec = ServerSpec(data_dir=tmp_path_factory.mktemp("ensemble"), fsync=False)
    with PrivateEnsemble(spec=spec) as servers:
        request.config.stash[_SERVERS]["ensemble"] = servers
        yield servers


@pytest.fixture(scope="session")
def nfs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """Run an NFSv4.1 server, and two guests that have mounted its directory."""
    why = missing()
    if why is not None:
        # Who asks for these tests is not served by a run that skips them.
        pytest.fail(f"{why}; scripts/bootstrap.sh --nfs installs what is needed")
    rig = Rig(tmp_path_factory.mktemp("nfs"))
    request.config.stash[_SERVERS]["nfs"] = rig
    with rig:
        yield rig


@pytest.fixture(autouse=True)
def _restored_servers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put right the shared servers that a test may have killed or frozen."""
    yield
    for fixture, server in request.config.stash[_SERVERS].items():
        if fixture in request.fixturenames and not isinstance(server, Rig):
            restore(server)


@pytest.fixture
def zk_cluster_name() -> str:
    """Name a cluster that no other test has, so that tests can share a server."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def cluster(
    zookeeper: PrivateServer | ExternalServer, zk_cluster_name: str, tmp_path: Path
) -> Iterator[Cluster]:
    """Make a base directory and nothing else yet; its processes end with the test."""
    with Cluster(tmp_path, zookeeper.address, zk_cluster_name) as made:
        yield made


@pytest.fixture
def site(
    tmp_path: Path, zookeeper: PrivateServer | ExternalServer, zk_cluster_name: str
) -> Iterator[Site]:
    """Found a cluster at the newest schema, its services in this very process."""
    with Site(tmp_path / "site", zookeeper.address, zk_cluster_name) as made:
        made.found()
        yield made
