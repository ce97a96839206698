"""An operator's words and what they do to the gate and to plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedcache import audit, ledger
from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.core.acts import Act, Deed, Signature, Subject
from sharedcache.core.gate import Code
from sharedcache.core.plan import Why
from sharedcache.core.planner import make_plan
from sharedcache.core.ports import Coordination, Create, Delete
from tests.support.inprocess import (
    FAST,
    OPERATOR,
    Site,
    gate_codes,
    image_id,
    publish,
    settle,
)

pytestmark = pytest.mark.timeout(90)


def test_a_pause_closes_the_gate_until_it_is_taken_back(site: Site) -> None:
    """Paused: nothing is taken, and the operator's word is shown."""
    word = site.session("operator")
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    operator.pause(word, "storage work", OPERATOR)
    path = site.image(image_id())
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 5, what="passes")
    assert (Code.PAUSED, "operator") in gate_codes(cleaner)
    assert path.exists()
    operator.resume(word, OPERATOR)
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is taken")


def test_a_braked_plan_waits_for_the_approval_of_that_very_plan(site: Site) -> None:
    """Brake: more than its share waits; an approval of another plan is none."""
    word = site.session("operator")
    paths = [site.image(image_id()) for _ in range(6)]
    agent = site.agent("n1")
    cleaner = site.cleaner(
        "c1", replace(FAST, max_share_percent=50.0, max_share_floor=3)
    )
    settle(
        agent,
        cleaner,
        until=lambda: (Code.BRAKE, "plan") in gate_codes(cleaner),
        what="a brake",
    )
    assert all(path.exists() for path in paths)
    plan, observed = cleaner.harvest.plan, cleaner.harvest.observed
    assert plan is not None
    assert observed is not None
    operator.approve(word, "0" * 64, observed.seen.storage_now_ns, OPERATOR)
    passes = cleaner.harvest.passes
    settle(
        agent, cleaner, until=lambda: cleaner.harvest.passes > passes + 3, what="passes"
    )
    assert all(path.exists() for path in paths)
    expired_ns = observed.seen.storage_now_ns - int(operator.APPROVAL_S * 1e9) - 1
    operator.approve(word, plan.digest, expired_ns, OPERATOR)
    passes = cleaner.harvest.passes
    settle(
        agent, cleaner, until=lambda: cleaner.harvest.passes > passes + 3, what="passes"
    )
    assert all(path.exists() for path in paths)
    operator.approve(word, plan.digest, observed.seen.storage_now_ns, OPERATOR)
    settle(
        agent,
        cleaner,
        until=lambda: not any(path.exists() for path in paths),
        what="the approved plan is carried out",
    )


def test_a_held_file_stays_until_the_hold_is_removed(site: Site) -> None:
    """A hold keeps a file in `_base`, whatever its age."""
    word = site.session("operator")
    path, other = site.image(image_id()), site.image(image_id())
    operator.hold(word, path.name, "golden image", OPERATOR)
    operator.hold(word, path.name, "still golden", OPERATOR)
    assert operator.holds(word) == [operator.Hold(path.name, "still golden")]
    with pytest.raises(RefusedError, match="no cache name"):
        operator.hold(word, "README.txt", "a typing error", OPERATOR)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: not other.exists(), what="the other is taken")
    plan, observed = cleaner.harvest.plan, cleaner.harvest.observed
    assert plan is not None
    assert observed is not None
    assert Why.HELD in plan.whys
    assert path.exists()
    operator.release(word, path.name, OPERATOR)
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is taken")
    with pytest.raises(RefusedError, match="no hold"):
        operator.release(word, path.name, OPERATOR)
    for wrong in (str(path), "", "..", "a\x00b"):
        with pytest.raises(RefusedError, match="no hold"):
            operator.release(word, wrong, OPERATOR)


def test_an_expected_node_closes_the_gate_until_it_reports(site: Site) -> None:
    """A host that mounts the directory counts before its agent has spoken."""
    word = site.session("operator")
    assert operator.expect(word, "n2", OPERATOR)
    assert not operator.expect(word, "n2", OPERATOR)
    with pytest.raises(RefusedError, match="cannot name a node"):
        operator.expect(word, "no/node", OPERATOR)
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 5, what="passes")
    assert (Code.NODE_UNREPORTED, "n2") in gate_codes(cleaner)
    assert path.exists()
    second = site.agent("n2")
    settle(agent, second, cleaner, until=lambda: not path.exists(), what="it is taken")


def test_only_a_node_that_is_not_live_can_be_expunged(site: Site) -> None:
    """Expunge refuses a live node in its transaction; a tombstone stays."""
    word = site.session("operator")
    path = site.image(image_id())
    agent, lost, cleaner = site.agent("n1"), site.agent("n2"), site.cleaner("c1")
    settle(lost, until=lambda: lost.publisher.published is not None, what="a report")
    with pytest.raises(RefusedError, match="n2 is live"):
        operator.expunge(word, site.storage(), "n2", OPERATOR)
    with pytest.raises(RefusedError, match="no witness"):
        operator.expunge(word, site.storage(), "n3", OPERATOR)
    lost.finish()
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is quarantined")
    assert gate_codes(cleaner) == {(Code.NODE_MISSING, "n2")}
    operator.expunge(word, site.storage(), "n2", OPERATOR)
    settle(
        agent,
        cleaner,
        until=lambda: bool(cleaner.harvest.purged.names),
        what="it is purged without the lost node",
    )


