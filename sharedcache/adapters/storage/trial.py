"""A trial of the rights and habits of the storage, with a private file of our own."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass

from sharedcache.adapters.storage.descriptors import FILE, Descriptors, opened
from sharedcache.adapters.storage.errors import changing, settle


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial found out.

    ``offset_s`` is how far the storage's clock is ahead of this host's, in
    seconds, and ``doubt_s`` how far that may be off.
    """

    offset_s: float
    doubt_s: float


class Trials(Descriptors):
    """What agents and cleaners do with files, tried on a file that means nothing."""

    def trial(self) -> Trial:
        """Create, rename, link and unlink, as quarantine, restore and purge do.

        The file begins in ``_base``, under a name that no grammar recognises,
        and goes to ``.sharedcache``, so that a border between file systems or
        quota realms shows.  Raises ``StorageError`` that names the step that
        failed; the file is removed whatever happens.
        """
        name = f".doctor-{secrets.token_hex(8)}"
        second = f"{name}.link"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE
        with self._looking() as look:
            control = look.control()
            try:
                before_ns = time.time_ns()
                with (
                    changing("create a file in the cache directory"),
                    opened(name, flags, look.base) as descriptor,
                ):
                    os.write(descriptor, b"doctor")
                    settle("create a file in the cache directory", descriptor)
                    os.utime(descriptor)
                    storage_ns = os.fstat(descriptor).st_mtime_ns
                after_ns = time.time_ns()
                with changing("rename a file into .sharedcache"):
                    os.rename(name, name, src_dir_fd=look.base, dst_dir_fd=control)
                with changing("link a file"):
                    os.link(
                        name,
                        second,
                        src_dir_fd=control,
                        dst_dir_fd=control,
                        follow_symlinks=False,
                    )
                with changing("unlink a file"):
                    os.unlink(second, dir_fd=control)
                    os.unlink(name, dir_fd=control)
            finally:
                # They are our own private files; one that is left means nothing.
                for left, where in (
                    (name, look.base),
                    (name, control),
                    (second, control),
                ):
                    with suppress(OSError):
                        os.unlink(left, dir_fd=where)
        middle_ns = (before_ns + after_ns) / 2
        return Trial((storage_ns - middle_ns) / 1e9, (after_ns - before_ns) / 2e9)
