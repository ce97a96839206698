"""What a writer does to the shared directory: it only ever adds names.

Nothing here takes a name away but the writer's own private partial file, and
nothing here reaches the epochs but to see what lies there.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress

from sharedcache.adapters.storage.cache import CacheFiles
from sharedcache.adapters.storage.control import ControlFiles
from sharedcache.adapters.storage.descriptors import (
    DIRECTORY,
    FILE,
    Look,
    cache_entry,
    facts_of,
    listing,
    opened,
    shown,
)
from sharedcache.adapters.storage.digests import DigestFiles
from sharedcache.adapters.storage.errors import changing, reading, settle
from sharedcache.adapters.storage.qemu_locks import hold
from sharedcache.core import names
from sharedcache.core.model import FileFacts
from sharedcache.core.ports import NameMissingError, StorageError
from sharedcache.core.wanted import partial_of

_CACHE_FILE_MODE = 0o644


class WriterDirectory(ControlFiles, CacheFiles, DigestFiles):
    """The shared directory as a writer sees it.

    ``base`` is the path of the image cache directory.  Safe for threads.
    Descriptors that are returned are the caller's to close.
    """

    def open_cache(self, name: str) -> int | None:
        """Open a cache file for reading; ``None`` if the name is not there.

        The directory is opened first, as ``facts`` does and for its reason: what
        is opened is the file that bears the name now.  ``StorageError`` for what
        is not a regular file.
        """
        cache_entry(name)

        def call(look: Look) -> int | None:
            what = f"open {shown(name)}"
            with reading(what), opened(".", DIRECTORY, look.base):
                try:
                    descriptor = os.open(name, os.O_RDONLY | FILE, dir_fd=look.base)
                except FileNotFoundError:
                    return None
                return _regular(descriptor, name)

        return self._read(call)

    def facts_open(self, name: str, descriptor: int) -> FileFacts:
        """Look at a cache file that is open."""
        with reading(f"look at {shown(name)}"):
            return facts_of(os.fstat(descriptor))

    def bears(self, name: str, descriptor: int) -> bool:
        """Whether the name leads to the file that is open, as the server sees it."""
        facts = self.facts(name)
        with reading(f"look at {shown(name)}"):
            return facts is not None and facts.inode == os.fstat(descriptor).st_ino

    def partial_make(self, name: str) -> tuple[str, int]:
        """Create a partial file of a cache name; return its name and descriptor.

        Its name is unique.  Creating it changes the directory, so that an NFS
        client asks anew for names that it remembers as missing.
        """
        partial = partial_of(name, secrets.token_hex(8))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | FILE
        with self._looking() as look, changing(f"create {shown(partial)}"):
            descriptor = os.open(partial, flags, _CACHE_FILE_MODE, dir_fd=look.base)
        return partial, descriptor

    def partial_open(self, partial: str) -> int:
        """Open the caller's own partial file again by its name, for writing."""
        if names.classify(partial) is not names.Kind.PARTIAL:
            raise StorageError(f"{shown(partial)} is not a partial file")
        with self._looking() as look, reading(f"open {shown(partial)}"):
            descriptor = os.open(partial, os.O_RDWR | FILE, dir_fd=look.base)
            return _regular(descriptor, partial)

    def partial_settle(self, partial: str, descriptor: int) -> FileFacts:
        """Give a whole partial file its mode, and wait until it is durable."""
        what = f"make {shown(partial)} durable"
        with changing(what):
            # Whatever our umask, the hypervisors of all nodes must read it.
            os.fchmod(descriptor, _CACHE_FILE_MODE)
        settle(what, descriptor)
        with reading(what):
            return facts_of(os.fstat(descriptor))

    def partial_link(self, partial: str, name: str) -> None:
        """Give a whole partial file its cache name; never replaces.

        ``NameExistsError`` if the name is there.
        """
        cache_entry(name)
        with self._looking() as look, changing(f"publish {shown(name)}"):
            os.link(
                partial,
                name,
                src_dir_fd=look.base,
                dst_dir_fd=look.base,
                follow_symlinks=False,
            )

    def settle_base(self, what: str) -> None:
        """Wait until the names in the cache directory are durable."""
        with self._looking() as look:
            settle(what, look.base)

    def partial_remove(self, partial: str) -> None:
        """Remove the name of the caller's own partial file; harmless if gone."""
        if names.classify(partial) is not names.Kind.PARTIAL:
            raise StorageError(f"{shown(partial)} is not a partial file")
        with (
            self._looking() as look,
            changing(f"remove {shown(partial)}"),
            suppress(FileNotFoundError),
        ):
            os.unlink(partial, dir_fd=look.base)

    def touch_open(self, descriptor: int, what: str) -> None:
        """Set an open file's times to the storage's own clock."""
        with changing(f"touch {shown(what)}"):
            os.utime(descriptor)

    def hold_open(self, descriptor: int) -> bool:
        """Lock an open file as a qemu that reads it does; ``False`` if refused.

        The lock ends when the descriptor is closed.
        """
        return hold(descriptor)

    def quarantined(self, name: str) -> list[FileFacts]:
        """Look at the quarantined files of a cache name that are seen.

        From a listing, which a client may have cached: wrong in either
        direction for as long as that, which costs a download or a short wait.
        """
        cache_entry(name)

        def call(look: Look) -> list[FileFacts]:
            found: list[FileFacts] = []
            with reading("list the epochs"):
                try:
                    epochs = look.epochs()
                    numbers = sorted(listing(epochs), key=_number, reverse=True)
                except NameMissingError:
                    return []
                # The highest epoch is the leader's; lower ones are sealed,
                # or about to be emptied into it.
                for epoch in numbers[:2]:
                    with suppress(NotADirectoryError, FileNotFoundError):
                        found += _files_of(name, epochs, epoch)
            return found

        return self._read(call)


def _files_of(name: str, epochs: int, epoch: str) -> list[FileFacts]:
    """Look at what lies in one epoch of a cache name."""
    found = []
    with opened(epoch, DIRECTORY, epochs) as directory:
        for leaf in listing(directory):
            if _is_of(leaf, name):
                # One that went meanwhile, to its name or for good, lies here no more.
                with suppress(FileNotFoundError):
                    status = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
                    found.append(facts_of(status))
    return found


def _regular(descriptor: int, name: str) -> int:
    """Return the descriptor of a regular file, or close it and raise."""
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    raise StorageError(f"{shown(name)} is not a regular file")


def _number(epoch: str) -> int:
    return int(epoch) if epoch.isascii() and epoch.isdigit() else -1


def _is_of(leaf: str, name: str) -> bool:
    read = names.parse_leaf(leaf)
    return read is not None and read[0] == name


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers by which a storage says that it is full."""
