"""Directory descriptors: the only way in which the storage is reached.

A *look* is one opening of the base directory by its path, and what was opened
through it.  Everything in one look is on one mount, so that a cluster identity
read through it speaks for all that follows.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self, TypeVar

from sharedcache.adapters.storage.errors import reading, storage_error
from sharedcache.core.model import FileFacts
from sharedcache.core.ports import NameMissingError, StorageError

CONTROL = ".sharedcache"
"""The directory in ``_base`` that holds everything of ours."""

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How directories below the base are opened."""

FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""How files are opened: a planted fifo must not make us wait for a peer."""

Answer = TypeVar("Answer")

_LAST_NS = 2**63 - 1


def plain(name: str) -> str:
    """Return a name that can only mean an entry of the directory at hand.

    Raises ``StorageError`` before anything is asked of the system.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise StorageError(f"{name!r} is not the name of a directory's entry")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise StorageError(f"{name!r} cannot be a file's name here") from error
    return name


def cache_entry(name: str) -> str:
    """Return a plain name in ``_base`` that is not our own directory."""
    if name == CONTROL:
        raise StorageError(f"{CONTROL} is not a cache file")
    return plain(name)


def shown(name: str) -> str:
    r"""Return a name that can be printed and packed.

    Bytes that are not UTF-8 become ``\xNN``, which no cache name contains.
    """
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def opened(name: str, flags: int, directory: int, mode: int = 0o644) -> Iterator[int]:
    """Open an entry of a directory for the length of a block."""
    descriptor = os.open(name, flags, mode, dir_fd=directory)
    try:
        yield descriptor
    finally:
        # What had to be durable was fsynced; a failing close says nothing new.
        with suppress(OSError):
            os.close(descriptor)


def listing(directory: int, name: str = ".") -> list[str]:
    """List a directory below an open one, sorted.

    It is opened for the purpose, since the position in a listing belongs to
    the open directory and two threads may list at once.
    """
    with (
        opened(name, DIRECTORY, directory) as descriptor,
        os.scandir(descriptor) as entries,
    ):
        return sorted(entry.name for entry in entries)


def bounded_ns(time_ns: int) -> int:
    """Return a time that fits 64 bits: a file may bear any year up to 2446.

    What is far in the future stays far in the future, and so is kept.
    """
    return max(-_LAST_NS, min(time_ns, _LAST_NS))


def facts_of(status: os.stat_result) -> FileFacts:
    """Take from a stat what the core reasons about."""
    return FileFacts(
        status.st_ino,
        status.st_size,
        bounded_ns(status.st_mtime_ns),
        bounded_ns(status.st_ctime_ns),
        status.st_nlink,
        regular=stat.S_ISREG(status.st_mode),
    )


class Look:
    """One opening of the base directory, with what was opened through it.

    ``users`` counts who holds it; ``Descriptors`` guards it.
    """

    def __init__(self, base: int) -> None:
        status = os.fstat(base)
        self.base = base
        self.identity = (status.st_dev, status.st_ino)
        self.users = 1
        self._below: dict[str, int] = {}

    def control(self) -> int:
        """Descriptor of ``.sharedcache``."""
        return self._directory(CONTROL, lambda: self.base)

    def nodes(self) -> int:
        """Descriptor of ``.sharedcache/nodes``."""
        return self._directory("nodes", self.control)

    def epochs(self) -> int:
        """Descriptor of ``.sharedcache/epochs``."""
        return self._directory("epochs", self.control)

    def _directory(self, name: str, parent: Callable[[], int]) -> int:
        known = self._below.get(name)
        if known is not None:
            return known
        descriptor = open_directory(name, parent())
        # Two threads may get here together: the first one's stays.  No lock
        # is held meanwhile, since the opening itself can hang.
        kept = self._below.setdefault(name, descriptor)
        if kept != descriptor:
            os.close(descriptor)
        return kept

    def close(self) -> None:
        """Close every descriptor."""
        for descriptor in (*self._below.values(), self.base):
            with suppress(OSError):
                os.close(descriptor)
        self._below.clear()


