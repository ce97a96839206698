"""``sharedcache recover`` as an operator runs it, beside real daemons."""

from __future__ import annotations

import pytest

from tests.support.cluster import Cluster, cache_name, image_id
from tests.support.zookeeper import forget_cluster

pytestmark = pytest.mark.timeout(120)

USED, UNUSED, LATER = image_id(1), image_id(2), image_id(3)


def test_agreement_needs_no_recovery(cluster: Cluster) -> None:
    """Nothing is asked and nothing changed where both sides agree."""
    cluster.init()
    cluster.agent("compute-1")
    cluster.wait_live("compute-1")
    said = cluster.ask("recover")
    assert said["problems"] == []
    assert said["changes"] == {}
    assert said["recovered"] is False
    assert "Nothing shows" in cluster.run("recover").out


def test_a_cluster_that_zookeeper_lost_is_brought_back(cluster: Cluster) -> None:
    """Shown, asked, recovered: agent and cleaner go on without a restart."""
    cluster.put(cache_name(USED))
    cluster.init()
    cluster.agent("compute-1", uses={"images": [USED]})
    cluster.wait_live("compute-1")
    cluster.cleaner("cleaner-1")
    cluster.wait(lambda: cluster.ask("status")["leader"], "a leader")
    forget_cluster(cluster.zookeeper, cluster.name)

    status = cluster.ask("status")
    codes = {reason["code"] for reason in status["gate"]["reasons"]}
    assert {"cluster-mismatch", "unrostered-node"} <= codes
    assert not status["gate"]["open"]
    refused = cluster.run("init")
    assert refused.code == 3
    assert "sharedcache recover" in refused.err

    shown = cluster.ask("recover", "--dry-run")
    assert shown["recovered"] is False
    assert shown["changes"]["expect"] == ["compute-1"]
    assert shown["storage"]["epoch"] == 1
    assert shown["zookeeper"]["identity"] is None
    unanswered = cluster.run("recover")
    assert unanswered.code == 3
    assert "lost its data" in unanswered.err
    assert not cluster.ask("status")["gate"]["open"]

    done = cluster.ask("recover", "--yes", "--pause")
    assert done["recovered"] is True
    assert done["changes"]["epoch"] == 2
    cluster.wait(lambda: cluster.gate_codes() == {"paused"}, "only the pause is left")
    cluster.ask("resume")
    cluster.put(cache_name(UNUSED))
    cluster.wait(lambda: cluster.names() == {cache_name(USED)}, "it cleans again")
    assert cluster.ask("status")["epoch"] >= 3


def test_another_clusters_directory_is_not_recovered(cluster: Cluster) -> None:
    """Nothing is guessed: without a marker, or with another's, it refuses."""
    missing = cluster.run("recover", "--yes")
    assert missing.code == 3
    assert "mount it first" in missing.err
    cluster.init()
    other = cluster.run("recover", "--yes", "--cluster", "another")
    assert other.code == 3
    assert cluster.name in other.err
