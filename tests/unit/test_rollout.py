"""The rollout: mixed, ready, finalized, and who stands in the way."""

from __future__ import annotations

import pytest

from sharedcache.core.gate import NodeView
from sharedcache.core.model import Incarnation, KernelNaming, Unreadable, Witness
from sharedcache.core.rollout import Stage, status
from tests.property.strategies import report, view


def test_no_node_is_not_readiness() -> None:
    """An empty roster is ready for nothing."""
    found = status(1, ())
    assert found.stage is Stage.MIXED
    assert "No node" in found.advice


def test_ready_when_every_node_supports_the_newest_schema() -> None:
    """Sealed and missing nodes count by their last report."""
    nodes = [
        view(report("a")),
        view(report("b", sealed=True), member=False),
        view(report("c"), member=False),
    ]
    found = status(1, nodes)
    assert found.stage is Stage.READY
    assert found.waiting_for == ()
    assert "finalize" in found.advice


def test_old_naming_does_not_hold_back_finalizing() -> None:
    """Writers turn later than readers: that is what finalizing is for."""
    nodes = [view(report(kernel_naming=KernelNaming.RAW_ID))]
    assert status(1, nodes).stage is Stage.READY


@pytest.mark.parametrize(
    "node",
    [
        view(report=None),
        view(Unreadable("cut short")),
        view(report(schema_version=1)),
        view(report(schema_version=1, sealed=True), member=False),
        view(report(schema_version=1), member=False),
        view(report(), witness=None),
        view(report(), witness=Witness("n1", Incarnation("boot", 2), 0)),
    ],
)
def test_one_node_that_is_not_ready_is_named(node: NodeView) -> None:
    """An expected, unreadable, older or restarted node stands in the way."""
    found = status(1, [view(report("n0")), node])
    assert found.stage is Stage.MIXED
    assert [name for name, _ in found.waiting_for] == ["n1"]
    assert "n1" in found.advice


def test_finalized_stays_finalized() -> None:
    """It is a one-way act; a node that joins older is still named."""
    found = status(2, [view(report(schema_version=1))])
    assert found.stage is Stage.FINALIZED
    assert [name for name, _ in found.waiting_for] == ["n1"]
    assert "finalized" in found.advice


def test_many_nodes_are_counted() -> None:
    """The advice names five nodes and counts the others."""
    nodes = [view(report(f"n{number}", schema_version=1)) for number in range(7)]
    assert "and 2 more" in status(1, nodes).advice


RAW = report(kernel_naming=KernelNaming.RAW_ID)
RESTARTED = Witness("n1", Incarnation("boot", 2), 0)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (view(report(schema_version=1)), "upgrade n1"),
        (view(RAW), "set [agent] kernel_naming to auto or sha1 on n1"),
        (view(report(), witness=RESTARTED), "look at the agent's log on n1"),
        (view(RAW, witness=RESTARTED), "look at the agent's log on n1"),
        (view(report=None), "look at the agent's log on n1"),
        (view(Unreadable("schema 9", newer=True)), "use the release of n1"),
        (view(report(schema_version=3)), "use the release of n1"),
    ],
)
def test_after_finalization_the_advice_says_what_to_do_about_each(
    node: NodeView, said: str
) -> None:
    """Whoever keeps the gate closed lags, and the sentence names what ends it."""
    found = status(2, [view(report("n0")), node])
    assert [name for name, _ in found.lagging] == ["n1"]
    assert "nothing is removed until this is done: " + said in found.advice


def test_a_node_that_is_ahead_is_neither_upgraded_nor_awaited() -> None:
    """Before finalization, too: it is this release that has to follow."""
    for node in (report(schema_version=3), Unreadable("schema 9", newer=True)):
        advice = status(1, [view(report("n0")), view(node)]).advice
        assert advice.startswith("Use the release of n1 here"), advice


def test_an_unknown_finalized_schema_is_not_said_to_be_done() -> None:
    """A cluster ahead of this release keeps the gate closed: that is to be mended."""
    found = status(3, [view(report(schema_version=3))])
    assert found.stage is Stage.FINALIZED
    assert "which this release does not know: use one that does" in found.advice
