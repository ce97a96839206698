"""ZooKeeper that lost its data or went back, and the operator's way out.

The storage closes the gate, nothing is removed, and `recover` brings the cluster
back without relying on what ZooKeeper remembers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sharedcache import audit
from sharedcache.adapters.clock import RandomTokens
from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.recover import Recoverer, survey
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.acts import Act, Deed, Signature
from sharedcache.core.gate import Code
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import MissingNodes
from sharedcache.core.recovery import DOUBT, Recovery, judge
from sharedcache.node.service import NodeService
from tests.support.goback import OwnServer
from tests.support.inprocess import (
    FAST,
    OPERATOR,
    Site,
    gate_codes,
    image_id,
    publish,
    settle,
)
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(120)

SLOW_GRACE = replace(FAST, grace_s=3600.0)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnServer]:
    """Start a server that this test may ruin."""
    with OwnServer(tmp_path) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, own: OwnServer, zk_cluster_name: str) -> Iterator[Site]:
    """Found a cluster on the server that this test may ruin."""
    with Site(tmp_path / "site", own.address, zk_cluster_name) as made:
        made.found()
        yield made


def recover(site: Site, *, anyway: bool = False, paused: str = "") -> Recovery:
    """Recover as the command does once it was confirmed."""
    session, storage = site.session("op"), site.storage()
    seen = survey(session, storage)
    stamp = int(time.time() * 1000)
    judged = judge(seen.standing, site.cluster, stamp, anyway=anyway)
    assert judged.problems
    tokens = RandomTokens()
    Recoverer(session, storage, tokens, "op", time.time(), paused).run(
        seen, judged, lambda _: None
    )
    return judged


def codes(site: Site) -> set[tuple[Code, str]]:
    """Return the gate's reasons as any observer sees them."""
    plan = make_plan(FAST, site.observer().observe(scan=True).seen)
    assert not plan.take
    assert not plan.purge
    return {(reason.code, reason.subject) for reason in plan.gate.reasons}


def stand(*services: NodeService | CleanerService, seconds: float = 2.0) -> None:
    """Let the services go on for a while, whatever comes of it."""
    until = time.monotonic() + seconds
    eventually(
        lambda: [s.step() for s in services] and time.monotonic() > until,
        seconds + 20,
        "a while has passed",
    )


def quarantined(site: Site) -> list[str]:
    """List what lies in the epochs' directories."""
    epochs = site.base / ".sharedcache" / "epochs"
    return sorted(p.name for d in epochs.iterdir() if d.is_dir() for p in d.iterdir())


def test_a_zookeeper_that_lost_its_data(place: Site, own: OwnServer) -> None:
    """Wiped: the gate is closed, and `recover` founds it anew as the same cluster.

    The same agents and cleaner go on, without being started again.
    """
    site = place
    used, unused = image_id(), site.image(image_id())
    kept = site.image(used)
    site.uses("n1", images=[used])
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW_GRACE)
    settle(agent, cleaner, until=lambda: not unused.exists(), what="a quarantine")
    assert len(quarantined(site)) == 1
    own.go_back(None)
    stand(agent, cleaner)
    assert (Code.CLUSTER_MISMATCH, "zookeeper") in codes(site)
    assert (Code.UNROSTERED_NODE, "n1") in codes(site)
    assert len(quarantined(site)) == 1
    judged = recover(site)
    assert judged.expect == ("n1",)
    assert judged.epoch > 1
    later = site.image(image_id())
    settle(agent, cleaner, until=lambda: not later.exists(), what="it goes on")
    # What lay in quarantine was found again, and its grace begins anew.
    assert len(quarantined(site)) == 2
    entries = list(site.observer().observe(scan=False).seen.entries)
    assert {entry.round > judged.round for entry in entries} == {True}
    assert kept.exists()


