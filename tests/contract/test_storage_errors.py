"""What an error of the system means: refused, fenced, or nobody can tell."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache.adapters.storage import WriterDirectory
from sharedcache.core.ports import (
    FencedError,
    NameMissingError,
    NotEmptyStorageError,
    OutcomeUnknownError,
    StorageError,
)
from tests.contract.storage_real_world import RealWorld
from tests.contract.storage_world import IMAGE, LEAF, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sharedcache.adapters.storage import DirectoryStorage
    from sharedcache.core.ports import Storage


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RealWorld]:
    """Give an empty directory."""
    (tmp_path / "_base").mkdir()
    world = RealWorld(tmp_path / "_base")
    yield world
    world.close()


_CHANGES = [
    ("rename", lambda s: s.quarantine(IMAGE, 1, "x")),
    ("link", lambda s: s.restore(1, LEAF, OTHER)),
    ("unlink", lambda s: s.purge(1, LEAF)),
    ("utime", lambda s: s.touch(IMAGE)),
    ("mkdir", lambda s: s.epoch_make(2)),
    ("rmdir", lambda s: s.epoch_remove(2)),
    ("pwrite", lambda s: s.witness_write("n", b"w")),
    ("rename", lambda s: s.write_schema(b"2")),
]


def _prepare(world: RealWorld) -> DirectoryStorage:
    world.real.create_marker(b"identity")
    world.real.epoch_make(1)
    for _ in range(2):
        world.put(IMAGE)
        if world.real.epoch_list(1) == []:
            world.real.quarantine(IMAGE, 1, LEAF)
    return world.real


@pytest.mark.parametrize(("step", "call"), _CHANGES)
@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.EINTR])
def test_lost_answers_leave_the_outcome_unknown(
    world: RealWorld,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    call: Callable[[Storage], object],
    number: int,
) -> None:
    """An error that is no refusal never counts as 'did not happen'."""
    storage = _prepare(world)

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, failing)
    with pytest.raises(OutcomeUnknownError):
        call(storage)


@pytest.mark.parametrize(("step", "call"), _CHANGES)
@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT, errno.EPERM])
def test_refusals_are_known(
    world: RealWorld,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    call: Callable[[Storage], object],
    number: int,
) -> None:
    """A refusal is a StorageError that bears the system's number."""
    storage = _prepare(world)

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, failing)
    with pytest.raises(StorageError) as caught:
        call(storage)
    assert caught.value.errno == number


