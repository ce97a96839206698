"""Planted links, odd files and a deposed leader: nothing outside is ever touched."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.core.ports import (
    FencedError,
    NameExistsError,
    OutcomeUnknownError,
    StorageError,
)
from tests.contract.storage_world import IMAGE, LEAF, OTHER, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Place:
    """A cache directory, and a directory outside it that must not change."""

    def __init__(self, root: Path) -> None:
        self.base = root / "_base"
        self.outside = root / "outside"
        self.control = self.base / ".sharedcache"
        for path in (self.base, self.outside):
            path.mkdir()
        for name in ("cluster", "schema", "n", IMAGE, LEAF, "7"):
            (self.outside / name).write_bytes(b"precious")
            os.utime(self.outside / name, (1000, 1000))
        for name in ("nodes", "epochs"):
            (self.outside / name).mkdir()
        self.storage = DirectoryStorage(str(self.base))
        self.before = self._outside()

    def _outside(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for path in (self.outside, *sorted(self.outside.rglob("*"))):
            status = path.lstat()
            found[str(path)] = (
                status.st_ino,
                status.st_mode,
                status.st_nlink,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
        return found

    def check(self) -> None:
        """Nothing outside has changed, not even a time or a count of links."""
        assert self._outside() == self.before

    def try_everything(self) -> None:
        """Make every call; refusals are welcome, hanging and crashing are not."""
        storage = self.storage
        calls: list[Callable[[], object]] = [
            storage.read_marker,
            storage.read_schema,
            lambda: storage.create_marker(b"x"),
            lambda: storage.write_schema(b"x"),
            lambda: storage.witness_write("n", b"x"),
            lambda: storage.witness_touch("n"),
            lambda: storage.witness_read("n"),
            storage.witness_list,
            storage.scan,
            lambda: storage.facts(IMAGE),
            lambda: storage.touch(IMAGE),
            lambda: storage.locked(IMAGE),
            storage.epochs,
            lambda: storage.quarantine(IMAGE, 7, SECOND),
            lambda: storage.quarantined_facts(7, LEAF),
            lambda: storage.quarantined_facts(7, LEAF, writable=True),
            lambda: storage.quarantined_locked(7, LEAF),
            lambda: storage.epoch_list(7),
            lambda: storage.epoch_time(7),
            lambda: storage.restore(7, LEAF, OTHER),
            lambda: storage.epoch_move(7, LEAF, 7, SECOND),
            lambda: storage.purge(7, LEAF),
            lambda: storage.epoch_remove(7),
            lambda: storage.epoch_seal(7),
            lambda: storage.epoch_make(8),
            storage.refresh,
        ]
        for call in calls:
            with suppress(StorageError, OutcomeUnknownError):
                call()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a place that is looked at again at the end."""
    place = Place(tmp_path)
    yield place
    place.storage.close()
    place.check()


def _bind(place: Place) -> DirectoryStorage:
    place.storage.create_marker(b"identity")
    return place.storage


# Links.


def test_link_as_control_directory(place: Place) -> None:
    """`.sharedcache` as a link is refused by name, and never followed."""
    place.control.symlink_to(place.outside)
    with pytest.raises(StorageError, match="not a directory"):
        place.storage.read_marker()
    place.try_everything()
    assert place.control.is_symlink()


@pytest.mark.parametrize("name", ["nodes", "epochs"])
def test_links_in_the_skeleton(place: Place, name: str) -> None:
    """A link where a directory of ours should be is refused."""
    storage = _bind(place)
    (place.control / name).rmdir()
    (place.control / name).symlink_to(place.outside)
    storage.refresh()
    with pytest.raises(StorageError, match="not a directory"):
        storage.witness_list() if name == "nodes" else storage.epochs()
    place.try_everything()


