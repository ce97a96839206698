"""The audit trail on a real ZooKeeper: complete, bounded, and in nobody's way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from sharedcache import audit, ledger
from sharedcache.cleaner import operator, trail
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.acts import Act, By, Deed, Doer, Signature, Subject, rows
from sharedcache.core.checker import PlanRejectedError
from sharedcache.core.model import Authorisation, Unreadable
from sharedcache.core.ports import Append, Coordination, Create, Delete, Set
from tests.support import eventually
from tests.support.inprocess import (
    FAST,
    OPERATOR,
    Site,
    Told,
    image_id,
    publish,
    settle,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)


def acts(coordination: Coordination, deed: Deed | None = None) -> list[Act]:
    """Read the trail as it is, the oldest first."""
    coordination.sync()
    mark = audit.read_mark(coordination)
    read = audit.forward(coordination, mark.oldest, mark.seen)
    found = [told.act for told in read if isinstance(told.act, Act)]
    return [act for act in found if deed is None or act.deed == deed]


def subjects(coordination: Coordination, deed: Deed) -> list[str]:
    """Name what a deed was done to, once for each time."""
    return [s.name for act in acts(coordination, deed) for s in act.subjects]


def lines(cleaner: CleanerService, deed: Deed) -> list[dict[str, object]]:
    """Return the lines of a cleaner's log that tell of one deed."""
    journal = cleaner.world.journal
    assert isinstance(journal, Told)
    told = [fields for name, fields in journal.events if name == "audit"]
    return [fields for fields in told if fields["act"] == deed]


def purged(cleaner: CleanerService, count: int) -> Callable[[], bool]:
    """Tell whether a cleaner purged as many files."""
    return lambda: len(cleaner.harvest.purged.names) == count


def forget(coordination: Coordination) -> None:
    """Take the trail away, as in a cluster that an older release founded."""
    children = coordination.children(audit.TRAIL)
    gone = [Delete(f"{audit.TRAIL}/{child}", None) for child in children]
    coordination.commit([*gone, Delete(audit.TRAIL, None)])


def test_a_file_leaves_with_who_when_and_why(site: Site) -> None:
    """Quarantine and purge are on record and in the log, with the same words."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=purged(cleaner, 1), what="purged")
    word = site.session("word")
    founded, office, taken, gone = acts(word)
    assert founded.deed == Deed.FOUNDED
    assert (founded.doer, founded.when) == (OPERATOR.doer, OPERATOR.when)
    assert office.deed == Deed.TOOK_OFFICE
    (epoch,) = {act.doer.epoch for act in (office, taken, gone)}
    assert epoch == cleaner.harvest.epoch
    assert {act.doer.who for act in (office, taken, gone)} == {"c1"}
    plan = cleaner.harvest.plan
    assert plan is not None
    assert (taken.deed, taken.why) == (Deed.QUARANTINED, "unused")
    assert (gone.deed, gone.why) == (
        Deed.PURGED,
        f"confirmed by every node, round {gone.round}",
    )
    assert taken.plan is not None
    assert gone.plan is not None
    assert len(taken.plan) == len(plan.digest)
    for act in (taken, gone):
        (subject,) = act.subjects
        assert (subject.name, subject.size) == (path.name, 1000)
        assert subject.last_use_s is not None
        assert abs(act.when - 1e6 - subject.last_use_s) < 60
        assert lines(cleaner, Deed(act.deed)) == list(rows(act))


def test_a_cluster_without_a_trail_gets_one(site: Site) -> None:
    """A cluster that an older release founded goes on, and has a trail from now on."""
    word = site.session("word")
    forget(word)
    site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=purged(cleaner, 1), what="purged")
    assert [act.deed for act in acts(word)] == [
        Deed.TOOK_OFFICE,
        Deed.QUARANTINED,
        Deed.PURGED,
    ]
    cleaner.stand_down()
    forget(word)
    operator.pause(word, "storage work", OPERATOR)
    assert [act.deed for act in acts(word)] == [Deed.PAUSED]


def test_a_trail_that_is_taken_away_stops_nobody_for_long(site: Site) -> None:
    """A leader whose transaction finds no trail takes office anew and goes on."""
    word = site.session("word")
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 0, what="a pass")
    forget(word)
    path = site.image(image_id())
    settle(agent, cleaner, until=purged(cleaner, 1), what="purged")
    assert not path.exists()
    assert subjects(word, Deed.PURGED) == [path.name]


def test_a_restore_is_on_record_with_its_node(site: Site) -> None:
    """Who restored what; and the purge of the second name frees nothing."""
    ident = image_id()
    path = site.image(ident)
    agent = site.agent("n1")
    slow = site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, slow, until=lambda: not path.exists(), what="quarantined")
    site.uses("n1", images=[ident])
    settle(agent, slow, until=path.exists, what="restored")
    settle(agent, until=lambda: not agent.restorer.intents, what="it is finished")
    word = site.session("word")
    (restored,) = acts(word, Deed.RESTORED)
    assert (restored.doer.by, restored.doer.who) == (By.NODE, "n1")
    (subject,) = restored.subjects
    assert (subject.name, subject.size) == (path.name, 1000)
    journal = agent.world.journal
    assert isinstance(journal, Told)
    assert [f for name, f in journal.events if name == "audit"] == list(rows(restored))


def test_a_restore_that_comes_too_late_is_told_once(site: Site) -> None:
    """A used file that is authorised to be purged is an operator's business."""
    ident = image_id()
    path = site.image(ident)
    agent = site.agent("n1")
    slow = site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, slow, until=lambda: not path.exists(), what="quarantined")
    (entry,) = site.observer().observe(scan=False).seen.entries
    word = site.session("word")
    authorised = Authorisation("token", entry.epoch, {entry.entry: entry.leaf})
    data = ledger.authorisation_data(authorised)
    word.commit([Set(ledger.AUTHORISATION, data, None)])
    site.uses("n1", images=[ident])
    journal: Any = agent.world.journal
    settle(
        agent,
        until=lambda: journal.names().count("restore-too-late") > 2,
        what="it is too late, and again",
    )
    (refused,) = acts(word, Deed.REFUSED)
    assert (refused.doer.by, refused.doer.who) == (By.NODE, "n1")
    assert refused.asked == "restore"
    assert [subject.name for subject in refused.subjects] == [path.name]


