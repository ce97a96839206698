"""ZooKeeper out of reach, lost, in part, or slow: told, and no file is removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedcache.adapters.zookeeper_server import PrivateEnsemble, PrivateServer
from tests.support import ExternalServer
from tests.support.cluster import Cluster, cache_name, image_id
from tests.support.inprocess import Site, publish, settle
from tests.support.proxy import Proxy
from tests.support.stake import Stake, told

pytestmark = pytest.mark.timeout(120)

USED, UNUSED = image_id(1), image_id(2)


@pytest.fixture
def proxy(zookeeper: PrivateServer | ExternalServer) -> Iterator[Proxy]:
    """Stand between a cluster and its server; open."""
    with Proxy(zookeeper.address) as made:
        made.open()
        yield made


@pytest.fixture
def behind(proxy: Proxy, tmp_path: Path, zk_cluster_name: str) -> Iterator[Site]:
    """Found a cluster whose way to ZooKeeper is the proxy."""
    with Site(tmp_path / "site", proxy.address, zk_cluster_name) as made:
        made.found()
        yield made


def test_zookeeper_unreachable_at_start_is_told_and_waited_for(
    proxy: Proxy, tmp_path: Path, zk_cluster_name: str
) -> None:
    """Daemons keep trying and say so; a command gives up with exit code 1."""
    with Cluster(tmp_path / "site", proxy.address, zk_cluster_name) as cluster:
        for ident in (USED, UNUSED):
            cluster.put(cache_name(ident))
        cluster.init()
        proxy.cut()
        agent = cluster.agent("compute-1", uses={"images": [USED]})
        cleaner = cluster.cleaner()
        answer = cluster.run("status")
        assert answer.code == 1
        assert "check that it runs, that this host reaches its port" in answer.err
        for daemon in (agent, cleaner):
            cluster.wait(lambda d=daemon: "trying on" in d.tail(), "it says so")  # type: ignore[misc]
            assert f"cannot connect to ZooKeeper at {proxy.address}" in daemon.tail()
            assert "check that it runs" in daemon.tail()
            assert daemon.running
        # Guests may start meanwhile: the witness is written.
        assert (cluster.base / ".sharedcache" / "nodes" / "compute-1").exists()
        assert cluster.names() == {cache_name(USED), cache_name(UNUSED)}
        proxy.open()
        cluster.wait(
            lambda: cluster.names() == {cache_name(USED)} and not cluster.quarantined(),
            "it goes on by itself",
            60,
        )


def _out_of_reach(site: Site, proxy: Proxy, trouble: str) -> None:
    """Let a cluster lose ZooKeeper in some way, and find it again."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 1, what="a leader")
    if trouble == "cut":
        proxy.cut()
    else:
        proxy.delay_s = 8.0
    stake = Stake.of(site, "n1")
    settle(
        agent,
        cleaner,
        until=lambda: (
            any("check" in t for t in told(agent, "zookeeper-out-of-reach"))
            and told(cleaner, "standing-down")
            and any("check" in t for t in told(cleaner, "pass-failed"))
        ),
        what="agent and cleaner say so",
        deadline_s=60,
    )
    assert cleaner.leadership is None
    assert stake.untouched()
    proxy.delay_s = 0.0
    proxy.cut()
    proxy.open()
    settle(agent, cleaner, until=stake.gone, what="it goes on", deadline_s=60)


def test_zookeeper_lost_later_removes_nothing(behind: Site, proxy: Proxy) -> None:
    """The agent goes on looking, the leader stands down, both say so."""
    _out_of_reach(behind, proxy, "cut")


def test_a_zookeeper_too_slow_to_answer_removes_nothing(
    behind: Site, proxy: Proxy
) -> None:
    """Answers that take longer than a lease are none."""
    _out_of_reach(behind, proxy, "slow")


def test_a_slow_zookeeper_only_takes_longer(behind: Site, proxy: Proxy) -> None:
    """Slow answers are answers: the used file stays, the other goes in the end."""
    stake = Stake.of(behind, "n1")
    agent, cleaner = behind.agent("n1"), behind.cleaner("c1")
    publish(agent)
    proxy.delay_s = 0.03
    settle(agent, cleaner, until=stake.gone, what="it goes on", deadline_s=90)


def test_zookeeper_without_one_server_goes_on(
    ensemble: PrivateEnsemble, tmp_path: Path, zk_cluster_name: str
) -> None:
    """With a majority nothing needs to be said; without one nothing is removed."""
    address = ensemble.addresses
    with Site(tmp_path / "site", address, zk_cluster_name) as site:
        site.found()
        agent, cleaner = site.agent("n1"), site.cleaner("c1")
        settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 1, what="leads")
        ensemble.members[0].kill()
        stake = Stake.of(site, "n1")
        settle(agent, cleaner, until=stake.gone, what="it goes on", deadline_s=60)
        ensemble.members[1].kill()
        other = Stake.of(site, "n1")
        settle(
            agent,
            cleaner,
            until=lambda: any(
                "check" in text for text in told(agent, "zookeeper-out-of-reach")
            ),
            what="the agent says so",
            deadline_s=60,
        )
        assert other.untouched()
        for server in ensemble.members[:2]:
            server.start()
        settle(agent, cleaner, until=other.gone, what="it goes on", deadline_s=60)
