"""The checker: a legal plan, made illegal one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sharedcache.core.checker import PlanRejectedError, check_plan
from sharedcache.core.gate import Closes, Code, Gate, Reason
from sharedcache.core.inventory import Inventory, OldName
from sharedcache.core.model import (
    Baseline,
    Cluster,
    EntryState,
    Incarnation,
    KernelNaming,
    ManifestBatch,
    Unreadable,
    Witness,
)
from sharedcache.core.plan import Observation, Plan, Renewing
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import CleanerPolicy, MissingNodes
from sharedcache.core.schema import SCHEMAS, SchemaTable, SchemaVersion
from tests.property.strategies import (
    CLUSTER,
    D1,
    D2,
    D3,
    FAILED,
    H1,
    K1,
    NOW_NS,
    SECOND,
    entry,
    facts,
    file_facts,
    observation,
    remembered,
    report,
    table,
    uses_of,
    view,
)

POLICY = CleanerPolicy(max_share_floor=3)
ENTRY = entry(D3)
NAMES = (D1, K1)


def _seen(**changes: Any) -> Observation:
    rows = [(name, file_facts(inode=n + 1)) for n, name in enumerate(NAMES)]
    manifest = (ManifestBatch("b", (ENTRY,)),)
    return observation(**{"files": table(*rows), "manifest": manifest, **changes})


RAW = (OldName(K1, 7),)
SEEN = _seen()
PLAN = make_plan(POLICY, SEEN)
TAKE = replace(PLAN, purge=())
PURGE = replace(PLAN, take=())


def _rejects(
    words: str, plan: Plan, seen: Observation = SEEN, policy: CleanerPolicy = POLICY
) -> None:
    with pytest.raises(PlanRejectedError, match=words):
        check_plan(policy, seen, plan)


def test_a_legal_plan_passes() -> None:
    """The plan that all these tests break takes two files and purges one."""
    assert (len(PLAN.take), len(PLAN.purge)) == (2, 1)
    check_plan(POLICY, SEEN, PLAN)


def test_an_empty_plan_passes_whatever_is_wrong() -> None:
    """Doing nothing is always allowed."""
    nothing = replace(PLAN, take=(), purge=())
    check_plan(POLICY, replace(SEEN, facts=facts(paused="x")), nothing)


BROKEN = Unreadable("cut short")


@pytest.mark.parametrize("plan", [TAKE, PURGE])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"on_storage": None}, "different clusters"),
        ({"in_zookeeper": None}, "different clusters"),
        ({"in_zookeeper": Cluster(CLUSTER.name, "x")}, "different clusters"),
        ({"on_storage": BROKEN, "in_zookeeper": BROKEN}, "different clusters"),
        ({"on_storage": None, "in_zookeeper": None}, "different clusters"),
        ({"storage_epoch": 4}, "later epoch"),
        ({"paused": "x"}, "paused"),
        ({"finalized_schema": 1}, "clean under"),
        ({"finalized_schema": 3}, "clean under"),
        ({"finalized_schema": BROKEN}, "clean under"),
        ({"storage_schema": 3}, "schema 3 is finalized on the storage"),
        ({"storage_schema": Unreadable("9", newer=True)}, "newer release"),
        ({"nodes": ()}, "no node"),
        ({"strangers": ("n9",)}, "n9 is not rostered"),
        ({"unreadable": ("b7",)}, "b7 cannot be read"),
        ({"inventory": None}, "no inventory"),
        ({"inventory": BROKEN}, "no inventory"),
        ({"inventory": Inventory(), "old_names": RAW}, "appeared after"),
        ({"inventory": Inventory({K1: 8}), "old_names": RAW}, "another file than"),
    ],
)
def test_a_cluster_in_doubt(plan: Plan, changes: dict[str, Any], words: str) -> None:
    """No step is allowed while storage, ZooKeeper, roster or rollout disagree."""
    _rejects(words, plan, replace(SEEN, facts=facts(view(report()), **changes)))


def test_a_kernel_under_its_raw_id_whose_digest_is_used() -> None:
    """A node that names the new name only needs the old one all the same."""
    seen = _seen(files=table((K1, file_facts(inode=1))))
    known = facts(view(report()), inventory=Inventory({K1: 1}))
    plan = make_plan(POLICY, replace(seen, manifest=(), facts=known))
    assert [taking.name for taking in plan.take] == [K1]
    used = facts(view(report(now=uses_of(H1))), inventory=Inventory({K1: 1}))
    _rejects("is used", plan, replace(seen, manifest=(), facts=used))


@pytest.mark.parametrize("plan", [TAKE, PURGE])
@pytest.mark.parametrize(
    ("node", "words"),
    [
        (view(report=None), "no readable report"),
        (view(BROKEN), "no readable report"),
        (view(report(kernel_naming=KernelNaming.RAW_ID)), "old kernel naming"),
        (view(report(kernel_naming=KernelNaming.UNKNOWN)), "old kernel naming"),
        (view(report(schema_version=1)), "another schema"),
        (view(report(schema_version=3)), "another schema"),
        (view(report(), witness=None), "since its start"),
        (view(report(), witness=Witness("n1", None, 0)), "since its start"),
        (
            view(report(), witness=Witness("n1", Incarnation("boot", 2), 0)),
            "since its start",
        ),
        (
            view(report(), witness=Witness("n1", Incarnation("other", 1), 0)),
            "since its start",
        ),
    ],
)
def test_a_node_in_doubt(plan: Plan, node: Any, words: str) -> None:
    """No step is allowed while one node has not spoken, or speaks the old way."""
    _rejects(words, plan, replace(SEEN, facts=facts(view(report("n0")), node)))


@pytest.mark.parametrize("plan", [TAKE, PURGE])
def test_a_naming_that_the_finalized_schema_does_not_ask_for(plan: Plan) -> None:
    """Once a later schema asks for other names, the newest ones of today are old."""
    last = SCHEMAS.rows[-1]
    other = SchemaVersion(3, "x", last.reads, KernelNaming.RAW_ID, cleaning=True)
    node = view(report(schema_version=3))
    changes = {"schemas": SchemaTable((*SCHEMAS.rows, other)), "finalized_schema": 3}
    _rejects(
        "n1 uses another kernel naming",
        plan,
        replace(SEEN, facts=facts(node, **changes)),
    )


def test_a_plan_that_contradicts_its_own_gate() -> None:
    """A plan that gives a reason against itself is not done."""
    brake = Gate((Reason(Code.BRAKE, Closes.ALL, "plan", "too much"),))
    _rejects("brake", replace(TAKE, gate=brake))
    _rejects("brake", replace(PURGE, gate=brake))
    missing = Gate((Reason(Code.NODE_MISSING, Closes.PURGE, "n1", "gone"),))
    _rejects("node-missing", replace(PURGE, gate=missing))
    check_plan(POLICY, SEEN, replace(TAKE, gate=missing))


def test_more_than_its_share() -> None:
    """Above floor and share only the approved set of names may be taken."""
    policy = replace(POLICY, max_share_floor=1, max_share_percent=50.0)
    _rejects("unapproved", TAKE, policy=policy)
    check_plan(policy, replace(SEEN, approved=PLAN.digest), TAKE)
    _rejects("unapproved", TAKE, replace(SEEN, approved="x"), policy)


def test_what_is_left_of_an_approved_plan() -> None:
    """The rest of a plan that was approved and begun passes, and no other."""
    policy = replace(POLICY, max_share_floor=1, max_share_percent=50.0)
    check_plan(policy, replace(SEEN, begun=frozenset(NAMES)), TAKE)
    _rejects("unapproved", TAKE, replace(SEEN, begun=frozenset({D1})), policy)


@pytest.mark.parametrize("plan", [TAKE, PURGE])
def test_a_shrunken_report(plan: Plan) -> None:
    """Nothing is taken or purged while a report that shrank is not believed."""
    memory = {"n1": remembered(D2, D3, f"{D1}_20", count=3)}
    shrunken = replace(SEEN, remembered=memory)
    strict = replace(POLICY, max_shrink_floor=2)
    _rejects("n1's uses shrank", plan, shrunken, strict)
    digest = make_plan(strict, shrunken).digest
    # The digest is the whole plan's; a plan of less has another.
    check_plan(strict, replace(shrunken, approved=digest), PLAN)
    _rejects("shrank", plan, replace(shrunken, approved=PLAN.digest), strict)
    check_plan(replace(strict, max_shrink_floor=3), shrunken, plan)
    check_plan(replace(strict, max_shrink_percent=100.0), shrunken, plan)


@pytest.mark.parametrize(
    ("shrunk_ns", "least", "good"),
    [
        (None, 0, False),
        (NOW_NS - 10 * SECOND, 0, True),
        (NOW_NS - 10 * SECOND + 1, 0, False),
        (NOW_NS - 10 * SECOND, 1, False),
    ],
)
def test_a_shrink_that_has_lasted(
    shrunk_ns: int | None, least: int, *, good: bool
) -> None:
    """It is believed after its time, and not if the report shrank once more."""
    policy = replace(POLICY, max_shrink_floor=0, shrink_lasts_s=10.0)
    past = remembered(D2, count=9, shrunk_ns=shrunk_ns, least=least)
    seen = replace(SEEN, remembered={"n1": past})
    if good:
        check_plan(policy, seen, PLAN)
    else:
        _rejects("shrank", PLAN, seen, policy)


def test_a_memory_that_cannot_be_read() -> None:
    """Nothing is done until an operator lets it begin anew."""
    seen = replace(SEEN, remembered=Unreadable("newer"))
    _rejects("cannot be read", PLAN, seen)
    digest = make_plan(POLICY, seen).digest
    check_plan(POLICY, replace(seen, approved=digest), PLAN)


@pytest.mark.parametrize(
    ("space", "good"), [(None, False), ((100, 10), False), ((100, 9), True)]
)
def test_the_grace_below_the_mark(space: tuple[int, int] | None, *, good: bool) -> None:
    """Only free space that is known to be below the mark shortens the grace."""
    policy = replace(POLICY, low_water_percent=10.0, low_water_grace_s=50.0)
    one = replace(ENTRY, since_ns=NOW_NS - 50 * SECOND)
    seen = _seen(manifest=(ManifestBatch("b", (one,)),), space=space)
    plan = replace(PURGE, purge=(replace(PURGE.purge[0], entry=one),))
    if good:
        check_plan(policy, seen, plan)
    else:
        _rejects("within its grace", plan, seen, policy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": D2}, "was seen"),
        ({"inode": 9}, "not the file"),
        ({"mtime_ns": 9}, "not the file"),
    ],
)
def test_a_file_that_was_not_seen(changes: dict[str, Any], words: str) -> None:
    """A step names the file that was judged: name, inode and time."""
    _rejects(words, replace(TAKE, take=(replace(TAKE.take[0], **changes),)))


def test_a_file_taken_twice() -> None:
    """A plan takes a name once and purges an entry once."""
    _rejects("twice", replace(TAKE, take=(*TAKE.take, TAKE.take[0])))
    _rejects("twice", replace(PURGE, purge=PURGE.purge * 2))


@pytest.mark.parametrize(
    "name", ["README", f"{D1}.bak", f"{D1}_0", "swap_", f"{D1}{'.part' * 29}", ""]
)
def test_a_name_outside_the_grammar(name: str) -> None:
    """The checker's grammar is no wider than the planner's."""
    seen = _seen(files=table((name, file_facts(inode=1))))
    _rejects("was seen", replace(TAKE, take=(replace(TAKE.take[0], name=name),)), seen)


def _with(one: Any) -> Observation:
    return _seen(files=table((D1, one), (K1, file_facts(inode=2))))


def test_a_partial_name_of_a_published_file() -> None:
    """A second link is known only if it is the whole name of this very file."""
    part, one = f"{D1}.4f2a.part", file_facts(inode=1, links=2)
    taking = replace(TAKE.take[0], name=part)
    plan = replace(TAKE, take=(taking,))
    check_plan(POLICY, _seen(files=table((part, one), (D1, one))), plan)
    other = file_facts(inode=2, links=2)
    for files in (table((part, one)), table((part, one), (D1, other))):
        _rejects("links that are not ours", plan, _seen(files=files))
    single = table((part, file_facts(inode=1)), (D1, one))
    _rejects("links that are not ours", plan, _seen(files=single))


YOUNG_NS = NOW_NS - 86400 * SECOND + 1


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (_with(file_facts(inode=1, regular=False)), "not a regular file"),
        (_with(file_facts(inode=1, links=2)), "links that are not ours"),
        (replace(SEEN, holds=frozenset({D1})), "held"),
        (replace(SEEN, facts=facts(view(report(now=uses_of(D1))))), "used"),
        (replace(SEEN, facts=facts(view(report(since=uses_of(K1))))), "used"),
        (
            replace(SEEN, facts=facts(view(report(storage_time_ns=1)))),
            "younger than n1's report",
        ),
        (
            replace(SEEN, manifest=(ManifestBatch("b", (entry(D1, restoring=True),)),)),
            "taken or restored already",
        ),
        (
            replace(
                SEEN,
                manifest=(ManifestBatch("b", (entry(state=EntryState.INTENDED),)),),
            ),
            "taken or restored already",
        ),
    ],
)
def test_a_file_that_may_not_be_taken(seen: Observation, words: str) -> None:
    """Each condition of a quarantine is asked for again."""
    _rejects(words, TAKE, seen)


@pytest.mark.parametrize(
    ("name", "age_s"),
    [
        (D1, 86400),
        (f"{D1}_20", 3600),
        (K1, 86400),
        ("swap_1", 86400),
        ("ephemeral_1_x", 86400),
        (f"{D1}_20.part", 86400),
    ],
)
def test_a_file_that_is_too_young(name: str, age_s: int) -> None:
    """Every kind has its age, told from the look of the name."""
    for early, good in ((0, True), (1, False)):
        mtime_ns = NOW_NS - age_s * SECOND + early
        seen = _seen(files=table((name, file_facts(inode=1, mtime_ns=mtime_ns))))
        taking = replace(TAKE.take[0], name=name, mtime_ns=mtime_ns)
        plan = replace(TAKE, take=(taking,))
        if good:
            check_plan(POLICY, seen, plan)
        else:
            _rejects("s old", plan, seen)


def test_a_family_keeps_its_copies() -> None:
    """The original's id in a report protects every resized copy."""
    seen = _seen(files=table((f"{D1}_20", file_facts(inode=1))))
    plan = replace(TAKE, take=(replace(TAKE.take[0], name=f"{D1}_20"),))
    check_plan(POLICY, seen, plan)
    said = report(now=uses_of(families=(D1,)))
    _rejects("used", plan, replace(seen, facts=facts(view(said))))


