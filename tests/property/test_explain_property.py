"""Explanations, against the plan and against the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings

from sharedcache.core.explain import explain
from sharedcache.core.gate import Code
from sharedcache.core.holders import holders
from sharedcache.core.model import EntryState, ManifestEntry, Report
from sharedcache.core.obstacles import Obstacle, Rule
from sharedcache.core.plan import Observation, Plan, Verdict, Why
from sharedcache.core.planner import make_plan
from tests.property import oracle
from tests.property.strategies import RECOGNISED, SECOND, World, worlds

RULE_OF_WAIT = {
    "outcome of the rename": Rule.OUTCOME_OPEN,
    "gate: brake": Rule.BRAKE,
    "gate: ": Rule.GATE_CLOSED,
    "restore under way": Rule.RESTORING,
    "new name after a restore": Rule.NEW_NAME,
    "hold": Rule.HELD,
    "used by": Rule.USED,
    "still seen by": Rule.SEEN,
    "seen a while ago by": Rule.SEEN,
    "round ": Rule.ROUND,
    "grace: ": Rule.GRACE,
    "name caches: ": Rule.NAME_CACHES,
    "touched after": Rule.TOUCHED,
}


def _rules(obstacles: tuple[Obstacle, ...]) -> set[Rule]:
    return {obstacle.rule for obstacle in obstacles}


def _rules_by_the_design(
    seen: Observation, plan: Plan, world: World, row: int
) -> Iterator[Rule]:
    """Ask the design's rules of quarantine one by one, by the oracle's means."""
    files, policy = seen.files, world.policy
    name, mtime_ns = files.names[row], files.mtimes_ns[row]
    entries = [e for batch in seen.manifest for e in batch.entries]
    intents = {token for r in oracle.reports(seen) for token in r.intents}
    own = [e for e in entries if e.baseline and e.baseline.inode == files.inodes[row]]
    if not files.regular[row]:
        yield Rule.NOT_REGULAR
    if name in seen.holds:
        yield Rule.HELD
    if oracle.used_by_anybody(seen, name):
        yield Rule.USED
    if oracle.everything_closed(seen):
        yield Rule.GATE_CLOSED
    if any(
        e.name == name
        and (e.state is EntryState.INTENDED or e.restoring or e.entry in intents)
        for e in entries
    ):
        yield Rule.OUTCOME_OPEN
    if files.links[row] != 1 + len(own) + oracle.published(seen, row):
        yield Rule.LINKED
    least_ns = policy.min_age_s[RECOGNISED[name]] * SECOND
    if seen.storage_now_ns - mtime_ns < least_ns and not oracle.spoilt(seen, row):
        yield Rule.TOO_YOUNG
    if any(
        isinstance(v.report, Report)
        and (v.member or not v.report.sealed or not oracle._spoken(v))
        and mtime_ns >= v.report.storage_time_ns
        for v in seen.facts.nodes
    ):
        yield Rule.REPORT_OLDER
    if any(reason.code is Code.BRAKE for reason in plan.gate.reasons):
        yield Rule.BRAKE


@settings(max_examples=400)
@given(worlds())
def test_a_files_obstacles_are_exactly_the_rules_that_it_breaks(world: World) -> None:
    """Every rule that keeps it is named, none that does not, the plan's first."""
    seen = world.seen
    plan = make_plan(world.policy, seen)
    for row, name in enumerate(seen.files.names):
        told = explain(world.policy, seen, plan, name).file
        assert told is not None
        assert told.verdict == plan.verdicts[row]
        rules = [obstacle.rule for obstacle in told.obstacles]
        assert (not rules) == (told.verdict is Verdict.QUARANTINE)
        why = Why(plan.whys[row])
        if rules:
            assert rules[0].value == why.label
        if why is Why.UNRECOGNISED:
            assert rules == [Rule.UNRECOGNISED]
        else:
            assert set(rules) == set(_rules_by_the_design(seen, plan, world, row))