def test_what_another_hand_takes_from_quarantine_is_told(site: Site) -> None:
    """A file that nobody was authorised to unlink is not told as purged."""
    path = site.image(image_id())
    agent = site.agent("n1")
    slow = replace(FAST, grace_s=3600.0)
    cleaner = site.cleaner("c1", slow)
    settle(agent, cleaner, until=lambda: not path.exists(), what="quarantined")
    (leaf,) = (site.base / ".sharedcache" / "epochs").glob("*/*")
    leaf.unlink()
    cleaner.stand_down()
    successor = site.cleaner("c2", slow)
    settle(agent, successor, until=lambda: successor.harvest.passes, what="a pass")
    word = site.session("word")
    assert subjects(word, Deed.VANISHED) == [path.name]
    assert not acts(word, Deed.PURGED)
    (sealed,) = acts(word, Deed.SEALED_EPOCHS)
    assert sealed.doer.epoch == successor.harvest.epoch
    assert sealed.why.startswith("epochs 1: ")


def test_every_word_of_an_operator_is_on_record_with_its_signature(
    site: Site,
) -> None:
    """Who paused, approved, held, expected, expunged; what was refused did not."""
    word, name = site.session("word"), image_id().replace("-", "") + "0" * 8
    by = Signature("root@desk", 12.5)
    operator.pause(word, "storage work", by)
    operator.resume(word, by)
    operator.approve(word, "f" * 64, 0, by)
    operator.hold(word, name, "golden", by)
    operator.hold(word, name, "still golden", by)
    operator.release(word, name, by)
    operator.expect(word, "n2", by)
    operator.expect(word, "n2", by)
    operator.expunge(word, site.storage(), "n2", by)
    for refused in (
        lambda: operator.hold(word, "README.txt", "a typing error", by),
        lambda: operator.release(word, name, by),
        lambda: operator.expunge(word, site.storage(), "n3", by),
    ):
        with pytest.raises(RefusedError):
            refused()
    found = acts(word)[1:]
    assert {(act.doer, act.when) for act in found} == {(by.doer, 12.5)}
    told = [(a.deed, [s.name for s in a.subjects], a.why, a.plan) for a in found]
    assert told == [
        (Deed.PAUSED, [], "storage work", None),
        (Deed.RESUMED, [], "", None),
        (Deed.APPROVED, [], "", "f" * 64),
        (Deed.HOLD_ADDED, [name], "golden", None),
        (Deed.HOLD_ADDED, [name], "still golden", None),
        (Deed.HOLD_REMOVED, [name], "", None),
        (Deed.EXPECTED, ["n2"], "", None),
        (Deed.EXPUNGED, ["n2"], "no witness", None),
    ]


