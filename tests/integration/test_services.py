"""The two services on a real ZooKeeper and a real directory, step by step."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sharedcache import ledger
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.gate import Code
from sharedcache.core.model import KernelNaming, NodeState
from sharedcache.core.names import digest_of
from sharedcache.core.planner import make_plan
from sharedcache.core.ports import FencedError
from sharedcache.node.world import SupersededError
from tests.support import eventually, expire_session
from tests.support.inprocess import FAST, SESSION_TIMEOUT_S, Site, image_id, settle

pytestmark = pytest.mark.timeout(90)


def names_in(site: Site) -> set[str]:
    """List the cache names in the base directory."""
    return {entry.name for entry in site.base.iterdir() if entry.name[0] != "."}


def test_an_unused_file_is_purged_and_a_used_one_kept(site: Site) -> None:
    """I1 and its purpose: what nobody uses goes, what somebody uses stays."""
    used, unused = image_id(), image_id()
    kept, gone = site.image(used), site.image(unused)
    strange = site.file("README.txt")
    site.uses("n1", images=[used])
    agents = [site.agent("n1"), site.agent("n2")]
    cleaner = site.cleaner("c1")
    settle(
        *agents,
        cleaner,
        until=lambda: bool(cleaner.harvest.purged.names),
        what="the unused file is purged",
    )
    assert cleaner.harvest.purged.names == [gone.name]
    assert cleaner.harvest.purged.size == 1000
    assert not gone.exists()
    assert kept.exists()
    assert strange.exists()
    assert not list((site.base / ".sharedcache" / "epochs" / "1").iterdir())


def test_a_kernel_in_use_is_kept_under_both_its_names(site: Site) -> None:
    """Readers first: a kernel's raw name and its digest are both in use."""
    kernel, ramdisk = image_id(), image_id()
    names = {kernel, ramdisk, digest_of(kernel).hex(), digest_of(ramdisk).hex()}
    for name in names:
        site.file(name)
    other = site.file(image_id())
    site.acknowledge()
    site.uses("n1", kernels=[kernel], ramdisks=[ramdisk])
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: not other.exists(), what="the other is taken")
    assert names <= names_in(site)


def test_a_wanted_file_comes_back_from_quarantine_with_its_content(
    site: Site,
) -> None:
    """Everything before the unlink can be undone, and only adds a name."""
    wanted = image_id()
    path = site.image(wanted)
    content = path.read_bytes()
    agent, other = site.agent("n1"), site.agent("n2")
    cleaner = site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(
        agent, other, cleaner, until=lambda: not path.exists(), what="it is quarantined"
    )
    site.uses("n1", images=[wanted])
    settle(agent, other, until=path.exists, what="it is restored")
    assert path.read_bytes() == content
    settle(
        agent,
        until=lambda: not agent.restorer.intents,
        what="the intent is cleared",
    )
    assert path.stat().st_nlink == 2


def test_a_restored_file_that_is_unused_again_is_purged_in_the_end(
    site: Site,
) -> None:
    """A restore delays a purge and does not prevent it."""
    wanted = image_id()
    path = site.image(wanted)
    agent = site.agent("n1")
    slow = site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, slow, until=lambda: not path.exists(), what="it is quarantined")
    site.uses("n1", images=[wanted])
    settle(agent, until=path.exists, what="it is restored")
    slow.stand_down()
    site.uses("n1")
    os.utime(path, (1, 1))
    quick = site.cleaner("c2")
    quarantine = site.base / ".sharedcache" / "epochs" / "2"
    settle(
        agent,
        quick,
        until=lambda: (
            not path.exists() and quarantine.is_dir() and not list(quarantine.iterdir())
        ),
        what="both of its names are purged",
    )


def test_an_old_node_closes_the_gate_and_is_named(site: Site) -> None:
    """I5: while a node is on the old kernel naming nothing is removed."""
    path = site.image(image_id())
    new = site.agent("n1")
    old = site.old_agent("n2")
    cleaner = site.cleaner("c1")
    settle(
        new, old, cleaner, until=lambda: cleaner.harvest.passes >= 5, what="five passes"
    )
    assert cleaner.harvest.gate is not None
    codes = {(r.code, r.subject) for r in cleaner.harvest.gate.reasons}
    assert (Code.NODE_OLD_KERNEL_NAMING, "n2") in codes
    assert (Code.NODE_SCHEMA_TOO_OLD, "n2") in codes
    assert path.exists()


