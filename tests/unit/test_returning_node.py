"""What the gate says of an expunged node whose agent comes back."""

from __future__ import annotations

from sharedcache.cleaner import operator
from sharedcache.cleaner.observe import Observer
from sharedcache.core.gate import Code
from sharedcache.core.gate_rules import evaluate
from sharedcache.node.service import NodeService
from tests.support.memory_agent import OPERATOR, MemoryCluster


def _reasons(cluster: MemoryCluster) -> list[tuple[Code, str]]:
    """Return the gate's reasons as a leader sees them now."""
    observer = Observer(cluster.session("leader"), cluster.storage())
    facts = observer.observe(scan=False).seen.facts
    return [(reason.code, reason.subject) for reason in evaluate(facts).reasons]


def _back(cluster: MemoryCluster) -> NodeService:
    """Expunge a node that is off, and start its agent again."""
    cluster.agent("n1").step()
    lost = cluster.agent("n2")
    lost.step()
    lost.world.coordination.leave()
    operator.expunge(cluster.session("desk"), cluster.storage(), "n2", OPERATOR)
    assert _reasons(cluster) == []
    return cluster.agent("n2")


def test_it_is_not_on_the_roster_until_it_has_joined_anew() -> None:
    """It registers and meets its tombstone: the gate says that it is not expected."""
    cluster = MemoryCluster()
    back = _back(cluster)
    assert _reasons(cluster) == [(Code.UNROSTERED_NODE, "n2")]
    back.step()
    assert back.world.coordination.joined()
    assert back.publisher.published is None
    assert _reasons(cluster) == [(Code.UNROSTERED_NODE, "n2")]
    back.look_soon()
    back.step()
    assert back.publisher.published is not None
    assert _reasons(cluster) == []


def test_a_rostered_node_that_started_again_is_unreported() -> None:
    """Of a node that is expected the same sight means another thing."""
    cluster = MemoryCluster()
    cluster.agent("n1").step()
    cluster.agent("n1")
    assert _reasons(cluster) == [(Code.NODE_UNREPORTED, "n1")]
