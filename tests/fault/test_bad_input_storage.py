"""A base directory that is not what it should be: refused, degraded, or closed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedcache.adapters.zookeeper_server import PrivateServer
from sharedcache.core.gate import Code
from sharedcache.core.ports import StorageError
from tests.support import ExternalServer
from tests.support.cluster import Cluster, cache_name, image_id
from tests.support.disks import mounted, run_mount, unmount
from tests.support.inprocess import Site, gate_codes, publish, settle
from tests.support.stake import Stake, failures_of, steps, told

pytestmark = pytest.mark.timeout(120)

USED, UNUSED = image_id(1), image_id(2)


def founded(cluster: Cluster) -> None:
    """Make a cluster with a file that will be in use and one that will not."""
    cluster.put(cache_name(USED))
    cluster.put(cache_name(UNUSED))
    cluster.init()


def living(cluster: Cluster) -> None:
    """Make a cluster with a file in use and one that is not, and its agent."""
    founded(cluster)
    cluster.agent("compute-1", uses={"images": [USED]})
    cluster.wait_live("compute-1")


def refused(cluster: Cluster, module_of: str, words: str, **shared: object) -> None:
    """See that an agent or a cleaner with another base ends, and says why."""
    make = cluster.agent if module_of == "agent" else cluster.cleaner
    daemon = make(f"wrong-{module_of}", start=False)
    text = daemon.config.read_text()
    for key, value in shared.items():
        old = next(line for line in text.splitlines() if line.startswith(f"{key} ="))
        text = text.replace(old, f"{key} = {value}")
    daemon.config.write_text(text)
    daemon.start()
    assert daemon.wait() == 1
    assert words in daemon.tail()


def test_a_wrong_base_directory_is_refused(cluster: Cluster) -> None:
    """A path that is nothing, or a file: exit code 1, and what to set."""
    founded(cluster)
    nowhere, file = cluster.root / "nowhere", cluster.root / "file"
    file.write_text("x")
    advice = "mount the shared storage, or set `base`"
    refused(cluster, "agent", advice, base=nowhere)
    refused(cluster, "cleaner", advice, base=nowhere)
    answer = cluster.run("status", "--base", str(file))
    assert answer.code == 1
    assert "something that is not a directory lies there" in answer.err
    assert cluster.names() == {cache_name(USED), cache_name(UNUSED)}
    assert not cluster.quarantined()


def test_an_empty_base_directory_is_refused(cluster: Cluster) -> None:
    """An empty mount: no agent starts, nobody cleans, and init does not bind it."""
    living(cluster)
    empty = cluster.root / "empty"
    empty.mkdir()
    refused(
        cluster, "agent", "is it mounted, and was `sharedcache init` run", base=empty
    )
    gate = cluster.ask("status", "--base", str(empty))["gate"]
    (reason,) = [r for r in gate["reasons"] if r["code"] == "no-cluster-marker"]
    assert "is it mounted" in reason["message"]
    assert reason["closes"] == "all"
    answer = cluster.run("clean", "--once", "--base", str(empty))
    assert answer.code == 3, answer
    answer = cluster.run("init", "--base", str(empty))
    assert answer.code == 3
    assert "choose another cluster name, or the right directory" in answer.err
    assert not list(empty.iterdir())
    assert cluster.names() == {cache_name(USED), cache_name(UNUSED)}
    done = cluster.ask("clean", "--once", "--wait")
    assert done["purged"] == [cache_name(UNUSED)]


def test_a_foreign_base_directory_is_refused(cluster: Cluster) -> None:
    """Somebody else's directory: refused by all, and left as it was."""
    founded(cluster)
    foreign = cluster.root / "foreign"
    (foreign / "photos").mkdir(parents=True)
    for name in ("notes.txt", cache_name(UNUSED), "photos/1.jpg"):
        (foreign / name).write_text("somebody's")
    refused(
        cluster, "agent", "is it mounted, and was `sharedcache init` run", base=foreign
    )
    answer = cluster.run("init", "--base", str(foreign))
    assert answer.code == 3, answer
    assert "choose another cluster name, or the right directory" in answer.err
    answer = cluster.run("clean", "--once", "--base", str(foreign))
    assert answer.code == 3, answer
    assert "no-cluster-marker" in answer.err
    found = {str(p.relative_to(foreign)) for p in foreign.rglob("*")}
    assert found == {"notes.txt", cache_name(UNUSED), "photos", "photos/1.jpg"}
    assert cluster.names() == {cache_name(USED), cache_name(UNUSED)}