def open_directory(name: str, parent: int) -> int:
    """Open a directory of the skeleton, following no link."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError as error:
        raise NameMissingError(
            f"{name} is missing: the storage is not mounted here, or `init` was "
            "never run",
            errno.ENOENT,
        ) from error
    except OSError as error:
        raise storage_error(error, f"open the directory {name}") from error


class Descriptors:
    """Who holds which look; safe for threads, since calls may hang for long.

    A look that is replaced is closed only when its last user has left:
    otherwise a descriptor's number could come to mean another directory in
    the middle of somebody's rename.
    """

    def __init__(self, base: str) -> None:
        self._path = base
        self._guard = threading.Lock()
        self._look: Look | None = self._open()

    def __enter__(self) -> Self:
        """Use the storage for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the storage."""
        self.close()

    def close(self) -> None:
        """Close every descriptor; later calls raise ``StorageError``."""
        self._replace(None)

    def refresh(self) -> None:
        """Open the base by its path again and forget what was open below it.

        An unmounted, remounted or replaced base is seen from here on.
        """
        self._replace(self._open())

    def _open(self) -> Look:
        # The configured path is the operator's word, links included; nothing
        # below it may be a link.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags)
        except FileNotFoundError as error:
            raise NameMissingError(
                f"{self._path} does not exist: mount the shared storage, or set "
                "`base` to the image cache directory",
                errno.ENOENT,
            ) from error
        except OSError as error:
            raise storage_error(
                error, f"open the cache directory {self._path}"
            ) from error
        except ValueError as error:
            raise StorageError(f"{self._path!r} cannot be a path") from error
        try:
            return Look(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise storage_error(
                error, f"look at the cache directory {self._path}"
            ) from error

    def _replace(self, look: Look | None) -> None:
        with self._guard:
            old, self._look = self._look, look
        if old is not None:
            self._leave(old)

    def _leave(self, look: Look) -> None:
        with self._guard:
            look.users -= 1
            last = look.users == 0
        if last:
            look.close()

    @contextmanager
    def _looking(self) -> Iterator[Look]:
        with self._guard:
            look = self._look
            if look is None:
                raise StorageError("this storage was closed")
            look.users += 1
        try:
            yield look
        finally:
            self._leave(look)

    def _read(self, call: Callable[[Look], Answer]) -> Answer:
        """Make a call that changes nothing; once more if a handle was stale.

        Another client may have replaced what was open.  The base is opened by
        its path again, but only the very same directory is accepted: the
        caller has checked the identity of that one.
        """
        try:
            with self._looking() as look:
                return call(look)
        except StorageError as error:
            if error.errno != errno.ESTALE:
                raise
            self._reopen(look)
        with self._looking() as look:
            return call(look)

    def _reopen(self, old: Look) -> None:
        fresh = self._open()
        if fresh.identity != old.identity:
            fresh.close()
            raise StorageError(
                f"{self._path} is another directory than before: its cluster "
                "identity must be checked again",
                errno.ESTALE,
            )
        self._replace(fresh)


def look_at(
    directory: int, name: str, what: str, access: int = os.O_RDONLY
) -> FileFacts | None:
    """Open a file and look at it; ``None`` if the name is not there.

    Opening makes an NFS client ask the server (close-to-open), which a bare
    stat does not.  What is not a regular file is told apart without being
    opened further.
    """
    with reading(what):
        try:
            with opened(name, access | FILE, directory) as descriptor:
                return facts_of(os.fstat(descriptor))
        except FileNotFoundError:
            return None
        except OSError as error:
            if not _closed_to_us(error, access):
                raise
        try:
            return facts_of(os.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            return None


_NOT_A_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR})
_NO_RIGHTS = frozenset({errno.EACCES, errno.EPERM})


def _closed_to_us(error: OSError, access: int) -> bool:
    """Whether a stat may answer instead of the open that failed."""
    if error.errno in _NOT_A_FILE:
        return True
    # Who asks to open for writing asks for an answer that no cache gave, and
    # a stat could not give one.
    return error.errno in _NO_RIGHTS and access == os.O_RDONLY
