"""The gate: what closes it, how much of it, and what opens it again."""

from __future__ import annotations

from typing import Any

import pytest

from sharedcache.core.gate import (
    Closes,
    Code,
    Gate,
    GateFacts,
    NodeView,
    Reason,
)
from sharedcache.core.gate_rules import evaluate
from sharedcache.core.model import (
    Cluster,
    Incarnation,
    KernelNaming,
    NodeState,
    Unreadable,
    Witness,
)
from sharedcache.core.policy import MissingNodes
from tests.property.strategies import CLUSTER, FAILED, facts, report, view

BROKEN = Unreadable("cut short")
NEWER = Unreadable("schema 9", newer=True)


def _codes(known: GateFacts) -> set[Code]:
    return {reason.code for reason in evaluate(known).reasons}


def test_good_facts_open_the_gate() -> None:
    """With live nodes and agreement there is no reason at all."""
    gate = evaluate(facts(view(report()), view(report("n2"))))
    assert gate == Gate()
    assert gate.open
    assert gate.purge_open


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"on_storage": None}, Code.NO_CLUSTER_MARKER),
        ({"on_storage": None, "in_zookeeper": None}, Code.NO_CLUSTER_MARKER),
        ({"in_zookeeper": None}, Code.CLUSTER_MISMATCH),
        ({"in_zookeeper": Cluster("demo", "x")}, Code.CLUSTER_MISMATCH),
        ({"in_zookeeper": BROKEN}, Code.CLUSTER_MISMATCH),
        ({"on_storage": BROKEN}, Code.CLUSTER_MISMATCH),
        ({"on_storage": BROKEN, "in_zookeeper": BROKEN}, Code.CLUSTER_MISMATCH),
        ({"storage_epoch": 4}, Code.EPOCH_BEHIND),
        ({"nodes": ()}, Code.NO_NODES),
        ({"strangers": ("n9",)}, Code.UNROSTERED_NODE),
        ({"finalized_schema": 1}, Code.ROLLOUT_NOT_FINALIZED),
        ({"finalized_schema": BROKEN}, Code.ROLLOUT_NOT_FINALIZED),
        ({"finalized_schema": 3}, Code.NODE_SCHEMA_UNKNOWN),
        ({"storage_schema": 3}, Code.NODE_SCHEMA_UNKNOWN),
        ({"storage_schema": NEWER}, Code.NODE_SCHEMA_UNKNOWN),
        ({"storage_schema": 2, "finalized_schema": 1}, Code.EPOCH_BEHIND),
        ({"paused": "works"}, Code.PAUSED),
    ],
)
def test_the_cluster_closes_everything(changes: dict[str, Any], code: Code) -> None:
    """Each disagreement of the cluster closes all, with its own reason."""
    gate = evaluate(facts(view(report()), **changes))
    assert code in {r.code for r in gate.reasons if r.closes is Closes.ALL}
    assert not gate.open
    assert not gate.purge_open


@pytest.mark.parametrize("told", [None, 1, 2, BROKEN])
def test_a_storage_whose_schema_is_not_ahead_is_no_reason(told: object) -> None:
    """The storage's word lags behind for a moment; a damaged one is written anew."""
    assert evaluate(facts(view(report()), storage_schema=told)) == Gate()


def test_a_leader_ahead_of_the_storage_is_no_reason() -> None:
    """ZooKeeper's epoch may be above the storage's: it was just claimed."""
    assert evaluate(facts(view(report()), zookeeper_epoch=4)) == Gate()


_OTHER = Witness("n1", Incarnation("boot", 2), 0)
_UNCLEAR = Witness("n1", None, 0)


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (view(report=None), Code.NODE_UNREPORTED),
        (view(report=None), Code.NODE_OLD_KERNEL_NAMING),
        (view(BROKEN), Code.NODE_UNREPORTED),
        (view(BROKEN), Code.NODE_OLD_KERNEL_NAMING),
        (view(NEWER), Code.NODE_SCHEMA_UNKNOWN),
        (view(report(), witness=None), Code.NODE_UNREPORTED),
        (view(report(), witness=_OTHER), Code.NODE_UNREPORTED),
        (view(report(), witness=_UNCLEAR), Code.NODE_UNREPORTED),
        (view(report(), witness=_OTHER, member=False), Code.NODE_UNREPORTED),
        (
            view(report(kernel_naming=KernelNaming.RAW_ID)),
            Code.NODE_OLD_KERNEL_NAMING,
        ),
        (
            view(report(kernel_naming=KernelNaming.UNKNOWN)),
            Code.NODE_OLD_KERNEL_NAMING,
        ),
        (view(report(schema_version=1)), Code.NODE_SCHEMA_TOO_OLD),
        (view(report(schema_version=3)), Code.NODE_SCHEMA_UNKNOWN),
    ],
)
@pytest.mark.parametrize("missing", MissingNodes)
def test_a_node_closes_everything(
    node: NodeView, code: Code, missing: MissingNodes
) -> None:
    """One such node closes all, whatever an operator waives, and is named."""
    gate = evaluate(facts(view(report("n0")), node, missing_nodes=missing))
    found = [r for r in gate.reasons if r.code is code]
    assert [(r.closes, r.subject) for r in found] == [(Closes.ALL, "n1")]
    assert not gate.open


