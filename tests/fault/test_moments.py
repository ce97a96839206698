"""Something happens right before one call: the leader stops, or looks again."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache import ledger
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.cleaner import finalize, lead, operator, service
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.lead import take_office
from sharedcache.cleaner.world import DeposedError
from sharedcache.core import codec
from sharedcache.core.checker import PlanRejectedError
from sharedcache.core.model import Cluster, Rollout
from sharedcache.core.names import leaf_of
from sharedcache.core.ports import (
    Delete,
    NameExistsError,
    NotEmptyStorageError,
    Set,
    StorageError,
)
from tests.support.inprocess import FAST, OPERATOR, Site, image_id, publish, settle
from tests.support.moments import before

if TYPE_CHECKING:
    from pathlib import Path

    from sharedcache.cleaner.service import CleanerService
    from sharedcache.node.service import NodeService

pytestmark = pytest.mark.timeout(90)


def told(cleaner: CleanerService, event: str) -> list[str]:
    """Return what was told under this name."""
    events = cleaner.world.journal.events  # type: ignore[attr-defined]
    return [
        " ".join(map(str, fields.values())) for name, fields in events if name == event
    ]


def epochs(site: Site) -> Path:
    """Return the directory of the epochs."""
    return site.base / ".sharedcache" / "epochs"


def leaves(site: Site) -> list[str]:
    """Name every file in quarantine."""
    return sorted(
        leaf.name
        for epoch in epochs(site).iterdir()
        if epoch.is_dir()
        for leaf in epoch.iterdir()
    )


def led(site: Site) -> tuple[NodeService, CleanerService]:
    """Return an agent and a cleaner that leads, with nothing to do."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 1, what="a leader")
    return agent, cleaner


def seal(site: Site, epoch: int) -> None:
    """Do on the storage what a successor does to an epoch."""
    storage = site.storage()
    storage.epoch_make(epoch + 1)
    for leaf in storage.epoch_list(epoch):
        storage.epoch_move(epoch, leaf, epoch + 1, f"{leaf}{epoch + 1}")
    storage.epoch_remove(epoch)
    storage.epoch_seal(epoch)


def claim(site: Site) -> None:
    """Raise the epoch as a successor does."""
    coordination = site.session("successor")
    coordination.sync()
    record = coordination.get(ledger.EPOCH)
    number = ledger.counter_of(record)
    data = ledger.number_data(number.value + 1, number.data, cleaner="successor")
    coordination.commit([Set(ledger.EPOCH, data, number.version)])


# A leader that is none any more.


@pytest.mark.parametrize("call", ["quarantined_facts", "quarantined_locked", "purge"])
def test_a_leader_whose_epoch_is_sealed_in_mid_purge(site: Site, call: str) -> None:
    """I2: the storage's refusal of it is its word to stand down; no file is lost."""
    paths = [site.image(image_id()) for _ in range(2)]
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: len(leaves(site)) == 2, what="both are taken")
    done = before(cleaner.world.storage, call, lambda: seal(site, 1), after=0)
    settle(agent, cleaner, until=lambda: told(cleaner, "standing-down"), what="it")
    assert done
    assert "seal" in told(cleaner, "standing-down")[0]
    assert not told(cleaner, "purge-refused")
    assert not told(cleaner, "purged")
    kept = sorted(leaf.partition(".")[0] for leaf in leaves(site))
    assert kept == sorted(path.name for path in paths)