def test_a_zookeeper_restored_from_an_old_copy(place: Site, own: OwnServer) -> None:
    """Epoch behind, a node missing in the roster, rounds lower: all of it closes.

    A file that only the lost reports named is kept, in `_base` and in quarantine.
    """
    site = place
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW_GRACE)
    first = site.image(image_id())
    settle(agent, cleaner, until=lambda: not first.exists(), what="a quarantine")
    cleaner.stand_down()
    copy = own.copy()
    # What ZooKeeper will not know any more: a node, its use, an epoch, rounds.
    used = image_id()
    kept = site.image(used)
    site.uses("n2", images=[used])
    newcomer = site.agent("n2")
    publish(newcomer)
    second = site.image(image_id())
    settle(
        agent, newcomer, cleaner, until=lambda: not second.exists(), what="another one"
    )
    assert cleaner.leadership is not None
    epoch = cleaner.leadership.epoch
    before = survey(site.session("look"), site.storage()).standing
    own.go_back(copy)
    after = survey(site.session("look2"), site.storage()).standing
    assert after.zookeeper_epoch == epoch - 1
    assert "n2" not in after.reports
    assert isinstance(before.round, int)
    assert isinstance(after.round, int)
    assert after.round < before.round
    fresh = site.cleaner("c2")
    stand(fresh)
    found = codes(site)
    assert (Code.EPOCH_BEHIND, "zookeeper") in found
    assert (Code.UNROSTERED_NODE, "n2") in found
    assert fresh.leadership is None
    assert len(quarantined(site)) == 2
    judged = recover(site)
    assert judged.epoch == epoch + 1
    assert judged.expect == ("n2",)
    assert judged.doubt == ("n1",)
    stand(fresh)
    assert gate_codes(fresh) >= {(Code.NODE_UNREPORTED, "n2")}
    assert len(quarantined(site)) == 2
    # The agents that ran all the time find their way back by themselves.
    settle(
        agent,
        newcomer,
        fresh,
        until=lambda: not quarantined(site),
        what="everything unused is purged",
        deadline_s=60,
    )
    assert kept.exists()


def test_a_missing_node_is_not_judged_by_an_old_report(
    place: Site, own: OwnServer
) -> None:
    """A copy's report of a node that is away is not its last word.

    It stays incomplete until the node speaks, a waiver of missing nodes or not.
    """
    site = place
    agent = site.agent("n1")
    publish(agent)
    gone = site.agent("n2")
    publish(gone)
    copy = own.copy()
    used = image_id()
    path = site.image(used)
    site.uses("n2", images=[used])
    settle(
        gone,
        until=lambda: gone.publisher.published and len(gone.publisher.published.now),
        what="its use is reported",
    )
    gone.world.coordination.stop()  # type: ignore[attr-defined] - it crashes
    (site.base / ".sharedcache" / "epochs" / "5").touch()
    own.go_back(copy)
    assert recover(site).doubt == ("n1", "n2")
    reports = survey(site.session("look"), site.storage()).standing.reports
    found = reports["n2"]
    assert DOUBT in found.failures  # type: ignore[union-attr]
    cleaner = site.cleaner("c1", replace(FAST, missing_nodes=MissingNodes.LAST_REPORT))
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 2, what="passes")
    stand(agent, cleaner)
    assert gate_codes(cleaner) == {(Code.NODE_DEGRADED, "n2")}
    assert path.exists() or quarantined(site)