def _told(word: Coordination) -> tuple[list[str], int]:
    """Return who expunged nodes, by the trail, and n2's record's version."""
    acts = [told.act for told in audit.forward(word, 0, 0)]
    who = [a.doer.who for a in acts if isinstance(a, Act) and a.deed == Deed.EXPUNGED]
    record = word.get(ledger.node_path("n2"))
    return who, -1 if record is None else record.version


def test_an_expunged_node_is_expunged_once(site: Site) -> None:
    """The second order writes nothing and tells of the first, if the trail knows it."""
    word, storage = site.session("operator"), site.storage()
    lost, other = site.agent("n2"), Signature("other@desk", 2.0)
    settle(lost, until=lambda: lost.publisher.published is not None, what="a report")
    assert operator.expunged(word, storage, "n2") is None
    lost.finish()
    assert operator.expunged(word, storage, "n2") is None
    done = operator.expunge(word, storage, "n2", OPERATOR)
    assert done == operator.Expunged(OPERATOR.when, OPERATOR.who, changed=True)
    before = _told(word)
    again = operator.expunge(word, storage, "n2", other)
    assert again == operator.Expunged(OPERATOR.when, OPERATOR.who)
    assert operator.expunged(word, storage, "n2") == again
    assert _told(word) == before
    # Its witness is removed by hand, and the trail has dropped the act.
    (site.base / ".sharedcache" / "nodes" / "n2").unlink()
    acts = [f"{audit.TRAIL}/{name}" for name in word.children(audit.TRAIL)]
    word.commit([Delete(path, None) for path in acts])
    # What it has is of another time.
    earlier = Act(Deed.EXPUNGED, other.doer, 0.5, subjects=(Subject("n2"),))
    audit.record(word, [earlier])
    known = operator.expunge(word, storage, "n2", other)
    assert known == operator.Expunged(OPERATOR.when, None)


def test_a_node_that_left_a_new_trace_is_expunged_again(site: Site) -> None:
    """A new witness, or a registration, is no node that is expunged already."""
    word, storage = site.session("operator"), site.storage()
    first = site.agent("n2")
    settle(first, until=lambda: first.publisher.published is not None, what="a report")
    first.finish()
    operator.expunge(word, storage, "n2", OPERATOR)
    word.commit([Create(ledger.member_path("n2"), b"")])
    assert operator.expunged(word, storage, "n2") is None
    with pytest.raises(RefusedError, match="n2 is live"):
        operator.expunge(word, storage, "n2", OPERATOR)
    word.commit([Delete(ledger.member_path("n2"), None)])
    assert operator.expunged(word, storage, "n2") is not None
    site.agent("n2")
    gate = make_plan(FAST, site.observer().observe(scan=False).seen).gate
    assert (Code.UNROSTERED_NODE, "n2") in {(r.code, r.subject) for r in gate.reasons}
    assert operator.expunge(word, storage, "n2", OPERATOR).changed
    gate = make_plan(FAST, site.observer().observe(scan=False).seen).gate
    assert Code.UNROSTERED_NODE not in {r.code for r in gate.reasons}
    assert operator.expunged(word, storage, "n2") is not None
    operator.expect(word, "n2", OPERATOR)
    assert operator.expunge(word, storage, "n2", OPERATOR).changed


def test_a_witness_that_cannot_be_read_is_a_new_trace(site: Site) -> None:
    """Nobody knows whose it is: only a tombstone that was made of it covers it."""
    word, storage = site.session("operator"), site.storage()
    agent, lost = site.agent("n1"), site.agent("n2")
    for one in (agent, lost):
        publish(one)
    lost.finish()
    operator.expunge(word, storage, "n2", OPERATOR)
    storage.witness_write("n2", b"no record")
    assert operator.expunged(word, storage, "n2") is None
    gate = make_plan(FAST, site.observer().observe(scan=False).seen).gate
    assert [(r.code, r.subject) for r in gate.reasons] == [(Code.UNROSTERED_NODE, "n2")]
    assert operator.expunge(word, storage, "n2", OPERATOR).changed
    assert operator.expunged(word, storage, "n2") is not None
    assert make_plan(FAST, site.observer().observe(scan=False).seen).gate.purge_open


def test_an_expunged_node_that_comes_back_says_so_and_joins_anew(site: Site) -> None:
    """An expunged host that runs after all closes the gate, even without ZooKeeper."""
    word = site.session("operator")
    agent, lost = site.agent("n1"), site.agent("n2")
    for one in (agent, lost):
        settle(
            one,
            until=lambda one=one: one.publisher.published is not None,  # type: ignore[misc]
            what="a report",
        )
    lost.finish()
    operator.expunge(word, site.storage(), "n2", OPERATOR)
    observer = site.observer()
    assert make_plan(FAST, observer.observe(scan=False).seen).gate.purge_open
    back = site.agent("n2")
    gate = make_plan(FAST, observer.observe(scan=False).seen).gate
    assert [(r.code, r.subject) for r in gate.reasons] == [(Code.UNROSTERED_NODE, "n2")]
    settle(back, until=lambda: back.publisher.published is not None, what="a report")
    assert "expunged-node-returned" in back.world.journal.names()  # type: ignore[attr-defined]
    acts = [told.act for told in audit.forward(word, 0, 0)]
    returned = [a for a in acts if isinstance(a, Act) and a.deed == Deed.RETURNED]
    assert [subject.name for a in returned for subject in a.subjects] == ["n2"]
    assert make_plan(FAST, observer.observe(scan=False).seen).gate.purge_open
