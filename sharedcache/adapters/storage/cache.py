"""The cache files themselves, under their cache names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from sharedcache.adapters.storage.descriptors import (
    CONTROL,
    DIRECTORY,
    FILE,
    Descriptors,
    Look,
    bounded_ns,
    cache_entry,
    look_at,
    opened,
    shown,
)
from sharedcache.adapters.storage.errors import changing, reading
from sharedcache.adapters.storage.mountinfo import (
    Mount,
    local_locks_of,
    name_cache_of,
    parse_mount,
    parse_mount_id,
)
from sharedcache.adapters.storage.qemu_locks import probe
from sharedcache.core import names
from sharedcache.core.model import FileFacts, FileTable
from sharedcache.core.ports import StorageError


class CacheFiles(Descriptors):
    """What is asked of entries of ``_base``; nothing here takes a name away."""

    def scan(self) -> FileTable:
        """List ``_base`` itself with every entry's facts, following no link.

        Costs one stat a file.  ``.sharedcache`` is left out, and so is what
        vanishes meanwhile; names that are not UTF-8 appear in a printable
        form that the grammar does not recognise.
        """
        return self._read(_scan)

    def facts(self, name: str) -> FileFacts | None:
        """Open a cache name and look at it; ``None`` if it is not there.

        The directory is opened first: an NFS client asks the server then
        whether names in it have changed, and does not go on opening the file
        that bore this one up to ``acdirmax`` ago.
        """
        cache_entry(name)
        what = f"look at {shown(name)}"

        def call(look: Look) -> FileFacts | None:
            with reading(what), opened(".", DIRECTORY, look.base):
                return look_at(look.base, name, what)

        return self._read(call)

    def touch(self, name: str) -> None:
        """Set a cache file's times to the storage's own clock.

        ``NameMissingError`` if it is not there.  Nova, too, gives no time, so
        that the server takes its own.
        """
        cache_entry(name)
        with self._looking() as look:
            require_regular(look.base, name)
            with changing(f"touch {shown(name)}"):
                os.utime(name, dir_fd=look.base, follow_symlinks=False)

    def space(self) -> tuple[int, int]:
        """Return the file system's size and what is free of it, in bytes.

        Free is what an ordinary user may still take.
        """

        def call(look: Look) -> tuple[int, int]:
            with reading("ask how much space is left"):
                answer = os.fstatvfs(look.base)
            return (
                answer.f_frsize * answer.f_blocks,
                answer.f_frsize * answer.f_bavail,
            )

        return self._read(call)

    def name_cache_s(self) -> float:
        """How long this mount may keep names cached, in seconds (0: local)."""
        return name_cache_of(self.mount())

    def local_locks(self) -> str:
        """Name what keeps locks on this host, a mount's option; empty if nothing."""
        return local_locks_of(self.mount())

    def mount(self) -> Mount | None:
        """Return the mount that the base lies on; ``None`` if there is no telling.

        It is found by the id that the kernel gives for the open
        descriptor, so that neither a mount on top of it nor a file system
        with several device numbers (btrfs) can be mistaken for it.
        """
        with self._looking() as look:
            try:
                fdinfo = Path(f"/proc/self/fdinfo/{look.base}").read_text("utf-8")
                mountinfo = Path("/proc/self/mountinfo").read_text(
                    "utf-8", "surrogateescape"
                )
            except OSError:
                return None
        mount_id = parse_mount_id(fdinfo)
        return None if mount_id is None else parse_mount(mountinfo, mount_id)

    def locked(self, name: str) -> bool:
        """Whether any qemu holds a lock on a cache file.

        On a read-only descriptor, which an NFS client with a delegation may
        answer by itself: ``False`` proves nothing.  ``NameMissingError`` if
        the file is not there.
        """
        cache_entry(name)

        def call(look: Look) -> bool:
            what = f"ask for locks on {shown(name)}"
            return probe(look.base, name, os.O_RDONLY | FILE, what)

        return self._read(call)


def require_regular(directory: int, name: str) -> None:
    """Refuse anything but a regular file; ``NameMissingError`` if there is none."""
    with reading(f"look at {shown(name)}"):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(f"{shown(name)} is not a regular file and is left alone")


_GONE = frozenset({errno.ENOENT, errno.ESTALE})


def _scan(look: Look) -> FileTable:
    """Fill the columns directly: an object a file would cost more than its stat."""
    table = FileTable()
    classify, is_regular = names.classify, stat.S_ISREG
    # A descriptor of its own, since the position in a listing belongs to the
    # open directory and two threads may list at once.
    with (
        reading("list the cache directory"),
        opened(".", DIRECTORY, look.base) as descriptor,
        os.scandir(descriptor) as entries,
    ):
        for entry in entries:
            if entry.name == CONTROL:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                # It vanished since it was listed; what is not in the table
                # is kept.
                if error.errno in _GONE:
                    continue
                raise
            name = shown(entry.name)
            table.names.append(name)
            table.kinds.append(classify(name))
            table.sizes.append(status.st_size)
            table.mtimes_ns.append(bounded_ns(status.st_mtime_ns))
            table.inodes.append(status.st_ino)
            table.links.append(status.st_nlink)
            table.regular.append(is_regular(status.st_mode))
    return table