@settings(max_examples=400)
@given(worlds())
def test_an_entrys_obstacles_are_exactly_what_the_plan_waits_for(world: World) -> None:
    """Purged if and only if nothing is in the way, by the plan and by the oracle."""
    seen = world.seen
    plan = make_plan(world.policy, seen)
    purged = {purging.entry.entry for purging in plan.purge}
    told = {
        story.entry.entry: story
        for name in {entry.name for entry in seen.entries}
        for story in explain(world.policy, seen, plan, name).entries
    }
    assert set(told) == {entry.entry for entry in seen.entries}
    for entry_id, story in told.items():
        assert (not story.obstacles) == (entry_id in purged)
        assert (story.verdict is Verdict.PURGE) == (entry_id in purged)
        waits = plan.waiting.get(entry_id, ())
        expected = {
            next(r for text, r in RULE_OF_WAIT.items() if wait.startswith(text))
            for wait in waits
        }
        assert _rules(story.obstacles) == expected


@settings(max_examples=200)
@given(worlds())
def test_what_passes_by_itself_has_passed_after_the_time_that_is_told(
    world: World,
) -> None:
    """A nanosecond before the time it stands, at the time it is over."""
    seen = world.seen
    plan = make_plan(world.policy, seen)
    names = {*seen.files.names, *(entry.name for entry in seen.entries)}
    for name in names:
        for obstacle in _timed(world, seen, plan, name):
            assert obstacle.left_ns is not None
            for early_ns, there in ((1, True), (0, False)):
                later = replace(
                    seen,
                    storage_now_ns=seen.storage_now_ns + obstacle.left_ns - early_ns,
                )
                left = [o.rule for o in _timed(world, later, plan, name)]
                before = [o.rule for o in _timed(world, seen, plan, name)]
                if before.count(obstacle.rule) == 1:
                    assert (obstacle.rule in left) is there


def _timed(world: World, seen: Observation, plan: Plan, name: str) -> list[Obstacle]:
    told = explain(world.policy, seen, plan, name)
    stories = [*told.entries, *([told.file] if told.file else [])]
    return [o for one in stories for o in one.obstacles if o.left_ns is not None]


@given(worlds())
def test_an_entry_is_found_by_its_id_and_by_its_own_name(world: World) -> None:
    """Operators paste what `quarantine list` or the storage shows."""
    seen = world.seen
    plan = make_plan(world.policy, seen)
    for entry in seen.entries:
        for asked in (entry.entry, entry.leaf, entry.name):
            told = explain(world.policy, seen, plan, asked)
            assert told.name == _named(seen.entries, asked, entry.name)


def _named(entries: Iterator[ManifestEntry], asked: str, name: str) -> str:
    """Ids are unique in the field; in drawn worlds they are too."""
    found = [e.name for e in entries if asked in {e.entry, e.leaf}]
    return found[0] if found else name


@settings(max_examples=300)
@given(worlds())
def test_who_holds_back_is_who_the_explanations_name(world: World) -> None:
    """The sums of status and the explanations of single names tell one story."""
    seen = world.seen
    plan = make_plan(world.policy, seen)
    expected: dict[str, set[str]] = {}
    rostered = {view.node for view in seen.facts.nodes}
    for name in {entry.name for entry in seen.entries}:
        for story in explain(world.policy, seen, plan, name).entries:
            if any(o.rule is Rule.OUTCOME_OPEN for o in story.obstacles):
                continue
            about = {n for o in story.obstacles for n in o.nodes if o.rule in BY_NODE}
            about |= {r.subject for r in plan.gate.reasons} & rostered
            for node in about:
                expected.setdefault(node, set()).add(story.entry.entry)
    sizes = {entry.entry: entry.size for entry in seen.entries}
    told = {one.node: (one.files, one.size) for one in holders(seen, plan)}
    assert told == {
        node: (len(ids), sum(sizes[one] for one in ids))
        for node, ids in expected.items()
    }


BY_NODE = {Rule.USED, Rule.SEEN, Rule.ROUND, Rule.RESTORING}
