"""One obstacle must neither cost a file nor bring everything to a halt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedcache import ledger
from sharedcache.cleaner import operator
from sharedcache.cleaner.lead import take_office
from sharedcache.cleaner.world import CannotStandError
from sharedcache.core import codec
from sharedcache.core.gate import Code
from sharedcache.core.model import Rollout
from sharedcache.core.plan import Verdict
from sharedcache.core.planner import make_plan
from sharedcache.core.ports import (
    DisconnectedError,
    NameMissingError,
    Set,
    StorageError,
)
from tests.support import eventually
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


def test_an_agent_that_restarts_with_a_failing_source_keeps_its_last_uses(
    site: Site,
) -> None:
    """I4: what the last run reported stands in for a source that fails now."""
    used = image_id()
    path = site.image(used)
    site.uses("n1", images=[used])
    first = site.agent("n1")
    publish(first)
    first.finish()
    (site.root / "n1.json").write_text("{")
    again = site.agent("n1")
    other, cleaner = site.agent("n2"), site.cleaner("c1")
    settle(
        again, other, cleaner, until=lambda: cleaner.harvest.passes > 10, what="passes"
    )
    assert gate_codes(cleaner) == {(Code.NODE_DEGRADED, "n1")}
    assert path.exists()
    report = again.publisher.published
    assert report is not None
    assert path.name in set(report.now.cache_names())


def test_an_agent_that_never_saw_its_uses_reports_nothing(site: Site) -> None:
    """A first report that says too little would open the gate; none keeps it shut."""
    path = site.image(image_id())
    (site.root / "n1.json").write_text("{")
    blind, other, cleaner = site.agent("n1"), site.agent("n2"), site.cleaner("c1")
    settle(
        blind, other, cleaner, until=lambda: cleaner.harvest.passes > 5, what="passes"
    )
    assert gate_codes(cleaner) == {(Code.UNROSTERED_NODE, "n1")}
    assert path.exists()
    assert blind.world.journal.names().count("no-report-yet") == 1  # type: ignore[attr-defined]
    site.uses("n1")
    settle(blind, other, cleaner, until=lambda: not path.exists(), what="it reports")


def test_a_broken_look_without_zookeeper_ends_coverage(site: Site) -> None:
    """No round was read around a lonely look, so no window may begin with it."""
    agent = site.agent("n1")
    publish(agent)
    agent.step()
    coordination = site.session("leader")

    data = codec.pack(codec.counter_to_record(2))
    coordination.commit([Set(ledger.ROUND, data, None)])
    (site.root / "n1.json").write_text("{")
    agent.looker.look_alone()
    site.uses("n1")
    agent.looker.look_alone()
    agent.looker.look_alone()
    agent._next_look = 0.0
    agent.step()
    report = agent.publisher.published
    assert report is not None
    assert report.upto == 2
    assert not report.unbroken


def test_an_entry_that_is_nowhere_does_not_stop_the_leader(site: Site) -> None:
    """An open entry is looked at each time; the leader's other work goes on."""
    paths = [site.image(image_id()) for _ in range(2)]
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    storage, coordination = cleaner.world.storage, cleaner.world.coordination
    rename, get = storage.quarantine, coordination.get
    lost: list[str] = []

    def vanishing(name: str, epoch: int, leaf: str) -> None:
        if not lost:
            (site.base / name).unlink()
            lost.append(name)
            raise NameMissingError(f"{name} is not there")
        rename(name, epoch, leaf)

    def cut_off_while_recording(path: str) -> object:
        if len(lost) == 1 and path.startswith("manifest/"):
            lost.append(path)
            raise DisconnectedError("suspended")
        return get(path)

    storage.quarantine = vanishing  # type: ignore[method-assign]
    coordination.get = cut_off_while_recording  # type: ignore[method-assign, assignment]
    settle(
        agent,
        cleaner,
        until=lambda: len(cleaner.harvest.purged.names) == 1,
        what="the other file is purged",
    )
    late = site.image(image_id())
    settle(
        agent,
        cleaner,
        until=lambda: len(cleaner.harvest.purged.names) == 2,
        what="and one that came later",
    )
    assert len(lost) == 2
    assert not late.exists()
    assert not any(path.exists() for path in paths)


