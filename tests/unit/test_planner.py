"""The planner: one verdict and one reason for every file, waits for every entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sharedcache.core.gate import Code
from sharedcache.core.model import Baseline, EntryState, FileFacts, ManifestBatch
from sharedcache.core.names import Kind
from sharedcache.core.plan import Observation, Plan, Verdict, Why
from sharedcache.core.planner import make_plan, node_of, voices
from sharedcache.core.policy import CleanerPolicy, MissingNodes
from tests.property.strategies import (
    D1,
    D2,
    FAILED,
    K1,
    NOW_NS,
    SECOND,
    entry,
    facts,
    file_facts,
    observation,
    report,
    table,
    uses_of,
    view,
)

POLICY = CleanerPolicy()
SEALED = view(report("s", sealed=True, storage_time_ns=1), member=False)
GONE = view(report("g"), member=False)
WAIVED = MissingNodes.LAST_REPORT


def _one(name: str = D1, one: FileFacts | None = None, **changes: Any) -> Plan:
    files = table((name, file_facts() if one is None else one))
    return make_plan(POLICY, observation(files=files, **changes))


def _why(*args: Any, **changes: Any) -> Why:
    return Why(_one(*args, **changes).whys[0])


def _known(*nodes: Any, **changes: Any) -> dict[str, Any]:
    return {"facts": facts(*(nodes or (view(report()),)), **changes)}


def test_an_unused_old_file_is_taken_as_it_was_seen() -> None:
    """The plan names the inode and the time that it judged."""
    plan = _one()
    assert (plan.verdicts[0], plan.whys[0]) == (Verdict.QUARANTINE, Why.UNUSED)
    (taking,) = plan.take
    old = file_facts()
    assert (taking.name, taking.inode, taking.mtime_ns, taking.size) == (
        D1,
        old.inode,
        old.mtime_ns,
        old.size,
    )


def test_unrecognised_and_irregular_files_are_kept() -> None:
    """What the grammar does not know, and what is no file, is not ours."""
    assert _why("README") is Why.UNRECOGNISED
    assert _why(D1, file_facts(regular=False)) is Why.NOT_REGULAR


def test_a_held_file_is_kept() -> None:
    """An operator's hold keeps exactly the name that it names."""
    assert _why(holds=frozenset({D1})) is Why.HELD
    assert _why(holds=frozenset({f"{D1}_20"})) is Why.UNUSED


@pytest.mark.parametrize("column", ["now", "since"])
@pytest.mark.parametrize("member", [True, False])
def test_a_used_file_is_kept_whoever_uses_it(column: str, *, member: bool) -> None:
    """Live or gone, now or within its window: a use is a use."""
    said = report(**{column: uses_of(D1)})
    assert _why(**_known(view(said, member=member))) is Why.USED
    sealed = report("s", sealed=True, **{column: uses_of(D1)})
    both = _known(view(report()), view(sealed, member=False))
    assert _why(**both) is Why.USED


def test_a_family_keeps_its_copies() -> None:
    """A source that knows only the image id protects every resized copy."""
    said = report(now=uses_of(families=(D1,)))
    assert _why(f"{D1}_20", **_known(view(said))) is Why.USED


def test_a_closed_gate_keeps_everything() -> None:
    """A reason that closes all keeps every file; one that holds purging none."""
    assert _why(**_known(paused="works")) is Why.GATE_CLOSED
    assert _why(**_known(view(report(failures=FAILED)))) is Why.UNUSED
    assert _why(**_known(view(report("n0")), GONE)) is Why.UNUSED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": EntryState.INTENDED, "baseline": None}, report()),
        ({"restoring": True}, report()),
        ({}, report(intents=frozenset({f"{1:016x}"}))),
    ],
)
def test_a_name_whose_outcome_is_open_is_kept(
    changes: dict[str, Any], said: Any
) -> None:
    """A rename or restore under way is finished before the name is taken again."""
    manifest = (ManifestBatch("b", (entry(**changes),)),)
    assert _why(manifest=manifest, **_known(view(said))) is Why.OUTCOME_OPEN
    assert _why(D2, manifest=manifest, **_known(view(said))) is Why.UNUSED


