"""The epochs' directories, and the quarantined files in them.

An epoch's directory is the fence.  A successor empties it, removes it and puts
a regular file in its place; whatever the deposed leader still tries through
the name or an open descriptor is then refused by the storage itself (measured
on NFSv4.1: ENOTDIR by path, ESTALE by descriptor).  A directory that is only
renamed would not fence: an open descriptor follows it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sharedcache.adapters.storage.cache import require_regular
from sharedcache.adapters.storage.descriptors import (
    DIRECTORY,
    FILE,
    Descriptors,
    Look,
    cache_entry,
    listing,
    look_at,
    opened,
    plain,
    shown,
)
from sharedcache.adapters.storage.errors import (
    FENCED,
    change_error,
    changing,
    reading,
    settle,
    storage_error,
)
from sharedcache.adapters.storage.qemu_locks import probe
from sharedcache.core import names
from sharedcache.core.model import FileFacts
from sharedcache.core.ports import (
    FencedError,
    NameExistsError,
    NameMissingError,
    NotEmptyStorageError,
    OutcomeUnknownError,
    StorageError,
)

_EPOCH = re.compile(r"[1-9][0-9]*\Z", re.ASCII)
_DIRECTORY_MODE = 0o755
_LISTING_TRIES = 5


class EpochFiles(Descriptors):
    """Everything in ``.sharedcache/epochs``.

    ``FencedError`` is raised where the epoch that the caller acts in is sealed
    or gone; ``NameMissingError`` where only the entry is missing.
    """

    def epochs(self) -> dict[int, bool]:
        """List the epochs; the value tells whether one is sealed.

        ``StorageError`` if something that is neither lies there.
        """
        return self._read(_epochs)

    def epoch_make(self, epoch: int) -> None:
        """Make an epoch's directory; ``NameExistsError`` if the name exists."""
        name = _name_of(epoch)
        with self._looking() as look:
            parent = look.epochs()
            with changing(f"make the directory of epoch {epoch}"):
                os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
            with _epoch(look, epoch) as there:
                # Other nodes link from it, whatever this process's umask.
                with changing(f"set the mode of epoch {epoch}"):
                    os.fchmod(there, _DIRECTORY_MODE)
                settle(f"make epoch {epoch}", there, parent)

    def epoch_time(self, epoch: int) -> int:
        """Touch an epoch's directory; return the storage's time (nanoseconds)."""
        what = f"touch the directory of epoch {epoch}"
        with (
            self._looking() as look,
            _epoch(look, epoch) as there,
            _acting(look, epoch, there, what),
        ):
            os.utime(there)
            return os.fstat(there).st_mtime_ns

    def epoch_list(self, epoch: int) -> list[str]:
        """List the quarantined files of an epoch, sorted."""

        def call(look: Look) -> list[str]:
            with _epoch(look, epoch) as there, reading(f"list epoch {epoch}"):
                return listing(there)

        return self._read(call)

    def epoch_move(self, epoch: int, leaf: str, to: int, new_leaf: str) -> None:
        """Rename a quarantined file into another epoch's directory.

        ``FencedError`` is about the epoch ``to``.  Where the source epoch is
        gone or sealed, its entry is: ``NameMissingError``.
        """
        plain(leaf)
        plain(new_leaf)
        what = f"move {shown(leaf)} from epoch {epoch} to epoch {to}"
        with self._looking() as look, _epoch(look, to) as there:
            try:
                source = os.open(_name_of(epoch), DIRECTORY, dir_fd=look.epochs())
            except OSError as error:
                raise _source_error(error, what) from error
            try:
                _require_absent(there, new_leaf)
                try:
                    os.rename(leaf, new_leaf, src_dir_fd=source, dst_dir_fd=there)
                except OSError as error:
                    raise _move_error(look, to, there, error, what) from error
                settle(what, there, source)
            finally:
                os.close(source)

    def epoch_remove(self, epoch: int) -> None:
        """Remove an epoch's empty directory.

        ``NotEmptyStorageError`` if entries are left, ``NameMissingError`` if
        there is none, ``FencedError`` if the epoch is sealed already.
        """
        name = _name_of(epoch)
        what = f"remove the directory of epoch {epoch}"
        with self._looking() as look:
            parent = look.epochs()
            with changing(what):
                try:
                    os.rmdir(name, dir_fd=parent)
                except NotADirectoryError as error:
                    raise FencedError(
                        f"epoch {epoch} is sealed already", errno.ENOTDIR
                    ) from error
                except FileExistsError as error:
                    # POSIX lets a file system say EEXIST for ENOTEMPTY.
                    raise NotEmptyStorageError(
                        f"cannot {what}: it has entries", errno.ENOTEMPTY
                    ) from error
            settle(what, parent)

    def epoch_seal(self, epoch: int) -> None:
        """Create the regular file that seals an epoch, exclusively and durably.

        ``NameExistsError`` if the name exists.
        """
        name = _name_of(epoch)
        what = f"seal epoch {epoch}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE
        with self._looking() as look:
            parent = look.epochs()
            with changing(what), opened(name, flags, parent) as descriptor:
                settle(what, descriptor, parent)

    def quarantine(self, name: str, epoch: int, leaf: str) -> None:
        """Rename a cache file into an epoch's directory; never a copy.

        Only a regular file whose name the grammar recognises, and never onto
        an entry that is there: a rename would silently replace that one.
        """
        plain(leaf)
        if names.classify(cache_entry(name)) is names.Kind.UNRECOGNISED:
            raise StorageError(f"{shown(name)} is no cache name and is left alone")
        what = f"rename {name} into epoch {epoch}"
        with self._looking() as look, _epoch(look, epoch) as there:
            require_regular(look.base, name)
            _require_absent(there, leaf)
            with _acting(look, epoch, there, what):
                os.rename(name, leaf, src_dir_fd=look.base, dst_dir_fd=there)
            _look_up_anew(there, leaf)
            settle(what, there, look.base)

    def quarantined_facts(
        self, epoch: int, leaf: str, *, writable: bool = False
    ) -> FileFacts | None:
        """Open a quarantined file and look at it; ``None`` if it is not there.

        ``writable`` opens it for writing, so that no cache of the client
        answers; nothing is written.
        """
        plain(leaf)
        access = os.O_RDWR if writable else os.O_RDONLY

        def call(look: Look) -> FileFacts | None:
            with _epoch(look, epoch) as there:
                return look_at(there, leaf, f"look at {shown(leaf)}", access)

        return self._read(call)

    def quarantined_locked(self, epoch: int, leaf: str) -> bool:
        """Whether any qemu holds a lock on a quarantined file.

        On a descriptor opened read-write, so that the server answers and no
        delegation does; ``NameMissingError`` if it is not there.
        """
        plain(leaf)

        def call(look: Look) -> bool:
            with _epoch(look, epoch) as there:
                what = f"ask for locks on {shown(leaf)}"
                return probe(there, leaf, os.O_RDWR | FILE, what)

        return self._read(call)

    def restore(self, epoch: int, leaf: str, name: str) -> None:
        """Link a quarantined file to its cache name; never replaces.

        ``NameExistsError`` if the cache name is taken.
        """
        plain(leaf)
        cache_entry(name)
        what = f"restore {shown(name)} from epoch {epoch}"
        with self._looking() as look, _epoch(look, epoch) as there:
            with _acting(look, epoch, there, what):
                require_regular(there, leaf)
                os.link(
                    leaf,
                    name,
                    src_dir_fd=there,
                    dst_dir_fd=look.base,
                    follow_symlinks=False,
                )
            settle(what, look.base)

    def purge(self, epoch: int, leaf: str) -> None:
        """Unlink a quarantined file for good.

        ``NameMissingError`` if it is not there.
        """
        plain(leaf)
        what = f"unlink {shown(leaf)} of epoch {epoch}"
        with self._looking() as look, _epoch(look, epoch) as there:
            with _acting(look, epoch, there, what):
                os.unlink(leaf, dir_fd=there)
            settle(what, there)


