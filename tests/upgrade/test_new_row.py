"""A schema 3 is one more row of the table: every part follows it, unchanged.

The later release is the shipped code with ``THREE``, the present one has its own
table.  Both run side by side here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.core.checker import PlanRejectedError, check_plan
from sharedcache.core.gate import Code
from sharedcache.core.gate_rules import evaluate
from sharedcache.core.model import KernelNaming
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import AgentPolicy, CleanerPolicy, PolicyError
from sharedcache.core.rollout import Stage, status
from sharedcache.core.schema import SCHEMAS, SchemaTable
from sharedcache.core.wanted import KERNEL, wanted
from sharedcache.node.world import AgentRefusedError
from tests.property.strategies import (
    D1,
    THREE,
    facts,
    file_facts,
    observation,
    report,
    table,
    view,
)
from tests.support.inprocess import FAST, Site, gate_codes, image_id, publish, settle

RAW, SHA1 = KernelNaming.RAW_ID, KernelNaming.SHA1
LATER = replace(FAST, schemas=THREE)
BACK = SchemaTable((*SCHEMAS.rows, replace(THREE.rows[2], naming=RAW)))
"""A table whose newest row has writers write another name than the one before."""


def _codes(*versions: int, finalized: int, known: SchemaTable) -> set[Code]:
    nodes = [view(report(f"n{n}", schema_version=v)) for n, v in enumerate(versions)]
    told = facts(*nodes, finalized_schema=finalized, schemas=known)
    return {reason.code for reason in evaluate(told).reasons}


def test_the_gate_follows_the_row() -> None:
    """Below the finalized one is too old, above the newest row is unknown."""
    assert _codes(2, 3, finalized=2, known=THREE) == set()
    assert _codes(3, 3, finalized=3, known=THREE) == set()
    assert _codes(2, 3, finalized=3, known=THREE) == {Code.NODE_SCHEMA_TOO_OLD}
    assert _codes(3, 4, finalized=3, known=THREE) == {Code.NODE_SCHEMA_UNKNOWN}
    assert _codes(2, 3, finalized=2, known=SCHEMAS) == {Code.NODE_SCHEMA_UNKNOWN}
    unknown = {Code.NODE_SCHEMA_UNKNOWN, Code.NODE_SCHEMA_TOO_OLD}
    assert _codes(2, 2, finalized=3, known=SCHEMAS) == unknown
    assert Code.ROLLOUT_NOT_FINALIZED in _codes(3, 3, finalized=1, known=THREE)


@pytest.mark.parametrize(
    ("finalized", "versions", "stage", "target", "waits"),
    [
        (2, (2, 3), Stage.MIXED, 3, ["n0"]),
        (2, (3, 3), Stage.READY, 3, []),
        (3, (3, 3), Stage.FINALIZED, 3, []),
        (3, (2, 3), Stage.FINALIZED, 3, ["n0"]),
        (1, (2, 3), Stage.READY, 2, []),
        (1, (1, 3), Stage.MIXED, 2, ["n0"]),
        (1, (3, 3), Stage.READY, 3, []),
        (2, (3, 4), Stage.MIXED, 3, ["n1"]),
    ],
)
def test_the_rollout_aims_at_the_newest_that_all_support(
    finalized: int,
    versions: tuple[int, ...],
    stage: Stage,
    target: int,
    waits: list[str],
) -> None:
    """Finalizing goes as far as every node supports, and names who holds it back."""
    nodes = [view(report(f"n{n}", schema_version=v)) for n, v in enumerate(versions)]
    found = status(finalized, nodes, THREE)
    assert (found.stage, found.target) == (stage, target)
    assert [node for node, _ in found.waiting_for] == waits


def test_planner_and_checker_follow_the_row() -> None:
    """Files are taken under the new row, and under no row that is not known."""
    files = table((D1, file_facts()))
    told = facts(view(report(schema_version=3)), finalized_schema=3, schemas=THREE)
    seen = observation(facts=told, files=files)
    plan = make_plan(CleanerPolicy(), seen)
    assert [taking.name for taking in plan.take] == [D1]
    check_plan(CleanerPolicy(), seen, plan)
    older = replace(seen, facts=replace(told, schemas=SCHEMAS))
    assert make_plan(CleanerPolicy(), older).take == ()
    with pytest.raises(PlanRejectedError, match="not one to clean under"):
        check_plan(CleanerPolicy(), older, plan)


def test_no_table_lets_the_old_naming_pass_the_checker() -> None:
    """I5 does not rest on the table: a row that asked for raw ids would be refused."""
    told = facts(
        view(report(schema_version=3, kernel_naming=RAW)),
        finalized_schema=3,
        schemas=BACK,
    )
    seen = observation(facts=told, files=table((D1, file_facts())))
    plan = make_plan(CleanerPolicy(), seen)
    assert plan.take
    with pytest.raises(PlanRejectedError, match="old kernel naming"):
        check_plan(CleanerPolicy(), seen, plan)


def test_writers_turn_with_the_row() -> None:
    """A writer writes as the finalized row says, and reads what all rows may write."""
    ident = image_id()
    assert wanted(ident, KERNEL, 2, BACK).write == wanted(ident, KERNEL, 2).write
    assert wanted(ident, KERNEL, 3, BACK).write == ident
    assert set(wanted(ident, KERNEL, 3, BACK).read) == set(
        wanted(ident, KERNEL, 2).read
    )


def test_an_agent_may_be_at_what_its_release_knows() -> None:
    """The setting goes as far as the table, and the refusal as far as the row."""
    assert AgentPolicy("n1", schema_version=3, schemas=THREE).schema_version == 3
    with pytest.raises(PolicyError, match="from 1 to 2"):
        AgentPolicy("n1", schema_version=3)
    assert THREE.refusal(3, 2, SHA1) is None
    assert "to auto or raw-id" in (BACK.refusal(3, 3, SHA1) or "")


def test_a_rollout_from_schema_2_to_3_with_two_releases_side_by_side(
    site: Site,
) -> None:
    """Mixed, refused, ready, finalized; then the release before stands back."""
    path = site.image(image_id())
    first = site.agent("n1", schemas=THREE, schema_version=3)
    behind = site.agent("n2")
    for agent in (first, behind):
        publish(agent)
    present, later = site.cleaner("c1"), site.cleaner("c2", LATER)
    settle(present, until=lambda: present.harvest.passes, what="a pass")
    assert gate_codes(present) == {(Code.NODE_SCHEMA_UNKNOWN, "n1")}
    assert path.exists()
    present.stand_down()

    operator, storage, observer = site.session("op"), site.storage(), site.observer()
    observer.schemas = THREE
    with pytest.raises(RefusedError, match="n2 supports schema 2 only"):
        finalize(operator, storage, observer.observe(scan=False), "me", 1.0)
    behind.finish()
    upgraded = site.agent("n2", schemas=THREE, schema_version=3)
    publish(upgraded)
    done = finalize(operator, storage, observer.observe(scan=False), "me", 1.0)
    assert done.finalized_schema == 3

    with pytest.raises(AgentRefusedError, match="upgrade sharedcache on this host"):
        site.agent("n3")
    observer.schemas = SCHEMAS
    codes = {r.code for r in evaluate(observer.observe(scan=False).seen.facts).reasons}
    assert Code.NODE_SCHEMA_UNKNOWN in codes
    settle(later, until=lambda: later.harvest.passes, what="a pass")
    assert gate_codes(later) == {(Code.UNROSTERED_NODE, "n3")}
    (site.base / ".sharedcache" / "nodes" / "n3").unlink()
    settle(
        first,
        upgraded,
        later,
        until=lambda: not path.exists(),
        what="the later release removes what is unused",
    )