def test_a_published_partial_file_loses_its_partial_name() -> None:
    """What a writer that died after its link left is taken; its file is kept.

    Only the partial name of the very file that bears the whole name: any other
    second link is not known and keeps.
    """
    partial = f"{D1}.0123456789abcdef.part"

    def why(inode: int, links: int) -> tuple[Why, Why]:
        whole = (D1, file_facts(inode=7, links=2))
        part = (partial, file_facts(inode=inode, links=links))
        plan = make_plan(POLICY, observation(files=table(whole, part)))
        return Why(plan.whys[0]), Why(plan.whys[1])

    assert why(7, 2) == (Why.LINKED, Why.UNUSED)
    assert why(7, 3) == (Why.LINKED, Why.LINKED)
    assert why(8, 2) == (Why.LINKED, Why.LINKED)


def test_links_that_are_not_ours_keep() -> None:
    """A file's links are its own name and its own manifest entries, no others."""
    assert _why(D1, file_facts(links=2)) is Why.LINKED
    own = Baseline.of(file_facts(links=2))
    manifest = (ManifestBatch("b", (entry(baseline=own),)),)
    assert _why(D1, file_facts(links=2), manifest=manifest) is Why.UNUSED
    assert _why(D1, file_facts(links=1), manifest=manifest) is Why.LINKED
    assert _why(D1, file_facts(links=3), manifest=manifest) is Why.LINKED


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (D1, Kind.IMAGE),
        (f"{D1}_20", Kind.RESIZED),
        (K1, Kind.KERNEL),
        ("swap_1", Kind.SWAP),
        ("ephemeral_1_x", Kind.EPHEMERAL),
        (f"{D1}.part", Kind.PARTIAL),
    ],
)
def test_every_kind_has_its_age(name: str, kind: Kind) -> None:
    """A file is taken when it has its kind's age, and not a nanosecond earlier."""
    age_ns = POLICY.min_age_ns(kind)
    assert _why(name, file_facts(mtime_ns=NOW_NS - age_ns)) is Why.UNUSED
    assert _why(name, file_facts(mtime_ns=NOW_NS - age_ns + 1)) is Why.TOO_YOUNG
    assert _why(name, file_facts(mtime_ns=NOW_NS + SECOND)) is Why.TOO_YOUNG


def test_a_file_must_be_older_than_every_report_but_sealed_ones() -> None:
    """A file touched since a report may be used by the node that reported."""
    touched = file_facts().mtime_ns
    for member in (True, False):
        node = view(report(storage_time_ns=touched), member=member)
        assert _why(**_known(view(report("n0")), node)) is Why.REPORT_OLDER
    after = view(report(storage_time_ns=touched + 1))
    assert _why(**_known(after)) is Why.UNUSED
    assert _why(**_known(view(report()), SEALED)) is Why.UNUSED


def test_when_fresh_reports_are_asked_for() -> None:
    """Only for files that a new round of reports could free."""
    touched = file_facts().mtime_ns
    older = report(storage_time_ns=touched)
    assert _one(**_known(view(older))).fresh_reports
    assert not _one(
        **_known(view(report("n0")), view(older, member=False))
    ).fresh_reports
    assert not _one().fresh_reports


def test_a_use_that_is_over_asks_for_fresh_reports() -> None:
    """Windows begin a round back: without a raise the use would be told for ever."""
    over = report(since=uses_of(D1))
    assert _one(**_known(view(over))).fresh_reports
    young = file_facts(mtime_ns=NOW_NS)
    assert not _one(D1, young, **_known(view(over))).fresh_reports
    lasting = report("n2", now=uses_of(D1))
    assert not _one(**_known(view(over), view(lasting))).fresh_reports
    final = report("n2", since=uses_of(D1), sealed=True)
    assert not _one(**_known(view(over), view(final, member=False))).fresh_reports


def _many(count: int, **changes: Any) -> Observation:
    rows = [(f"swap_{n}", file_facts(inode=n + 1)) for n in range(count)]
    return observation(files=table(*rows), **changes)


def test_the_brake_stops_the_whole_pass() -> None:
    """Above floor and share nothing is taken or purged until it is approved."""
    policy = replace(POLICY, max_share_floor=5, max_share_percent=50.0)
    entries = (ManifestBatch("b", (entry(),)),)
    assert len(make_plan(policy, _many(5)).take) == 5
    seen = _many(6, manifest=entries)
    plan = make_plan(policy, seen)
    assert (plan.take, plan.purge) == ((), ())
    assert {Why(why) for why in plan.whys} == {Why.BRAKE}
    assert [reason.code for reason in plan.gate.reasons] == [Code.BRAKE]
    approved = make_plan(policy, replace(seen, approved=plan.digest))
    assert (len(approved.take), len(approved.purge)) == (6, 1)


