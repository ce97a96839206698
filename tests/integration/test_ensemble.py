"""Agents and cleaners as processes, on a real ensemble of three servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from sharedcache.adapters.zookeeper_server import PrivateEnsemble
from tests.support import expire_session, password_of
from tests.support.cluster import Cluster, Daemon, cache_name, image_id

pytestmark = pytest.mark.timeout(120)

USED, OTHER = image_id(1), image_id(2)


@pytest.fixture
def cluster(
    tmp_path: Path, ensemble: PrivateEnsemble, zk_cluster_name: str
) -> Iterator[Cluster]:
    """Initialise a cluster with one file in use and one not."""
    with Cluster(tmp_path / "site", ensemble.addresses, zk_cluster_name) as made:
        made.put(cache_name(USED), b"in use" * 100)
        made.init()
        yield made


@pytest.fixture
def client(ensemble: PrivateEnsemble) -> Iterator[KazooClient]:
    """Look into ZooKeeper past our own software."""
    made = KazooClient(hosts=ensemble.addresses)
    made.start()
    yield made
    made.stop()
    made.close()


def owner(client: KazooClient, cluster: Cluster, node: str) -> int:
    """Return the session that a node is registered by, 0 for none."""
    try:
        client.sync("/")
        _, stat = client.get(f"/sharedcache/{cluster.name}/groups/nodes/{node}")
    except NoNodeError:
        return 0
    return int(stat.ephemeralOwner)


def election(client: KazooClient, cluster: Cluster) -> list[int]:
    """Return the sessions that stand for election, the leader's first."""
    path = f"/sharedcache/{cluster.name}/groups/cleaners/leader"
    client.sync("/")
    if not client.exists(path):
        return []
    found: list[tuple[str, int]] = []
    for child in client.get_children(path):
        try:
            _, stat = client.get(f"{path}/{child}")
        except NoNodeError:
            continue
        found.append((child[-10:], int(stat.ephemeralOwner)))
    return [session for _, session in sorted(found)]


def expire(client: KazooClient, session: int) -> None:
    """Expire a session for real: a second client takes it over and ends it."""
    address = ",".join(f"{host}:{port}" for host, port in client.hosts)
    expire_session(address, (session, password_of(session)))


def epoch_files(cluster: Cluster) -> dict[int, bool]:
    """List the epochs on the storage; the value tells whether one is sealed."""
    epochs = cluster.base / ".sharedcache" / "epochs"
    return {int(path.name): path.is_file() for path in epochs.iterdir()}


def events(daemon: Daemon, name: str) -> list[str]:
    """Return a daemon's log lines of one event."""
    lines = daemon.log.read_text().splitlines() if daemon.log.exists() else []
    return [line for line in lines if f" {name} " in f"{line} "]


def add_unused(cluster: Cluster, number: int) -> str:
    """Put one more file that nobody uses."""
    name = cache_name(image_id(number))
    cluster.put(name)
    return name


def wait_purged(cluster: Cluster, *names: str) -> None:
    """Wait until files are neither in the cache nor in quarantine."""
    cluster.wait(
        lambda: not set(names) & (cluster.names() | cluster.quarantined()),
        f"{names} purged",
    )


def two_nodes(cluster: Cluster) -> None:
    """Start two agents, of which one uses a file."""
    cluster.agent("node-1", uses={"images": [USED]})
    cluster.agent("node-2")
    cluster.wait_live("node-1", "node-2")


def test_an_agents_expired_session_is_replaced_by_a_new_one(
    cluster: Cluster, client: KazooClient
) -> None:
    """Session LOST: a new session, joined again with the current report."""
    two_nodes(cluster)
    before = owner(client, cluster, "node-1")
    expire(client, before)
    cluster.wait(
        lambda: owner(client, cluster, "node-1") not in (0, before), "a new session"
    )
    unused = add_unused(cluster, 10)
    cluster.cleaner()
    wait_purged(cluster, unused)
    assert cache_name(USED) in cluster.names()


def test_a_leaders_expired_session_ends_its_epoch(
    cluster: Cluster, client: KazooClient
) -> None:
    """Leadership lost is leadership ended: the next epoch seals it and goes on."""
    two_nodes(cluster)
    first, second = cluster.cleaner("cleaner-1"), cluster.cleaner("cleaner-2")
    cluster.wait(lambda: epoch_files(cluster), "a first epoch")
    leader = election(client, cluster)[0]
    expire(client, leader)
    cluster.wait(lambda: epoch_files(cluster).get(1), "the first epoch is sealed")
    unused = add_unused(cluster, 11)
    wait_purged(cluster, unused)
    assert max(epoch_files(cluster)) >= 2
    assert cache_name(USED) in cluster.names()
    assert first.running
    assert second.running


