"""Single rules of the protocol, each forced by a step in the middle of another."""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from sharedcache import ledger
from sharedcache.cleaner.service import CleanerService
from sharedcache.core import codec
from sharedcache.core.model import Authorisation, ManifestEntry, Report, RosterRecord
from sharedcache.core.names import digest_of
from sharedcache.core.ports import Coordination, CoordinationError, Set
from sharedcache.node.service import NodeService
from tests.support.inprocess import FAST, Site, image_id, publish, settle

pytestmark = pytest.mark.timeout(90)

SLOW = replace(FAST, grace_s=3600.0)


class NoRestorer:
    """Restores nothing, so that the report alone is looked at."""

    intents: frozenset[str] = frozenset()

    def missing_entries(self, _wanted: object) -> tuple[()]:
        """Find nothing to restore."""
        return ()


def entries(site: Site) -> list[ManifestEntry]:
    """Read the manifest as any observer does."""
    return list(site.observer().observe(scan=False).seen.entries)


def round_now(coordination: Coordination) -> int:
    """Read the round."""
    return ledger.counter_of(coordination.get(ledger.ROUND)).value


def raise_round(coordination: Coordination) -> None:
    """Raise the round as a leader would."""
    data = codec.pack(codec.counter_to_record(round_now(coordination) + 1))
    coordination.commit([Set(ledger.ROUND, data, None)])


def vetoes(coordination: Coordination) -> int:
    """Read the veto counter."""
    record = coordination.get(ledger.VETO_COUNTER)
    assert record is not None
    return record.version


def quarantined(site: Site, cleaner: CleanerService, *agents: NodeService) -> Path:
    """Let a new unused file be quarantined; return its path."""
    path = site.image(image_id())
    cleaner.pass_now()
    settle(*agents, cleaner, until=lambda: not path.exists(), what="quarantined")
    return path


def said_by(site: Site, node: str) -> tuple[Report, Report]:
    """Read what a node says as a member, and its durable report."""
    session = site.session(f"reader-{os.urandom(4).hex()}")
    heads: dict[str, object] = {node: session.members()[node]}
    registered = ledger.read_reports(session, heads)[node]
    record = session.get(ledger.node_path(node))
    assert record is not None
    durable = ledger.durable_report(record, node, session)
    assert isinstance(registered, Report)
    assert isinstance(durable, RosterRecord)
    assert durable.report is not None
    return registered, durable.report


def fetched_again(
    site: Site, cleaner: CleanerService, agent: NodeService, *others: NodeService
) -> Path:
    """Let a file be quarantined, and its name fetched again and used by an agent."""
    for one in (agent, *others):
        publish(one)
    path = quarantined(site, cleaner, agent, *others)
    site.file(path.name)
    site.uses(agent.world.policy.node, names=[path.name])
    return path


def look_now(agent: NodeService) -> None:
    """Let an agent scan now."""
    agent._next_look = 0.0
    agent.step()


def test_a_restored_entry_belongs_to_the_next_round_with_a_new_baseline(
    site: Site,
) -> None:
    """After a restore the entry waits in full again: what was proved is void."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    path = quarantined(site, cleaner, agent)
    operator = site.session("operator")
    (before,) = entries(site)
    for _ in range(3):
        raise_round(operator)
        look_now(agent)
    site.uses("n1", names=[path.name])
    settle(agent, until=path.exists, what="restored")
    (after,) = entries(site)
    assert after.round == round_now(operator) + 1 > before.round
    assert after.baseline is not None
    assert before.baseline is not None
    assert after.baseline.links == 2
    assert after.baseline.ctime_ns > before.baseline.ctime_ns


def test_a_restore_assigns_no_round_that_was_raised_meanwhile(site: Site) -> None:
    """The next round is the next one at the commit, not at the reading."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    path = quarantined(site, cleaner, agent)
    operator = site.session("operator")
    commit, raised = agent.world.coordination.commit, []

    def raising_first(operations: object) -> None:
        paths = [o.path for o in operations]  # type: ignore[attr-defined]
        if not raised and any(p.startswith("manifest/") for p in paths):
            raised.append(True)
            raise_round(operator)
        commit(operations)  # type: ignore[arg-type]

    agent.world.coordination.commit = raising_first  # type: ignore[method-assign]
    site.uses("n1", names=[path.name])
    settle(
        agent,
        until=lambda: path.exists() and not agent.restorer.intents,
        what="restored",
    )
    (entry,) = entries(site)
    assert raised
    assert entry.round > round_now(operator)