def test_a_file_that_cannot_be_unlinked_does_not_hold_back_the_others(
    site: Site,
) -> None:
    """A refusal by the storage is a known outcome: told, and tried again later."""
    paths = [site.image(image_id()) for _ in range(3)]
    agent = site.agent("n1")
    cleaner = site.cleaner("c1", replace(FAST, pass_interval_s=0.2))
    unlink = cleaner.world.storage.purge
    stubborn = [True]

    def refusing(epoch: int, leaf: str) -> None:
        if stubborn and leaf.startswith(paths[0].name):
            raise StorageError("operation not permitted", 1)
        unlink(epoch, leaf)

    cleaner.world.storage.purge = refusing  # type: ignore[method-assign]
    settle(
        agent,
        cleaner,
        until=lambda: len(cleaner.harvest.purged.names) == 2,
        what="the others are purged",
    )
    later = site.image(image_id())
    settle(
        agent,
        cleaner,
        until=lambda: len(cleaner.harvest.purged.names) == 3,
        what="and later ones",
    )
    assert not later.exists()
    assert sorted(cleaner.harvest.purged.names) == sorted(
        [paths[1].name, paths[2].name, later.name]
    )
    stubborn.clear()
    settle(
        agent,
        cleaner,
        until=lambda: paths[0].name in cleaner.harvest.purged.names,
        what="the stubborn one in the end",
    )


def test_a_refused_file_can_be_restored(site: Site) -> None:
    """Once a refusal is known its authorisation is cleared, and it can come back."""
    wanted = image_id()
    path = site.image(wanted)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")

    def refusing(_epoch: int, _leaf: str) -> None:
        raise StorageError("operation not permitted", 1)

    cleaner.world.storage.purge = refusing  # type: ignore[method-assign]
    settle(
        agent,
        cleaner,
        until=lambda: "purge-refused" in cleaner.world.journal.names(),  # type: ignore[attr-defined]
        what="a refusal",
    )
    site.uses("n1", images=[wanted])
    settle(agent, cleaner, until=path.exists, what="it is restored")


def test_automatic_finalization_waits_for_a_stranger(site: Site) -> None:
    """A refusal to finalize is told, and does not end the cleaner."""
    word = site.session("operator")
    data = codec.pack(codec.rollout_to_record(Rollout(1)))
    word.commit([Set(ledger.ROLLOUT, data, None)])
    agent = site.agent("n1")
    publish(agent)
    stranger = site.agent("n2")
    cleaner = site.cleaner("c1", replace(FAST, auto_finalize=True))
    settle(
        agent,
        cleaner,
        until=lambda: "not-finalized" in cleaner.world.journal.names(),  # type: ignore[attr-defined]
        what="a refusal",
    )
    settle(
        agent,
        stranger,
        cleaner,
        until=lambda: (
            cleaner.harvest.gate is not None and cleaner.harvest.gate.purge_open
        ),
        what="finalized once the stranger has reported",
    )


def test_a_brake_stands_between_whole_passes(site: Site) -> None:
    """The brake closes all, also while nothing is scanned."""
    first = site.image(image_id())
    agent = site.agent("n1")
    policy = replace(
        FAST,
        max_share_percent=50.0,
        max_share_floor=3,
        grace_s=1.0,
        pass_interval_s=600,
    )
    cleaner = site.cleaner("c1", policy)
    settle(agent, cleaner, until=lambda: not first.exists(), what="one is taken")
    for _ in range(6):
        site.image(image_id())
    cleaner.pass_now()
    settle(
        agent,
        cleaner,
        until=lambda: (Code.BRAKE, "plan") in gate_codes(cleaner),
        what="a brake",
    )
    braked = cleaner.harvest.plan
    assert braked is not None
    end = cleaner.world.clock.boottime() + 1.5
    settle(
        agent,
        cleaner,
        until=lambda: cleaner.world.clock.boottime() > end,
        what="the grace is over",
    )
    assert (Code.BRAKE, "plan") in gate_codes(cleaner)
    assert not cleaner.harvest.purged.names
    observed = cleaner.harvest.observed
    assert observed is not None
    operator.approve(
        site.session("operator"), braked.digest, observed.seen.storage_now_ns, OPERATOR
    )
    settle(
        agent,
        cleaner,
        until=lambda: len(cleaner.harvest.taken.names) == 7,
        what="approved at once",
    )