def test_a_second_zookeeper_on_one_directory(place: Site, own: OwnServer) -> None:
    """A copy started beside the original cannot purge, and is found out.

    It does not hear the agents, so it may at most quarantine what they began to
    use since.  The original sees the stranger's epoch, stands back, and gets the
    files back once the stranger is gone and the cluster recovered.
    """
    site = place
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.leadership, what="a leader")
    double = own.clone(own.copy())
    kept = site.image(image_id())
    content = kept.read_bytes()
    site.uses("n1", names=[kept.name])
    settle(
        agent,
        until=lambda: agent.publisher.published and len(agent.publisher.published.now),
        what="its use is reported to the original",
    )
    then = time.time() - 1e6
    os.utime(kept, (then, then))  # Not touched since, as if the touch had failed.
    other = Site(site.root, double.address, site.cluster)
    with other.stack:
        rival = other.cleaner("c2")
        settle(rival, until=lambda: quarantined(site), what="the copy takes it")
        stand(rival, agent)
        assert gate_codes(rival) == {(Code.NODE_MISSING, "n1")}
        stand(cleaner, agent)
        assert cleaner.leadership is None
        assert (Code.EPOCH_BEHIND, "zookeeper") in codes(site)
        assert "used-name-lost" in agent.world.journal.names()  # type: ignore[attr-defined]
        assert len(quarantined(site)) == 1
    recover(site)
    settle(agent, cleaner, until=kept.exists, what="the agent restores it")
    assert kept.read_bytes() == content


def test_recovery_that_died_half_way_is_run_again(place: Site, own: OwnServer) -> None:
    """Every prefix of its effects leaves the gate closed; the next run finishes."""
    site = place
    agent = site.agent("n1")
    publish(agent)
    own.go_back(None)
    session, storage = site.session("op"), site.storage()
    count = 0

    class DiedError(Exception):
        """The recovery ends here."""

    class Mortal:
        """Coordination that dies before its n-th write."""

        def __init__(self, left: int) -> None:
            self.left = left

        def __getattr__(self, name: str) -> object:
            return getattr(session, name)

        def commit(self, operations: object) -> None:
            if not self.left:
                raise DiedError
            self.left -= 1
            session.commit(operations)  # type: ignore[arg-type]

    for left in range(20):
        seen = survey(session, storage)
        if not judge(seen.standing, site.cluster, 1).problems:
            break
        judged = judge(seen.standing, site.cluster, int(time.time() * 1000))
        mortal = Mortal(left)
        try:
            Recoverer(mortal, storage, RandomTokens(), "op", 0.0).run(  # type: ignore[arg-type]
                seen, judged, lambda _: None
            )
        except DiedError:
            count += 1
            assert (Code.CLUSTER_MISMATCH, "zookeeper") in codes(site)
    assert count >= 2
    assert not judge(survey(session, storage).standing, site.cluster, 1).problems
    path = site.image(image_id())
    cleaner = site.cleaner("c1")
    settle(agent, cleaner, until=lambda: not path.exists(), what="it goes on")


def test_what_changed_since_the_look_is_not_overwritten(site: Site) -> None:
    """A recovery judged from an old look changes nothing that counts."""
    agent = site.agent("n1")
    publish(agent)
    session, storage = site.session("op"), site.storage()
    seen = survey(session, storage)
    judged = judge(seen.standing, site.cluster, 1, anyway=True)
    cleaner = site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.leadership, what="a new epoch")
    epoch = survey(session, storage).standing.zookeeper_epoch
    with pytest.raises(RefusedError, match="changed meanwhile"):
        Recoverer(session, storage, RandomTokens(), "op", 0.0).run(
            seen, judged, lambda _: None
        )
    assert survey(session, storage).standing.zookeeper_epoch == epoch


def test_a_healthy_cluster_goes_on_after_a_recovery(site: Site) -> None:
    """An operator who knows more than can be seen loses nothing but time."""
    used = image_id()
    kept, unused = site.image(used), site.image(image_id())
    site.uses("n1", images=[used])
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW_GRACE)
    settle(agent, cleaner, until=lambda: not unused.exists(), what="a quarantine")
    recover(site, anyway=True, paused="look first")
    stand(agent, cleaner, seconds=0.5)
    assert (Code.PAUSED, "operator") in codes(site)
    assert quarantined(site)
    word = site.session("op2")
    acts = [told.act for told in audit.forward(word, 0, 0)]
    (recovered,) = [a for a in acts if isinstance(a, Act) and a.deed == Deed.RECOVERED]
    assert recovered.doer == Signature("op", 0.0).doer
    operator.resume(word, OPERATOR)
    fast = site.cleaner("c2")
    cleaner.stand_down()
    settle(agent, fast, until=lambda: not quarantined(site), what="it is purged")
    assert kept.exists()


