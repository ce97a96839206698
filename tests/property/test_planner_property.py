"""The planner and the checker, against an oracle that shares no code with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from sharedcache.core.checker import PlanRejectedError, check_plan
from sharedcache.core.gate import Gate
from sharedcache.core.model import KernelNaming, Report
from sharedcache.core.names import Kind
from sharedcache.core.plan import (
    Observation,
    Plan,
    Purging,
    Renewing,
    Taking,
    Verdict,
    Why,
)
from sharedcache.core.planner import make_plan
from tests.property import oracle
from tests.property.strategies import RECOGNISED, World, worlds


def _taken(plan: Plan) -> set[str]:
    return {taking.name for taking in plan.take}


def _purged(plan: Plan) -> set[tuple[str, str]]:
    return {(purging.batch, purging.entry.entry) for purging in plan.purge}


def _renewed(plan: Plan) -> set[tuple[str, str]]:
    return {(renewing.batch, renewing.entry.entry) for renewing in plan.renew}


def _taking(seen: Observation, row: int) -> Taking:
    files = seen.files
    return Taking(
        files.names[row], files.inodes[row], files.mtimes_ns[row], files.sizes[row]
    )


@settings(max_examples=300)
@given(worlds())
def test_nothing_that_anybody_needs_is_planned_away(world: World) -> None:
    """I1, I4, I5: used, held, unrecognised, or a gate closed: no step at all."""
    seen = world.seen
    plan = make_plan(world.policy, seen)
    gone = _taken(plan) | {purging.entry.name for purging in plan.purge}
    for name in gone:
        assert name in RECOGNISED
        assert name not in seen.holds
        assert not oracle.used_by_anybody(seen, name)
    if oracle.everything_closed(seen):
        assert not plan.gate.open
        assert not gone
    if oracle.purging_closed(world.policy, seen):
        assert not plan.gate.purge_open
        assert not plan.purge
    for node in seen.facts.nodes:
        if (
            not isinstance(node.report, Report)
            or node.report.kernel_naming is not KernelNaming.SHA1
        ):
            assert not gone


@settings(max_examples=600)
@given(worlds())
def test_the_plan_is_exactly_what_the_rules_allow(world: World) -> None:
    """Whatever the rules allow is planned, and nothing else: no over-keeping."""
    allowed = oracle.answer(world)
    plan = make_plan(world.policy, world.seen)
    assert _taken(plan) == allowed.take
    assert _purged(plan) == allowed.purge
    assert _renewed(plan) == allowed.renew
    if allowed.stopped:
        approved = replace(world.seen, approved=plan.digest)
        second = make_plan(world.policy, approved)
        check_plan(world.policy, approved, second)
        assert _taken(second) == allowed.braked
        assert _purged(second) == oracle.answer(World(world.policy, approved)).purge


@settings(max_examples=200)
@given(worlds())
def test_every_file_and_entry_gets_one_answer(world: World) -> None:
    """Every file has one verdict and one reason; every entry is purged or waits."""
    seen = world.seen
    plan = make_plan(world.policy, seen)
    assert len(plan.verdicts) == len(plan.whys) == len(seen.files)
    for row, name in enumerate(seen.files.names):
        taken = plan.verdicts[row] == Verdict.QUARANTINE
        unused = plan.whys[row] in {Why.UNUSED, Why.DAMAGED}
        assert taken == unused == (name in _taken(plan))
        if plan.whys[row] == Why.DAMAGED:
            assert oracle.spoilt(seen, row)
        strange = plan.whys[row] == Why.UNRECOGNISED
        assert strange == (seen.files.kinds[row] == Kind.UNRECOGNISED)
        assert strange == (name not in RECOGNISED)
    purged = {purging.entry.entry for purging in plan.purge}
    assert purged | set(plan.waiting) == {one.entry for one in seen.entries}
    assert not purged & set(plan.waiting)
    assert all(plan.waiting.values())


def _forbidden(world: World, plan: Plan) -> Iterator[Plan]:
    """Plans with one step that the oracle forbids, whatever gate they claim."""
    policy, seen = world.policy, world.seen
    plan = replace(plan, gate=Gate())
    for row in range(len(seen.files)):
        if not oracle.may_take(policy, seen, row):
            yield replace(plan, take=(*plan.take, _taking(seen, row)))
            yield replace(plan, take=(_taking(seen, row),), purge=())
    for batch in seen.manifest:
        for one in batch.entries:
            if not oracle.may_purge(policy, seen, one):
                extra = Purging(batch.batch, one)
                yield replace(plan, purge=(*plan.purge, extra))
                yield replace(plan, take=(), purge=(extra,))
            if not oracle.may_renew(seen, one):
                yield replace(plan, renew=(*plan.renew, Renewing(batch.batch, one)))
    for first in plan.take[:1]:
        yield replace(plan, take=(replace(first, inode=first.inode + 1),))
        yield replace(plan, take=(replace(first, mtime_ns=first.mtime_ns - 1),))
        yield replace(plan, take=(replace(first, name=first.name + ".bak"),))
        yield replace(plan, take=(*plan.take, first))
    for purging in plan.purge[:1]:
        other = replace(purging.entry, leaf=purging.entry.leaf + "0")
        yield replace(plan, purge=(replace(purging, entry=other),))
        yield replace(plan, purge=(replace(purging, batch="b9"),))
        yield replace(plan, purge=(*plan.purge, purging))


@settings(max_examples=500)
@given(worlds())
def test_the_checker_agrees_with_the_oracle(world: World) -> None:
    """Every plan passes; every plan with one forbidden step is rejected."""
    plan = make_plan(world.policy, world.seen)
    check_plan(world.policy, world.seen, plan)
    for bad in _forbidden(world, plan):
        with pytest.raises(PlanRejectedError):
            check_plan(world.policy, world.seen, bad)


@settings(max_examples=300)
@given(worlds())
def test_a_stopped_plan_passes_only_with_its_approval(world: World) -> None:
    """A brake holds back every step, purges too, until this plan is approved."""
    seen = world.seen
    stopped = make_plan(world.policy, seen)
    assert (not stopped.take and not stopped.purge) or not oracle.answer(world).stopped
    if not oracle.answer(world).stopped:
        return
    assert not stopped.gate.open
    approved = replace(seen, approved=stopped.digest)
    bold = make_plan(world.policy, approved)
    check_plan(world.policy, approved, bold)
    other = replace(seen, approved="0" * 64)
    for one in (replace(bold, take=()), replace(bold, purge=())):
        if one.purge or one.take:
            for unapproved in (seen, other):
                assert not make_plan(world.policy, unapproved).gate.open
        if one.purge and oracle.shrunken(world.policy, seen):
            with pytest.raises(PlanRejectedError):
                check_plan(world.policy, seen, one)
    if bold.take:
        with pytest.raises(PlanRejectedError):
            check_plan(world.policy, seen, bold)
        with pytest.raises(PlanRejectedError):
            check_plan(world.policy, other, bold)


@settings(max_examples=200)
@given(worlds())
def test_least_recent_use_comes_first(world: World) -> None:
    """A pass takes and purges in the order of last use."""
    plan = make_plan(world.policy, world.seen)
    used = [taking.mtime_ns for taking in plan.take]
    assert used == sorted(used)
    gone = [p.entry.baseline.mtime_ns for p in plan.purge if p.entry.baseline]
    assert gone == sorted(gone)


@settings(max_examples=200)
@given(worlds())
def test_a_plan_above_its_share_is_rejected(world: World) -> None:
    """A plan that takes more than its share passes only with its approval."""
    braked = oracle.answer(world).braked
    seen = world.seen
    rows = [row for row, name in enumerate(seen.files.names) if name in braked]
    if not rows:
        return
    plan = make_plan(world.policy, seen)
    bold = replace(plan, gate=Gate(), take=tuple(_taking(seen, row) for row in rows))
    with pytest.raises(PlanRejectedError):
        check_plan(world.policy, seen, bold)
    check_plan(world.policy, replace(seen, approved=plan.digest), bold)