@pytest.mark.parametrize("sealed", [True, False])
def test_old_naming_counts_in_whatever_state(*, sealed: bool) -> None:
    """I5: a sealed or missing node comes back as what it was."""
    old = report(kernel_naming=KernelNaming.RAW_ID, sealed=sealed)
    gate = evaluate(facts(view(old, member=False)))
    assert Code.NODE_OLD_KERNEL_NAMING in {r.code for r in gate.reasons}
    assert not gate.open


def test_schema_1_is_not_too_old_before_finalization() -> None:
    """Below schema 2 the rollout is the reason, not the node's schema."""
    known = facts(view(report(schema_version=1)), finalized_schema=1)
    assert _codes(known) == {Code.ROLLOUT_NOT_FINALIZED}


def test_a_degraded_node_closes_purging_only() -> None:
    """It cannot confirm, but what it is known to use is known."""
    gate = evaluate(facts(view(report(failures=FAILED))))
    assert {r.code for r in gate.reasons} == {Code.NODE_DEGRADED}
    assert gate.open
    assert not gate.purge_open


def test_a_missing_node_closes_purging_only() -> None:
    """It holds back purging until it is back, expunged or waived."""
    gone = view(report(), member=False)
    gate = evaluate(facts(view(report("n0")), gone))
    assert {r.code for r in gate.reasons} == {Code.NODE_MISSING}
    assert gate.open
    assert not gate.purge_open
    waived = facts(view(report("n0")), gone, missing_nodes=MissingNodes.LAST_REPORT)
    assert evaluate(waived) == Gate()


def test_a_waiver_does_not_complete_a_report() -> None:
    """A missing node whose last report was degraded still closes purging."""
    gone = view(report(failures=FAILED), member=False)
    waived = facts(gone, missing_nodes=MissingNodes.LAST_REPORT)
    assert _codes(waived) == {Code.NODE_DEGRADED}
    assert not evaluate(waived).purge_open


def test_a_sealed_node_is_no_reason() -> None:
    """Its last report is final while its witness stands."""
    sealed = view(report(sealed=True), member=False)
    assert evaluate(facts(view(report("n0")), sealed)) == Gate()
    degraded = view(report(sealed=True, failures=FAILED), member=False)
    assert _codes(facts(degraded)) == {Code.NODE_DEGRADED}


@pytest.mark.parametrize(
    ("node", "state"),
    [
        (view(report()), NodeState.LIVE),
        (view(report(sealed=True)), NodeState.LIVE),
        (view(report(failures=FAILED)), NodeState.DEGRADED),
        (view(BROKEN), NodeState.DEGRADED),
        (view(report(sealed=True), member=False), NodeState.SEALED),
        (view(report(sealed=True), member=False, witness=None), NodeState.MISSING),
        (view(report(sealed=True), member=False, witness=_OTHER), NodeState.MISSING),
        (view(report(), member=False), NodeState.MISSING),
        (view(report=None, member=False), NodeState.MISSING),
        (view(BROKEN, member=False), NodeState.MISSING),
    ],
)
def test_states(node: NodeView, state: NodeState) -> None:
    """A node is sealed only by a sealed report that its witness bears."""
    assert node.state is state


def test_every_reason_says_what_to_do() -> None:
    """Every reason names a subject and is a sentence of some length."""
    known = GateFacts(None, CLUSTER, 4, 3, (view(BROKEN),), ("x",), 1, "works")
    for reason in evaluate(known).reasons:
        assert reason.subject
        assert len(reason.message) > 20


def test_a_reason_can_be_added() -> None:
    """The brake is added to a gate; the gate before is unchanged."""
    brake = Reason(Code.BRAKE, Closes.ALL, "plan", "too much")
    gate = Gate()
    assert not gate.with_reason(brake).open
    assert gate.open


def test_two_clusters_of_one_name_differ() -> None:
    """The identity binds, not the name."""
    known = facts(view(report()), on_storage=Cluster(CLUSTER.name, "other"))
    assert _codes(known) == {Code.CLUSTER_MISMATCH}