def test_a_leader_whose_epoch_is_claimed_writes_no_more(site: Site) -> None:
    """Its manifest's record is the successor's now, whatever it did on the storage."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    before(cleaner.world.storage, "quarantine", lambda: claim(site))
    settle(agent, cleaner, until=lambda: told(cleaner, "standing-down"), what="it")
    assert "a successor leads" in told(cleaner, "standing-down")[0]
    assert [leaf.partition(".")[0] for leaf in leaves(site)] == [path.name]
    # The record still says what is to be looked at again.
    (batch,) = site.observer().observe(scan=False).seen.manifest
    assert [entry.state.value for entry in batch.entries] == ["intended"]
    settle(agent, cleaner, until=lambda: not leaves(site), what="it goes on in order")


def test_a_stop_is_heard_between_two_unlinks(site: Site) -> None:
    """What is unlinked is on record, and what is not is there still."""
    for _ in range(3):
        site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    asked: list[str] = []
    cleaner.world = replace(cleaner.world, stopping=lambda: bool(asked))
    cleaner.__post_init__()
    before(cleaner.world.storage, "purge", lambda: asked.append("stop"))
    settle(agent, cleaner, until=lambda: told(cleaner, "pass-interrupted"), what="it")
    assert "asked to stop" in told(cleaner, "pass-interrupted")[0]
    assert len(leaves(site)) == 2
    asked.clear()
    settle(agent, cleaner, until=lambda: not leaves(site), what="the others")
    assert len(cleaner.harvest.purged.names) == 3


# A plan.


def test_a_plan_that_the_checker_rejects_is_no_licence(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is done; it is told, and on record, and tried at the next pass."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)

    def rejecting(*_: object) -> None:
        raise PlanRejectedError("a file of somebody's")

    with monkeypatch.context() as patch:
        patch.setattr(service, "check_plan", rejecting)
        for _ in range(5):
            cleaner.step()
    assert "a file of somebody's" in told(cleaner, "plan-rejected")[0]
    assert path.exists()
    assert leaves(site) == []
    refused = [row for row in told(cleaner, "audit") if "refused" in row]
    assert len(refused) == 1
    settle(agent, cleaner, until=lambda: not path.exists(), what="the next plan")


# A file that changes under its lock.


def test_a_file_that_goes_before_its_rename_stays_out_of_the_manifest(
    site: Site,
) -> None:
    """Some cleaner of Nova's was faster: there is nothing to record."""
    path, late = site.image(image_id()), site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    before(cleaner.world.storage, "facts", path.unlink)
    settle(agent, cleaner, until=lambda: not late.exists(), what="the other is taken")
    settle(agent, cleaner, until=lambda: not leaves(site), what="and purged")
    assert cleaner.harvest.purged.names == [late.name]
    assert site.observer().observe(scan=False).seen.manifest == ()


def test_a_file_whose_rename_is_refused_stays(site: Site) -> None:
    """A refusal by the storage is known: the file is there, and no record names it."""
    path, other = site.image(image_id()), site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    rename = cleaner.world.storage.quarantine

    def refusing(name: str, epoch: int, leaf: str) -> None:
        if name == path.name:
            raise StorageError("operation not permitted", 1)
        rename(name, epoch, leaf)

    cleaner.world.storage.quarantine = refusing  # type: ignore[method-assign]
    settle(agent, cleaner, until=lambda: not other.exists(), what="the other is taken")
    settle(
        agent,
        cleaner,
        until=lambda: cleaner.harvest.purged.names == [other.name],
        what="and purged",
    )
    assert path.exists()
    entries = list(site.observer().observe(scan=False).seen.entries)
    assert [entry.name for entry in entries if entry.name == path.name] == []


def test_a_renamed_file_that_cannot_be_seen_yet_is_looked_at_again(site: Site) -> None:
    """Without a look at it no wait begins: the record says that it is intended."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    look, unseen = cleaner.world.storage.quarantined_facts, [None]

    def blind(*arguments: Any, **options: Any) -> object:
        return unseen.pop() if unseen else look(*arguments, **options)

    cleaner.world.storage.quarantined_facts = blind  # type: ignore[method-assign, assignment]
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is taken")
    (batch,) = site.observer().observe(scan=False).seen.manifest
    assert [entry.state.value for entry in batch.entries] == ["intended"]
    settle(
        agent,
        cleaner,
        until=lambda: cleaner.harvest.purged.names == [path.name],
        what="it waits, and goes",
    )


# A takeover.


def fallen(site: Site) -> Path:
    """Leave a quarantined file to a successor; return where it was taken from."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is taken")
    cleaner.stand_down()
    return path


def test_a_seal_is_tried_again_while_something_slips_in(site: Site) -> None:
    """I2: what the late leader renames after the move is moved in its turn."""
    path, late = fallen(site), site.image(image_id())
    second = site.cleaner("c2")
    leaf = leaf_of(late.name, "f" * 16, 1)
    storage = site.storage()
    done = before(
        second.world.storage,
        "epoch_remove",
        lambda: storage.quarantine(late.name, 1, leaf),
    )
    assert take_office(second.world) is not None
    assert done
    assert storage.epochs() == {1: True, 2: False}
    assert sorted(leaf.partition(".")[0] for leaf in storage.epoch_list(2)) == sorted(
        [path.name, late.name]
    )
    entries = site.observer().observe(scan=False).seen.entries
    assert {entry.name for entry in entries} == {path.name, late.name}