def test_a_base_bound_to_another_cluster_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    """By name at the start, by identity as soon as ZooKeeper answers."""
    living(cluster)
    other = Cluster(tmp_path / "other", cluster.zookeeper, f"{cluster.name}-other")
    with other:
        founded(other)
        words = f"belongs to cluster {other.name}, not to {cluster.name}: check"
        refused(cluster, "agent", words, base=other.base)
        gate = cluster.ask("status", "--base", str(other.base))["gate"]
        (reason,) = [r for r in gate["reasons"] if r["code"] == "cluster-mismatch"]
        assert "check base, zookeeper and cluster in the settings" in reason["message"]
        answer = cluster.run("clean", "--once", "--base", str(other.base))
        assert answer.code == 3, answer
        # The same name in another ZooKeeper tree has another identity.
        marker = other.base / ".sharedcache" / "cluster"
        marker.write_text(marker.read_text().replace(other.name, cluster.name))
        refused(cluster, "agent", "one of them is another cluster's", base=other.base)
        for one in (cluster, other):
            assert one.names() == {cache_name(USED), cache_name(UNUSED)}
    done = cluster.ask("clean", "--once", "--wait")
    assert done["purged"] == [cache_name(UNUSED)]


@pytest.fixture
def mountable(
    tmp_path: Path, zookeeper: PrivateServer | ExternalServer, zk_cluster_name: str
) -> Iterator[Site]:
    """Found a cluster on a mount that can be taken away and be made read-only."""
    store = tmp_path / "store"
    with (
        Site(tmp_path / "site", zookeeper.address, zk_cluster_name) as made,
        mounted(store),
    ):
        bind(store, made.base)
        try:
            made.found()
            yield made
        finally:
            unmount(made.base)


def bind(store: Path, base: Path) -> None:
    """Mount the store at the base."""
    run_mount("--bind", str(store), str(base))


@pytest.mark.root
def test_a_base_that_is_unmounted_degrades_the_report(mountable: Site) -> None:
    """Under running daemons: no look is relied on, nothing is taken, and it heals."""
    stake = Stake.of(mountable, "n1")
    agent = mountable.agent("n1")
    publish(agent)
    unmount(mountable.base)
    cleaner = mountable.cleaner("c1")
    settle(
        agent,
        until=lambda: "is it mounted" in failures_of(agent).get("storage", ""),
        what="the report is degraded",
    )
    steps(cleaner)
    assert cleaner.leadership is None
    assert "do not name one cluster" in told(cleaner, "standing-for-election")[-1]
    assert not list(mountable.base.iterdir())
    bind(mountable.root.parent / "store", mountable.base)
    assert stake.untouched()
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


@pytest.mark.root
def test_a_base_that_is_unmounted_under_a_leader_closes_the_gate(
    mountable: Site,
) -> None:
    """A leader, too, sees that it looks at nothing any more."""
    agent, cleaner = mountable.agent("n1"), mountable.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 1, what="a leader")
    stake = Stake.of(mountable, "n1")
    unmount(mountable.base)
    settle(
        cleaner,
        until=lambda: (Code.NO_CLUSTER_MARKER, "storage") in gate_codes(cleaner),
        what="the gate is closed",
    )
    bind(mountable.root.parent / "store", mountable.base)
    assert stake.untouched()
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


@pytest.mark.root
def test_a_read_only_mount_degrades_the_report(mountable: Site) -> None:
    """No clock of the storage, so no report to rely on; no leader can act either."""
    stake = Stake.of(mountable, "n1")
    agent = mountable.agent("n1")
    publish(agent)
    run_mount("-o", "remount,bind,ro", str(mountable.base))
    with pytest.raises(StorageError, match="mount the storage for writing"):
        mountable.agent("n2")
    cleaner = mountable.cleaner("c1")
    settle(
        agent,
        cleaner,
        until=lambda: (
            "mount the storage for writing" in failures_of(agent).get("storage", "")
            and any(
                "mount the storage for writing" in text
                for text in told(cleaner, "pass-failed")
            )
        ),
        what="agent and cleaner say so",
    )
    assert stake.untouched()
    run_mount("-o", "remount,bind,rw", str(mountable.base))
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