ASKED = replace(ENTRY, asked=True)


def _renews(one: Any, *nodes: Any) -> tuple[Plan, Observation]:
    seen = _seen(manifest=(ManifestBatch("b", (one,)),))
    if nodes:
        seen = replace(seen, facts=facts(*nodes))
    return replace(PLAN, take=(), purge=(), renew=(Renewing("b", one),)), seen


def test_a_legal_renewal_passes() -> None:
    """The renewal that the next test breaks."""
    plan, seen = _renews(ASKED)
    check_plan(POLICY, seen, plan)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (_renews(ENTRY), "needs no new name"),
        (_renews(replace(ASKED, state=EntryState.INTENDED)), "needs no new name"),
        (_renews(replace(ASKED, restoring=True)), "being restored"),
        (
            _renews(ASKED, view(report(intents=frozenset({ASKED.entry})))),
            "being restored",
        ),
        ((_renews(ASKED)[0], SEEN), "not in the manifest"),
        (_renews(ASKED, view(report(), witness=None)), "since its start"),
    ],
)
def test_an_entry_that_may_not_be_renewed(
    case: tuple[Plan, Observation], words: str
) -> None:
    """A rename within quarantine asks for the same cluster, and for its mark."""
    _rejects(words, *case)


def _purges(one: Any, *nodes: Any, **changes: Any) -> tuple[Plan, Observation]:
    seen = _seen(manifest=(ManifestBatch("b", (one,)),), **changes)
    if nodes:
        seen = replace(seen, facts=facts(*nodes))
    return replace(PURGE, purge=(replace(PURGE.purge[0], entry=one),)), seen


