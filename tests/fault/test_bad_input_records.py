"""Records in ZooKeeper that cannot be relied on: each closes the gate, or keeps.

A record is unreadable, oversized, newer or empty; it lies at the top of the
cluster's tree, in the roster, in the group, or in the manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgpack
import pytest

from sharedcache import ledger
from sharedcache.cleaner import operator
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.codec import RecordError
from sharedcache.core.gate import Code
from sharedcache.core.planner import make_plan
from sharedcache.core.ports import Coordination, CoordinationError, Create, Delete, Set
from tests.support.inprocess import FAST, OPERATOR, Site, gate_codes, publish, settle
from tests.support.stake import Stake, look_on, steps, told

pytestmark = pytest.mark.timeout(90)


def _newer(data: bytes) -> bytes:
    """Return the same record as a later release would write it."""
    values = msgpack.unpackb(data) if data else {}
    newer: bytes = msgpack.packb({**values, "schema": 99})
    return newer


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "unreadable": lambda _: b"\xc1 is no msgpack",
    # An array that claims four thousand million items.
    "oversized": lambda _: b"\xdd\xff\xff\xff\xff" + bytes(900_000),
    "newer": _newer,
    "empty": lambda _: b"",
}

kinds = pytest.mark.parametrize("kind", KINDS)


@dataclass
class Damage:
    """Damages one record, and can put it back."""

    coordination: Coordination
    path: str
    kind: str
    whole: bytes = b""

    def do(self) -> None:
        """Write what cannot be relied on in place of what is there."""
        record = self.coordination.get(self.path)
        assert record is not None
        self.whole = record.data
        bad = KINDS[self.kind](self.whole)
        self.coordination.commit([Set(self.path, bad, None)])

    def undo(self) -> None:
        """Put back what was there."""
        self.coordination.commit([Set(self.path, self.whole, None)])


def said(site: Site) -> tuple[set[Code], str]:
    """Return the gate's codes and words, or the error that any look ends with."""
    try:
        plan = make_plan(FAST, site.observer().observe(scan=True).seen)
    except (CoordinationError, RecordError) as error:
        return set(), str(error)
    assert not plan.take
    assert not plan.purge
    return (
        {reason.code for reason in plan.gate.reasons},
        "\n".join(reason.message for reason in plan.gate.reasons),
    )


def advised(kind: str, text: str) -> bool:
    """Whether the way out is named: a later release, or the recovery."""
    return ("upgrade" if kind == "newer" else "`sharedcache recover`") in text


@pytest.mark.parametrize(
    ("place", "code"),
    [
        (ledger.IDENTITY, Code.CLUSTER_MISMATCH),
        (ledger.EPOCH, None),
        (ledger.ROUND, None),
        (ledger.ROLLOUT, Code.ROLLOUT_NOT_FINALIZED),
        (ledger.AUTHORISATION, None),
    ],
    ids=["identity", "epoch", "round", "rollout", "authorisation"],
)
@kinds
def test_a_bad_record_in_zookeeper_closes_the_gate(
    site: Site, kind: str, place: str, code: Code | None
) -> None:
    """Whoever looks is told which record it is, and nobody acts."""
    stake = Stake.of(site, "n1")
    agent = site.agent("n1")
    publish(agent)
    damage = Damage(site.session("operator"), place, kind)
    damage.do()
    cleaner = site.cleaner("c1")
    steps(agent, cleaner)
    codes, text = said(site)
    assert codes == ({code} if code is not None else set())
    assert advised(kind, text)
    assert place in text or code is not None
    assert stake.untouched()
    damage.undo()
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("unreadable", ledger.EPOCH),
        ("newer", ledger.ROUND),
        ("empty", ledger.AUTHORISATION),
    ],
)
def test_a_record_that_goes_bad_under_a_leader_stops_it(
    site: Site, kind: str, place: str
) -> None:
    """The leader says which record, takes nothing, and goes on once it is mended."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 1, what="a leader")
    damage = Damage(site.session("operator"), place, kind)
    damage.do()
    stake = Stake.of(site, "n1")
    steps(agent, cleaner)
    (message, *_) = [t for t in told(cleaner, "pass-failed") if place in t]
    assert advised(kind, message)
    if place == ledger.ROUND:
        (message, *_) = told(agent, "report-not-written")
        assert "the round in ZooKeeper cannot be read" in message
    assert stake.untouched()
    damage.undo()
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "empty"])
def test_a_bad_record_of_a_pause_is_a_pause(site: Site, kind: str) -> None:
    """Doubt about an operator's word is taken for the word; empty is none."""
    stake = Stake.of(site, "n1")
    agent, word = site.agent("n1"), site.session("operator")
    publish(agent)
    operator.pause(word, "maintenance", OPERATOR)
    Damage(word, ledger.PAUSE, kind).do()
    cleaner = site.cleaner("c1")
    look_on(cleaner, agent)
    assert gate_codes(cleaner) == {(Code.PAUSED, "operator")}
    codes, text = said(site)
    assert codes == {Code.PAUSED}
    assert "unreadable" in text
    assert "`sharedcache resume`" in text
    assert stake.untouched()
    operator.resume(word, OPERATOR)
    settle(agent, cleaner, until=stake.gone, what="it goes on")


