"""What the storage's error numbers mean to a service.

A call that changes something has three outcomes, not two.  Only an error
number that is a refusal by its nature is taken as "did not happen"; any other
one leaves the outcome unknown, because the request may have reached the
server and only its answer was lost.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sharedcache.core.ports import (
    NameExistsError,
    NameMissingError,
    NotEmptyStorageError,
    OutcomeUnknownError,
    StorageError,
)

FENCED = frozenset({errno.ENOTDIR, errno.ESTALE, errno.ELOOP})
"""What a deposed leader meets where its epoch's directory was.

Measured on NFSv4.1: ENOTDIR by path and ESTALE through an open descriptor,
once the name is a regular file.  A link in its place is no directory either.
"""

_REFUSALS = frozenset(
    {
        errno.EACCES,
        errno.EBADF,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EFBIG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMFILE,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENFILE,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
        errno.ETXTBSY,
        errno.EXDEV,
    }
)

_KINDS: dict[int, type[StorageError]] = {
    errno.ENOENT: NameMissingError,
    errno.EEXIST: NameExistsError,
    errno.ENOTEMPTY: NotEmptyStorageError,
}

_RIGHTS = (
    "run as the owner of the cache directory, or as root on an export without "
    "root squash"
)
_ADVICE: dict[int, str] = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EDQUOT: "raise the quota or free some of it",
    errno.ELOOP: "a symbolic link lies there, and links are not followed",
    errno.ENOSPC: "free some space by hand",
    errno.ENOTDIR: "something that is not a directory lies there",
    errno.EROFS: "mount the storage for writing",
    errno.ESTALE: "the storage no longer knows what was open",
    errno.EXDEV: (
        "`_base` and its `.sharedcache` must be on one file system and in one "
        "quota realm, and a file is never copied instead"
    ),
}


def storage_error(error: OSError, what: str) -> StorageError:
    """Say what failed, why, and what to do; the effect did not happen."""
    number = error.errno or 0
    message = f"cannot {what}: {os.strerror(number)}"
    advice = _ADVICE.get(number)
    if advice is not None:
        message = f"{message} ({advice})"
    return _KINDS.get(number, StorageError)(message, number)


def change_error(error: OSError, what: str) -> StorageError | OutcomeUnknownError:
    """Judge the failure of a call that changes something."""
    if error.errno in _REFUSALS:
        return storage_error(error, what)
    return OutcomeUnknownError(
        f"no telling whether it came about: {what}: {os.strerror(error.errno or 0)}"
    )


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Translate the errors of calls that change nothing."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error


@contextmanager
def changing(what: str) -> Iterator[None]:
    """Translate the errors of one call that changes something."""
    try:
        yield
    except OSError as error:
        raise change_error(error, what) from error


def settle(what: str, *descriptors: int) -> None:
    """Wait until a change is on stable storage (fsync of file or directory).

    A change that a server's crash could take back must not be written down in
    ZooKeeper as done: the manifest and the directory would tell two stories,
    and a seal that came undone would let a deposed leader act again.  NFS
    servers make directory changes stable before they answer; CephFS and local
    file systems do so only when asked.
    """
    for descriptor in descriptors:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                # This file system has no fsync for directories; there is
                # nothing more that a client could ask of it.
                continue
            # The change itself was made; whether it lasts is what is unknown.
            raise OutcomeUnknownError(
                f"done, but perhaps not durable: {what}: {error.strerror}"
            ) from error