def test_a_leader_stopped_past_its_lease_acts_no_more_and_can_lead_again(
    cluster: Cluster,
) -> None:
    """I2: another takes over; continued, the old leader removes nothing more."""
    two_nodes(cluster)
    first = cluster.cleaner("cleaner-1")
    cluster.wait(lambda: events(first, "leading"), "the first leads")
    first.pause()
    second = cluster.cleaner("cleaner-2")
    cluster.wait(lambda: events(second, "leading"), "the second takes over")
    assert epoch_files(cluster)[1] is True
    unused = [add_unused(cluster, number) for number in range(20, 24)]
    first.resume()
    cluster.wait(lambda: events(first, "standing-down"), "the first stands down")
    wait_purged(cluster, *unused)
    assert not events(first, "quarantined")
    assert not events(first, "purged")
    assert second.stop() == 0
    cluster.wait(lambda: len(events(first, "leading")) == 2, "the first leads again")
    more = add_unused(cluster, 30)
    wait_purged(cluster, more)
    # It is told right after the unlink.
    cluster.wait(lambda: events(first, "purged"), "the first purges")
    assert cache_name(USED) in cluster.names()


def test_a_leader_killed_in_the_middle_is_succeeded(cluster: Cluster) -> None:
    """A leader that dies leaves nothing undone that its successor does not do."""
    two_nodes(cluster)
    unused = [add_unused(cluster, number) for number in range(40, 60)]
    first = cluster.cleaner("cleaner-1", grace_s=3600)
    cluster.wait(cluster.quarantined, "files in quarantine")
    first.kill()
    cluster.cleaner("cleaner-2")
    wait_purged(cluster, *unused)
    assert cluster.names() == {cache_name(USED)}


def test_an_agent_restarted_within_its_session_timeout_comes_back(
    cluster: Cluster,
) -> None:
    """The old registration stands in the way until it expires, and not longer."""
    two_nodes(cluster)
    agent = cluster.daemons["node-1"]
    agent.kill()
    agent.start()
    assert cluster.gate_codes() <= {"node-unreported", "node-missing"}
    cluster.wait(
        lambda: not cluster.gate_codes(), "the gate is open again", deadline_s=30.0
    )
    cluster.wait_live("node-1", "node-2")
    assert [n["uses"] for n in cluster.ask("node", "list")] == [1, 0]


def test_the_elections_node_is_never_counted_as_a_member(cluster: Cluster) -> None:
    """A phantom member `leader` is in no list: elections have their own group."""
    two_nodes(cluster)
    cleaners = [cluster.cleaner("cleaner-1"), cluster.cleaner("cleaner-2")]
    cluster.wait(lambda: any(events(c, "leading") for c in cleaners), "a leader")
    status = cluster.ask("status")
    assert status["nodes"]["total"] == 2
    assert {n["node"] for n in cluster.ask("node", "list")} == {"node-1", "node-2"}


def test_a_member_that_tooz_cannot_decode_closes_the_gate(
    cluster: Cluster, client: KazooClient
) -> None:
    """A report that cannot be read counts as a node that uses everything."""
    agent = cluster.agent("node-1", uses={"images": [USED]})
    cluster.wait_live("node-1")
    agent.pause()
    client.set(f"/sharedcache/{cluster.name}/groups/nodes/node-1", b"\xc1 not msgpack")
    unused = add_unused(cluster, 70)
    cluster.cleaner()
    cluster.wait(lambda: "node-unreported" in cluster.gate_codes(), "the gate closes")
    assert unused in cluster.names()
    agent.resume()


def test_the_loss_of_one_server_is_not_noticed_and_that_of_two_removes_nothing(
    cluster: Cluster, ensemble: PrivateEnsemble
) -> None:
    """Without a quorum nobody acts; with one again everything goes on."""
    two_nodes(cluster)
    cleaner = cluster.cleaner()
    cluster.wait(lambda: events(cleaner, "leading"), "a leader")
    ensemble.members[0].kill()
    first = add_unused(cluster, 80)
    wait_purged(cluster, first)
    ensemble.members[1].pause()
    cluster.wait(lambda: events(cleaner, "pass-failed"), "the leader notices")
    second = add_unused(cluster, 81)
    passes = len(events(cleaner, "pass"))
    cluster.wait(
        lambda: (
            len(events(cleaner, "pass-failed")) >= 3 or events(cleaner, "standing-down")
        ),
        "the leader keeps failing",
    )
    assert len(events(cleaner, "pass")) == passes
    assert second in cluster.names()
    ensemble.members[1].resume()
    wait_purged(cluster, second)
    assert cache_name(USED) in cluster.names()