@pytest.mark.root
def test_a_mount_that_becomes_read_only_under_a_leader_takes_nothing(
    mountable: Site,
) -> None:
    """The leader says what to do at every pass, and its agents are degraded."""
    agent, cleaner = mountable.agent("n1"), mountable.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 1, what="a leader")
    stake = Stake.of(mountable, "n1")
    run_mount("-o", "remount,bind,ro", str(mountable.base))
    settle(
        agent,
        cleaner,
        until=lambda: (
            "storage" in failures_of(agent)
            and any(
                "mount the storage for writing" in text
                for text in told(cleaner, "pass-failed")
            )
        ),
        what="agent and cleaner say so",
    )
    assert stake.untouched()
    run_mount("-o", "remount,bind,rw", str(mountable.base))
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


@pytest.fixture
def shared(
    zookeeper: PrivateServer | ExternalServer, zk_cluster_name: str
) -> Iterator[Cluster]:
    """Make a cluster in a directory that other users may enter."""
    root = Path(tempfile.mkdtemp(prefix="sharedcache-"))
    root.chmod(0o755)
    try:
        with Cluster(root / "site", zookeeper.address, zk_cluster_name) as made:
            yield made
    finally:
        shutil.rmtree(root)


def _nobody() -> tuple[str, ...]:
    """Return what runs a program as a user without rights, as our child still."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is missing: install the package util-linux")
    return (
        setpriv,
        *("--reuid=65534", "--regid=65534", "--clear-groups"),
        "--pdeathsig=KILL",
    )


@pytest.mark.root
def test_a_directory_without_the_rights_is_refused(shared: Cluster) -> None:
    """An agent that may not write its witness ends; a cleaner takes nothing."""
    living(shared)
    advice = "run as the owner of the cache directory"
    agent = shared.agent("compute-2", start=False)
    agent.prefix = _nobody()
    agent.start()
    assert agent.wait() == 1
    assert advice in agent.tail()
    assert f"must be able to write below {shared.base}/.sharedcache" in agent.tail()
    cleaner = shared.cleaner(start=False)
    cleaner.prefix = _nobody()
    cleaner.start()
    shared.wait(lambda: advice in cleaner.tail(), "the cleaner says so")
    assert shared.names() == {cache_name(USED), cache_name(UNUSED)}
    assert not shared.quarantined()
    cleaner.stop()
    done = shared.ask("clean", "--once", "--wait")
    assert done["purged"] == [cache_name(UNUSED)]


@pytest.mark.root
def test_instances_without_the_rights_to_read_keep_the_gate_closed(
    shared: Cluster,
) -> None:
    """An agent that may not read every disk reports nothing, and says so."""
    living(shared)
    instances = shared.root / "guests"
    (instances / "one").mkdir(parents=True)
    (instances / "one" / "disk").write_bytes(b"raw")
    (instances / "one" / "disk").chmod(0o600)
    for path in shared.base.rglob(".sharedcache/nodes"):
        path.chmod(0o777)
    agent = shared.agent(
        "compute-2", start=False, sources="instances", instances_path=instances
    )
    agent.prefix = _nobody()
    agent.start()
    shared.wait(lambda: "no-report-yet" in agent.tail(), "it says so")
    assert f"cannot read {instances}/one/disk" in agent.tail()
    assert "let the agent read it" in agent.tail()
    assert shared.gate_codes() == {"unrostered-node"}
    assert shared.run("clean", "--once").code == 3
    assert shared.names() == {cache_name(USED), cache_name(UNUSED)}
    (instances / "one" / "disk").chmod(0o644)
    shared.wait_live("compute-2")
    done = shared.ask("clean", "--once", "--wait")
    assert done["purged"] == [cache_name(UNUSED)]