def test_a_seal_that_never_comes_about_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it nobody acts; whatever keeps writing there is told of."""
    fallen(site)
    monkeypatch.setattr(lead, "SEAL_TRIES", 3)
    second = site.cleaner("c2")
    number = iter(range(10))

    def writing(epoch: int) -> None:
        leaf = leaf_of("swap_1", f"{next(number):016x}", epoch)
        (epochs(site) / str(epoch) / leaf).touch()
        os.rmdir(epochs(site) / str(epoch))  # noqa: PTH106 - its own number

    def refused(epoch: int) -> None:
        try:
            writing(epoch)
        except OSError as error:
            raise NotEmptyStorageError("it has entries", error.errno or 0) from error

    second.world.storage.epoch_remove = refused  # type: ignore[method-assign]
    with pytest.raises(DeposedError, match="keeps writing"):
        take_office(second.world)
    assert second.world.coordination.leader() is None
    assert site.storage().epochs() == {1: False, 2: False}


@pytest.mark.parametrize("call", ["epochs", "epoch_list", "epoch_remove", "epoch_seal"])
def test_two_successors_may_seal_one_epoch(site: Site, call: str) -> None:
    """Whoever comes second finds it sealed, and goes on: its own office is its own."""
    path = fallen(site)
    second = site.cleaner("c2")

    def other() -> None:
        storage = site.storage()
        if 1 in storage.epochs():
            for leaf in storage.epoch_list(1):
                storage.epoch_move(1, leaf, 2, f"{leaf}2")
            storage.epoch_remove(1)
        storage.epoch_seal(1)

    # It looks at the epochs to see whether it can stand, for its own, and for all.
    after = {"epochs": 3, "epoch_list": 1}.get(call, 0)
    done = before(second.world.storage, call, other, after=after)
    assert take_office(second.world) is not None
    assert done
    assert site.storage().epochs() == {1: True, 2: False}
    (leaf,) = site.storage().epoch_list(2)
    assert leaf.startswith(path.name)


def test_an_epoch_that_is_claimed_by_another(site: Site) -> None:
    """Of two that were elected one after the other only one has the number."""
    fallen(site)
    second = site.cleaner("c2")
    get = second.world.coordination.get

    def raced(path: str) -> object:
        record = get(path)
        if path == ledger.EPOCH and second.world.coordination.leader() is not None:
            claim(site)
        return record

    second.world.coordination.get = raced  # type: ignore[method-assign, assignment]
    with pytest.raises(DeposedError, match="claimed by another"):
        take_office(second.world)
    assert second.world.coordination.leader() is None
    assert site.storage().epochs() == {1: False}


def test_an_epoch_whose_directory_is_there_already(site: Site) -> None:
    """Who made it leads, or ZooKeeper went back: in either case this one does not."""
    fallen(site)
    second = site.cleaner("c2")
    before(second.world.storage, "epoch_make", lambda: site.storage().epoch_make(2))
    with pytest.raises(DeposedError, match="knows epoch 2 already"):
        take_office(second.world)
    assert site.storage().epochs() == {1: False, 2: False}


def test_a_stray_file_that_comes_during_a_takeover(site: Site) -> None:
    """What is none of ours is not moved, and so the epoch cannot be sealed."""
    fallen(site)
    second = site.cleaner("c2")
    stray = epochs(site) / "1" / "notes.txt"
    before(second.world.storage, "epoch_make", stray.touch)
    with pytest.raises(DeposedError, match=r"notes\.txt is none of ours"):
        take_office(second.world)
    assert stray.exists()
    assert site.storage().epochs() == {1: False, 2: False}


def test_a_record_that_goes_bad_during_a_takeover(site: Site) -> None:
    """Its files were moved, so they are safe; nobody judges them until it is read."""
    path = fallen(site)
    second = site.cleaner("c2")
    coordination = site.session("operator")
    (batch,) = coordination.children(ledger.MANIFEST)

    def damage() -> None:
        coordination.commit([Set(ledger.batch_path(batch), b"\xc1", None)])

    before(second.world.storage, "epoch_make", damage)
    with pytest.raises(codec.RecordError, match="cannot be read"):
        take_office(second.world)
    assert second.world.coordination.leader() is None
    (leaf,) = site.storage().epoch_list(2)
    assert leaf.startswith(path.name)
    for _ in range(3):
        second.step()
    assert second.leadership is None
    assert f"the manifest's record {batch}" in told(second, "standing-for-election")[-1]


# A restore.


def wanted(site: Site) -> tuple[NodeService, CleanerService, Path]:
    """Have a file in quarantine that a node uses from now on."""
    ident = image_id()
    path = site.image(ident)
    agent = site.agent("n1")
    cleaner = site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, cleaner, until=lambda: not path.exists(), what="the file is taken")
    settle(cleaner, until=lambda: cleaner.harvest.passes > 2, what="it is recorded")
    site.uses("n1", images=[ident])
    return agent, cleaner, path


def test_a_restore_waits_for_the_names_lock(site: Site) -> None:
    """A download under way may publish the name; nothing is linked beside it."""
    agent, _, path = wanted(site)
    agent.world = replace(
        agent.world, policy=replace(agent.world.policy, lock_wait_s=0)
    )
    agent.__post_init__()
    with NovaNameLocks(str(site.locks)) as download:
        assert download.take(path.name, 0.0, 60.0)
        settle(
            agent,
            until=lambda: "restore-lock-busy" in agent.world.journal.names(),  # type: ignore[attr-defined]
            what="it waits",
        )
        assert not path.exists()
    settle(agent, until=path.exists, what="it is restored")


@pytest.mark.parametrize("becomes", ["gone", "unreadable"])
def test_a_record_that_changes_after_the_link(site: Site, becomes: str) -> None:
    """A record that is gone ends the restore, which is told; a bad one does not."""
    agent, _, path = wanted(site)
    coordination = site.session("operator")
    (batch,) = coordination.children(ledger.MANIFEST)
    record = ledger.batch_path(batch)
    change = Delete(record, None) if becomes == "gone" else Set(record, b"\xc1", None)
    release = agent.world.locks.release

    def released() -> bool:
        coordination.commit([change])
        return release()

    agent.world.locks.release = released  # type: ignore[method-assign]
    settle(agent, until=path.exists, what="it is linked")
    agent.world.locks.release = release  # type: ignore[method-assign]
    told_of = [
        fields
        for name, fields in agent.world.journal.events  # type: ignore[attr-defined]
        if name == "audit"
    ]
    if becomes == "gone":
        assert not agent.restorer.intents
        assert [row["name"] for row in told_of] == [path.name]
    else:
        assert agent.restorer.intents
        assert told_of == []


# A founding.


def test_two_foundings_at_once_are_one(
    tmp_path: Path, zookeeper: Any, zk_cluster_name: str
) -> None:
    """The first to write decides the schema: the storage is told no other."""
    with Site(tmp_path / "site", zookeeper.address, zk_cluster_name) as site:
        coordination, storage = site.session("slow"), site.storage()
        done = before(storage, "create_marker", lambda: site.found(schema=1))
        slow = finalize.found(
            coordination, storage, site.cluster, "another", None, by=OPERATOR
        )
        assert done
        assert (slow.created, slow.finalized_schema) == (False, 1)
        assert slow.cluster.identity != "another"
        told_to_writers = ledger.schema_of(storage.read_schema())
        assert isinstance(told_to_writers, Rollout)
        assert told_to_writers.finalized_schema == 1


def test_a_founding_on_another_ones_directory_is_refused(
    tmp_path: Path, zookeeper: Any, zk_cluster_name: str
) -> None:
    """A marker that came meanwhile and names another cluster is left alone."""
    with Site(tmp_path / "site", zookeeper.address, zk_cluster_name) as site:
        coordination, storage = site.session("slow"), site.storage()
        other = codec.to_text(codec.cluster_to_record(Cluster("other", "its own")))
        before(storage, "create_marker", lambda: site.storage().create_marker(other))
        with pytest.raises(NameExistsError):
            finalize.found(
                coordination, storage, site.cluster, "mine", None, by=OPERATOR
            )
        assert coordination.get(ledger.IDENTITY) is None
        assert storage.read_marker() == other


def test_a_founding_of_a_tree_that_was_founded_meanwhile(
    tmp_path: Path, zookeeper: Any, zk_cluster_name: str
) -> None:
    """For another directory: this one is not told that it belongs to it."""
    with (
        Site(tmp_path / "site", zookeeper.address, zk_cluster_name) as site,
        Site(tmp_path / "other", zookeeper.address, zk_cluster_name) as other,
    ):
        coordination, storage = site.session("slow"), site.storage()
        before(storage, "create_marker", other.found)
        with pytest.raises(RefusedError, match="somebody else founded"):
            finalize.found(
                coordination, storage, site.cluster, "mine", None, by=OPERATOR
            )
        assert storage.read_schema() is None


# A record of the manifest, between two looks at it.


def test_an_entry_cannot_be_renewed_in_a_sealed_epoch(site: Site) -> None:
    """I2: a new leaf is a rename like any other."""
    path, agent, cleaner = _restored(site)
    done = before(cleaner.world.storage, "epoch_move", lambda: seal(site, 1))
    settle(agent, cleaner, until=lambda: told(cleaner, "standing-down"), what="it")
    assert done
    assert "sealed" in told(cleaner, "standing-down")[0]
    assert not told(cleaner, "renewal-refused")
    assert path.exists()


def test_an_entry_whose_renewal_is_refused_stays_as_it_is(site: Site) -> None:
    """It is told; the entry keeps its mark, and so is not purged, until it goes."""
    path, agent, cleaner = _restored(site)
    other = site.image(image_id())
    move = cleaner.world.storage.epoch_move

    def refusing(*_: object) -> None:
        raise StorageError("operation not permitted", 1)

    cleaner.world.storage.epoch_move = refusing  # type: ignore[method-assign]
    settle(agent, cleaner, until=lambda: told(cleaner, "renewal-refused"), what="it")
    settle(
        agent,
        cleaner,
        until=lambda: cleaner.harvest.purged.names == [other.name],
        what="others go on",
    )
    assert leaves(site)
    cleaner.world.storage.epoch_move = move  # type: ignore[method-assign]
    site.uses("n1")
    then = time.time() - 1e6
    os.utime(path, (then, then))
    settle(agent, cleaner, until=lambda: not leaves(site), what="and so does it")


def _restored(site: Site) -> tuple[Path, NodeService, CleanerService]:
    """Have a file that was restored, whose quarantined name is to be renewed."""
    ident = image_id()
    path = site.image(ident)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    patient = replace(cleaner.world.policy, grace_s=3600.0)
    cleaner.world = replace(cleaner.world, policy=patient)
    cleaner.__post_init__()
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is taken")
    settle(cleaner, until=lambda: cleaner.harvest.passes > 2, what="it is recorded")
    site.uses("n1", images=[ident])
    settle(agent, until=path.exists, what="it is restored")
    settle(agent, until=lambda: not agent.restorer.intents, what="that is recorded")
    cleaner.world = replace(cleaner.world, policy=FAST)
    cleaner.__post_init__()
    return path, agent, cleaner


@pytest.mark.parametrize("becomes", ["gone", "unreadable"])
def test_a_record_that_changes_before_it_is_written(site: Site, becomes: str) -> None:
    """What is gone is left alone; what cannot be read ends the pass, and is told."""
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    coordination = site.session("operator")

    def change() -> None:
        (batch,) = coordination.children(ledger.MANIFEST)
        record = ledger.batch_path(batch)
        bad = Set(record, b"\xc1", None)
        coordination.commit([Delete(record, None) if becomes == "gone" else bad])

    done = before(cleaner.world.storage, "quarantined_facts", change)
    if becomes == "gone":
        settle(
            agent,
            cleaner,
            until=lambda: cleaner.harvest.purged.names == [path.name],
            what="the file is found, adopted, and goes",
        )
        assert told(cleaner, "adopted")
    else:
        settle(
            agent, cleaner, until=lambda: told(cleaner, "pass-interrupted"), what="it"
        )
        assert "cannot be read" in told(cleaner, "pass-interrupted")[0]
        for _ in range(5):
            agent.step()
            cleaner.step()
        assert [leaf.partition(".")[0] for leaf in leaves(site)] == [path.name]
    assert done


# An agent that was given up.


def test_an_expunged_agent_reports_only_with_a_new_witness(site: Site) -> None:
    """While the storage refuses one its record stays a tombstone, and it goes on."""
    agent, gone = site.agent("n1"), site.agent("n2")
    publish(agent)
    publish(gone)
    before_that = gone.identity.incarnation
    gone.world.coordination.leave()
    word = site.session("operator")
    operator.expunge(word, site.storage(), "n2", OPERATOR)
    write = gone.world.storage.witness_write

    def refusing(*_: object) -> None:
        raise StorageError("no space left on device", 28)

    gone.world.storage.witness_write = refusing  # type: ignore[method-assign, assignment]
    settle(
        gone,
        until=lambda: "witness-not-written" in gone.world.journal.names(),  # type: ignore[attr-defined]
        what="it tells",
    )
    for _ in range(3):
        gone.look_soon()
        gone.step()
    word.sync()
    assert set(ledger.read_roster(word).expunged) == {"n2"}
    gone.world.storage.witness_write = write  # type: ignore[method-assign]

    def back() -> bool:
        word.sync()
        return "n2" in ledger.read_roster(word).heads

    settle(gone, until=back, what="it is back")
    assert gone.identity.incarnation.start > before_that.start
