"""A deposed leader on a local file system, and the locks of another process."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.core.ports import NameMissingError
from tests.contract.storage_world import IMAGE, LEAF, OTHER, SECOND
from tests.fault.fence_suite import DONE, FenceSuite
from tests.fault.sharing_suite import SharingSuite
from tests.support.clients import Clients, local_clients

if TYPE_CHECKING:
    from collections.abc import Iterator


class Place:
    """A cache directory."""

    def __init__(self, root: Path) -> None:
        self.base = root / "_base"
        self.control = self.base / ".sharedcache"
        self.base.mkdir()
        self.storage = DirectoryStorage(str(self.base))


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Start two processes on one directory of this machine."""
    with local_clients(tmp_path_factory.mktemp("clients")) as made:
        yield made


class TestLocalFence(FenceSuite):
    """The fence of a local file system."""

    late_link = "FencedError"
    answers: ClassVar = {
        "rename into it, by path": (DONE, DONE, "ENOENT", "ENOTDIR"),
        "rename into it, by descriptor": (DONE, DONE, "ENOENT", "ENOENT"),
        "link into it, by descriptor": (DONE, DONE, "ENOENT", "ENOENT"),
        "create in it, by descriptor": (DONE, DONE, "ENOENT", "ENOENT"),
        "unlink from it, by path": (DONE, "ENOENT", "ENOENT", "ENOTDIR"),
        "unlink from it, by descriptor": (DONE, "ENOENT", "ENOENT", "ENOENT"),
        "rename out of it, by descriptor": (DONE, "ENOENT", "ENOENT", "ENOENT"),
        "link out of it, by descriptor": (DONE, "ENOENT", "ENOENT", "ENOENT"),
        "mkdir of it, by path": ("EEXIST", "EEXIST", DONE, "EEXIST"),
    }


class TestLocalSharing(SharingSuite):
    """What else the protocol relies on, of a local file system."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give an unbound cache directory."""
    place = Place(tmp_path)
    with place.storage:
        yield place


def _bind(place: Place) -> DirectoryStorage:
    place.storage.create_marker(b"identity")
    return place.storage


def test_entry_that_goes_in_the_middle_of_a_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the epoch stands, ENOENT is about the entry."""
    storage = _bind(place)
    storage.epoch_make(5)
    (place.base / OTHER).write_bytes(b"used")
    real = os.rename

    def late(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        (place.base / OTHER).unlink()
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(NameMissingError):
        storage.quarantine(OTHER, 5, SECOND)


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