def test_an_approval_binds_to_its_plan() -> None:
    """An approval of one plan lets no other pass."""
    policy = replace(POLICY, max_share_floor=5, max_share_percent=50.0)
    digest = make_plan(policy, _many(6)).digest
    assert make_plan(policy, _many(7, approved=digest)).take == ()


def test_what_is_left_of_an_approved_plan_needs_no_other_approval() -> None:
    """A pass that is interrupted goes on; nothing else is let through with it."""
    policy = replace(POLICY, max_share_floor=2, max_share_percent=10.0)
    names = frozenset(f"swap_{n}" for n in range(6))
    left = _many(5, begun=names)
    assert len(make_plan(policy, left).take) == 5
    assert make_plan(policy, _many(7, begun=names)).take == ()


def test_least_recent_use_goes_first() -> None:
    """What a limit cuts off is what was used last."""
    rows = [(f"swap_{n}", file_facts(inode=n, mtime_ns=7 * n % 5)) for n in range(5)]
    plan = make_plan(POLICY, observation(files=table(*rows)))
    assert [taking.mtime_ns for taking in plan.take] == [0, 1, 2, 3, 4]
    entries = [
        entry(number=n, baseline=Baseline.of(file_facts(mtime_ns=7 * n % 5)))
        for n in range(5)
    ]
    plan = make_plan(
        POLICY, observation(manifest=(ManifestBatch("b", tuple(entries)),))
    )
    used = [one.entry.baseline.mtime_ns for one in plan.purge if one.entry.baseline]
    assert used == [0, 1, 2, 3, 4]


def _entry_plan(*nodes: Any, one: Any = None, **changes: Any) -> Plan:
    one = entry() if one is None else one
    manifest = (ManifestBatch("b", (one,)),)
    known = changes.pop("known", {})
    policy = changes.pop("policy", POLICY)
    seen = observation(manifest=manifest, **changes)
    seen = replace(seen, facts=facts(*(nodes or (view(report()),)), **known))
    return make_plan(policy, seen)


def _waits(*nodes: Any, **changes: Any) -> str:
    plan = _entry_plan(*nodes, **changes)
    assert plan.purge == ()
    (reasons,) = plan.waiting.values()
    return "; ".join(reasons)


def test_a_confirmed_entry_is_purged() -> None:
    """Gate open, confirmed, grace and caches over: it goes, with its batch."""
    (purging,) = _entry_plan().purge
    assert (purging.batch, purging.entry) == ("b", entry())


@pytest.mark.parametrize(
    ("nodes", "changes", "words"),
    [
        ((), {"one": entry(state=EntryState.INTENDED)}, "outcome of the rename"),
        ((), {"one": entry(baseline=None)}, "outcome of the rename"),
        ((), {"known": {"paused": "x"}}, "gate: paused operator"),
        ((view(report(failures=FAILED)),), {}, "gate: node-degraded n1"),
        ((view(report("n0")), GONE), {}, "gate: node-missing g"),
        ((), {"one": entry(restoring=True)}, "restore under way"),
        ((view(report(intents=frozenset({f"{1:016x}"}))),), {}, "restore under way"),
        ((), {"one": entry(asked=True)}, "new name after a restore"),
        ((), {"holds": frozenset({D1})}, "hold"),
        ((view(report(now=uses_of(D1))),), {}, "used by n1"),
        ((view(report(since=uses_of(D1))),), {}, "used by n1"),
        ((view(report(sees=frozenset({f"{1:016x}"}))),), {}, "still seen by n1"),
        ((), {"one": entry(round=10)}, "round 11"),
        ((view(report(upto=9, since_round=8)),), {}, "round 10: report of n1"),
        ((view(report(unbroken=False)),), {}, "round 10"),
        ((), {"one": entry(since_ns=NOW_NS - 3599 * SECOND)}, "grace: 1 s"),
        ((), {"round": 9}, "round 10"),
    ],
)
def test_what_an_entry_waits_for(
    nodes: Any, changes: dict[str, Any], words: str
) -> None:
    """Each condition of a purge is named while it does not hold."""
    assert words in _waits(*nodes, **changes)


def test_an_entry_that_was_asked_for_gets_a_new_name() -> None:
    """Unless somebody restores it still, or the gate is closed."""
    asked = entry(asked=True)
    (renewing,) = _entry_plan(one=asked).renew
    assert (renewing.batch, renewing.entry) == ("b", asked)
    assert not _entry_plan().renew
    assert not _entry_plan(one=replace(asked, restoring=True)).renew
    assert not _entry_plan(one=replace(asked, state=EntryState.INTENDED)).renew
    wants = report(intents=frozenset({asked.entry}))
    assert not _entry_plan(view(wants), one=asked).renew
    assert not _entry_plan(known={"paused": "x"}, one=asked).renew


