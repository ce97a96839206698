"""The world in which the storage contract is tried, and its names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sharedcache.core.ports import Storage

IMAGE = "0123456789abcdef0123456789abcdef01234567"
OTHER = "89abcdef0123456789abcdef0123456789abcdef"
KERNEL = "9e107d9d-372b-4b68-a5d1-0cbb2a1f5d6e"
LEAF = f"{IMAGE}.00000000000000aa.1"
SECOND = f"{IMAGE}.00000000000000bb.1"
MOVED = f"{IMAGE}.00000000000000aa.2"

BAD_NAMES = ("", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b", ".sharedcache/x")


class World(Protocol):
    """A directory, and what others than sharedcache do in it."""

    storage: Storage

    def another(self) -> Storage:
        """Open the same directory once more, as a second process would."""

    def put(self, name: str, data: bytes = b"", mtime_s: int | None = None) -> None:
        """Write a file into `_base` as Nova does; the time counts from 1970."""

    def plant(self, name: str, kind: str) -> None:
        """Make a `directory`, a `link` or a `fifo` in `_base`."""

    def record(self, name: str, inode: int) -> None:
        """Record a digest of a file, as a writer does."""

    def content(self, name: str) -> bytes | None:
        """Read a file of `_base`; `None` if there is none."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold qemu's locks on a file of `_base`, as a running guest does."""
