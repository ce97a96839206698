"""A deposed leader on a local file system, and the locks of another process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.core.ports import (
    FencedError,
    NameExistsError,
    NameMissingError,
    NotEmptyStorageError,
)
from tests.contract.storage_world import IMAGE, LEAF, MOVED, OTHER, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Place:
    """A cache directory."""

    def __init__(self, root: Path) -> None:
        self.base = root / "_base"
        self.control = self.base / ".sharedcache"
        self.base.mkdir()
        self.storage = DirectoryStorage(str(self.base))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give an unbound cache directory."""
    place = Place(tmp_path)
    with place.storage:
        yield place


def _bind(place: Place) -> DirectoryStorage:
    place.storage.create_marker(b"identity")
    return place.storage


class _Late:
    """A deposed leader with its epoch's directory open, as NFS clients have it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.epoch = os.open(place.control / "epochs/5", os.O_RDONLY)
        self.base = os.open(place.base, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.epoch)
        os.close(self.base)

    def by_descriptor(self) -> list[int]:
        """Try everything through the open descriptor; return the refusals."""
        base, epoch = self.base, self.epoch
        return [
            _refusal(
                lambda: os.rename(OTHER, SECOND, src_dir_fd=base, dst_dir_fd=epoch)
            ),
            _refusal(lambda: os.unlink(LEAF, dir_fd=epoch)),
            _refusal(lambda: os.mkdir("x", dir_fd=epoch)),
            _refusal(lambda: os.link(OTHER, SECOND, src_dir_fd=base, dst_dir_fd=epoch)),
        ]

    def by_path(self) -> list[int]:
        """Try everything by path; return the refusals."""
        epoch = self.place.control / "epochs/5"
        return [
            _refusal(lambda: (self.place.base / OTHER).rename(epoch / SECOND)),
            _refusal((epoch / LEAF).unlink),
            _refusal(epoch.mkdir),
        ]


def _refusal(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


@contextmanager
def _deposed(place: Place) -> Iterator[_Late]:
    storage = _bind(place)
    storage.epoch_make(5)
    (place.base / IMAGE).write_bytes(b"content")
    (place.base / OTHER).write_bytes(b"used")
    storage.quarantine(IMAGE, 5, LEAF)
    late = _Late(place)
    try:
        yield late
    finally:
        late.close()


def test_fence(place: Place) -> None:
    """Emptied, removed and replaced by a file: every late step is refused."""
    with _deposed(place) as late:
        storage = place.storage
        storage.epoch_make(6)
        with pytest.raises(NotEmptyStorageError):
            storage.epoch_remove(5)
        storage.epoch_move(5, LEAF, 6, MOVED)
        storage.epoch_remove(5)
        storage.epoch_seal(5)
        assert late.by_descriptor() == [errno.ENOENT] * 4
        assert late.by_path() == [errno.ENOTDIR, errno.ENOTDIR, errno.EEXIST]
        with pytest.raises(NameExistsError):
            storage.epoch_make(5)
        assert storage.epochs() == {5: True, 6: False}
        assert storage.epoch_list(6) == [MOVED]
    assert (place.base / OTHER).read_bytes() == b"used"


def test_renamed_directory_is_no_fence(place: Place) -> None:
    """Why the directory is removed: an open descriptor follows a rename."""
    with _deposed(place) as late:
        epochs = place.control / "epochs"
        (epochs / "5").rename(epochs / "5.sealed")
        assert late.by_descriptor()[0] == 0
        assert (epochs / "5.sealed" / SECOND).exists()


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("step", ["quarantine", "purge", "restore"])
def test_fence_in_the_middle_of_a_call(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str, *, sealed: bool
) -> None:
    """A leader that stops between opening its epoch and acting is fenced too.

    The local file system answers ENOENT there, and it must not be taken for a
    missing entry.
    """
    with _deposed(place):
        late = place.storage
        successor = DirectoryStorage(str(place.base))
        system = {"quarantine": "rename", "purge": "unlink", "restore": "link"}[step]
        real = getattr(os, system)

        def stopping(*arguments: object, **options: object) -> object:
            monkeypatch.setattr(os, system, real)
            successor.epoch_make(6)
            successor.epoch_move(5, LEAF, 6, MOVED)
            successor.epoch_remove(5)
            if sealed:
                successor.epoch_seal(5)
            return real(*arguments, **options)

        monkeypatch.setattr(os, system, stopping)
        calls: dict[str, Callable[[], object]] = {
            "quarantine": lambda: late.quarantine(OTHER, 5, SECOND),
            "purge": lambda: late.purge(5, LEAF),
            "restore": lambda: late.restore(5, LEAF, IMAGE),
        }
        with successor:
            with pytest.raises(FencedError):
                calls[step]()
            assert successor.epoch_list(6) == [MOVED]
            assert successor.facts(IMAGE) is None
        assert (place.base / OTHER).read_bytes() == b"used"


def test_entry_that_goes_in_the_middle_of_a_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the epoch stands, ENOENT is about the entry."""
    with _deposed(place):
        real = os.rename

        def late(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            (place.base / OTHER).unlink()
            real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        monkeypatch.setattr(os, "rename", late)
        with pytest.raises(NameMissingError):
            place.storage.quarantine(OTHER, 5, SECOND)


# Locks of another process.

_GUEST = """
import fcntl, os, struct, sys
file = open(sys.argv[1], "rb")
for byte in map(int, sys.argv[2:]):
    wanted = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def _guest(path: Path, *numbers: int) -> Iterator[None]:
    """Hold read locks on these bytes of a file in another process."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUEST, str(path), *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as guest:
        assert guest.stdout is not None
        assert guest.stdout.readline() == "locked\n"
        yield
        guest.communicate()


@pytest.mark.parametrize("numbers", [(100,), (201,), (203,), (100, 201, 203)])
def test_guest_of_another_process_is_seen(place: Place, numbers: tuple[int]) -> None:
    """Each lock that a running qemu holds on a base is proof of use."""
    storage = _bind(place)
    storage.epoch_make(1)
    (place.base / IMAGE).write_bytes(b"content")
    with _guest(place.base / IMAGE, *numbers):
        assert storage.locked(IMAGE) is True
        storage.quarantine(IMAGE, 1, LEAF)
        assert storage.quarantined_locked(1, LEAF) is True
    assert storage.quarantined_locked(1, LEAF) is False


@pytest.mark.parametrize("numbers", [(99,), (300,)])
def test_other_locks_are_not_guests(place: Place, numbers: tuple[int]) -> None:
    """Only the bytes that qemu uses are asked about."""
    storage = _bind(place)
    (place.base / IMAGE).write_bytes(b"content")
    with _guest(place.base / IMAGE, *numbers):
        assert storage.locked(IMAGE) is False


def test_asking_takes_no_lock(place: Place) -> None:
    """While we ask, a guest can start: the question is never a lock."""
    storage = _bind(place)
    (place.base / IMAGE).write_bytes(b"content")
    for _ in range(20):
        assert storage.locked(IMAGE) is False
    with _guest(place.base / IMAGE, 100):
        assert storage.locked(IMAGE) is True