def test_a_leader_in_office_stands_down_after_a_recovery(site: Site) -> None:
    """A recovery takes its epoch from it; it wins a new one by itself.

    Nothing lies in quarantine and nothing is used anew, so that no other rule
    makes it look.
    """
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.leadership, what="a leader")
    judged = recover(site, anyway=True)
    unused = site.image(image_id())
    settle(agent, cleaner, until=lambda: not unused.exists(), what="it goes on")
    assert cleaner.leadership is not None
    assert cleaner.leadership.epoch > judged.epoch


def test_an_expunged_node_that_came_back_is_known_by_its_witness(
    place: Site, own: OwnServer
) -> None:
    """A copy that knows only its tombstone does not take its witness for the old one.

    The agent that finds itself expunged while it runs begins a new incarnation
    before it reports again.
    """
    site = place
    agent, gone = site.agent("n1"), site.agent("n2")
    publish(agent)
    publish(gone)
    before = gone.identity.incarnation
    gone.world.coordination.leave()
    operator.expunge(site.session("op0"), site.storage(), "n2", OPERATOR)
    copy = own.copy()
    used = image_id()
    kept = site.image(used)
    site.uses("n2", images=[used])

    def reported() -> bool:
        said = gone.publisher.published
        return said is not None and len(said.now) > 0

    settle(gone, until=reported, what="it joins anew, and reports its use")
    assert gone.identity.incarnation.start > before.start
    leader = site.cleaner("c0")
    settle(agent, gone, leader, until=lambda: leader.leadership, what="an epoch")
    gone.world.coordination.stop()  # type: ignore[attr-defined] - it crashes
    then = time.time() - 1e6
    os.utime(kept, (then, then))
    own.go_back(copy)
    assert (Code.UNROSTERED_NODE, "n2") in codes(site)
    assert recover(site).expect == ("n2",)
    cleaner = site.cleaner("c1")
    stand(agent, cleaner, leader)
    assert (Code.NODE_UNREPORTED, "n2") in codes(site)
    assert kept.exists()


def test_a_witness_that_cannot_be_read_is_nobodys_old_one(site: Site) -> None:
    """A node expunged without a witness left none, so any witness is a trace."""
    agent = site.agent("n1")
    publish(agent)
    session = site.session("op")
    operator.expect(session, "n9", OPERATOR)
    operator.expunge(session, site.storage(), "n9", OPERATOR)
    assert codes(site) == set()
    witness = site.base / ".sharedcache" / "nodes" / "n9"
    witness.write_text("{")
    assert codes(site) == {(Code.UNROSTERED_NODE, "n9")}
    assert survey(session, site.storage()).standing.expunged == frozenset()
    operator.expunge(session, site.storage(), "n9", OPERATOR)
    assert codes(site) == set()
    assert survey(session, site.storage()).standing.expunged == {"n9"}


def test_damaged_records_are_made_anew(site: Site) -> None:
    """A round, an authorisation, a record of the manifest that cannot be read."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW_GRACE)
    unused = site.image(image_id())
    settle(agent, cleaner, until=lambda: not unused.exists(), what="a quarantine")
    cleaner.stand_down()
    client = site.session("op")._linked().client()
    root = f"/sharedcache/{site.cluster}"
    (batch,) = client.get_children(f"{root}/manifest")
    client.set(f"{root}/round", b"\xc1")
    client.set(f"{root}/authorisation", b"")
    client.set(f"{root}/manifest/{batch}", b"\x00")
    stand(agent, cleaner, seconds=1)
    assert cleaner.leadership is None
    judged = recover(site)
    assert len(judged.problems) == 3
    fresh = site.cleaner("c2")
    settle(agent, fresh, until=lambda: not quarantined(site), what="it is purged")
