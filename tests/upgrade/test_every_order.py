"""Every order of upgrade, restart, crash, downgrade, join and finalization.

All states that three nodes, an operator and a leader can reach, by exhaustive
search over the shipped core (``tests/upgrade/orders.py``).
"""

from __future__ import annotations

import pytest

from tests.upgrade.orders import (
    Agent,
    Machine,
    Nodes,
    Rules,
    Search,
    ready,
    removes,
    settled,
)


@pytest.fixture(scope="module")
def every() -> Search:
    """Search once for all tests here."""
    return Search(Machine(3)).run()


def test_nothing_is_removed_beside_an_old_node_and_finalized_stays(
    every: Search,
) -> None:
    """I5 in every order; finalizing is one way, and never beside who is not ready."""
    print(f"{len(every.came)} states, {every.events} events")  # noqa: T201
    assert every.wrong == {}
    assert {state.finalized for state in every.came} == {1, 2}
    assert any(state.acting for state in every.came)


def test_no_order_leads_to_where_the_rollout_cannot_go_on(every: Search) -> None:
    """From every state some events lead to a finalized cluster that removes files."""
    assert every.stuck() == set()


def test_a_cluster_whose_nodes_are_all_ready_can_be_finalized(every: Search) -> None:
    """However it came about, and be they live, sealed or missing."""
    found = 0
    for state in every.came:
        nodes = every.machine.nodes_of(state)
        if state.finalized == 1 and any(node.started for node in nodes):
            may = ready(every.machine.seen_of(state), 1)
            assert may == all(map(settled, nodes)), every.path(state)
            found += may
    assert found


def _ready_but_for_the_missing(nodes: Nodes, finalized: int) -> bool:
    return ready(tuple(node for node in nodes if node.member), finalized)


def _removes_whatever_the_witness(nodes: Nodes, finalized: int) -> bool:
    fresh = tuple(n._replace(fresh=True) if n.said is not None else n for n in nodes)
    return removes(fresh, finalized)


def _removes_beside_strangers(nodes: Nodes, finalized: int) -> bool:
    return removes(tuple(node for node in nodes if node.said is not None), finalized)


def _removes_beside_raw_ids(nodes: Nodes, finalized: int) -> bool:
    turned = (n._replace(said=Agent.NEW) if n.said is Agent.RAW else n for n in nodes)
    return removes(tuple(turned), finalized)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Rules(ready=_ready_but_for_the_missing), "does not support it"),
        (Rules(removes=_removes_whatever_the_witness), "old or silent node"),
        (Rules(removes=_removes_beside_strangers), "old or silent node"),
        (Rules(removes=_removes_beside_raw_ids), "old or silent node"),
        (Rules(counted=False), "after an old node has spoken"),
    ],
    ids=["missing-nodes", "witnesses", "strangers", "naming", "roster-counter"],
)
def test_the_search_misses_each_rule_that_is_taken_out(
    rules: Rules, words: str
) -> None:
    """A search that cannot fail shows nothing: two nodes are enough to need each."""
    found = Search(Machine(2), rules).run().wrong
    assert any(words in wrong for wrong in found), found
