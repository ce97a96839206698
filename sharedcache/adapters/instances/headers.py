"""Headers of image files, remembered for as long as the files do not change."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from sharedcache.adapters.instances.formats import read_header
from sharedcache.adapters.instances.qcow2 import Header, ImageError

SETTLED_S = 2.0
"""No file system in use has times coarser than this (seconds)."""

TRIES = 5
"""How often a header is read while it is cut short or changing."""

PAUSE_S = 0.02
"""Between two tries at a header that could not be understood (seconds)."""

MAX_REMEMBERED = 500_000
"""Headers kept; further ones are read at every look."""

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC

Key = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A header, and the first moment at which its file looked as it does now."""

    header: Header
    first_seen_s: float
    settled: bool


def key_of(status: os.stat_result) -> Key:
    """Return all that changes when a file's content does."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class Headers:
    """Reads headers, and remembers those that cannot have changed unseen.

    A file may be written twice within one tick of its file system's clock and
    then looks the same before and after.  So an entry is trusted only if its
    file had looked the same for ``SETTLED_S`` on this host's own clock before
    its header was read: no clock is compared with another.  The file system's
    answers may themselves be cached by a network client for changes that
    *other* hosts make; those of this host are seen at once.

    ``monotonic`` and ``pause`` take and return seconds.  Not for several
    threads at once.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        pause: Callable[[float], None],
        limit: int = MAX_REMEMBERED,
    ) -> None:
        self._monotonic = monotonic
        self._pause = pause
        self._limit = limit
        self._known: dict[Key, _Entry] = {}
        self._kept: dict[Key, _Entry] = {}

    def begin(self) -> None:
        """Begin a look: what it does not ask for will be forgotten at its end."""
        self._kept = {}

    def finish(self, *, complete: bool) -> None:
        """End a look; one that did not see everything forgets nothing."""
        if not complete and len(self._known) + len(self._kept) <= self._limit:
            self._known.update(self._kept)
        else:
            self._known = self._kept

    def header(self, path: str, status: os.stat_result) -> Header:
        """Return the header of a regular file or block device.

        Raises ``ImageError`` if it cannot be understood after ``TRIES``, and
        ``OSError``.
        """
        key = key_of(status)
        entry = self._kept.get(key) or self._known.get(key)
        if entry is not None and entry.settled:
            self._keep(key, entry)
            return entry.header
        started_s = self._monotonic()
        header, read_key = self._read(path)
        if read_key is None or stat.S_ISBLK(status.st_mode):
            # Writing to a device changes none of its times.
            return header
        if entry is None or read_key != key:
            self._keep(read_key, _Entry(header, self._monotonic(), settled=False))
            return header
        settled = started_s - entry.first_seen_s >= SETTLED_S
        self._keep(key, _Entry(header, entry.first_seen_s, settled))
        return header

    def _keep(self, key: Key, entry: _Entry) -> None:
        """Remember an entry for the next look."""
        if len(self._kept) < self._limit:
            self._kept[key] = entry

    def _read(self, path: str) -> tuple[Header, Key | None]:
        """Read a header, again if it cannot be understood or changed meanwhile.

        A running guest changes its disk all the time: the same header twice in
        a row is as good as a file that kept still, but is not remembered.
        """
        previous: Header | None = None
        problem = ImageError("the image's header keeps changing")
        for _ in range(TRIES):
            try:
                header, before, after = _read_once(path)
            except ImageError as error:
                problem = error
                self._pause(PAUSE_S)
                continue
            if before == after:
                return header, after
            if header == previous:
                return header, None
            previous = header
        raise problem


def _read_once(path: str) -> tuple[Header, Key, Key]:
    """Read a header, with what the file looked like before and after.

    The path's last part was seen not to be a link, and to be a file that does
    not block; both are made sure of, for it may have been replaced.
    """
    try:
        fd = os.open(path, _OPEN)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
            raise ImageError("the file was replaced while it was read") from error
        raise
    try:
        before = os.fstat(fd)
        if not (stat.S_ISREG(before.st_mode) or stat.S_ISBLK(before.st_mode)):
            raise ImageError("the file was replaced while it was read")
        header = read_header(fd)
        return header, key_of(before), key_of(os.fstat(fd))
    finally:
        os.close(fd)
