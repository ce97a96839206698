"""qemu's locks, as evidence that a running guest uses a file.

Since 2.10 a running qemu holds open-file-description read locks on every
image of its disks' chains, backing files included: bytes from 100 for the
permissions it uses, bytes from 200 for those that it does not share
(``RAW_LOCK_PERM_BASE`` and ``RAW_LOCK_SHARED_BASE`` in block/file-posix.c).
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from sharedcache.adapters.storage.descriptors import opened
from sharedcache.adapters.storage.errors import reading
from sharedcache.core.ports import StorageError

_FIRST_BYTE = 100
_BYTES = 200
_FLOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of 64-bit Linux: type, whence, start, length, pid."""


def probe(directory: int, name: str, flags: int, what: str) -> bool:
    """Whether any qemu holds a lock on a file.

    The question is that of a write lock, which every lock of qemu's would
    prevent; it is only asked, never taken, so that no guest can fail to start
    because of us.
    """
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FIRST_BYTE, _BYTES, 0)
    with reading(what), opened(name, flags, directory) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StorageError(f"cannot {what}: it is not a regular file")
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK


def hold(descriptor: int) -> bool:
    """Lock an open file as a qemu that reads it does; ``False`` if that is refused.

    The lock lasts until the descriptor is closed, and so ends with the
    process.  It is that of the permission to read (byte 100), which no other
    user of a base file excludes.
    """
    lock = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _FIRST_BYTE, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except OSError:
        # A mount without locks, or somebody who excludes readers.
        return False
    return True