def _name_of(epoch: int) -> str:
    if epoch < 1:
        raise StorageError(f"there is no epoch {epoch}")
    return str(epoch)


@contextmanager
def _epoch(look: Look, epoch: int) -> Iterator[int]:
    """Open an epoch's directory by its name, for one call.

    By name each time: that is where a seal shows.
    """
    name, parent = _name_of(epoch), look.epochs()
    try:
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in FENCED or error.errno == errno.ENOENT:
            raise _fenced(epoch, error) from error
        raise storage_error(error, f"open the directory of epoch {epoch}") from error
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _fenced(epoch: int, error: OSError) -> FencedError:
    number = error.errno or 0
    return FencedError(
        f"epoch {epoch} is sealed or gone: {os.strerror(number)}", number
    )


@contextmanager
def _acting(look: Look, epoch: int, there: int, what: str) -> Iterator[None]:
    """Translate the errors of one change in an epoch's directory."""
    try:
        yield
    except OSError as error:
        if error.errno in FENCED:
            raise _fenced(epoch, error) from error
        if error.errno == errno.ENOENT and _removed(look, epoch, there):
            raise _fenced(epoch, error) from error
        raise change_error(error, what) from error
    except NameMissingError as error:
        if _removed(look, epoch, there):
            raise FencedError(f"epoch {epoch} is gone", errno.ENOENT) from error
        raise


