"""Two releases of sharedcache side by side, as processes, in either order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from sharedcache import __version__
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.cleaner.observe import Observer
from sharedcache.core.model import Report
from tests.support.cluster import Cluster, cache_name, image_id
from tests.support.other_release import OtherRelease, switch
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Daemon

pytestmark = pytest.mark.timeout(180)

USED = image_id(1)
PATIENCE_S = 60.0
_CLOSED = re.compile(r"\bpass epoch=\d+ gate=closed\b")


@pytest.fixture
def desk(cluster: Cluster) -> Iterator[Observer]:
    """Found the cluster with a file in use; look at it with this release's eyes."""
    cluster.put(cache_name(USED))
    cluster.init()
    session = ZooKeeperSession(
        cluster.zookeeper, cluster.name, "desk", session_timeout_s=4.0
    )
    session.start()
    with DirectoryStorage(str(cluster.base)) as storage:
        yield Observer(session, storage)
    session.stop()


def releases(desk: Observer) -> dict[str, str]:
    """Tell which release each node's last report is of."""
    views = desk.observe(scan=False).seen.facts.nodes
    return {
        v.node: v.report.release
        for v in views
        if isinstance(v.report, Report) and v.member and v.witnessed
    }


def purged(cluster: Cluster, number: int) -> None:
    """Put an unused file there, and wait until it is purged."""
    name = cluster.put(cache_name(image_id(number))).name
    eventually(
        lambda: name not in cluster.names() | cluster.quarantined(),
        PATIENCE_S,
        f"file {number} is purged",
    )
    assert cache_name(USED) in cluster.names()


def led_by(desk: Observer, cleaner: Daemon) -> None:
    """Wait until this cleaner leads."""
    pid = f"-{cleaner.pid}"
    eventually(
        lambda: (desk.coordination.leader() or "").endswith(pid),
        PATIENCE_S,
        f"{cleaner.name} leads",
    )


def test_releases_with_the_same_schemas_work_together_in_any_order(
    cluster: Cluster, desk: Observer, tmp_path: Path
) -> None:
    """A leader of either, agents of both, up and down again: files go on going."""
    later = OtherRelease(tmp_path, "0.2.0")
    one = cluster.agent("n1", uses={"images": [USED]})
    cluster.agent("n2")
    first = cluster.cleaner("c1")
    led_by(desk, first)
    purged(cluster, 10)
    # An agent first, under a leader of this release.
    later.takes_over(one)
    eventually(
        lambda: releases(desk) == {"n1": "0.2.0", "n2": __version__},
        PATIENCE_S,
        "both releases report",
    )
    purged(cluster, 11)
    # A cleaner of the later release leads, agents of both.
    second = cluster.cleaner("c2", start=False)
    later.takes_over(second)
    first.stop()
    led_by(desk, second)
    purged(cluster, 12)
    # Back again: the agent reads its own record of the later release.
    switch(one, {})
    eventually(
        lambda: releases(desk) == {"n1": __version__, "n2": __version__},
        PATIENCE_S,
        "both are of this release",
    )
    purged(cluster, 13)
    # And the cleaner: what the later one left in the tree is no obstacle.
    first.start()
    second.stop()
    led_by(desk, first)
    purged(cluster, 14)


def test_what_this_release_cannot_read_stops_it_and_nothing_else(
    cluster: Cluster, desk: Observer, tmp_path: Path
) -> None:
    """A release with new records and a new schema: older ones stand back, by name."""
    newer = OtherRelease(tmp_path, "1.0.0", breaking=True)
    one = cluster.agent("n1", uses={"images": [USED]})
    two = cluster.agent("n2", uses={"images": [USED]})
    old = cluster.cleaner("c1")
    led_by(desk, old)
    purged(cluster, 20)
    newer.takes_over(one)
    eventually(
        lambda: (
            "n1 writes records that this release cannot read" in old.log.read_text()
            or "node-schema-unknown" in old.log.read_text()
        ),
        PATIENCE_S,
        "the older leader names the newer node",
    )
    kept = cluster.put(cache_name(image_id(21)))
    closed = len(_CLOSED.findall(old.log.read_text()))
    eventually(
        lambda: len(_CLOSED.findall(old.log.read_text())) >= closed + 3,
        PATIENCE_S,
        "the older leader passes over a closed gate",
    )
    assert kept.exists()
    # A newer leader reads both; the older agent cannot follow its records.
    new = cluster.cleaner("c2", start=False)
    newer.takes_over(new)
    old.stop()
    led_by(desk, new)
    eventually(lambda: not kept.exists(), PATIENCE_S, "the newer leader takes it")
    assert cluster.quarantined() == {kept.name}
    assert two.running
    newer.takes_over(two)
    eventually(lambda: not cluster.quarantined(), PATIENCE_S, "confirmed by all")
    assert cache_name(USED) in cluster.names()
    # This release's command line stands back, and says what to do.
    told = cluster.run("status")
    assert (told.code, told.out) == (1, "")
    assert told.err.endswith("upgrade this host\n")
    # The newer release commits to its schema; who is older refuses to start.
    cluster.environ.update(newer.environ)
    done = cluster.ask("rollout", "finalize", "--yes")
    assert done["finalized_schema"] == 3
    purged(cluster, 22)
    assert two.stop() == 0
    two.environ.clear()
    two.start()
    assert two.wait() == 1
    assert "upgrade" in two.tail()