def test_an_operators_word_stands_in_the_leaders_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command has no log of its own: the leader's has its acts."""
    monkeypatch.setattr(trail, "TEND_S", 0.0)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 0, what="a pass")
    operator.pause(site.session("word"), "storage work", OPERATOR)
    settle(
        agent,
        cleaner,
        until=lambda: lines(cleaner, Deed.PAUSED),
        what="it stands in the log",
    )
    passes = cleaner.harvest.passes
    settle(
        agent, cleaner, until=lambda: cleaner.harvest.passes > passes + 3, what="passes"
    )
    (line,) = lines(cleaner, Deed.PAUSED)
    assert (line["who"], line["why"]) == (OPERATOR.who, "storage work")


def test_the_trail_keeps_the_newest_within_its_bound(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader drops the oldest; what is kept is counted by subjects."""
    monkeypatch.setattr(trail, "TEND_S", 0.0)
    monkeypatch.setattr(trail, "KEPT_ACTS", 50)
    monkeypatch.setattr(trail, "_DROPS", 40)
    word = site.session("word")
    batch = tuple(Subject(f"{n}") for n in range(3))
    for number in range(100):
        why = audit.record(
            word, [Act(Deed.HOLD_ADDED, OPERATOR.doer, float(number), "", batch)]
        )
        assert why is None
    agent, cleaner = site.agent("n1"), site.cleaner("c1")

    def kept() -> list[int]:
        children = word.children(audit.TRAIL)
        return [int(child.removeprefix("act-")) for child in children]

    settle(agent, cleaner, until=lambda: len(kept()) < 30, what="old acts are dropped")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 5, what="passes")
    # 16 of three subjects each, and the one of taking office: 49 of 50.
    assert kept() == list(range(85, 102))
    mark = audit.read_mark(word)
    assert (mark.oldest, mark.seen, mark.acts) == (85, 102, 49)
    assert [act.when for act in acts(word)][:-1] == [float(n) for n in range(84, 100)]


def test_what_is_not_due_is_left_alone(site: Site) -> None:
    """A pass that found nothing new writes nothing to the trail."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 2, what="passes")
    word = site.session("word")
    before = word.get(audit.TRAIL)
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 9, what="passes")
    assert word.get(audit.TRAIL) == before
    assert before is not None
    assert before.version == 1


def test_writers_at_once_lose_nothing_of_each_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators speak while the leader works and drops: each word is on record."""
    monkeypatch.setattr(trail, "TEND_S", 0.0)
    count, names = 40, [f"{n:040x}" for n in range(3)]
    files = [site.image(image_id()) for _ in range(20)]
    agent = site.agent("n1")
    cleaner = site.cleaner("c1", replace(FAST, batch=2))
    failed: list[BaseException] = []

    def speak(name: str) -> None:
        session = site.session(f"operator-{name[-1]}")
        try:
            for number in range(count):
                signed = Signature(name[-1], float(number))
                operator.hold(session, name, str(number), signed)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    speakers = [threading.Thread(target=speak, args=(name,)) for name in names]
    for speaker in speakers:
        speaker.start()
    try:
        settle(agent, cleaner, until=purged(cleaner, len(files)), what="all purged")
    finally:
        for speaker in speakers:
            speaker.join(60)
    assert not failed
    word = site.session("word")
    for name in names:
        mine = [a for a in acts(word, Deed.HOLD_ADDED) if a.subjects[0].name == name]
        assert [act.why for act in mine] == [str(number) for number in range(count)]
    assert sorted(subjects(word, Deed.PURGED)) == sorted(p.name for p in files)


def test_the_same_refusal_is_on_record_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checker that rejects every plan, pass after pass, is told of once."""

    def reject(*_: object) -> None:
        raise PlanRejectedError("a defect")

    monkeypatch.setattr("sharedcache.cleaner.service.check_plan", reject)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    journal: Any = cleaner.world.journal
    settle(
        cleaner,
        until=lambda: journal.names().count("plan-rejected") > 3,
        what="rejections",
    )
    (refused,) = acts(site.session("word"), Deed.REFUSED)
    assert (refused.asked, refused.why) == ("plan", "a defect")
    assert (refused.doer.by, refused.doer.epoch) == (By.CLEANER, 1)