def _move_error(
    look: Look, to: int, there: int, error: OSError, what: str
) -> StorageError | OutcomeUnknownError:
    """Judge why an entry could not be moved into the directory of epoch ``to``.

    Either directory may be the one that is gone, with the same number (ESTALE
    on NFS, ENOENT locally), and only one of them means that we are deposed.
    """
    if error.errno not in FENCED and error.errno != errno.ENOENT:
        return change_error(error, what)
    if _removed(look, to, there):
        return _fenced(to, error)
    return NameMissingError(f"cannot {what}: nothing is there", errno.ENOENT)


def _removed(look: Look, epoch: int, there: int) -> bool:
    """Whether an open epoch directory no longer bears its name.

    A local file system says ENOENT for whatever is tried in a removed
    directory, just as for a missing entry; only the name tells them apart.
    The directory is opened for it, since that makes an NFS client ask the
    server, and a bare stat does not.
    """
    try:
        with opened(str(epoch), DIRECTORY, look.epochs()) as descriptor:
            return os.fstat(descriptor).st_ino != os.fstat(there).st_ino
    except OSError:
        return True


def _look_up_anew(directory: int, leaf: str) -> None:
    """Make this client ask the server which file a new name leads to.

    The server renames what bears the name there.  An NFS client whose cache
    had another file under that name goes on with that one under the new name,
    for as long as nobody else changes the directory, and every later look
    would be at the wrong file.  A name that is to be made exclusively is
    always looked up; it is there, so that nothing is made.
    """
    with suppress(OSError):
        os.link(
            leaf,
            leaf,
            src_dir_fd=directory,
            dst_dir_fd=directory,
            follow_symlinks=False,
        )


def _source_error(error: OSError, what: str) -> StorageError:
    if error.errno in FENCED or error.errno == errno.ENOENT:
        return NameMissingError(f"cannot {what}: nothing is there", errno.ENOENT)
    return storage_error(error, what)


def _require_absent(directory: int, leaf: str) -> None:
    with reading(f"look for {shown(leaf)}"):
        try:
            os.stat(leaf, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
    raise NameExistsError(
        f"{shown(leaf)} is there already; a quarantined name is never used twice",
        errno.EEXIST,
    )


def _epochs(look: Look) -> dict[int, bool]:
    """List them, and again if one vanished meanwhile.

    Between an epoch's rmdir and its seal its name is missing for a moment, and
    a listing must not lose it to that.
    """
    for _ in range(_LISTING_TRIES):
        with reading("list the epochs"):
            try:
                return _epochs_once(look)
            except FileNotFoundError:
                continue
    raise StorageError("the epochs change too fast to be listed: try again")


def _epochs_once(look: Look) -> dict[int, bool]:
    found: dict[int, bool] = {}
    with (
        opened(".", DIRECTORY, look.epochs()) as descriptor,
        os.scandir(descriptor) as entries,
    ):
        for entry in entries:
            if _EPOCH.match(entry.name) is None:
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise StorageError(
                    f"epoch {entry.name} is neither a directory nor a regular "
                    "file: look who made it, then remove it by hand"
                )
            found[int(entry.name)] = stat.S_ISREG(mode)
    return found
