"""Records of digests, one file each: ``.sharedcache/digests/<name>.<inode>``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sharedcache.adapters.storage.control import (
    make_directory,
    read_file,
    written_apart,
)
from sharedcache.adapters.storage.descriptors import (
    CONTROL,
    DIRECTORY,
    FILE,
    Descriptors,
    Look,
    bounded_ns,
    cache_entry,
    open_directory,
    opened,
    shown,
)
from sharedcache.adapters.storage.errors import changing, reading, settle
from sharedcache.core.digests import parse_record_name, record_name
from sharedcache.core.ports import NameMissingError

_DIGESTS = "digests"


class DigestFiles(Descriptors):
    """What is recorded of files' content.  No rule that keeps a file reads it.

    A record's modification time is the storage's time at which its file was found
    to be as recorded: at publication, and each time it was verified since; 1970 if
    it was found damaged, so that every later look begins with it.
    """

    def digest_write(
        self, name: str, inode: int, data: bytes, *, whole: bool = True
    ) -> None:
        """Write the record of one file, atomically and durably.

        ``whole`` tells whether the file is as recorded, as far as is known.
        """
        record = record_name(cache_entry(name), inode)
        what = f"write the digest record of {shown(name)}"
        with self._looking() as look:
            make_directory(look.control(), _DIGESTS)
            with _records(look) as records:
                with written_apart(records, record, data) as temporary, changing(what):
                    if not whole:
                        os.utime(temporary, (0, 0), dir_fd=records)
                    os.rename(temporary, record, src_dir_fd=records, dst_dir_fd=records)
                settle(what, records)

    def digest_read(self, name: str, inode: int) -> bytes | None:
        """Read the record of one file; ``None`` if there is none."""
        record = record_name(cache_entry(name), inode)

        def call(look: Look) -> bytes | None:
            try:
                with _records(look) as records:
                    found = read_file(records, record, f"{CONTROL}/{_DIGESTS}")
            except NameMissingError:
                return None
            return None if found is None else found[0]

        return self._read(call)

    def digest_touch(self, name: str, inode: int) -> None:
        """Note, by the storage's clock, that a file was found as recorded."""
        record = record_name(cache_entry(name), inode)
        what = f"touch the digest record of {shown(name)}"
        with (
            self._looking() as look,
            _records(look) as records,
            changing(what),
            opened(record, os.O_RDONLY | FILE, records) as descriptor,
        ):
            os.utime(descriptor)

    def digest_list(self) -> dict[tuple[str, int], int]:
        """List the records by name and inode, with their times in nanoseconds.

        Costs one stat a record; what is none is left out.
        """

        def call(look: Look) -> dict[tuple[str, int], int]:
            try:
                with _records(look) as records, reading("list the digest records"):
                    return _listed(records)
            except NameMissingError:
                return {}

        return self._read(call)

    def digest_time(self) -> int:
        """Touch the records' directory; return the storage's time (nanoseconds)."""
        with self._looking() as look:
            make_directory(look.control(), _DIGESTS)
            with _records(look) as records, changing("ask the storage for its time"):
                os.utime(records)
                return bounded_ns(os.fstat(records).st_mtime_ns)

    def digest_drop(self, name: str, inode: int) -> None:
        """Remove the record of a file that goes; harmless if there is none."""
        record = record_name(cache_entry(name), inode)
        with (
            suppress(NameMissingError),
            self._looking() as look,
            _records(look) as records,
            changing(f"remove the digest record of {shown(name)}"),
        ):
            os.unlink(record, dir_fd=records)


@contextmanager
def _records(look: Look) -> Iterator[int]:
    """Open the records' directory; ``NameMissingError`` if there is none yet."""
    records = open_directory(_DIGESTS, look.control())
    try:
        yield records
    finally:
        os.close(records)


def _listed(records: int) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    with (
        opened(".", DIRECTORY, records) as descriptor,
        os.scandir(descriptor) as entries,
    ):
        for entry in entries:
            about = parse_record_name(entry.name)
            if about is None:
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                found[about] = bounded_ns(status.st_mtime_ns)
    return found