def test_refusals_of_ever_other_words_are_bounded(site: Site) -> None:
    """However much is refused, an hour has few records of it."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 0, what="a pass")
    assert cleaner.leadership is not None
    for number in range(trail.MAX_REFUSALS * 2):
        cleaner.trail.refuse(cleaner.leadership, "plan", f"why {number}")
    found = acts(site.session("word"), Deed.REFUSED)
    assert [act.why for act in found] == [f"why {n}" for n in range(trail.MAX_REFUSALS)]


def test_a_veto_is_told_as_a_refused_authorisation(site: Site) -> None:
    """An operator sees that somebody spoke against a purge."""
    site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    word = site.session("word")
    port: Any = cleaner.world.coordination
    commit, vetoed = port.commit, []

    def vetoing(operations: list[Any]) -> None:
        # Only an authorisation checks the veto counter.
        checked = any(o.path == ledger.VETO_COUNTER for o in operations)
        if checked and not vetoed:
            vetoed.append(True)
            word.commit([ledger.bump(ledger.VETO_COUNTER)])
        commit(operations)

    port.commit = vetoing
    settle(agent, cleaner, until=purged(cleaner, 1), what="purged")
    (refused,) = acts(word, Deed.REFUSED)
    assert refused.asked == "authorise"
    assert ledger.VETO_COUNTER in refused.why


def test_a_file_that_cannot_be_unlinked_is_told_with_its_name(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the storage refuses is on record once, and stays in quarantine."""
    from sharedcache.core.ports import StorageError  # noqa: PLC0415 - only here

    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")

    def refuse(*_: object) -> None:
        raise StorageError("permission denied", 13)

    monkeypatch.setattr(type(cleaner.world.storage), "purge", refuse)
    word = site.session("word")
    settle(
        agent, cleaner, until=lambda: acts(word, Deed.REFUSED), what="a refusal is told"
    )
    (refused,) = acts(word, Deed.REFUSED)
    assert (refused.asked, refused.why) == ("purge", "permission denied")
    assert [subject.name for subject in refused.subjects] == [path.name]
    assert not acts(word, Deed.PURGED)


def test_finalizing_is_on_record_with_the_rollout(
    tmp_path: Path, zookeeper: Any, zk_cluster_name: str
) -> None:
    """The act is written by the transaction that commits the cluster."""
    with Site(tmp_path / "old", zookeeper.address, zk_cluster_name) as site:
        site.found(schema=1)
        publish(site.agent("n1"))
        word, observer = site.session("word"), site.observer()
        observed = observer.observe(scan=False)
        finalize(word, site.storage(), observed, "root@desk", 9.0)
        (finalized,) = acts(word, Deed.FINALIZED)
        assert finalized.doer == Signature("root@desk", 9.0).doer
        assert (finalized.when, finalized.why) == (9.0, "schema 2")
        again = observer.observe(scan=False)
        finalize(word, site.storage(), again, "root@desk", 9.0)
        assert len(acts(word, Deed.FINALIZED)) == 1


def test_a_leader_that_finalizes_by_itself_is_named(
    tmp_path: Path, zookeeper: Any, zk_cluster_name: str
) -> None:
    """Not an operator: the cleaner, in its epoch, also in its log."""
    with Site(tmp_path / "old", zookeeper.address, zk_cluster_name) as site:
        site.found(schema=1)
        agent = site.agent("n1")
        cleaner = site.cleaner("c1", replace(FAST, auto_finalize=True))
        word = site.session("word")
        settle(
            agent, cleaner, until=lambda: acts(word, Deed.FINALIZED), what="finalized"
        )
        (act,) = acts(word, Deed.FINALIZED)
        assert (act.doer.by, act.doer.who, act.doer.epoch) == (By.CLEANER, "c1", 1)
        assert lines(cleaner, Deed.FINALIZED) == list(rows(act))