def test_an_authorised_entry_is_not_restored(site: Site) -> None:
    """A restore that comes after the authorisation was read fails and waits."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    path = quarantined(site, cleaner, agent)
    (entry,) = entries(site)
    operator = site.session("operator")
    get, authorised = agent.world.coordination.get, []

    def authorised_after_reading(where: str) -> object:
        record = get(where)
        if where == ledger.AUTHORISATION and not authorised:
            authorised.append(True)
            word = Authorisation("token", entry.epoch, {entry.entry: entry.leaf})
            data = codec.pack(codec.authorisation_to_record(word))
            operator.commit([Set(ledger.AUTHORISATION, data, None)])
        return record

    agent.world.coordination.get = authorised_after_reading  # type: ignore[method-assign, assignment]
    site.uses("n1", names=[path.name])
    told = agent.world.journal.names  # type: ignore[attr-defined]
    settle(agent, until=lambda: "restore-too-late" in told(), what="too late")
    assert "restore-waits" in told()
    assert not path.exists()


@pytest.mark.parametrize("how", ["uses", "sees", "degraded"])
def test_a_report_that_speaks_against_a_purge_raises_the_veto_counter(
    site: Site, how: str
) -> None:
    """Whatever must stop an authorisation under way makes its condition fail."""
    agent, other = site.agent("n1"), site.agent("n2")
    cleaner = site.cleaner("c1", SLOW)
    publish(agent)
    publish(other)
    path = quarantined(site, cleaner, agent, other)
    for _ in range(3):
        look_now(agent)
    coordination = agent.world.coordination
    before = vetoes(coordination)
    look_now(agent)
    assert vetoes(coordination) == before
    # The report alone is looked at here, not the restore that follows it.
    agent.restorer = NoRestorer()  # type: ignore[assignment]
    if how == "uses":
        site.uses("n1", names=[path.name])
    elif how == "sees":
        (entry,) = entries(site)
        epoch = site.base / ".sharedcache" / "epochs" / str(entry.epoch)
        os.link(epoch / entry.leaf, path)
        raise_round(coordination)
    else:
        (site.root / "n1.json").write_text("{")
    look_now(agent)
    assert vetoes(coordination) == before + 1


def test_what_a_report_speaks_against_again_raises_no_counter(site: Site) -> None:
    """A name in constant use vetoes once: the leader has read the reports since."""
    agent, other = site.agent("n1", touch_interval_s=1e-9), site.agent("n2")
    fetched_again(site, site.cleaner("c1", SLOW), agent, other)
    coordination = agent.world.coordination
    before = vetoes(coordination)
    look_now(agent)
    assert vetoes(coordination) == before + 1
    version = agent.publisher._version
    assert version is not None
    for _ in range(3):
        look_now(agent)
    assert agent.publisher._version == version + 3
    assert vetoes(coordination) == before + 1


def test_an_agents_new_start_raises_the_roster_counter(site: Site) -> None:
    """A removal that was planned on the word of its last run is not announced."""
    coordination = site.session("reader")

    def changes() -> int:
        coordination.sync()
        record = coordination.get(ledger.ROSTER_COUNTER)
        assert record is not None
        return record.version

    agent = site.agent("n1")
    publish(agent)
    before = changes()
    look_now(agent)
    assert changes() == before
    agent.world.coordination.leave()
    publish(site.agent("n1"))
    assert changes() == before + 1


def test_a_report_under_a_new_registration_is_heard_anew(site: Site) -> None:
    """While this node was no member a leader went by its durable report alone."""
    agent, other = site.agent("n1"), site.agent("n2")
    cleaner = site.cleaner("c1", SLOW)
    publish(agent)
    publish(other)
    path = quarantined(site, cleaner, agent, other)
    site.file(path.name)
    site.uses("n1", names=[path.name])
    look_now(agent)
    coordination = agent.world.coordination
    before = vetoes(coordination)
    coordination.leave()
    look_now(agent)
    assert vetoes(coordination) == before + 1


def test_a_report_after_an_unfinished_one_is_heard_anew(site: Site) -> None:
    """A leader may have read the registration that dropped the use in between."""
    agent, other = site.agent("n1"), site.agent("n2")
    path = fetched_again(site, site.cleaner("c1", SLOW), agent, other)
    look_now(agent)
    coordination = agent.world.coordination
    site.uses("n1", names=[])
    raise_round(coordination)
    look_now(agent)
    before = vetoes(coordination)
    commit = coordination.commit

    def out_of_reach(_: object) -> None:
        raise CoordinationError("the connection is suspended")

    # The report from which the use has left its window.
    raise_round(coordination)
    coordination.commit = out_of_reach  # type: ignore[method-assign]
    look_now(agent)
    coordination.commit = commit  # type: ignore[method-assign]
    (registered, durable) = said_by(site, "n1")
    assert not registered.since
    assert path.name in set(durable.since.cache_names())
    site.uses("n1", names=[path.name])
    look_now(agent)
    assert vetoes(coordination) == before + 1


def test_an_unfinished_report_is_followed_by_a_whole_one(site: Site) -> None:
    """Registration and durable report agree again, though nothing new is said."""
    path = site.image(image_id())
    site.uses("n1", names=[path.name])
    agent = site.agent("n1")
    publish(agent)
    coordination = agent.world.coordination
    commit = coordination.commit

    def out_of_reach(_: object) -> None:
        raise CoordinationError("the connection is suspended")

    path.unlink()
    look_now(agent)
    coordination.commit = out_of_reach  # type: ignore[method-assign]
    look_now(agent)
    coordination.commit = commit  # type: ignore[method-assign]
    (registered, durable) = said_by(site, "n1")
    assert (registered.lost, durable.lost) == ((path.name,), ())
    site.file(path.name)
    look_now(agent)
    (registered, durable) = said_by(site, "n1")
    assert registered.lost == durable.lost == ()


def test_purging_goes_on_while_an_old_files_name_is_in_constant_use(
    site: Site,
) -> None:
    """Reports that come before every authorisation do not starve other files."""
    agent = site.agent("n1", touch_interval_s=1e-9)
    first = site.cleaner("c1", SLOW)
    busy = fetched_again(site, first, agent)
    look_now(agent)
    first.stand_down()
    cleaner = site.cleaner("c2")
    unused = site.image(image_id())
    commit, between = cleaner.world.coordination.commit, []

    def reporting_first(operations: object) -> None:
        paths = [o.path for o in operations]  # type: ignore[attr-defined]
        if ledger.AUTHORISATION in paths and ledger.VETO_COUNTER in paths:
            version = agent.publisher._version
            look_now(agent)
            between.append(agent.publisher._version != version)
        commit(operations)  # type: ignore[arg-type]

    cleaner.world.coordination.commit = reporting_first  # type: ignore[method-assign]
    settle(
        agent,
        cleaner,
        until=lambda: unused.name in cleaner.harvest.purged.names,
        what="the unused file is purged",
    )
    assert between
    assert all(between)
    assert busy.exists()
    assert [e.name for e in entries(site)] == [busy.name]


def test_a_file_touched_after_the_plan_stays(site: Site) -> None:
    """Nova touches a base before it creates an overlay: mtime is looked at again."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    take = cleaner.world.locks.take

    def touched_before_the_lock(name: str, wait_s: float, hold_s: float) -> bool:
        os.utime(path)
        return take(name, wait_s, hold_s)

    cleaner.world.locks.take = touched_before_the_lock  # type: ignore[method-assign]
    cleaner.step()
    assert cleaner.harvest.taken.kept == {path.name: "touched"}
    assert path.exists()
    assert not entries(site)


