"""What every storage must do, real or in memory: one suite for all of them.

A test file subclasses `StorageContract` and gives the fixture `world`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sharedcache.core.names import Kind
from sharedcache.core.ports import NameExistsError, NameMissingError, StorageError
from tests.contract.storage_suite_epochs import EpochContract
from tests.contract.storage_world import (
    BAD_NAMES,
    IMAGE,
    KERNEL,
    LEAF,
    OTHER,
    SECOND,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sharedcache.core.ports import Storage
    from tests.contract.storage_world import World


class StorageContract(EpochContract):
    """The whole suite; its other half is `EpochContract`."""

    # The cluster's files.

    def test_unbound_directory_has_no_marker(self, world: World) -> None:
        """An empty mount answers None for marker and schema; nothing is made."""
        assert world.storage.read_marker() is None
        assert world.storage.read_schema() is None
        assert len(world.storage.scan()) == 0

    @pytest.mark.parametrize(
        "call",
        [
            lambda s: s.witness_write("n", b""),
            lambda s: s.witness_read("n"),
            lambda s: s.witness_list(),
            lambda s: s.write_schema(b""),
            lambda s: s.epochs(),
            lambda s: s.epoch_make(1),
            lambda s: s.epoch_seal(1),
        ],
    )
    def test_unbound_directory_is_an_error(
        self, world: World, call: Callable[[Storage], object]
    ) -> None:
        """Without the skeleton, control calls fail instead of saying 'none'."""
        with pytest.raises(StorageError):
            call(world.storage)

    def test_marker_round_trip(self, world: World, store: Storage) -> None:
        """The marker is read back, also by a second process."""
        assert store.read_marker() == b"identity"
        assert world.another().read_marker() == b"identity"

    def test_marker_is_exclusive(self, store: Storage) -> None:
        """A bound directory cannot be bound again, and its marker stays."""
        with pytest.raises(NameExistsError):
            store.create_marker(b"another")
        assert store.read_marker() == b"identity"

    def test_schema_is_replaced(self, world: World, store: Storage) -> None:
        """The schema is written and replaced as a whole."""
        assert store.read_schema() is None
        store.write_schema(b"one, and longer than its successor")
        assert store.read_schema() == b"one, and longer than its successor"
        store.write_schema(b"two")
        assert world.another().read_schema() == b"two"

    # Witnesses.

    @pytest.mark.parametrize(
        "data", [b"", b"{}", b"ends in space ", b"\x00\x20\x0a", b"x" * 507]
    )
    def test_witness_round_trip(
        self, world: World, store: Storage, data: bytes
    ) -> None:
        """A witness gives back exactly the bytes written, whatever they end in."""
        facts = store.witness_write("compute-1", data)
        found = world.another().witness_read("compute-1")
        assert found is not None
        assert found[0] == data
        assert found[1].inode == facts.inode
        assert found[1].regular
        assert found[1].links == 1

    def test_witness_is_written_in_place(self, store: Storage) -> None:
        """The name goes on leading to one inode of one size."""
        first = store.witness_write("compute-1", b"a longer record")
        second = store.witness_write("compute-1", b"short")
        assert (first.inode, first.size) == (second.inode, second.size)
        found = store.witness_read("compute-1")
        assert found is not None
        assert found[0] == b"short"

    def test_witness_too_long_is_refused(self, store: Storage) -> None:
        """A record that does not fit is refused, and nothing is cut."""
        with pytest.raises(StorageError):
            store.witness_write("compute-1", b"x" * 508)
        assert store.witness_read("compute-1") is None

    def test_witness_touch_tells_the_storage_time(
        self, world: World, store: Storage
    ) -> None:
        """Times of witness, epoch and touched file come from one clock."""
        store.witness_write("compute-1", b"w")
        store.epoch_make(1)
        world.put(IMAGE, mtime_s=1000)
        first = store.witness_touch("compute-1").mtime_ns
        second = store.epoch_time(1)
        store.touch(IMAGE)
        third = store.facts(IMAGE)
        fourth = store.witness_touch("compute-1").mtime_ns
        assert third is not None
        assert first <= second <= third.mtime_ns <= fourth

    def test_witness_touch_keeps_the_record(self, store: Storage) -> None:
        """Touching changes times only; a missing witness is not made."""
        store.witness_write("compute-1", b"w")
        store.witness_touch("compute-1")
        found = store.witness_read("compute-1")
        assert found is not None
        assert found[0] == b"w"
        with pytest.raises(NameMissingError):
            store.witness_touch("compute-2")
        assert store.witness_list() == ["compute-1"]

    def test_witnesses_are_listed(self, store: Storage) -> None:
        """The list is sorted, and a node without a witness reads as None."""
        for node in ("b", "a", "c"):
            store.witness_write(node, b"")
        assert store.witness_list() == ["a", "b", "c"]
        assert store.witness_read("d") is None

    # Cache files.

    def test_scan_gives_every_entry_once(self, world: World, store: Storage) -> None:
        """The table has each entry's facts and leaves out .sharedcache."""
        world.put(IMAGE, b"12345", mtime_s=1000)
        world.put(KERNEL, b"", mtime_s=2000)
        world.put("notes.txt", b"x")
        world.plant(OTHER, "directory")
        table = store.scan()
        rows = {name: at for at, name in enumerate(table.names)}
        assert sorted(rows) == sorted([IMAGE, KERNEL, "notes.txt", OTHER])
        at = rows[IMAGE]
        facts = store.facts(IMAGE)
        assert facts is not None
        assert table.kinds[at] == Kind.IMAGE
        assert table.sizes[at] == facts.size == 5
        assert table.mtimes_ns[at] == facts.mtime_ns == 1000 * 10**9
        assert table.inodes[at] == facts.inode
        assert table.links[at] == facts.links == 1
        assert table.regular[at] == 1
        assert table.kinds[rows[KERNEL]] == Kind.KERNEL
        assert table.kinds[rows["notes.txt"]] == Kind.UNRECOGNISED
        assert table.regular[rows[OTHER]] == 0

    def test_facts_of_nothing(self, store: Storage) -> None:
        """A name that is not there has no facts."""
        assert store.facts(IMAGE) is None

    @pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
    def test_facts_of_what_is_no_file(
        self, world: World, store: Storage, kind: str
    ) -> None:
        """What is not a regular file says so, and no call waits for it."""
        world.plant(IMAGE, kind)
        facts = store.facts(IMAGE)
        assert facts is not None
        assert not facts.regular
        store.epoch_make(1)
        for call in (
            lambda: store.touch(IMAGE),
            lambda: store.locked(IMAGE),
            lambda: store.quarantine(IMAGE, 1, LEAF),
        ):
            with pytest.raises(StorageError):
                call()
        assert store.epoch_list(1) == []
        assert store.scan().names == [IMAGE]

    def test_touch_of_nothing(self, store: Storage) -> None:
        """Touching never makes a file."""
        with pytest.raises(NameMissingError):
            store.touch(IMAGE)
        assert store.facts(IMAGE) is None

    def test_space_and_caches(self, store: Storage) -> None:
        """Space is (size, free) in bytes; a cache's lifetime is not negative."""
        size, free = store.space()
        assert 0 <= free <= size
        assert size > 0
        assert store.name_cache_s() >= 0

    # Digest records.

    def test_digest_records_are_of_one_file_each(
        self, world: World, store: Storage
    ) -> None:
        """Found by name and inode; dropping one leaves that of another file."""
        assert store.digest_list() == {}
        store.digest_drop(IMAGE, 7)
        world.record(IMAGE, 7)
        world.record(IMAGE, 8)
        world.record(KERNEL, 7)
        found = store.digest_list()
        assert set(found) == {(IMAGE, 7), (IMAGE, 8), (KERNEL, 7)}
        assert all(time_ns > 10**18 for time_ns in found.values())
        for _ in range(2):
            store.digest_drop(IMAGE, 7)
            assert set(store.digest_list()) == {(IMAGE, 8), (KERNEL, 7)}

    # Names.

    @pytest.mark.parametrize("bad", BAD_NAMES)
    @pytest.mark.parametrize(
        "call",
        [
            lambda s, bad: s.witness_write(bad, b""),
            lambda s, bad: s.witness_touch(bad),
            lambda s, bad: s.witness_read(bad),
            lambda s, bad: s.facts(bad),
            lambda s, bad: s.touch(bad),
            lambda s, bad: s.locked(bad),
            lambda s, bad: s.digest_drop(bad, 1),
            lambda s, bad: s.quarantine(bad, 1, SECOND),
            lambda s, bad: s.quarantine(IMAGE, 1, bad),
            lambda s, bad: s.quarantined_facts(1, bad),
            lambda s, bad: s.quarantined_locked(1, bad),
            lambda s, bad: s.restore(1, bad, IMAGE),
            lambda s, bad: s.restore(1, LEAF, bad),
            lambda s, bad: s.purge(1, bad),
            lambda s, bad: s.epoch_move(1, bad, 1, SECOND),
            lambda s, bad: s.epoch_move(1, LEAF, 1, bad),
        ],
    )
    def test_names_are_entries_only(
        self, taken: Storage, call: Callable[[Storage, str], object], bad: str
    ) -> None:
        """No call takes a name that could lead out of its directory."""
        with pytest.raises(StorageError):
            call(taken, bad)
        assert taken.epoch_list(1) == [LEAF]
        assert taken.witness_list() == []
