"""The storage contract on the file system in memory that the simulation uses."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.contract.storage_suite import StorageContract
from tests.simulation.memory_disk import Folder, Inode, MemoryDisk
from tests.simulation.memory_storage import MemoryStorage, Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sharedcache.core.ports import Storage


class MemoryWorld:
    """A directory in memory."""

    def __init__(self) -> None:
        self.disk = MemoryDisk(time.time)
        self.storage: Storage = self.another()

    def another(self) -> Storage:
        """Open the directory once more, from another host."""
        return MemoryStorage(Mount(self.disk, time.monotonic))

    def put(self, name: str, data: bytes = b"", mtime_s: int | None = None) -> None:
        """Write a file."""
        found = self.disk.base.names.get(name)
        if not isinstance(found, Inode):
            found = self.disk.new_file()
            self.disk.create(self.disk.base, name, found)
        found.data = data
        if mtime_s is not None:
            found.mtime_ns = mtime_s * 10**9

    def plant(self, name: str, kind: str) -> None:
        """Make something that is no file."""
        self.disk.create(self.disk.base, name, self.disk.new_file(kind=kind))

    def record(self, name: str, inode: int) -> None:
        """Record a digest."""
        self.disk.digests[name, inode] = self.disk.now_ns()

    def content(self, name: str) -> bytes | None:
        """Read a file."""
        found = self.disk.base.names.get(name)
        return None if found is None or isinstance(found, Folder) else found.data

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Lock as qemu does."""
        found = self.disk.base.names[name]
        assert isinstance(found, Inode)
        found.locks += 1
        yield
        found.locks -= 1


class TestMemoryStorage(StorageContract):
    """The contract suite in memory."""

    @pytest.fixture
    def world(self) -> MemoryWorld:
        """Give an empty directory."""
        return MemoryWorld()
