"""Sudden shrinks: what is remembered, what is lost, and when it is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sharedcache.core import brakecodec, codec
from sharedcache.core import shrink as module
from sharedcache.core.codec import RecordError
from sharedcache.core.gate import Closes, Code, NodeView
from sharedcache.core.model import ManifestBatch, Unreadable, Uses
from sharedcache.core.plan import Observation, Remembered, Shrink, Why
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import CleanerPolicy
from sharedcache.core.shrink import remember, shrinks
from tests.property.strategies import (
    NOW_NS,
    SECOND,
    entry,
    file_facts,
    observation,
    report,
    table,
    uses_of,
    view,
)

POLICY = CleanerPolicy(max_shrink_floor=5)
NAMES = tuple(f"swap_{number}" for number in range(20))
LASTS_NS = int(POLICY.shrink_lasts_s * SECOND)


def _node(node: str, *names: str, **changes: Any) -> NodeView:
    return view(report(node, now=uses_of(*names), **changes))


def _after(*before: NodeView) -> dict[str, Any]:
    """Return what a leader remembers of these nodes."""
    return {"remembered": remember(observation(*before), ())}


def _found(*now: NodeView, **changes: Any) -> list[tuple[str, int, int, int]]:
    found = shrinks(POLICY, observation(*now, **changes))
    return [(one.node, one.was, one.now, len(one.lost)) for one in found]


def test_a_report_that_is_suddenly_empty_is_a_shrink() -> None:
    """An instances mount that vanished: the node uses nothing, and nobody else."""
    memory = _after(_node("n1", *NAMES), _node("n2"))
    assert _found(_node("n1"), _node("n2"), **memory) == [("n1", 20, 0, 20)]
    assert _found(_node("n1", *NAMES), _node("n2"), **memory) == []


def test_without_a_memory_nothing_is_a_shrink() -> None:
    """The first pass of all remembers, and a new node has nothing to lose."""
    assert _found(_node("n1")) == []
    assert _found(_node("n1"), **_after(_node("n2", *NAMES))) == []


def test_guests_that_moved_are_no_shrink() -> None:
    """A host that is emptied by migration loses no name: another uses it now."""
    memory = _after(_node("n1", *NAMES), _node("n2"))
    assert _found(_node("n1"), _node("n2", *NAMES), **memory) == []
    some = _found(_node("n1"), _node("n2", *NAMES[:12]), **memory)
    assert some == [("n1", 20, 0, 8)]


def test_names_that_others_share_are_lost_only_with_the_last_of_them() -> None:
    """Each name is remembered once; nodes that vanish together still lose it."""
    memory = _after(_node("n1", *NAMES), _node("n2", *NAMES))
    assert _found(_node("n1"), _node("n2", *NAMES), **memory) == []
    assert _found(_node("n1", *NAMES), _node("n2"), **memory) == []
    assert _found(_node("n1"), _node("n2"), **memory) == [("n1", 20, 0, 20)]


def test_uses_of_the_window_do_not_count() -> None:
    """A window forgets all at once what ended one by one: only `now` is compared."""
    before = view(report("n1", now=uses_of(*NAMES), since=uses_of("swap_99")))
    assert _found(_node("n1", *NAMES), **_after(before)) == []
    after = view(report("n1", since=uses_of(*NAMES)))
    assert _found(after, **_after(before)) == [("n1", 20, 0, 20)]


@pytest.mark.parametrize(("kept", "shrunk"), [(10, False), (9, True), (0, True)])
def test_a_shrink_is_more_than_its_share(kept: int, *, shrunk: bool) -> None:
    """Half of the uses may go from one pass to the next, and no name more."""
    found = _found(_node("n1", *NAMES[:kept]), **_after(_node("n1", *NAMES)))
    assert bool(found) == shrunk


@pytest.mark.parametrize(("lost", "shrunk"), [(5, False), (6, True)])
def test_few_names_are_no_shrink(lost: int, *, shrunk: bool) -> None:
    """A node that loses few names needs no approval, whatever its share."""
    found = _found(_node("n1"), **_after(_node("n1", *NAMES[:lost])))
    assert bool(found) == shrunk


def test_at_a_hundred_percent_the_brake_is_off() -> None:
    """No node can lose more than all that it uses."""
    seen = observation(_node("n1"), **_after(_node("n1", *NAMES)))
    assert shrinks(replace(POLICY, max_shrink_percent=100.0), seen) == ()


def test_an_expunged_node_is_no_shrink() -> None:
    """Taking a node off the roster is an operator's word, and is forgotten."""
    memory = _after(_node("n1", *NAMES), _node("n2"))
    seen = observation(_node("n2"), **memory)
    assert shrinks(POLICY, seen) == ()
    assert set(remember(seen, ())) == {"n2"}