def test_a_file_whose_lock_is_held_stays(site: Site) -> None:
    """Busy means keep: somebody fetches the base or stands on it right now."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    assert agent.world.locks.take(path.name, 1.0, 30.0)
    cleaner.step()
    assert cleaner.harvest.taken.kept == {path.name: "lock-busy"}
    assert path.exists()
    agent.world.locks.release()
    settle(agent, cleaner, until=lambda: not path.exists(), what="taken once free")


def test_a_partial_file_is_restored_under_its_whole_files_lock(site: Site) -> None:
    """Whoever downloads ``X.part`` holds the lock of ``X``: so does its restore."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    path = site.file(f"{digest_of(image_id()).hex()}.part")
    settle(agent, cleaner, until=lambda: not path.exists(), what="quarantined")
    taken: list[str] = []
    locks = agent.world.locks
    ask = locks.take

    def take(name: str, wait_s: float, hold_s: float) -> bool:
        taken.append(name)
        return ask(name, wait_s, hold_s)

    locks.take = take  # type: ignore[method-assign]
    site.uses("n1", names=[path.name])
    settle(agent, until=path.exists, what="restored")
    assert set(taken) == {path.stem}


def test_an_inode_that_changed_in_quarantine_waits_in_full_again(site: Site) -> None:
    """Somebody writes to the inode after the rename: its proof is void."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    look, changed = cleaner.world.storage.quarantined_facts, []

    def changed_before_the_look(
        epoch: int, leaf: str, *, writable: bool = False
    ) -> object:
        if writable and not changed:
            changed.append(round_now(agent.world.coordination))
            os.utime(site.base / ".sharedcache" / "epochs" / str(epoch) / leaf)
        return look(epoch, leaf, writable=writable)

    cleaner.world.storage.quarantined_facts = changed_before_the_look  # type: ignore[method-assign, assignment]
    site.image(image_id())
    settle(agent, cleaner, until=lambda: bool(changed), what="a purge is tried")
    assert not cleaner.harvest.purged.names
    (entry,) = entries(site)
    assert entry.round > changed[0]
    settle(
        agent, cleaner, until=lambda: bool(cleaner.harvest.purged.names), what="purged"
    )


def test_a_moved_entry_belongs_to_the_next_round_and_keeps_its_grace(
    site: Site,
) -> None:
    """A successor trusts no look at the names that its predecessor gave."""
    agent, first = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    quarantined(site, first, agent)
    (before,) = entries(site)
    operator = site.session("operator")
    for _ in range(3):
        raise_round(operator)
        look_now(agent)
    first.stand_down()
    last = round_now(operator)
    second = site.cleaner("c2", SLOW)
    settle(second, until=lambda: second.leadership is not None, what="a successor")
    (after,) = entries(site)
    assert after.entry == before.entry
    assert after.leaf != before.leaf
    assert after.epoch == before.epoch + 1
    assert after.round == last + 1 > before.round
    assert after.since_ns == before.since_ns
    assert after.moved_ns > before.moved_ns


def test_a_predecessors_authorisation_is_cleared_after_its_epoch_is_sealed(
    site: Site,
) -> None:
    """Until then its unlinks may still land, and a restore must see that."""
    agent, first = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    settle(agent, first, until=lambda: first.leadership, what="a leader")
    session = site.session("operator")
    record = session.get(ledger.AUTHORISATION)
    assert record is not None
    outstanding = ledger.authorisation_data(Authorisation("token", 1, {"e": "leaf"}))
    session.commit([Set(ledger.AUTHORISATION, outstanding, record.version)])
    first.stand_down()
    successor = site.cleaner("c2", SLOW)
    storage, found = successor.world.storage, []
    seal = storage.epoch_seal

    def sealing(epoch: int) -> None:
        found.append(session.get(ledger.AUTHORISATION))
        seal(epoch)

    storage.epoch_seal = sealing  # type: ignore[method-assign]
    settle(agent, successor, until=lambda: successor.leadership, what="a takeover")
    (at_the_seal,) = found
    assert ledger.authorisation_of(at_the_seal).leaves == {"e": "leaf"}
    assert not ledger.authorisation_of(session.get(ledger.AUTHORISATION)).token


def test_a_leader_whose_lease_is_over_takes_nothing(site: Site) -> None:
    """The lease counts from when a renewal was sent; past it nothing is begun."""
    paths = [site.image(image_id()) for _ in range(5)]
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    coordination, rename = cleaner.world.coordination, cleaner.world.storage.quarantine
    sent, renamed = coordination.lease_sent, []

    def over_after_two(candidacy: object) -> float | None:
        when = sent(candidacy)  # type: ignore[arg-type]
        if len(renamed) < 2 or when is None:
            return when
        return when - coordination.session_timeout_s()

    def counting(name: str, epoch: int, leaf: str) -> None:
        rename(name, epoch, leaf)
        renamed.append(name)

    coordination.lease_sent = over_after_two  # type: ignore[method-assign, assignment]
    cleaner.world.storage.quarantine = counting  # type: ignore[method-assign]
    cleaner.step()
    assert len(renamed) == 2
    assert sum(path.exists() for path in paths) == 3
    assert cleaner.leadership is None


def qemu_lock(path: Path) -> int:
    """Lock a file as a running qemu does; the lock goes with the descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    return descriptor