def test_a_pause_stops_a_pass_between_two_files(site: Site) -> None:
    """An operator's word counts from the next step on, not from the next pass."""
    paths = [site.image(image_id()) for _ in range(10)]
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    word = site.session("operator")
    rename = cleaner.world.storage.quarantine
    done: list[str] = []

    def pausing_after_three(name: str, epoch: int, leaf: str) -> None:
        rename(name, epoch, leaf)
        done.append(name)
        if len(done) == 3:
            operator.pause(word, "now", OPERATOR)
            eventually(interrupted, 1.0, "the leader learns of it")

    def interrupted() -> bool:

        observed = cleaner.harvest.observed
        changes = cleaner.world.coordination.watch(ledger.ROSTER_COUNTER)
        return observed is not None and changes != observed.roster_changes

    cleaner.world.storage.quarantine = pausing_after_three  # type: ignore[method-assign]
    cleaner.step()
    assert len(done) == 3
    assert sum(path.exists() for path in paths) == 7


def test_a_hold_makes_an_authorisation_under_way_fail(site: Site) -> None:
    """A hold that was ordered before the authorisation is never overlooked."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    word = site.session("operator")
    commit = cleaner.world.coordination.commit
    held: list[bool] = []

    def holding_first(operations: object) -> None:
        if not held and any(o.path == "authorisation" for o in operations):  # type: ignore[attr-defined]
            held.append(True)
            operator.hold(word, path.name, "wait", OPERATOR)
        commit(operations)  # type: ignore[arg-type]

    cleaner.world.coordination.commit = holding_first  # type: ignore[method-assign]
    settle(agent, cleaner, until=lambda: bool(held), what="an authorisation")
    passes = cleaner.harvest.passes
    settle(
        agent, cleaner, until=lambda: cleaner.harvest.passes > passes + 5, what="passes"
    )
    assert not cleaner.harvest.purged.names


def test_a_scrapped_host_that_never_reported_can_be_expunged(site: Site) -> None:
    """A witness alone closes the gate; expunging the ghost opens it for good."""
    agent = site.agent("n1")
    publish(agent)
    site.agent("n2")
    word, observer = site.session("operator"), site.observer()
    gate = make_plan(FAST, observer.observe(scan=False).seen).gate
    assert [(r.code, r.subject) for r in gate.reasons] == [(Code.UNROSTERED_NODE, "n2")]
    operator.expunge(word, site.storage(), "n2", OPERATOR)
    assert make_plan(FAST, observer.observe(scan=False).seen).gate.purge_open
    assert operator.expect(word, "n2", OPERATOR)
    assert not make_plan(FAST, observer.observe(scan=False).seen).gate.open


def test_a_stray_file_in_an_epoch_costs_no_epoch(site: Site) -> None:
    """A cleaner that could not take office does not use up an epoch each time."""
    agent, first = site.agent("n1"), site.cleaner("c1")
    settle(agent, first, until=lambda: first.leadership is not None, what="a leader")
    first.stand_down()
    epochs = site.base / ".sharedcache" / "epochs"
    stray = epochs / "1" / "notes.txt"
    stray.write_text("somebody's")
    second = site.cleaner("c2")
    for _ in range(5):
        second.step()
    with pytest.raises(CannotStandError, match=r"notes\.txt is none of ours"):
        take_office(second.world)
    assert [path.name for path in epochs.iterdir()] == ["1"]
    told = [f for n, f in second.world.journal.events if n == "standing-for-election"]  # type: ignore[attr-defined]
    assert len(told) == 1
    assert stray.exists()


def test_locks_that_fail_are_told_and_nothing_is_taken(site: Site) -> None:
    """A lock directory that cannot be used is no busy lock: the operator is told."""
    path = site.image(image_id())
    site.locks.rmdir()
    site.locks.write_text("in the way")
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(
        agent,
        cleaner,
        until=lambda: "lock-failed" in cleaner.world.journal.names(),  # type: ignore[attr-defined]
        what="the failure is told",
    )
    assert path.exists()
    plan = cleaner.harvest.plan
    assert plan is not None
    assert Verdict.QUARANTINE in plan.verdicts


def test_an_old_node_that_waits_behind_a_lost_registration_keeps_the_gate_shut(
    site: Site,
) -> None:
    """An old node that cannot register yet is seen by its witness already."""
    path = site.image(image_id())
    agent = site.agent("n1")
    publish(agent)
    site.old_agent("n2")
    cleaner = site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 5, what="passes")
    assert (Code.UNROSTERED_NODE, "n2") in gate_codes(cleaner)
    assert path.exists()