def test_a_missing_node_that_comes_back_empty_is_a_shrink() -> None:
    """A host that rebooted without its mount: its old report stood meanwhile."""
    gone = view(report("n1", now=uses_of(*NAMES)), member=False)
    memory = _after(gone)
    assert _found(gone, **memory) == []
    assert _found(_node("n1"), **memory) == [("n1", 20, 0, 20)]


def test_a_report_that_cannot_be_read_keeps_its_memory() -> None:
    """Nothing is learnt from it: it neither shrinks nor is forgotten."""
    memory = _after(_node("n1", *NAMES))
    for nothing in (Unreadable("cut short"), None):
        seen = observation(NodeView("n1", True, nothing, None), **memory)
        assert shrinks(POLICY, seen) == ()
        assert remember(seen, ()) == memory["remembered"]


def test_a_shrink_is_believed_once_it_has_lasted() -> None:
    """Its time is remembered from when it was first seen, whoever leads then."""
    memory = _after(_node("n1", *NAMES), _node("n2", "swap_50"))
    seen = observation(_node("n1", "swap_1"), _node("n2"), **memory)
    standing = shrinks(POLICY, seen)
    kept = remember(seen, standing)
    assert kept["n1"] == replace(memory["remembered"]["n1"], shrunk_ns=NOW_NS, least=1)
    # The others' memory goes on.
    assert kept["n2"] == Remembered(0, frozenset())
    later = replace(seen, remembered=kept, storage_now_ns=NOW_NS + LASTS_NS - 1)
    assert [one.since_ns for one in shrinks(POLICY, later)] == [NOW_NS]
    over = replace(later, storage_now_ns=NOW_NS + LASTS_NS)
    assert shrinks(POLICY, over) == ()
    assert remember(over, ())["n1"].count == 1


def test_a_shrink_that_goes_on_begins_anew() -> None:
    """A report that shrinks once more is news; one that grows a little is not."""
    first_ns = NOW_NS - SECOND
    before = _after(_node("n1", *NAMES))["remembered"]["n1"]
    old = replace(before, shrunk_ns=first_ns, least=4)
    for kept, since_ns in ((3, NOW_NS), (4, first_ns), (7, first_ns)):
        seen = observation(_node("n1", *NAMES[:kept]), remembered={"n1": old})
        (one,) = shrinks(POLICY, seen)
        assert one.since_ns == since_ns


def test_a_node_that_recovers_is_remembered_anew() -> None:
    """A mount that came back ends the brake by itself."""
    memory = _after(_node("n1", *NAMES))
    seen = observation(_node("n1"), **memory)
    kept = remember(seen, shrinks(POLICY, seen))
    back = observation(_node("n1", *NAMES), remembered=kept)
    assert shrinks(POLICY, back) == ()
    assert remember(back, ()) == memory["remembered"]


def test_a_digest_and_its_name_are_one_key() -> None:
    """A name stays the same name in whatever column a node reports it."""
    digests = [bytes([n]) * 20 for n in range(10)]
    before = view(report("n1", now=Uses(images=frozenset(digests))))
    as_names = Uses(names=frozenset(digest.hex() for digest in digests))
    after = view(report("n2", now=as_names))
    empty = view(report("n1"))
    assert _found(empty, after, **_after(before)) == []


