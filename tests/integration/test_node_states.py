"""Live, sealed, missing, degraded: what each node's last report is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedcache import ledger
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.gate import Code
from sharedcache.core.model import NodeState, Uses
from sharedcache.core.names import digest_of
from sharedcache.core.policy import MissingNodes
from sharedcache.node.service import NodeService
from tests.support.inprocess import FAST, Site, gate_codes, image_id, publish, settle

pytestmark = pytest.mark.timeout(90)


def passes(cleaner: CleanerService, *agents: NodeService, count: int = 10) -> None:
    """Let a cleaner make some passes."""
    first = cleaner.harvest.passes
    settle(
        *agents,
        cleaner,
        until=lambda: cleaner.harvest.passes >= first + count,
        what=f"{count} passes",
    )


def state_of(cleaner: CleanerService, node: str) -> NodeState:
    """Return the state of a node as the cleaner saw it last."""
    observed = cleaner.harvest.observed
    assert observed is not None
    return next(v.state for v in observed.seen.facts.nodes if v.node == node)


def test_a_sealed_node_holds_nothing_back_but_what_it_uses(site: Site) -> None:
    """A sealed report stands: its uses are kept, and the space is freed."""
    used = image_id()
    kept, gone = site.image(used), site.image(image_id())
    site.uses("n2", images=[used])
    live = site.agent("n1")
    sealed = site.agent("n2", host=site.stopping_host())
    publish(sealed)
    sealed.finish()
    # The host is off, and other nodes touch files after its final report.
    young = site.file(digest_of(image_id()).hex(), age_s=100.0)
    cleaner = site.cleaner("c1")
    settle(
        live,
        cleaner,
        until=lambda: not gone.exists() and not young.exists(),
        what="unused files are taken",
    )
    settle(
        live,
        cleaner,
        until=lambda: len(cleaner.harvest.purged.names) == 2,
        what="and purged",
    )
    assert state_of(cleaner, "n2") is NodeState.SEALED
    assert kept.exists()


def test_a_sealed_node_that_starts_again_closes_the_gate_until_it_reports(
    site: Site,
) -> None:
    """A sealed report stands only while the witness bears its incarnation."""
    live = site.agent("n1")
    sealed = site.agent("n2", host=site.stopping_host())
    publish(sealed)
    sealed.finish()
    path = site.image(image_id())
    again = site.agent("n2")
    cleaner = site.cleaner("c1")
    passes(cleaner, live)
    assert (Code.NODE_UNREPORTED, "n2") in gate_codes(cleaner)
    assert path.exists()
    settle(
        live, again, cleaner, until=lambda: not path.exists(), what="it reports again"
    )


def test_an_agent_that_just_stops_leaves_its_node_missing(site: Site) -> None:
    """Missing nodes hold back purging, not quarantine, by default."""
    live, stopped = site.agent("n1"), site.agent("n2")
    publish(stopped)
    stopped.finish()
    path = site.image(image_id())
    cleaner = site.cleaner("c1")
    settle(live, cleaner, until=lambda: not path.exists(), what="it is quarantined")
    passes(cleaner, live)
    assert gate_codes(cleaner) == {(Code.NODE_MISSING, "n2")}
    assert not cleaner.harvest.purged.names
    back = site.agent("n2")
    settle(
        live,
        back,
        cleaner,
        until=lambda: bool(cleaner.harvest.purged.names),
        what="it is purged once the node is back",
    )


def test_an_operator_may_let_a_missing_nodes_last_report_stand(site: Site) -> None:
    """The waiver: untouched files are purged, and what it used stays."""
    used = image_id()
    kept, gone = site.image(used), site.image(image_id())
    site.uses("n2", images=[used])
    live, stopped = site.agent("n1"), site.agent("n2")
    publish(stopped)
    stopped.finish()
    cleaner = site.cleaner("c1", replace(FAST, missing_nodes=MissingNodes.LAST_REPORT))
    settle(
        live,
        cleaner,
        until=lambda: bool(cleaner.harvest.purged.names),
        what="the unused file is purged",
    )
    assert not gone.exists()
    assert kept.exists()


def test_a_degraded_node_keeps_its_last_good_uses_and_holds_back_purging(
    site: Site,
) -> None:
    """A source that fails makes the report degraded, never empty."""
    used = image_id()
    kept, gone = site.image(used), site.image(image_id())
    site.uses("n1", images=[used])
    agent = site.agent("n1")
    publish(agent)
    (site.root / "n1.json").write_text("{")
    cleaner = site.cleaner("c1")
    settle(agent, cleaner, until=lambda: not gone.exists(), what="it is quarantined")
    passes(cleaner, agent)
    assert gate_codes(cleaner) == {(Code.NODE_DEGRADED, "n1")}
    assert state_of(cleaner, "n1") is NodeState.DEGRADED
    assert not cleaner.harvest.purged.names
    assert kept.exists()
    site.uses("n1", images=[used])
    settle(
        agent,
        cleaner,
        until=lambda: bool(cleaner.harvest.purged.names),
        what="it is purged once the source answers",
    )
    assert kept.exists()


def test_a_report_too_large_for_one_znode_is_never_cut(site: Site) -> None:
    """45,000 uses and more go into parts, and every one of them protects."""
    ids = [image_id() for _ in range(45_000)]
    first, last = site.image(ids[0]), site.image(ids[-1])
    gone = site.image(image_id())
    site.uses("n1", images=ids)
    agent = site.agent("n1", report_interval_s=1.0)
    publish(agent)
    coordination = agent.world.coordination
    parts = coordination.children(ledger.PARTS)
    assert len(parts) == 3
    cleaner = site.cleaner("c1")
    settle(
        agent,
        cleaner,
        until=lambda: bool(cleaner.harvest.purged.names),
        what="the unused file is purged",
    )
    assert not gone.exists()
    assert first.exists()
    assert last.exists()
    site.uses("n1")
    settle(
        agent,
        until=lambda: (
            agent.publisher.published is not None
            and agent.publisher.published.now == Uses()
        ),
        what="a small report",
    )
    assert parts != coordination.children(ledger.PARTS)


def test_an_agent_started_again_sweeps_up_the_parts_of_its_last_run(
    site: Site,
) -> None:
    """Parts that no head names are deleted, and nobody else's are."""
    agent = site.agent("n1")
    publish(agent)
    coordination = agent.world.coordination
    for part in ("n1.0123456789abcdef.0", "n1.x.0123456789abcdef.0"):
        coordination.ensure(f"{ledger.PARTS}/{part}")
    coordination.leave()
    publish(site.agent("n1"))
    assert coordination.children(ledger.PARTS) == ["n1.x.0123456789abcdef.0"]