def test_other_realm_is_an_error_never_a_copy(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EXDEV says where `.sharedcache` must be, and the file stays."""
    storage = _prepare(world)

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(StorageError, match="quota realm"):
        storage.quarantine(IMAGE, 1, "x")
    assert world.content(IMAGE) == b""


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTDIR])
@pytest.mark.parametrize(
    ("step", "call"),
    [
        ("rename", lambda s: s.quarantine(IMAGE, 1, "x")),
        ("unlink", lambda s: s.purge(1, LEAF)),
        ("link", lambda s: s.restore(1, LEAF, OTHER)),
    ],
)
def test_network_fence(
    world: RealWorld,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    call: Callable[[Storage], object],
    number: int,
) -> None:
    """What NFS says to a late leader in mid-call is its word to stand down."""
    storage = _prepare(world)

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, failing)
    with pytest.raises(FencedError):
        call(storage)


@pytest.mark.parametrize(
    ("step", "call"),
    [
        ("rename", lambda s: s.quarantine(IMAGE, 1, "x")),
        ("unlink", lambda s: s.purge(1, LEAF)),
        ("link", lambda s: s.restore(1, LEAF, OTHER)),
        ("stat", lambda s: s.restore(1, LEAF, OTHER)),
    ],
)
@pytest.mark.parametrize("removed", [False, True])
def test_local_fence(
    world: RealWorld,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    call: Callable[[Storage], object],
    *,
    removed: bool,
) -> None:
    """ENOENT is a local file system's word for a missing entry and for a removed epoch.

    The epoch goes after it was opened by its name, in the moment of the act.
    """
    storage = _prepare(world)
    epoch = world.base / ".sharedcache/epochs/1"
    rename = os.rename

    def failing(*_: object, **__: object) -> None:
        if removed:
            rename(epoch, epoch.with_name("elsewhere"))
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, step, failing)
    with pytest.raises(FencedError if removed else NameMissingError):
        call(storage)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTDIR, errno.ENOENT])
@pytest.mark.parametrize("deposed", [False, True])
def test_stale_directory_of_a_move(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch, number: int, *, deposed: bool
) -> None:
    """A move has two directories: only if its own is gone is the leader deposed."""
    storage = _prepare(world)
    storage.epoch_make(2)

    def failing(*_: object, **__: object) -> None:
        if deposed:
            (world.base / ".sharedcache/epochs/2").rmdir()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(FencedError if deposed else NameMissingError):
        storage.epoch_move(1, LEAF, 2, "x")
    assert storage.epoch_list(1) == [LEAF]


def test_an_error_of_a_move_that_is_no_fence(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a full disk nor a lost answer says that an entry or an epoch is gone."""
    storage = _prepare(world)
    storage.epoch_make(2)

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", failing)
    number = errno.ENOSPC
    with pytest.raises(StorageError) as caught:
        storage.epoch_move(1, LEAF, 2, "x")
    assert (type(caught.value), caught.value.errno) == (StorageError, number)
    number = errno.EIO
    with pytest.raises(OutcomeUnknownError):
        storage.epoch_move(1, LEAF, 2, "x")


@pytest.mark.parametrize("to", [1, 2])
def test_an_epoch_that_cannot_be_opened_is_not_gone(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch, to: int
) -> None:
    """An error of the storage deposes nobody, and loses no entry."""
    storage = _prepare(world)
    storage.epoch_make(2)
    real = os.open

    def failing(path: str, *args: Any, **options: Any) -> int:
        if path == "1":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(StorageError) as caught:
        storage.epoch_move(3 - to, LEAF, to, "x")
    assert (type(caught.value), caught.value.errno) == (StorageError, errno.EIO)


def test_entries_by_another_number(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POSIX lets rmdir say EEXIST of a directory that is not empty."""
    storage = _prepare(world)

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(os, "rmdir", failing)
    with pytest.raises(NotEmptyStorageError):
        storage.epoch_remove(1)


@pytest.mark.parametrize("times", [1, 100])
def test_an_epoch_that_is_being_sealed_is_not_lost(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A name that goes while it is listed is listed again; never left out."""
    storage = _prepare(world)
    path = world.base / ".sharedcache/epochs/2"
    left = times
    real = os.scandir

    def racing(descriptor: int) -> AbstractContextManager[list[os.DirEntry[str]]]:
        nonlocal left
        if left:
            path.mkdir()
        else:
            path.touch()
        with real(descriptor) as listing:
            entries = list(listing)
        if left:
            left -= 1
            path.rmdir()
        return nullcontext(entries)

    monkeypatch.setattr(os, "scandir", racing)
    if times == 1:
        assert storage.epochs() == {1: False, 2: True}
    else:
        with pytest.raises(StorageError, match="too fast"):
            storage.epochs()


def test_change_that_may_not_last_is_unknown(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When fsync fails the effect is there, but nobody may rely on it."""
    storage = _prepare(world)

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutcomeUnknownError, match="perhaps not durable"):
        storage.purge(1, LEAF)
    assert storage.epoch_list(1) == []


def test_file_system_without_directory_fsync(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EINVAL from fsync means that there is none to be had; the change counts."""
    storage = _prepare(world)

    def failing(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", failing)
    storage.purge(1, LEAF)
    assert storage.epoch_list(1) == []


# Reading, and a writer's own files.


def test_only_a_partial_file_is_a_writers_own(world: RealWorld) -> None:
    """I2: whoever writes may take away no name that others know."""
    _prepare(world)
    with WriterDirectory(str(world.base)) as storage:
        with pytest.raises(StorageError, match="not a partial file"):
            storage.partial_remove(IMAGE)
        with pytest.raises(StorageError, match="not a partial file"):
            storage.partial_open(IMAGE)
        partial, descriptor = storage.partial_make(IMAGE)
        os.close(descriptor)
        os.close(storage.partial_open(partial))
        storage.partial_remove(partial)
        assert not (world.base / partial).exists()
    assert world.content(IMAGE) == b""


def test_a_witness_that_was_not_written_whole(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may rely on it: whoever reads it may find half a record."""
    storage = _prepare(world)
    monkeypatch.setattr(os, "pwrite", lambda *_: 1)
    with pytest.raises(OutcomeUnknownError):
        storage.witness_write("n", b"w")


def test_a_scan_that_cannot_look_at_a_file_is_none(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that goes meanwhile is left out; an error of the storage is told."""
    storage = _prepare(world)
    (world.base / OTHER).touch()
    real = os.scandir

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self._entry = entry.name, entry

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            if self.name == OTHER:
                raise OSError(number, os.strerror(number))
            return self._entry.stat(follow_symlinks=follow_symlinks)

    def failing(descriptor: int) -> AbstractContextManager[list[Entry]]:
        with real(descriptor) as listing:
            return nullcontext([Entry(entry) for entry in listing])

    monkeypatch.setattr(os, "scandir", failing)
    number = errno.ENOENT
    assert storage.scan().names == [IMAGE]
    number = errno.EIO
    with pytest.raises(StorageError) as caught:
        storage.scan()
    assert caught.value.errno == number


def test_a_mount_without_locks_protects_nothing(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer is told so, and does not take the file for protected."""
    _prepare(world)

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with WriterDirectory(str(world.base)) as storage:
        descriptor = storage.open_cache(IMAGE)
        assert descriptor is not None
        try:
            assert storage.hold_open(descriptor)
            monkeypatch.setattr(fcntl, "fcntl", refused)
            assert not storage.hold_open(descriptor)
        finally:
            os.close(descriptor)


def test_a_mount_that_cannot_be_told(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc nothing is known of what a client keeps: it counts as the worst."""
    storage = _prepare(world)

    def failing(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_text", failing)
    assert storage.mount() is None
    assert storage.name_cache_s() >= 60.0
    assert storage.local_locks() == ""
