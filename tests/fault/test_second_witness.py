"""The storage as second witness against ZooKeeper: each disagreement closes the gate.

Nothing is removed, no epoch is used up, and the reason has its own code.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sharedcache.cleaner.finalize import RefusedError, found
from sharedcache.cleaner.lead import hindrance
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.gate import Code
from sharedcache.core.planner import make_plan
from sharedcache.node.service import NodeService, start
from sharedcache.node.world import AgentRefusedError
from tests.support.inprocess import (
    FAST,
    OPERATOR,
    Site,
    gate_codes,
    image_id,
    publish,
    settle,
)
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(90)


def codes(site: Site) -> set[Code]:
    """Return the gate's codes as any observer sees them."""
    plan = make_plan(FAST, site.observer().observe(scan=True).seen)
    assert not plan.take
    assert not plan.purge
    return {reason.code for reason in plan.gate.reasons}


def steps(service: NodeService | CleanerService, count: int = 20) -> None:
    """Let a service make some steps, whatever comes of them."""
    for _ in range(count):
        service.step()


def reporting(site: Site, node: str = "n1") -> NodeService:
    """Start an agent and let it report."""
    agent = site.agent(node)
    publish(agent)
    return agent


def test_an_empty_mount_closes_the_gate(site: Site) -> None:
    """No cluster marker: the directory is not mounted, or not ours."""
    agent = reporting(site)
    path = site.image(image_id())
    away = site.base / ".sharedcache"
    away.rename(site.root / "away")
    cleaner = site.cleaner("c1")
    steps(cleaner)
    assert codes(site) >= {Code.NO_CLUSTER_MARKER}
    assert cleaner.leadership is None
    assert path.exists()
    settle(
        agent,
        until=lambda: (
            agent.publisher.published is not None
            and not agent.publisher.published.complete
        ),
        what="the agent's report is degraded",
    )
    (site.root / "away").rename(away)
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is mounted again")


def test_an_agent_does_not_start_on_an_empty_mount(site: Site) -> None:
    """An agent that cannot see the cluster refuses, and says what to look at."""
    agent = reporting(site)
    shutil.rmtree(site.base / ".sharedcache")
    with pytest.raises(AgentRefusedError, match="is it mounted"):
        start(agent.world, site.cluster)
    site.base.joinpath(".sharedcache").mkdir()
    (site.base / ".sharedcache" / "cluster").write_text("{")
    with pytest.raises(AgentRefusedError, match="cannot be read"):
        start(agent.world, site.cluster)


def test_a_directory_of_another_cluster_closes_the_gate(site: Site) -> None:
    """Two ZooKeepers on one directory, or two directories: cluster-mismatch."""
    reporting(site)
    path = site.image(image_id())
    marker = site.base / ".sharedcache" / "cluster"
    marker.write_text(marker.read_text().replace('"identity": "', '"identity": "x'))
    cleaner = site.cleaner("c1")
    steps(cleaner)
    assert codes(site) == {Code.CLUSTER_MISMATCH}
    assert cleaner.leadership is None
    assert path.exists()
    assert not list((site.base / ".sharedcache" / "epochs").iterdir())
    with pytest.raises(RefusedError):
        found(
            site.session("op"),
            site.storage(),
            site.cluster,
            "y" * 32,
            None,
            by=OPERATOR,
        )


def test_a_wiped_zookeeper_removes_nothing_and_is_not_founded_anew(
    site: Site,
) -> None:
    """A tree without identity on a used directory: refused, nothing is removed."""
    agent = reporting(site)
    path = site.image(image_id())
    session = site.session("op")
    client = session._linked().client()
    client.delete(f"/sharedcache/{site.cluster}", recursive=True)
    cleaner = site.cleaner("c1")
    steps(cleaner)
    steps(agent)
    assert cleaner.leadership is None
    assert path.exists()
    with pytest.raises(RefusedError, match="sharedcache recover"):
        found(session, site.storage(), site.cluster, "y" * 32, None, by=OPERATOR)


def test_a_zookeeper_that_went_back_closes_the_gate(site: Site) -> None:
    """The storage knows a later epoch: ZooKeeper was restored from a copy."""
    agent = reporting(site)
    path = site.image(image_id())
    (site.base / ".sharedcache" / "epochs" / "7").mkdir()
    cleaner = site.cleaner("c1")
    steps(cleaner)
    steps(agent)
    assert codes(site) == {Code.EPOCH_BEHIND}
    assert cleaner.leadership is None
    why = hindrance(site.session("operator"), site.storage())
    assert why is not None
    assert "epoch 7" in why
    assert "sharedcache recover" in why
    assert path.exists()
    epochs = site.base / ".sharedcache" / "epochs"
    assert [p.name for p in epochs.iterdir()] == ["7"]


def test_a_witness_that_the_roster_does_not_know_closes_the_gate(site: Site) -> None:
    """A roster that lost a node: its witness on the storage tells of it."""
    agent = reporting(site)
    path = site.image(image_id())
    stranger = site.agent("n2")
    cleaner = site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 3, what="passes")
    assert codes(site) == {Code.UNROSTERED_NODE}
    assert path.exists()
    settle(stranger, agent, cleaner, until=lambda: not path.exists(), what="it reports")


@contextmanager
def hypervisor(site: Site, *, over: str) -> Iterator[int]:
    """Run a process called libvirtd in a mount namespace of its own.

    ``over`` is what it mounts over the base first; it ends with the block.
    """
    program = site.root / "libvirtd"
    shutil.copy("/bin/sleep", program)
    command = f"{over} && echo ready && exec {program} 60"
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", command], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            pytest.skip("no mount namespaces here (unshare --mount, mount -t tmpfs)")
        comm = Path(f"/proc/{process.pid}/comm")
        eventually(lambda: comm.read_text() == "libvirtd\n", 10, "it runs")
        yield process.pid
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.root
def test_a_hypervisor_that_sees_another_mount_closes_purging(site: Site) -> None:
    """Uses are looked for in what the agent sees, so it must be what guests use."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 1, what="passes")
    with hypervisor(site, over=f"mount -t tmpfs none {site.base}") as process:
        settle(
            agent,
            cleaner,
            until=lambda: gate_codes(cleaner) == {(Code.NODE_DEGRADED, "n1")},
            what="the report is degraded",
        )
        report = agent.publisher.published
        assert report is not None
        (failure,) = report.failures
        assert failure.source == "mount"
        assert f"libvirtd (process {process})" in failure.message
        path = site.image(image_id())
        settle(agent, cleaner, until=lambda: not path.exists(), what="a quarantine")
        steps(cleaner)
        epochs = site.base / ".sharedcache" / "epochs"
        assert [p for p in epochs.iterdir() if p.is_dir() and list(p.iterdir())]
    settle(agent, cleaner, until=lambda: not gate_codes(cleaner), what="it is gone")


@pytest.mark.root
def test_a_hypervisor_in_a_namespace_of_its_own_may_see_the_same(site: Site) -> None:
    """What counts is the directory that it sees, not the namespace."""
    with hypervisor(site, over="true"):
        assert reporting(site).publisher.published.complete  # type: ignore[union-attr]
