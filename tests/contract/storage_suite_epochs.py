"""The part of the storage contract that is about epochs and quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sharedcache.core.ports import (
    FencedError,
    NameExistsError,
    NameMissingError,
    NotEmptyStorageError,
    StorageError,
)
from tests.contract.storage_world import IMAGE, LEAF, MOVED, OTHER, SECOND

if TYPE_CHECKING:
    from sharedcache.core.ports import Storage
    from tests.contract.storage_world import World


class EpochContract:
    """Epochs, quarantine, restore, purge and locks."""

    @pytest.fixture
    def store(self, world: World) -> Storage:
        """Give a directory that is bound to a cluster."""
        world.storage.create_marker(b"identity")
        return world.storage

    @pytest.fixture
    def taken(self, world: World, store: Storage) -> Storage:
        """Give a directory with one file in the quarantine of epoch 1."""
        world.put(IMAGE, b"content")
        store.epoch_make(1)
        store.quarantine(IMAGE, 1, LEAF)
        return store

    # Epochs.

    def test_epochs_are_listed(self, store: Storage) -> None:
        """A directory is an epoch that may act, a file one that is sealed."""
        assert store.epochs() == {}
        store.epoch_make(9)
        store.epoch_make(10)
        store.epoch_seal(3)
        assert store.epochs() == {3: True, 9: False, 10: False}

    def test_epoch_names_are_exclusive(self, store: Storage) -> None:
        """Neither a directory nor a seal is ever made twice."""
        store.epoch_make(1)
        store.epoch_seal(2)
        for call in (store.epoch_make, store.epoch_seal):
            for epoch in (1, 2):
                with pytest.raises(NameExistsError):
                    call(epoch)
        assert store.epochs() == {1: False, 2: True}

    @pytest.mark.parametrize("epoch", [0, -1])
    def test_epochs_begin_with_one(self, store: Storage, epoch: int) -> None:
        """There is no epoch below 1."""
        for call in (store.epoch_make, store.epoch_seal, store.epoch_list):
            with pytest.raises(StorageError):
                call(epoch)

    def test_epoch_remove(self, taken: Storage) -> None:
        """Only an empty directory is removed; each refusal has its own name."""
        with pytest.raises(NotEmptyStorageError):
            taken.epoch_remove(1)
        taken.purge(1, LEAF)
        taken.epoch_remove(1)
        assert taken.epochs() == {}
        with pytest.raises(NameMissingError):
            taken.epoch_remove(1)
        taken.epoch_seal(1)
        with pytest.raises(FencedError):
            taken.epoch_remove(1)

    # Quarantine, restore, purge.

    def test_quarantine_moves_the_inode(self, world: World, store: Storage) -> None:
        """The same file bears its quarantined name only, content untouched."""
        world.put(IMAGE, b"content")
        before = store.facts(IMAGE)
        store.epoch_make(1)
        store.quarantine(IMAGE, 1, LEAF)
        assert before is not None
        assert store.facts(IMAGE) is None
        assert store.epoch_list(1) == [LEAF]
        for writable in (False, True):
            after = store.quarantined_facts(1, LEAF, writable=writable)
            assert after is not None
            assert (after.inode, after.size, after.mtime_ns, after.links) == (
                before.inode,
                before.size,
                before.mtime_ns,
                1,
            )

    def test_quarantine_of_nothing(self, store: Storage) -> None:
        """A missing cache file is told apart from a missing epoch."""
        store.epoch_make(1)
        with pytest.raises(NameMissingError):
            store.quarantine(IMAGE, 1, LEAF)
        with pytest.raises(FencedError):
            store.quarantine(IMAGE, 2, LEAF)

    def test_quarantine_never_replaces(self, world: World, taken: Storage) -> None:
        """An entry that is there is never overwritten, and the file stays."""
        world.put(IMAGE, b"fetched again")
        with pytest.raises(NameExistsError):
            taken.quarantine(IMAGE, 1, LEAF)
        assert world.content(IMAGE) == b"fetched again"
        taken.restore(1, LEAF, OTHER)
        assert world.content(OTHER) == b"content"

    def test_quarantine_leaves_unrecognised_names(
        self, world: World, store: Storage
    ) -> None:
        """A name that the grammar does not know is never taken away."""
        world.put("notes.txt", b"mine")
        store.epoch_make(1)
        with pytest.raises(StorageError):
            store.quarantine("notes.txt", 1, LEAF)
        assert world.content("notes.txt") == b"mine"

    def test_restore_adds_a_name(self, world: World, taken: Storage) -> None:
        """Restoring links: the quarantined name stays, for the leader to judge."""
        taken.restore(1, LEAF, IMAGE)
        assert world.content(IMAGE) == b"content"
        facts = taken.quarantined_facts(1, LEAF)
        assert facts is not None
        assert facts.links == 2
        assert taken.facts(IMAGE) == facts

    def test_a_name_that_comes_or_goes_shows(
        self, store: Storage, world: World
    ) -> None:
        """Whatever becomes of a file's names, its facts are never what they were."""
        world.put(IMAGE, b"content", mtime_s=1000)
        store.epoch_make(1)
        store.quarantine(IMAGE, 1, LEAF)
        taken = store.quarantined_facts(1, LEAF, writable=True)
        store.restore(1, LEAF, IMAGE)
        restored = store.quarantined_facts(1, LEAF, writable=True)
        assert taken is not None
        assert restored is not None
        assert restored.links == taken.links + 1
        assert restored.ctime_ns >= taken.ctime_ns
        store.touch(IMAGE)
        touched = store.quarantined_facts(1, LEAF, writable=True)
        assert touched is not None
        assert touched.mtime_ns > taken.mtime_ns
        assert touched.ctime_ns >= restored.ctime_ns

    def test_restore_never_replaces(self, world: World, taken: Storage) -> None:
        """A cache name that is taken keeps its file."""
        world.put(IMAGE, b"fetched again")
        with pytest.raises(NameExistsError):
            taken.restore(1, LEAF, IMAGE)
        assert world.content(IMAGE) == b"fetched again"

    def test_restore_of_nothing(self, taken: Storage) -> None:
        """A missing entry and a missing epoch are told apart."""
        with pytest.raises(NameMissingError):
            taken.restore(1, SECOND, IMAGE)
        with pytest.raises(FencedError):
            taken.restore(2, LEAF, IMAGE)
        assert taken.facts(IMAGE) is None

    def test_purge_unlinks_one_name(self, world: World, taken: Storage) -> None:
        """The quarantined name goes, a restored one stays, once."""
        taken.restore(1, LEAF, IMAGE)
        taken.purge(1, LEAF)
        assert taken.epoch_list(1) == []
        assert taken.quarantined_facts(1, LEAF) is None
        assert world.content(IMAGE) == b"content"
        with pytest.raises(NameMissingError):
            taken.purge(1, LEAF)

    def test_move_takes_over(self, world: World, taken: Storage) -> None:
        """A successor moves an entry into its own epoch under a new name."""
        before = taken.quarantined_facts(1, LEAF)
        taken.epoch_make(2)
        taken.epoch_move(1, LEAF, 2, MOVED)
        assert taken.epoch_list(1) == []
        assert taken.epoch_list(2) == [MOVED]
        after = taken.quarantined_facts(2, MOVED)
        assert before is not None
        assert after is not None
        assert (after.inode, after.mtime_ns) == (before.inode, before.mtime_ns)
        assert world.content(IMAGE) is None

    def test_move_refusals(self, world: World, taken: Storage) -> None:
        """Each refusal leaves the entry where it was, and has its own name."""
        with pytest.raises(FencedError):
            taken.epoch_move(1, LEAF, 2, MOVED)
        taken.epoch_seal(2)
        with pytest.raises(FencedError):
            taken.epoch_move(1, LEAF, 2, MOVED)
        taken.epoch_make(3)
        with pytest.raises(NameMissingError):
            taken.epoch_move(1, SECOND, 3, MOVED)
        with pytest.raises(NameMissingError):
            taken.epoch_move(4, LEAF, 3, MOVED)
        with pytest.raises(NameMissingError):
            taken.epoch_move(2, LEAF, 3, MOVED)
        world.put(IMAGE, b"second")
        taken.quarantine(IMAGE, 3, MOVED)
        with pytest.raises(NameExistsError):
            taken.epoch_move(1, LEAF, 3, MOVED)
        assert taken.epoch_list(1) == [LEAF]

    def test_sealed_epoch_refuses_everything(
        self, world: World, taken: Storage
    ) -> None:
        """After a takeover the deposed leader is refused, whatever it tries."""
        successor = world.another()
        world.put(OTHER, b"used")
        successor.epoch_make(2)
        successor.epoch_move(1, LEAF, 2, MOVED)
        successor.epoch_remove(1)
        for sealed in (False, True):
            if sealed:
                successor.epoch_seal(1)
            for call in (
                lambda: taken.quarantine(OTHER, 1, SECOND),
                lambda: taken.purge(1, LEAF),
                lambda: taken.restore(1, LEAF, IMAGE),
                lambda: taken.epoch_list(1),
                lambda: taken.epoch_time(1),
                lambda: taken.quarantined_facts(1, LEAF),
                lambda: taken.quarantined_locked(1, LEAF),
                lambda: taken.epoch_move(2, MOVED, 1, LEAF),
            ):
                with pytest.raises(FencedError):
                    call()
        with pytest.raises(NameExistsError):
            taken.epoch_make(1)
        assert world.content(OTHER) == b"used"
        assert successor.epoch_list(2) == [MOVED]

    # Locks.

    def test_locks_are_seen(self, world: World, store: Storage) -> None:
        """Qemu's lock shows under the cache name and after the rename."""
        world.put(IMAGE, b"content")
        store.epoch_make(1)
        assert store.locked(IMAGE) is False
        with world.lock(IMAGE):
            assert store.locked(IMAGE) is True
            store.quarantine(IMAGE, 1, LEAF)
            assert store.quarantined_locked(1, LEAF) is True
        assert store.quarantined_locked(1, LEAF) is False

    def test_locks_of_nothing(self, store: Storage) -> None:
        """A missing file has no answer about its locks."""
        store.epoch_make(1)
        with pytest.raises(NameMissingError):
            store.locked(IMAGE)
        with pytest.raises(NameMissingError):
            store.quarantined_locked(1, LEAF)