@pytest.mark.parametrize("name", ["cluster", "schema"])
def test_links_as_control_files(place: Place, name: str) -> None:
    """A marker or schema that is a link is an error, not somebody's content."""
    storage = _bind(place)
    (place.control / name).unlink(missing_ok=True)
    (place.control / name).symlink_to(place.outside / name)
    with pytest.raises(StorageError, match="links are not followed"):
        storage.read_marker() if name == "cluster" else storage.read_schema()
    place.try_everything()


def test_link_as_witness(place: Place) -> None:
    """A witness is never written, touched or read through a link."""
    storage = _bind(place)
    (place.control / "nodes/n").symlink_to(place.outside / "n")
    for call in (
        lambda: storage.witness_write("n", b"x"),
        lambda: storage.witness_touch("n"),
        lambda: storage.witness_read("n"),
    ):
        with pytest.raises(StorageError, match="links are not followed"):
            call()
    place.try_everything()


def test_dangling_link_as_witness(place: Place) -> None:
    """Nothing is made where a dangling link leads."""
    storage = _bind(place)
    (place.control / "nodes/n").symlink_to(place.outside / "absent")
    with pytest.raises(StorageError, match="links are not followed"):
        storage.witness_write("n", b"x")


def test_link_as_epoch(place: Place) -> None:
    """An epoch that is a link is no epoch: whoever would act in it is fenced."""
    storage = _bind(place)
    (place.control / "epochs/7").symlink_to(place.outside)
    (place.base / IMAGE).write_bytes(b"used")
    for call in (
        lambda: storage.quarantine(IMAGE, 7, SECOND),
        lambda: storage.purge(7, LEAF),
        lambda: storage.restore(7, LEAF, OTHER),
        lambda: storage.epoch_list(7),
        lambda: storage.epoch_remove(7),
    ):
        with pytest.raises(FencedError):
            call()
    for make in (storage.epoch_make, storage.epoch_seal):
        with pytest.raises(NameExistsError):
            make(7)
    place.try_everything()
    assert (place.base / IMAGE).read_bytes() == b"used"


def test_link_as_cache_file(place: Place) -> None:
    """A link in `_base` has facts of its own, and is neither used nor moved."""
    storage = _bind(place)
    storage.epoch_make(7)
    (place.base / IMAGE).symlink_to(place.outside / IMAGE)
    facts = storage.facts(IMAGE)
    assert facts is not None
    assert not facts.regular
    assert list(storage.scan().regular) == [0]
    place.try_everything()
    assert (place.base / IMAGE).is_symlink()


def test_link_as_quarantined_file(place: Place) -> None:
    """A link in an epoch is not restored, and purging it takes the link only."""
    storage = _bind(place)
    storage.epoch_make(7)
    (place.control / "epochs/7" / LEAF).symlink_to(place.outside / LEAF)
    facts = storage.quarantined_facts(7, LEAF, writable=True)
    assert facts is not None
    assert not facts.regular
    with pytest.raises(StorageError, match="not a regular file"):
        storage.restore(7, LEAF, OTHER)
    with pytest.raises(StorageError, match="links are not followed"):
        storage.quarantined_locked(7, LEAF)
    storage.purge(7, LEAF)
    assert storage.epoch_list(7) == []