def test_a_brake_is_on_record_once_and_its_end_too(site: Site) -> None:
    """A plan that changes under the brake is no new brake; one that ends is told."""
    word, agent = site.session("operator"), site.agent("n1")
    paths = [site.image(image_id()) for _ in range(6)]
    policy = replace(FAST, max_share_percent=50.0, max_share_floor=3)
    cleaner = site.cleaner("c1", policy)

    def braked() -> bool:
        note = ledger.brake_of(word.get(ledger.BRAKE))
        return note is not None and note.files == len(paths)

    settle(agent, cleaner, until=braked, what="a brake")
    first = ledger.brake_of(word.get(ledger.BRAKE))
    assert first is not None
    (act,) = acts(word, Deed.BRAKED)
    assert act.doer == Doer(By.CLEANER, "c1", 1)
    assert (act.plan, [s.name for s in act.subjects]) == (first.digest, ["plan"])
    assert "6 of 6" in act.why
    paths.append(site.image(image_id()))
    settle(agent, cleaner, until=braked, what="a brake on one more")
    note = ledger.brake_of(word.get(ledger.BRAKE))
    assert note is not None
    assert note.digest != first.digest
    assert acts(word, Deed.BRAKED) == [act]
    assert not acts(word, Deed.BRAKE_ENDED)
    now_ns = operator_time_ns(cleaner)
    operator.approve(word, note.digest, now_ns, OPERATOR)
    settle(
        agent,
        cleaner,
        until=lambda: not any(path.exists() for path in paths),
        what="what was approved is taken",
    )
    deeds = [act.deed for act in acts(word)]
    assert deeds.index(Deed.APPROVED) < deeds.index(Deed.BRAKE_ENDED)
    assert deeds.index(Deed.BRAKE_ENDED) < deeds.index(Deed.QUARANTINED)
    assert [line["why"] for line in lines(cleaner, Deed.BRAKED)] == [act.why]


def operator_time_ns(cleaner: CleanerService) -> int:
    """Return the storage's time as the leader saw it last."""
    observed = cleaner.harvest.observed
    assert observed is not None
    return observed.seen.storage_now_ns


def test_a_damaged_trail_is_mended_and_a_newer_one_is_left_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No state of the trail stops a leader, and none is made worse."""
    monkeypatch.setattr(trail, "TEND_S", 0.0)
    word = site.session("word")
    word.commit([Append("audit/act-", b"\xc1"), Append("audit/act-", b"")])
    newer = msgpack.packb({"schema": 99, "deed": "later"})
    word.commit([Append("audit/act-", newer), Create("audit/lost+found", b"")])
    word.commit([Set(audit.TRAIL, b"rubbish", None)])
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=purged(cleaner, 1), what="purged")
    settle(
        agent,
        cleaner,
        until=lambda: isinstance(audit.mark_of(word.get(audit.TRAIL)), audit.Mark),
        what="the mark is mended",
    )
    found = list(audit.forward(word, 0, 0))
    unreadable = [t.act for t in found if isinstance(t.act, Unreadable)]
    assert [one.newer for one in unreadable] == [False, False, True]
    assert subjects(word, Deed.PURGED) == [path.name]

    word.commit([Set(audit.TRAIL, newer, None)])
    passes = cleaner.harvest.passes
    settle(
        agent, cleaner, until=lambda: cleaner.harvest.passes > passes + 3, what="passes"
    )
    record = word.get(audit.TRAIL)
    assert record is not None
    assert record.data == newer


def test_the_newest_come_first_when_read_backward(site: Site) -> None:
    """Backward is forward turned round, over many windows and past the mark."""
    word = site.session("word")
    for number in range(3 * audit.WINDOW):
        act = Act(Deed.RESUMED, OPERATOR.doer, float(number))
        word.commit(audit.operations([act]))
    mark = audit.Mark(5, audit.WINDOW + 9, 0, 0)
    both = [
        [told.number for told in audit.backward(word, mark)],
        [told.number for told in audit.forward(word, mark.oldest, mark.seen)][::-1],
    ]
    assert both[0] == both[1] == list(range(3 * audit.WINDOW, 4, -1))


def test_a_trail_that_cannot_be_written_stops_no_work(site: Site) -> None:
    """An act without a transaction of its own may be lost, and that is told."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 0, what="a pass")
    assert cleaner.leadership is not None
    too_much = tuple(Subject(f"{n:0299d}") for n in range(5000))
    cleaner.trail.refuse(cleaner.leadership, "plan", "too much to say", too_much)
    journal: Any = cleaner.world.journal
    assert "audit-not-written" in journal.names()
    path = site.image(image_id())
    settle(agent, cleaner, until=purged(cleaner, 1), what="purged")
    eventually(lambda: not path.exists(), 1.0, "gone")