def test_a_node_that_joins_during_a_pass_stops_it_between_two_files(
    site: Site,
) -> None:
    """I5: once the leader has learnt of an old node it begins no further rename."""
    paths = [site.image(image_id()) for _ in range(20)]
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, until=lambda: agent.publisher.published is not None, what="a report")
    joiner = site.old_agent("n2")
    (site.base / ".sharedcache" / "nodes" / "n2").unlink()
    storage = cleaner.world.storage
    rename = storage.quarantine
    done: list[str] = []

    def joining_after_three(name: str, epoch: int, leaf: str) -> None:
        rename(name, epoch, leaf)
        done.append(name)
        if len(done) == 3:
            joiner.step()
            assert joiner.publisher.published is not None
            eventually(learnt, 1.0, "the leader learns of it within a second")

    def learnt() -> bool:
        observed = cleaner.harvest.observed
        return (
            observed is not None
            and cleaner.world.coordination.watch(ledger.ROSTER_COUNTER)
            != observed.roster_changes
        )

    storage.quarantine = joining_after_three  # type: ignore[method-assign]
    cleaner.step()
    assert len(done) == 3
    assert sum(path.exists() for path in paths) == 17
    assert "pass-interrupted" in cleaner.world.journal.names()  # type: ignore[attr-defined]


def test_a_successor_seals_the_epoch_of_an_expired_leader(
    site: Site, zookeeper: object
) -> None:
    """I2: the storage refuses a deposed leader, who stands down and can lead again."""
    path = site.image(image_id())
    agent = site.agent("n1")
    first, second = (
        site.cleaner("c1", replace(FAST, grace_s=3600.0)),
        site.cleaner("c2"),
    )
    settle(agent, first, until=lambda: not path.exists(), what="it is quarantined")
    session = first.world.coordination
    client = session._linked().client()  # type: ignore[attr-defined]
    leadership = first.leadership
    assert leadership is not None
    expire_session(zookeeper.address, client.client_id)  # type: ignore[attr-defined]
    settle(
        second,
        until=lambda: second.leadership is not None,
        what="another takes over",
    )
    epochs = site.base / ".sharedcache" / "epochs"
    assert (epochs / "1").is_file()
    assert (epochs / "2").is_dir()
    settle(
        first,
        until=lambda: first.leadership is None,
        what="the former leader stands down",
        deadline_s=SESSION_TIMEOUT_S,
    )
    second.stand_down()
    settle(
        first,
        until=lambda: first.leadership is not None,
        what="the former leader leads again",
    )
    assert first.harvest.epoch == 3
    assert (epochs / "2").is_file()


def test_a_veto_between_look_and_authorisation_makes_it_fail(site: Site) -> None:
    """A report that names an entry makes the authorisation under way fail."""
    wanted = image_id()
    path = site.image(wanted)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    commit = cleaner.world.coordination.commit
    vetoed: list[bool] = []

    def wanting_first(operations: object) -> None:
        paths = [operation.path for operation in operations]  # type: ignore[attr-defined]
        if (
            ledger.AUTHORISATION in paths
            and ledger.VETO_COUNTER in paths
            and not vetoed
        ):
            vetoed.append(True)
            site.uses("n1", images=[wanted])
            agent._next_look = 0.0
            agent.step()
        commit(operations)  # type: ignore[arg-type]

    cleaner.world.coordination.commit = wanting_first  # type: ignore[method-assign]
    settle(agent, cleaner, until=lambda: bool(vetoed), what="an authorisation")
    settle(agent, cleaner, until=path.exists, what="the file is restored")
    assert not cleaner.harvest.purged.names


def test_an_agent_of_the_same_name_takes_over_and_the_first_one_stops(
    site: Site,
) -> None:
    """Two agents under one node name: the gate closes, and the older one stops."""
    first = site.agent("n1")
    settle(first, until=lambda: first.publisher.published is not None, what="a report")
    second = site.agent("n1")
    observer = site.observer()
    gate = make_plan(FAST, observer.observe(scan=False).seen).gate
    assert [r.code for r in gate.reasons] == [Code.NODE_UNREPORTED]
    first.world.coordination.stop()  # type: ignore[attr-defined]
    settle(second, until=lambda: second.publisher.published is not None, what="join")
    first.world.coordination.start()  # type: ignore[attr-defined]
    second.world.coordination.leave()
    with pytest.raises(SupersededError, match="another agent reports as n1"):
        settle(first, until=lambda: False, what="the older one stops")