def test_link_that_appears_in_the_middle_of_a_restore(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry swapped for a link after it was looked at is linked as a link."""
    storage = _bind(place)
    storage.epoch_make(7)
    (place.base / IMAGE).write_bytes(b"content")
    storage.quarantine(IMAGE, 7, LEAF)
    leaf, real = place.control / "epochs/7" / LEAF, os.link

    def late(
        source: str,
        target: str,
        *,
        src_dir_fd: int,
        dst_dir_fd: int,
        follow_symlinks: bool,
    ) -> None:
        leaf.unlink()
        leaf.symlink_to(place.outside / LEAF)
        real(
            source,
            target,
            src_dir_fd=src_dir_fd,
            dst_dir_fd=dst_dir_fd,
            follow_symlinks=follow_symlinks,
        )

    monkeypatch.setattr(os, "link", late)
    storage.restore(7, LEAF, IMAGE)
    assert (place.base / IMAGE).is_symlink()


def test_link_as_restored_name(place: Place) -> None:
    """Restoring onto a dangling link makes nothing where that leads."""
    storage = _bind(place)
    storage.epoch_make(7)
    (place.base / IMAGE).write_bytes(b"content")
    storage.quarantine(IMAGE, 7, LEAF)
    (place.base / IMAGE).symlink_to(place.outside / "absent")
    with pytest.raises(NameExistsError):
        storage.restore(7, LEAF, IMAGE)


def test_link_as_target_of_a_move(place: Place) -> None:
    """Even a dangling link under a quarantined name is not replaced."""
    storage = _bind(place)
    storage.epoch_make(7)
    (place.base / IMAGE).write_bytes(b"content")
    (place.control / "epochs/7" / LEAF).symlink_to(place.outside / "absent")
    with pytest.raises(NameExistsError):
        storage.quarantine(IMAGE, 7, LEAF)


# What is no file at all.


@pytest.mark.parametrize("where", ["cluster", "schema", "nodes/n"])
def test_fifo_as_control_file(place: Place, where: str) -> None:
    """Nobody waits for the other end of a fifo."""
    storage = _bind(place)
    path = place.control / where
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    calls: dict[str, Callable[[], object]] = {
        "cluster": storage.read_marker,
        "schema": storage.read_schema,
        "nodes/n": lambda: storage.witness_read("n"),
    }
    with pytest.raises(StorageError, match="not a regular file"):
        calls[where]()
    place.try_everything()
    assert stat.S_ISFIFO(path.lstat().st_mode) or where == "schema"


def test_directory_among_the_witnesses(place: Place) -> None:
    """Whoever has to look at it is told where it lies, and what to do."""
    storage = _bind(place)
    (place.control / "nodes" / "n").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"^\.sharedcache/nodes/n is not .* move"):
        storage.witness_read("n")
    place.try_everything()
    assert (place.control / "nodes" / "n").is_dir()


def test_fifo_and_socket_as_cache_files(place: Place) -> None:
    """They are looked at without a peer, and left alone."""
    import socket  # noqa: PLC0415 - for this test only

    storage = _bind(place)
    storage.epoch_make(7)
    os.mkfifo(place.base / IMAGE)
    directory = os.open(place.base, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # A socket's path has a limit that a test's directory can exceed.
        listener.bind(f"/proc/self/fd/{directory}/{OTHER}")
    os.close(directory)
    for name in (IMAGE, OTHER):
        facts = storage.facts(name)
        assert facts is not None
        assert not facts.regular
        with pytest.raises(StorageError):
            storage.locked(name)
    place.try_everything()
    assert sorted(os.listdir(place.base)) == sorted(  # noqa: PTH208 - names
        [".sharedcache", IMAGE, OTHER]
    )


@pytest.mark.root
def test_device_as_cache_file(place: Place) -> None:
    """A device under a cache name is no regular file, and stays."""
    storage = _bind(place)
    storage.epoch_make(7)
    try:
        os.mknod(place.base / IMAGE, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    facts = storage.facts(IMAGE)
    assert facts is not None
    assert not facts.regular
    with pytest.raises(StorageError, match="left alone"):
        storage.quarantine(IMAGE, 7, LEAF)
    place.try_everything()
    assert stat.S_ISCHR((place.base / IMAGE).lstat().st_mode)


def test_directory_as_control_file(place: Place) -> None:
    """A directory where a file of ours should be is an error."""
    storage = _bind(place)
    (place.control / "schema").mkdir()
    (place.control / "nodes/n").mkdir()
    with pytest.raises(StorageError, match="not a regular file"):
        storage.read_schema()
    with pytest.raises(StorageError):
        storage.witness_write("n", b"x")
    with pytest.raises(StorageError):
        storage.write_schema(b"2")
