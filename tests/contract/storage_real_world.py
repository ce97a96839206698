"""A directory of this machine, as the world of the storage contract."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sharedcache.adapters.storage import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sharedcache.core.ports import Storage

_QEMU_BYTES = (100, 201, 203)


class RealWorld:
    """A directory of this machine."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._opened: list[DirectoryStorage] = []
        self.real = self.another()
        self.storage: Storage = self.real

    def another(self) -> DirectoryStorage:
        """Open the directory once more."""
        self._opened.append(DirectoryStorage(str(self.base)))
        return self._opened[-1]

    def close(self) -> None:
        """Close what was opened."""
        for storage in self._opened:
            storage.close()

    def put(self, name: str, data: bytes = b"", mtime_s: int | None = None) -> None:
        """Write a file."""
        (self.base / name).write_bytes(data)
        if mtime_s is not None:
            os.utime(self.base / name, (mtime_s, mtime_s))

    def plant(self, name: str, kind: str) -> None:
        """Make something that is no file."""
        path = self.base / name
        if kind == "directory":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("/etc/passwd")
        else:
            os.mkfifo(path)

    def record(self, name: str, inode: int) -> None:
        """Record a digest."""
        self.real.digest_write(name, inode, b"{}")

    def content(self, name: str) -> bytes | None:
        """Read a file."""
        path = self.base / name
        return path.read_bytes() if path.exists() else None

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Lock as qemu does, on an open file description of our own."""
        with (self.base / name).open("rb") as file:
            for byte in _QEMU_BYTES:
                wanted = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
            yield