def test_an_expired_agent_joins_again_with_its_report(
    site: Site, zookeeper: object
) -> None:
    """Session loss: the node joins anew with its uses, never with an empty report."""
    used = image_id()
    site.image(used)
    site.uses("n1", images=[used])
    agent = site.agent("n1")
    settle(agent, until=lambda: agent.publisher.published is not None, what="a report")
    session = agent.world.coordination
    observer = site.observer()
    old = session.session_id()
    client = session._linked().client()  # type: ignore[attr-defined]
    expire_session(zookeeper.address, client.client_id)  # type: ignore[attr-defined]

    def node() -> object:
        views = observer.observe(scan=False).seen.facts.nodes
        assert len(views) == 1
        report = views[0].report
        assert len(report.now) == 1  # type: ignore[union-attr, arg-type]
        return views[0].state

    eventually(lambda: node() is NodeState.MISSING, 10.0, "the registration ends")
    settle(agent, until=lambda: node() is NodeState.LIVE, what="the node is back")
    assert session.session_id() != old


def test_finalizing_is_refused_until_every_node_supports_it(
    tmp_path: Path, zookeeper: object, zk_cluster_name: str
) -> None:
    """Rollout: refused with the list, then committed once and for ever."""
    with Site(tmp_path / "site", zookeeper.address, zk_cluster_name) as site:  # type: ignore[attr-defined]
        site.found(schema=1)
        new = site.agent("n1")
        old = site.agent("n2", schema_version=1, kernel_naming=KernelNaming.RAW_ID)
        observer = site.observer()
        coordination, storage, who = site.session("op"), site.storage(), "test"
        for agent in (new, old):
            settle(
                agent,
                until=lambda agent=agent: agent.publisher.published is not None,
                what="a report",
            )
        with pytest.raises(RefusedError, match="n2 supports schema 1 only"):
            finalize(coordination, storage, observer.observe(scan=False), who, 1.0)
        old.finish()
        upgraded = site.agent("n2")
        settle(
            upgraded,
            until=lambda: upgraded.publisher.published is not None,
            what="the upgraded node reports",
        )
        done = finalize(
            coordination, storage, observer.observe(scan=False), "test", 1.0
        )
        assert done.finalized_schema == 2
        again = finalize(
            coordination, storage, observer.observe(scan=False), "test", 1.0
        )
        assert again.finalized_schema == 2
        assert b'"finalized_schema": 2' in (storage.read_schema() or b"")


def overtaken(site: Site, zookeeper: object, leader: CleanerService) -> CleanerService:
    """Expire a leader's session and let another cleaner take over whole."""
    client = leader.world.coordination._linked().client()  # type: ignore[attr-defined]
    expire_session(zookeeper.address, client.client_id)  # type: ignore[attr-defined]
    second = site.cleaner("c2", replace(FAST, grace_s=3600.0))
    settle(second, until=lambda: second.leadership is not None, what="a successor")
    return second


def test_a_rename_that_lands_after_the_takeover_is_refused_by_the_storage(
    site: Site, zookeeper: object
) -> None:
    """I2: no lease and no clock is trusted; the storage itself says no."""
    path = site.image(image_id())
    agent, leader = site.agent("n1"), site.cleaner("c1")
    settle(agent, until=lambda: agent.publisher.published is not None, what="a report")
    rename = leader.world.storage.quarantine
    late: list[type[Exception]] = []

    def landing_late(name: str, epoch: int, leaf: str) -> None:
        overtaken(site, zookeeper, leader)
        try:
            rename(name, epoch, leaf)
        except FencedError as error:
            late.append(type(error))
            raise

    leader.world.storage.quarantine = landing_late  # type: ignore[method-assign]
    settle(leader, until=lambda: bool(late), what="the late rename")
    assert path.exists()
    assert leader.leadership is None


def test_an_unlink_that_lands_after_the_takeover_hits_nothing(
    site: Site, zookeeper: object
) -> None:
    """I2: a successor's moved entries bear names that no late unlink knows."""
    path = site.image(image_id())
    agent, leader = site.agent("n1"), site.cleaner("c1")
    unlink = leader.world.storage.purge
    late: list[str] = []

    def landing_late(epoch: int, leaf: str) -> None:
        overtaken(site, zookeeper, leader)
        late.append(leaf)
        unlink(epoch, leaf)

    leader.world.storage.purge = landing_late  # type: ignore[method-assign]
    settle(agent, leader, until=lambda: bool(late), what="the late unlink")
    assert not path.exists()
    second = site.base / ".sharedcache" / "epochs" / "2"
    assert [p.name.rsplit(".", 2)[0] for p in second.iterdir()] == [path.name]
    assert leader.leadership is None