TOKEN = frozenset({ENTRY.entry})


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (_purges(replace(ENTRY, state=EntryState.INTENDED)), "was not taken"),
        (_purges(replace(ENTRY, baseline=None)), "was not taken"),
        (_purges(replace(ENTRY, restoring=True)), "being restored"),
        (_purges(replace(ENTRY, asked=True)), "may land yet"),
        (_purges(ENTRY, view(report(now=uses_of(D3)))), "used or held"),
        (_purges(ENTRY, view(report(since=uses_of(D3)))), "used or held"),
        (_purges(ENTRY, holds=frozenset({D3})), "used or held"),
        (_purges(ENTRY, view(report(sees=TOKEN))), "sees or wants"),
        (_purges(ENTRY, view(report(intents=TOKEN))), "sees or wants"),
        (_purges(replace(ENTRY, since_ns=NOW_NS - 3599 * SECOND)), "grace"),
        (
            _purges(
                replace(ENTRY, moved_ns=NOW_NS - SECOND), view(report(name_cache_s=1.0))
            ),
            "name cache",
        ),
        (
            _purges(replace(ENTRY, moved_ns=NOW_NS - SECOND), name_cache_s=1.0),
            "name cache",
        ),
        (_purges(replace(ENTRY, round=0)), "began before"),
        (_purges(replace(ENTRY, round=10)), "began before"),
        (_purges(ENTRY, view(report(failures=FAILED))), "degraded"),
        (
            _purges(
                ENTRY,
                view(report("n0")),
                view(report(sealed=True, failures=FAILED), member=False),
            ),
            "degraded",
        ),
        (_purges(ENTRY, view(report("n0")), view(report(), member=False)), "missing"),
        (_purges(ENTRY, view(report(unbroken=False))), "two looks"),
        (_purges(ENTRY, view(report(sealed=True), member=False)), "two looks"),
        (_purges(ENTRY, view(report(since_round=10))), "within every node's window"),
        (
            _purges(
                ENTRY,
                view(report(since_round=9, upto=9)),
                view(report("n2", since_round=9)),
            ),
            "within every node's window",
        ),
        (_purges(ENTRY, view(report(since_round=9, upto=9)), round=9), "window"),
        (
            _purges(replace(ENTRY, round=8), view(report(since_round=8)), round=9),
            "never raised",
        ),
    ],
)
def test_an_entry_that_may_not_be_purged(
    case: tuple[Plan, Observation], words: str
) -> None:
    """Each condition of a purge is asked for again."""
    _rejects(words, *case)