@kinds
def test_a_bad_record_of_an_approval_approves_nothing(site: Site, kind: str) -> None:
    """The brake stays on until a plan is really approved."""
    stake = Stake.of(site, "n1")
    policy = replace(FAST, max_share_percent=1.0, max_share_floor=0)
    agent, word = site.agent("n1"), site.session("operator")
    cleaner = site.cleaner("c1", policy)
    settle(agent, cleaner, until=lambda: _braked(cleaner), what="a brake")
    plan, observed = cleaner.harvest.plan, cleaner.harvest.observed
    assert plan is not None
    assert observed is not None
    now_ns = observed.seen.storage_now_ns
    with_word = Damage(word, ledger.APPROVAL, kind)
    operator.approve(word, plan.digest, now_ns - 10**15, OPERATOR)
    with_word.do()
    cleaner.pass_now()
    look_on(cleaner, agent)
    assert _braked(cleaner)
    gate = cleaner.harvest.gate
    assert gate is not None
    assert any("sharedcache approve" in reason.message for reason in gate.reasons)
    assert stake.untouched()
    operator.approve(word, plan.digest, now_ns, OPERATOR)
    settle(agent, cleaner, until=stake.gone, what="it goes on")


def _braked(cleaner: CleanerService) -> bool:
    return (Code.BRAKE, "plan") in gate_codes(cleaner)


@kinds
def test_a_bad_record_of_a_hold_holds(site: Site, kind: str) -> None:
    """A hold is its name: whatever is written in it, the file is kept."""
    stake = Stake.of(site, "n1")
    agent, word = site.agent("n1"), site.session("operator")
    operator.hold(word, stake.unused.name, "wait", OPERATOR)
    Damage(word, ledger.hold_path(stake.unused.name), kind).do()
    cleaner = site.cleaner("c1")
    look_on(cleaner, agent)
    assert stake.untouched()
    (hold,) = operator.holds(word)
    assert hold.name == stake.unused.name
    operator.release(word, hold.name, OPERATOR)
    cleaner.pass_now()
    settle(agent, cleaner, until=stake.gone, what="it goes on")


@kinds
def test_a_bad_record_in_the_roster_closes_the_gate(site: Site, kind: str) -> None:
    """A node that is away and whose last report cannot be read may use everything."""
    stake = Stake.of(site, "n1")
    away, other = site.agent("n1"), site.agent("n2")
    publish(away)
    publish(other)
    away.finish()
    Damage(site.session("operator"), ledger.node_path("n1"), kind).do()
    cleaner = site.cleaner("c1")
    look_on(cleaner, other)
    wanted = Code.NODE_SCHEMA_UNKNOWN if kind == "newer" else Code.NODE_UNREPORTED
    assert (wanted, "n1") in gate_codes(cleaner)
    text = said(site)[1]
    assert ("upgrade the cleaners" if kind == "newer" else "check its") in text
    assert stake.untouched()
    back = site.agent("n1")
    settle(back, other, cleaner, until=stake.gone, what="it reports again")


@kinds
def test_a_bad_record_in_the_group_closes_the_gate(site: Site, kind: str) -> None:
    """A live node whose report cannot be read may use everything."""
    stake = Stake.of(site, "n1")
    agent, other = site.agent("n1"), site.agent("n2")
    publish(agent)
    publish(other)
    damage = Damage(site.session("operator"), ledger.member_path("n1"), kind)
    damage.do()
    cleaner = site.cleaner("c1")
    look_on(cleaner, other)
    wanted = Code.NODE_SCHEMA_UNKNOWN if kind == "newer" else Code.NODE_UNREPORTED
    assert (wanted, "n1") in gate_codes(cleaner)
    text = said(site)[1]
    assert ("upgrade the cleaners" if kind == "newer" else "check its") in text
    assert stake.untouched()
    damage.undo()
    settle(agent, other, cleaner, until=stake.gone, what="it goes on by itself")


@kinds
def test_a_bad_record_in_the_manifest_closes_the_gate(site: Site, kind: str) -> None:
    """What is in quarantine is not known whole: nobody stands, agents are degraded."""
    stake = Stake.of(site, "n1")
    agent, word = site.agent("n1"), site.session("operator")
    publish(agent)
    path = ledger.batch_path("0000000001-0123456789abcdef")
    bad = KINDS[kind](b"")
    word.commit([Create(path, bad), ledger.manifest_changed("0123456789abcdef")])
    cleaner = site.cleaner("c1")
    steps(agent, cleaner)
    codes, text = said(site)
    assert codes == {Code.NODE_SCHEMA_UNKNOWN, Code.NODE_DEGRADED}
    assert "upgrade it if the record is newer; else `sharedcache recover`" in text
    assert "see `sharedcache status`" in text
    assert "the manifest's record" in told(cleaner, "standing-for-election")[-1]
    assert cleaner.leadership is None
    assert stake.untouched()
    word.commit([Delete(path, None), ledger.manifest_changed("fedcba9876543210")])
    settle(agent, cleaner, until=stake.gone, what="it goes on")
