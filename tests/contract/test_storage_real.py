"""The storage contract on a real directory, and what only a real one has."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.core.names import Kind
from sharedcache.core.ports import (
    FencedError,
    NameExistsError,
    NameMissingError,
    StorageError,
)
from tests.contract.storage_real_world import RealWorld
from tests.contract.storage_suite import StorageContract
from tests.contract.storage_world import IMAGE, LEAF, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RealWorld]:
    """Give an empty directory."""
    (tmp_path / "_base").mkdir()
    world = RealWorld(tmp_path / "_base")
    yield world
    world.close()


class TestRealStorage(StorageContract):
    """The contract suite on a real directory."""


# Opening.


def test_missing_base_says_what_to_do(tmp_path: Path) -> None:
    """A base that does not exist is named, with the remedy."""
    with pytest.raises(NameMissingError, match=r"does not exist: mount"):
        DirectoryStorage(str(tmp_path / "absent"))


def test_base_must_be_a_directory(tmp_path: Path) -> None:
    """A file in the base's place is refused."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="not a directory"):
        DirectoryStorage(str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_base_without_rights(tmp_path: Path) -> None:
    """A base that may not be opened says whose rights are needed."""
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(StorageError, match="run as the owner"):
        DirectoryStorage(str(tmp_path / "closed"))


def test_base_path_with_nul() -> None:
    """Even a path that the system would not take is a StorageError."""
    with pytest.raises(StorageError):
        DirectoryStorage("a\0b")


def test_closed_storage_refuses(world: RealWorld) -> None:
    """After close every call is refused, and closing twice is harmless."""
    world.real.close()
    world.real.close()
    with pytest.raises(StorageError, match="closed"):
        world.real.scan()


# Which directory a call is about.


def test_marker_is_read_from_the_path(world: RealWorld, tmp_path: Path) -> None:
    """A base that was unmounted shows as unbound at the next read_marker."""
    world.real.create_marker(b"identity")
    world.put(IMAGE)
    (tmp_path / "_base").rename(tmp_path / "unmounted")
    (tmp_path / "_base").mkdir()
    # Until the marker is read again, calls stay with the directory whose
    # identity was checked.
    assert world.real.scan().names == [IMAGE]
    assert world.real.read_marker() is None
    assert world.real.scan().names == []
    with pytest.raises(NameMissingError):
        world.real.epochs()


def test_refresh_opens_the_path_again(world: RealWorld, tmp_path: Path) -> None:
    """Refreshing also drops the descriptors below the base."""
    world.real.create_marker(b"old")
    world.real.epoch_make(1)
    (tmp_path / "_base").rename(tmp_path / "unmounted")
    (tmp_path / "_base").mkdir()
    other = world.another()
    other.create_marker(b"new")
    assert world.real.epochs() == {1: False}
    world.real.refresh()
    assert world.real.epochs() == {}


def test_no_descriptor_is_left(world: RealWorld) -> None:
    """However often the base is reopened, descriptors are not used up."""
    world.real.create_marker(b"identity")
    world.real.epoch_make(1)
    world.put(IMAGE)

    def round_of_calls() -> int:
        world.real.read_marker()
        world.real.scan()
        world.real.facts(IMAGE)
        world.real.epochs()
        world.real.witness_write("n", b"w")
        world.real.witness_list()
        world.real.epoch_time(1)
        for call in (world.real.purge, world.real.quarantined_facts):
            with pytest.raises((NameMissingError, FencedError)):
                call(2, LEAF)
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only counted

    assert round_of_calls() == round_of_calls()


def test_a_look_in_use_is_not_closed(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that hangs keeps its descriptors while another thread refreshes."""
    world.real.create_marker(b"identity")
    world.real.epoch_make(1)
    world.put(IMAGE, b"content")
    reached, go_on = threading.Event(), threading.Event()
    rename = os.rename

    def hanging(*args: str, src_dir_fd: int, dst_dir_fd: int) -> None:
        reached.set()
        assert go_on.wait(20)
        rename(*args, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", hanging)
    worker = threading.Thread(target=world.real.quarantine, args=(IMAGE, 1, LEAF))
    worker.start()
    assert reached.wait(20)
    world.real.refresh()
    world.real.refresh()
    # Were the old numbers free again, these would get them.
    strangers = [os.open("/", os.O_RDONLY) for _ in range(8)]
    go_on.set()
    worker.join(20)
    for stranger in strangers:
        os.close(stranger)
    assert world.real.epoch_list(1) == [LEAF]


def _stale_once(
    monkeypatch: pytest.MonkeyPatch, leaf: str, hook: Callable[[], None]
) -> None:
    """Let the first opening of one name meet a stale handle."""
    real, left = os.open, [1]

    def opening(
        path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        if path == leaf and left:
            left.pop()
            hook()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", opening)


def test_stale_handle_is_read_once_more(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ESTALE while reading: the base is reopened once and the call repeated."""
    world.real.create_marker(b"identity")
    world.real.epoch_make(1)
    world.put(IMAGE, b"content")
    world.real.quarantine(IMAGE, 1, LEAF)
    world.put(IMAGE, b"again")
    for leaf, call in (
        (IMAGE, lambda: world.real.facts(IMAGE)),
        ("1", lambda: world.real.quarantined_facts(1, LEAF)),
        ("epochs", world.real.epochs),
        (".", world.real.scan),
    ):
        world.real.refresh()
        with monkeypatch.context() as patch:
            _stale_once(patch, leaf, lambda: None)
            assert call()


def test_stale_base_must_be_the_same_directory(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A reopened base whose identity nobody checked is not read from."""
    world.real.create_marker(b"identity")
    world.put(IMAGE)

    def replace() -> None:
        (tmp_path / "_base").rename(tmp_path / "unmounted")
        (tmp_path / "_base").mkdir()

    _stale_once(monkeypatch, IMAGE, replace)
    with pytest.raises(StorageError, match="another directory"):
        world.real.facts(IMAGE)


# What is on the disk.


def test_marker_leaves_no_temporary_name(world: RealWorld) -> None:
    """Neither success nor refusal leaves anything but the skeleton."""
    world.real.create_marker(b"identity")
    world.real.write_schema(b"2")
    with pytest.raises(NameExistsError):
        world.real.create_marker(b"another")
    control = world.base / ".sharedcache"
    assert sorted(path.name for path in control.iterdir()) == [
        "cluster",
        "epochs",
        "nodes",
        "schema",
    ]
    assert (control / "cluster").stat().st_nlink == 1


def test_failed_write_leaves_no_temporary_name(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A marker that could not be written whole never gets its name."""
    world.real.create_marker(b"identity")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="free some space"):
        world.real.write_schema(b"2")
    assert world.real.read_schema() is None
    assert sorted(os.listdir(world.base / ".sharedcache")) == [  # noqa: PTH208 - names
        "cluster",
        "epochs",
        "nodes",
    ]


def test_umask_does_not_shut_others_out(world: RealWorld) -> None:
    """What other nodes must read is readable, whatever the maker's umask."""
    before = os.umask(0o077)
    try:
        world.real.create_marker(b"identity")
        world.real.write_schema(b"2")
        world.real.witness_write("n", b"w")
        world.real.epoch_make(1)
    finally:
        os.umask(before)
    control = world.base / ".sharedcache"
    for path in (control, control / "nodes", control / "epochs", control / "epochs/1"):
        assert path.stat().st_mode & 0o777 == 0o755
    for path in (control / "cluster", control / "schema", control / "nodes/n"):
        assert path.stat().st_mode & 0o777 == 0o644


def test_witness_is_512_bytes_whatever_was_there(world: RealWorld) -> None:
    """A longer file under a witness's name is cut to the record."""
    world.real.create_marker(b"identity")
    path = world.base / ".sharedcache/nodes/n"
    path.write_bytes(b"z" * 2000)
    world.real.witness_write("n", b"w")
    assert path.stat().st_size == 512
    assert path.read_bytes().startswith(b"w ")
    assert path.read_bytes().endswith(b"0001\n")


def test_witness_that_is_not_whole_is_given_as_it_lies(world: RealWorld) -> None:
    """A torn record reaches the reader, who cannot read it and so says so."""
    world.real.create_marker(b"identity")
    path = world.base / ".sharedcache/nodes/n"
    for record in (b"", b"short", b"x" * 512, b"x" * 600):
        path.write_bytes(record)
        found = world.real.witness_read("n")
        assert found is not None
        assert found[0] == record


def test_witness_with_two_names_is_refused(world: RealWorld) -> None:
    """A witness that is also some other file is never written through."""
    world.real.create_marker(b"identity")
    world.put(IMAGE, b"precious")
    (world.base / ".sharedcache/nodes/n").hardlink_to(world.base / IMAGE)
    with pytest.raises(StorageError, match="one name"):
        world.real.witness_write("n", b"w")
    with pytest.raises(StorageError, match="one name"):
        world.real.witness_touch("n")
    assert world.content(IMAGE) == b"precious"


def test_control_files_have_a_limit(world: RealWorld) -> None:
    """A control file beyond 64 KiB is refused, not read into memory."""
    world.real.create_marker(b"identity")
    schema = world.base / ".sharedcache/schema"
    schema.write_bytes(b"x" * 65536)
    assert world.real.read_schema() == b"x" * 65536
    schema.write_bytes(b"x" * 65537)
    with pytest.raises(StorageError, match="longer"):
        world.real.read_schema()


def test_names_that_are_not_utf8(world: RealWorld) -> None:
    """An undecodable name is an unrecognised row that can be printed and packed."""
    (world.base / os.fsdecode(b"caf\xe9")).touch()
    (world.base / "grün").touch()
    table = world.real.scan()
    assert sorted(table.names) == ["caf\\xe9", "grün"]
    assert all(kind == Kind.UNRECOGNISED for kind in table.kinds)
    for name in table.names:
        name.encode()


def test_vanishing_entries_are_left_out(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that goes between listing and stat is no error."""
    for name in (IMAGE, OTHER):
        world.put(name)
    scandir = os.scandir

    @contextmanager
    def hasty(directory: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(directory) as entries:
            listed = list(entries)
        (world.base / IMAGE).unlink()
        yield iter(listed)

    monkeypatch.setattr(os, "scandir", hasty)
    assert world.real.scan().names == [OTHER]


def test_epochs_of_another_type(world: RealWorld) -> None:
    """What is neither a directory nor a file among the epochs is an error."""
    world.real.create_marker(b"identity")
    (world.base / ".sharedcache/epochs/7").symlink_to("6")
    (world.base / ".sharedcache/epochs/07").mkdir()
    (world.base / ".sharedcache/epochs/x").mkdir()
    with pytest.raises(StorageError, match="epoch 7 is neither"):
        world.real.epochs()
    (world.base / ".sharedcache/epochs/7").unlink()
    assert world.real.epochs() == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_facts_without_the_right_to_read(world: RealWorld) -> None:
    """A file that we may not open has facts all the same, but not for a purge."""
    world.real.create_marker(b"identity")
    world.real.epoch_make(1)
    world.put(IMAGE, b"123")
    (world.base / IMAGE).chmod(0)
    facts = world.real.facts(IMAGE)
    assert facts is not None
    assert (facts.size, facts.regular) == (3, True)
    world.real.quarantine(IMAGE, 1, LEAF)
    assert world.real.quarantined_facts(1, LEAF) is not None
    with pytest.raises(StorageError, match="run as the owner"):
        world.real.quarantined_facts(1, LEAF, writable=True)
