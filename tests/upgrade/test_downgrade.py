"""A node that goes back after finalization, or joins from the old release."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from sharedcache import ledger
from sharedcache.core.gate import Code
from sharedcache.core.model import KernelNaming, NodeState
from sharedcache.node.world import AgentRefusedError
from tests.support import eventually
from tests.support.cluster import cache_name
from tests.support.cluster import image_id as numbered
from tests.support.inprocess import Site, gate_codes, image_id, publish, settle

if TYPE_CHECKING:
    from sharedcache.cleaner.service import CleanerService
    from tests.support.cluster import Cluster, Daemon

pytestmark = pytest.mark.timeout(120)

OLD = {(Code.NODE_OLD_KERNEL_NAMING, "n2"), (Code.NODE_SCHEMA_TOO_OLD, "n2")}


def test_an_agent_that_is_told_to_go_back_refuses_and_the_gate_stays_closed(
    site: Site,
) -> None:
    """It says what to set; until it is set nobody watches that node, so all waits."""
    path = site.image(image_id())
    first, second = site.agent("n1"), site.agent("n2")
    for agent in (first, second):
        publish(agent)
    second.finish()
    with pytest.raises(AgentRefusedError, match="kernel_naming to auto or sha1"):
        site.agent("n2", kernel_naming=KernelNaming.RAW_ID)
    cleaner = site.cleaner("c1")
    settle(first, cleaner, until=lambda: cleaner.harvest.passes > 3, what="passes")
    assert (Code.NODE_UNREPORTED, "n2") in gate_codes(cleaner)
    assert path.exists()
    again = site.agent("n2")
    settle(
        first, again, cleaner, until=lambda: not path.exists(), what="it follows again"
    )


@pytest.mark.parametrize("state", [NodeState.SEALED, NodeState.MISSING])
def test_an_old_node_that_is_gone_counts(site: Site, state: NodeState) -> None:
    """I5 in every state: an old node comes back as what it was."""
    path = site.image(image_id())
    live = site.agent("n1")
    host = site.stopping_host() if state is NodeState.SEALED else None
    old = site.old_agent("n2", host=host)
    publish(old)
    old.finish()
    cleaner = site.cleaner("c1")
    settle(live, cleaner, until=lambda: cleaner.harvest.passes > 3, what="passes")
    observed = cleaner.harvest.observed
    assert observed is not None
    assert {v.node: v.state for v in observed.seen.facts.nodes}["n2"] is state
    assert gate_codes(cleaner) >= OLD
    assert path.exists()


def _learnt(cleaner: CleanerService) -> bool:
    observed = cleaner.harvest.observed
    return (
        observed is not None
        and cleaner.world.coordination.watch(ledger.ROSTER_COUNTER)
        != observed.roster_changes
    )


def test_an_old_node_that_joins_during_a_purge_stops_it_between_two_files(
    site: Site,
) -> None:
    """I5: an authorised batch ends where the leader learns of an old node."""
    for _ in range(8):
        site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    joiner = site.old_agent("n2")
    witness = site.base / ".sharedcache" / "nodes" / "n2"
    written = witness.read_bytes()
    witness.unlink()
    storage = cleaner.world.storage
    unlink = storage.purge
    done: list[str] = []

    def joining_after_three(epoch: int, leaf: str) -> None:
        unlink(epoch, leaf)
        done.append(leaf)
        if len(done) == 3:
            witness.write_bytes(written)
            joiner.step()
            assert joiner.publisher.published is not None
            eventually(lambda: _learnt(cleaner), 1.0, "the leader learns of it")

    storage.purge = joining_after_three  # type: ignore[method-assign]
    settle(agent, cleaner, until=lambda: len(done) >= 3, what="three are purged")
    for _ in range(5):
        agent.step()
        joiner.step()
        cleaner.step()
    assert len(done) == 3
    assert gate_codes(cleaner) >= OLD


def _told(daemon: Daemon, event: str) -> list[dict[str, str]]:
    """Return what a log in JSON tells of an event; the last line may be half."""
    if not daemon.log.exists():
        return []
    lines = daemon.log.read_text().split("\n")[:-1]
    return [row for row in map(json.loads, lines) if row.get("event") == event]


def _when(row: dict[str, str]) -> datetime:
    return datetime.fromisoformat(row["time"])


def test_the_leader_closes_the_gate_within_a_second_of_an_old_node(
    cluster: Cluster,
) -> None:
    """A leader that has nothing to do for ten seconds looks at once, and names it."""
    kept = cache_name(numbered(1))
    cluster.clean_by(round_interval_s=10, pass_interval_s=300, min_age_image_s=3600)
    cluster.put(kept, age_s=60.0)
    cluster.init()
    leader = cluster.cleaner(start=False)
    old = cluster.agent("compute-2", schema_version=1, start=False)
    for daemon in (leader, old):
        text = daemon.config.read_text()
        daemon.config.write_text(
            text.replace("[sharedcache]", "[sharedcache]\nlog_form = json")
        )
    cluster.agent("compute-1")
    cluster.wait_live("compute-1")
    leader.start()
    cluster.wait(lambda: _told(leader, "gate-open"), "an open gate")
    old.start()
    cluster.wait(lambda: _told(old, "reported"), "the old node's report")
    reported = _when(_told(old, "reported")[0])

    def named() -> list[dict[str, str]]:
        code = "node-old-kernel-naming"
        closed = _told(leader, "gate-closed")
        return [row for row in closed if row["code"] == code]

    cluster.wait(named, "the gate to close")
    assert named()[0]["subject"] == "compute-2"
    took_s = (_when(named()[0]) - reported).total_seconds()
    print(f"the gate was closed {took_s:.3f} s after the old node's report")  # noqa: T201
    assert took_s < 1.0
    reasons = cluster.ask("status")["gate"]["reasons"]
    assert ("node-old-kernel-naming", "compute-2") in {
        (reason["code"], reason["subject"]) for reason in reasons
    }
    assert kept in cluster.names()