def test_what_does_not_fit_is_thinned_and_never_counts_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A memory has bounds; a thinned one counts fewer lost names, none too many."""
    views = [_node("n1", *NAMES), _node("n2", *(f"swap_{n}" for n in range(50, 80)))]
    monkeypatch.setattr(module, "MEMORY_BYTES", 2 * (32 + 2) + 25 * 6)
    memory = remember(observation(*views), ())
    assert sum(len(one.keys) for one in memory.values()) == 25
    assert [memory[node].count for node in ("n1", "n2")] == [20, 30]
    found = shrinks(POLICY, observation(_node("n1"), _node("n2"), remembered=memory))
    assert [len(one.lost) for one in found] == [
        len(memory[node].keys) for node in ("n1", "n2")
    ]
    assert shrinks(POLICY, observation(*views, remembered=memory)) == ()
    monkeypatch.setattr(module, "MEMORY_BYTES", 0)
    assert not any(one.keys for one in remember(observation(*views), ()).values())


def _braked(**changes: Any) -> Observation:
    fields: dict[str, Any] = {
        "files": table(("swap_500", file_facts())),
        "manifest": (ManifestBatch("b", (entry("swap_600"),)),),
        **_after(_node("n1", *NAMES)),
    }
    return observation(_node("n1"), **{**fields, **changes})


def test_a_shrink_stops_the_pass_and_names_the_node() -> None:
    """Nothing is taken or purged on the strength of a shrunken report."""
    plan = make_plan(POLICY, _braked())
    assert (plan.take, plan.purge) == ((), ())
    (reason,) = plan.gate.reasons
    assert (reason.code, reason.closes, reason.subject) == (
        Code.BRAKE,
        Closes.ALL,
        "n1",
    )
    assert "0 used files, 20 before, and nobody uses 20" in reason.message
    assert f"approve {plan.digest[:12]}" in reason.message
    assert plan.whys[0] == Why.BRAKE
    assert [one.node for one in plan.shrunk] == ["n1"]


def test_an_approval_binds_to_the_shrink_too() -> None:
    """Approved with one shrink is not approved with another, nor without."""
    plan = make_plan(POLICY, _braked())
    approved = _braked(approved=plan.digest)
    passed = make_plan(POLICY, approved)
    assert (len(passed.take), len(passed.purge)) == (1, 1)
    assert passed.shrunk == ()
    more = {**_after(_node("n1", *NAMES, "swap_70"))}
    assert make_plan(POLICY, replace(approved, **more)).take == ()
    calm = make_plan(POLICY, replace(approved, remembered={}))
    assert calm.digest != plan.digest
    assert remember(approved, passed.shrunk)["n1"] == Remembered(0, frozenset())


def test_a_memory_that_cannot_be_read_is_a_brake() -> None:
    """Absence of evidence keeps, until an operator lets it begin anew."""
    seen = _braked(remembered=Unreadable("newer"))
    plan = make_plan(POLICY, seen)
    assert [(r.code, r.subject) for r in plan.gate.reasons] == [(Code.BRAKE, "memory")]
    assert make_plan(POLICY, replace(seen, approved=plan.digest)).take
    assert remember(seen, ()) == {"n1": Remembered(0, frozenset())}


@pytest.mark.parametrize(
    "row",
    [
        ["n1", 1, b"sevenkey", None, 0],
        ["n1", 1, "sixkey", None, 0],
        ["n1", 1, b"sixkey", None],
        "n1",
    ],
)
def test_a_damaged_memory_is_refused(row: object) -> None:
    """Keys that are cut short would be those of other files."""
    record = {**brakecodec.memory_to_record({}), "nodes": [row]}
    with pytest.raises(RecordError):
        brakecodec.memory_from_record(codec.unpack(codec.pack(record)))


def test_a_shrink_is_told_with_its_numbers() -> None:
    """Values between planner and leader compare by what they say."""
    seen = _braked()
    (one,) = shrinks(POLICY, seen)
    assert isinstance(seen.remembered, dict)
    keys = seen.remembered["n1"].keys
    assert one == Shrink("n1", 20, 0, keys, NOW_NS)