def test_a_restore_of_a_node_that_is_gone_is_not_cut_short() -> None:
    """A missing node's last word stands until the node is expunged."""
    asked = entry(asked=True)
    wants = report("g", intents=frozenset({asked.entry}))
    assert not _entry_plan(view(report()), view(wants, member=False), one=asked).renew


def test_the_name_caches_hold_back() -> None:
    """Twice the slowest mount's lifetime must pass since the latest rename."""
    moved = entry(moved_ns=NOW_NS - 119 * SECOND)
    slow = view(report(name_cache_s=60.0))
    assert "name caches: 1 s" in _waits(slow, one=moved)
    assert "name caches: 1 s" in _waits(one=moved, name_cache_s=60.0)
    assert _entry_plan(slow, one=entry(moved_ns=NOW_NS - 120 * SECOND)).purge


LOW = {"space": (1000, 9)}
MARKED = replace(POLICY, low_water_percent=1.0, low_water_grace_s=60.0)


def test_below_the_mark_the_grace_is_shorter() -> None:
    """Less than a share of free space: the shorter grace, and only that."""
    young = entry(since_ns=NOW_NS - 60 * SECOND)
    plan = _entry_plan(one=young, policy=MARKED, **LOW)
    assert plan.purge
    assert plan.low_on_space
    for space in (None, (1000, 10)):
        plan = _entry_plan(one=young, policy=MARKED, space=space)
        assert not plan.purge
        assert not plan.low_on_space
    assert not _entry_plan(one=young, **LOW).purge


def test_below_the_mark_no_confirmation_and_no_name_cache_is_skipped() -> None:
    """Space that runs out is no proof that nobody uses a file."""
    low = {"policy": MARKED, **LOW}
    assert "grace: 1 s" in _waits(one=entry(since_ns=NOW_NS - 59 * SECOND), **low)
    assert "round 11" in _waits(one=entry(round=10), **low)
    assert "name caches: 1 s" in _waits(
        one=entry(moved_ns=NOW_NS - 119 * SECOND), name_cache_s=60.0, **low
    )
    young = file_facts(mtime_ns=NOW_NS - SECOND)
    seen = observation(files=table((D1, young)), **LOW)
    assert make_plan(MARKED, seen).whys[0] == Why.TOO_YOUNG


def test_a_waiver_lets_a_last_report_stand_for_files_untouched_since() -> None:
    """`last-report` confirms what was not touched after the node left."""
    live = view(report("n0"))
    known = {"missing_nodes": WAIVED}
    assert _entry_plan(live, GONE, known=known).purge
    touched = replace(entry().baseline or Baseline(1, 1, 1, 1, 1), mtime_ns=NOW_NS)
    waits = _waits(live, GONE, known=known, one=entry(baseline=touched))
    assert "touched after the last report of missing g" in waits
    degraded = view(report("g", failures=FAILED), member=False)
    assert "gate: node-degraded g" in _waits(live, degraded, known=known)


def test_a_sealed_node_confirms_by_its_final_report() -> None:
    """It need not look again, and files touched since were touched by others."""
    assert _entry_plan(view(report()), SEALED).purge


def test_voices_are_sorted_by_what_they_can_do() -> None:
    """Speaking, final, silent: nobody is left out."""
    broken = view(report("w"), witness=None)
    heard = voices(facts(view(report()), SEALED, GONE, broken))
    assert [r.node for r in heard.speaking] == ["n1"]
    assert [r.node for r in heard.final] == ["s"]
    assert list(heard.silent) == ["g", "w"]
    waived = voices(facts(SEALED, GONE, missing_nodes=WAIVED))
    assert [r.node for r in waived.final] == ["s", "g"]


def test_a_node_can_be_found() -> None:
    """Status looks nodes up by name; an unknown one is no node."""
    seen = observation(view(report()), SEALED)
    assert node_of(seen, "s") == SEALED
    assert node_of(seen, "x") is None


def test_labels() -> None:
    """Tables and JSON use the words of the design."""
    assert [v.label for v in Verdict] == ["keep", "quarantine", "purge"]
    assert Why.OUTCOME_OPEN.label == "outcome-open"