def test_a_qemu_lock_keeps_a_file_that_no_report_names(site: Site) -> None:
    """A lock is proof of use by a running guest: it vetoes quarantine and purge."""
    path = site.image(image_id())
    lock = qemu_lock(path)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    cleaner.step()
    assert cleaner.harvest.taken.kept == {path.name: "qemu-lock"}
    assert path.exists()
    os.close(lock)
    look, locks = cleaner.world.storage.quarantined_locked, []

    def locked_just_before(epoch: int, leaf: str) -> bool:
        if not locks:
            leaves = site.base / ".sharedcache" / "epochs" / str(epoch)
            locks.append(qemu_lock(leaves / leaf))
        return look(epoch, leaf)

    cleaner.world.storage.quarantined_locked = locked_just_before  # type: ignore[method-assign]
    settle(agent, cleaner, until=lambda: bool(locks), what="a purge is tried")
    passes = cleaner.harvest.passes
    settle(
        agent,
        cleaner,
        until=lambda: cleaner.harvest.passes > passes + 10,
        what="passes",
    )
    assert not cleaner.harvest.purged.names
    os.close(locks[0])
    settle(
        agent, cleaner, until=lambda: bool(cleaner.harvest.purged.names), what="purged"
    )


def test_a_name_that_was_seen_is_told_for_as_long_as_the_window_lasts(
    site: Site,
) -> None:
    """What a look saw by name counts over the window, as uses do.

    A guest may have started by the name after that look, and moved on.
    """
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    path = quarantined(site, cleaner, agent)
    coordination = agent.world.coordination
    (entry,) = entries(site)
    for _ in range(3):
        raise_round(coordination)
        look_now(agent)
    epoch = site.base / ".sharedcache" / "epochs" / str(entry.epoch)
    os.link(epoch / entry.leaf, path)
    raise_round(coordination)
    look_now(agent)
    path.unlink()
    raise_round(coordination)
    look_now(agent)
    report = agent.publisher.published
    assert report is not None
    assert report.unbroken
    assert report.sees == frozenset()
    assert report.saw == {entry.entry}
    for _ in range(2):
        raise_round(coordination)
        look_now(agent)
    assert agent.publisher.published is not None
    assert agent.publisher.published.saw == frozenset()