@pytest.mark.timeout(10)
def test_a_round_made_of_the_time_is_judged_at_once() -> None:
    """A recovery sets the round to milliseconds since 1970: not each is tried."""
    late = 1_800_000_000_000
    _rejects("window", *_purges(ENTRY, view(report(since_round=9, upto=9)), round=late))


@pytest.mark.parametrize(
    "change",
    [
        lambda purging: replace(purging, batch="other"),
        lambda purging: replace(purging, entry=replace(ENTRY, epoch=4)),
        lambda purging: replace(purging, entry=replace(ENTRY, round=1)),
        lambda purging: replace(purging, entry=entry(D2, 7)),
    ],
)
def test_an_entry_that_is_not_in_the_manifest(change: Callable[[Any], Any]) -> None:
    """An entry is purged exactly as the manifest has it, from its own batch."""
    _rejects("not in the manifest", replace(PURGE, purge=(change(PURGE.purge[0]),)))


def test_a_waiver_reaches_only_files_untouched_since() -> None:
    """A missing node's last report says nothing of what was touched later."""
    policy = replace(POLICY, missing_nodes=MissingNodes.LAST_REPORT)
    nodes = (view(report("n0")), view(report(), member=False))
    plan, seen = _purges(ENTRY, *nodes)
    check_plan(policy, seen, plan)
    touched = Baseline.of(file_facts(mtime_ns=NOW_NS))
    plan, seen = _purges(replace(ENTRY, baseline=touched), *nodes)
    _rejects("changed after n1 left", plan, seen, policy)
