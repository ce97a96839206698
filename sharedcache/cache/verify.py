"""Verifying: cache files read again, against the digests that are recorded.

Nothing here takes a file away, or changes one; what is found damaged is marked in
its record, so that no writer hands it out, and told to the caller.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.adapters.storage import WriterDirectory
from sharedcache.cache.partial import CHUNK
from sharedcache.cache.records import Records
from sharedcache.core import names
from sharedcache.core.digests import DEFAULT_ALGORITHM, Digest, Published
from sharedcache.core.model import FileFacts, FileTable, Unreadable
from sharedcache.core.names import Kind
from sharedcache.core.ports import OutcomeUnknownError, StorageError
from sharedcache.core.rate import Flow

TRIES = 3
"""How often a file that changes under the reading is read before it is let be."""

LOOK_S = 10.0
"""How often it is seen that a file which is read still bears its name, in seconds.

One that was taken is let go long before it is purged: on NFS a file that is open
here would stay in its epoch's directory under another name.
"""

_LOCK_S = 5.0


class State(enum.StrEnum):
    """What is known of one file's content."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    RECORDED = "recorded"
    """Its first digest was recorded just now."""
    UNRECORDED = "unrecorded"
    """Nobody recorded a digest of it: an unmodified Nova fetched it, say."""
    CHANGING = "changing"
    """It was written to while it was read, or is being fetched."""
    GONE = "gone"
    UNREADABLE = "unreadable"
    """It could not be read, which says nothing of what it holds."""
    BAD_RECORD = "bad-record"
    """Its record cannot be read, which says nothing of the file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one file; ``why`` tells what is not as it should be.

    ``facts`` are the file's after it was read; ``found`` is empty where the size
    alone told.  ``read`` counts the bytes that were read, ``size`` those that there
    are.
    """

    name: str
    state: State
    why: str = ""
    facts: FileFacts | None = None
    record: Published | None = None
    found: str = ""
    read: int = 0
    size: int | None = None


def _unwatched(_name: str, _size: int) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Verifier:
    """Reads cache files at a bounded rate.

    ``record`` has a first digest recorded of files that have none; ``watch`` is
    told of the bytes that were read.
    """

    storage: WriterDirectory
    locks: NovaNameLocks
    rate_per_s: float = 0.0
    record: bool = False
    watch: Callable[[str, int], None] = _unwatched
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _flow: Flow = field(init=False)
    _records: Records = field(init=False)
    _read: int = 0

    def __post_init__(self) -> None:
        """Begin with nothing read."""
        self._flow = Flow(self.rate_per_s)
        self._records = Records(self.storage)

    def check(self, name: str) -> Finding:
        """Look at one file.  Raises nothing but what ``watch`` and ``sleep`` raise."""
        self._read = 0
        try:
            found = self._check(name)
        except (StorageError, OutcomeUnknownError) as error:
            found = Finding(name, State.UNREADABLE, str(error))
        size = found.size if found.facts is None else found.facts.size
        return replace(found, read=self._read, size=size)

    def _check(self, name: str) -> Finding:
        before = ""
        for _ in range(TRIES):
            descriptor = self.storage.open_cache(name)
            if descriptor is None:
                return Finding(name, State.GONE)
            try:
                found = self._look(name, descriptor, before)
            except OSError as error:
                # On NFS this is also how a file that was purged meanwhile ends.
                if self._bears(name, descriptor):
                    return Finding(
                        name, State.UNREADABLE, f"cannot be read: {error.strerror}"
                    )
                continue
            finally:
                os.close(descriptor)
            if found.state is not State.CHANGING:
                return found
            before = found.found
        return found if before else Finding(name, State.CHANGING, _CHANGING)

    def _look(self, name: str, descriptor: int, before: str) -> Finding:
        """Read an open file once; ``before`` is what the last reading found."""
        facts = self.storage.facts_open(name, descriptor)
        record = self._records.read(name, facts.inode)
        if isinstance(record, Published):
            return self._compare(record, descriptor, facts, before)
        if self.record and not (isinstance(record, Unreadable) and record.newer):
            return self._first(name, descriptor, facts, before)
        if record is None:
            return Finding(name, State.UNRECORDED, facts=facts)
        return Finding(name, State.BAD_RECORD, record.why, facts)

    def _compare(
        self, record: Published, descriptor: int, facts: FileFacts, before: str
    ) -> Finding:
        name, found = record.name, ""
        if record.size == facts.size:
            found = self._digest(name, descriptor, facts.size, record.digest.algorithm)
        after = self.storage.facts_open(name, descriptor)
        if not self._bears(name, descriptor):
            return Finding(name, State.CHANGING, "another file has its name now")
        if found == str(record.digest):
            self._note_whole(record)
            return Finding(name, State.WHOLE, "", after, record, found)
        if _unchanged(facts, after) or (found and found == before):
            # Read while nothing touched it; or touched, as files in use are, and
            # read twice with the same answer.
            return self._note_damaged(record, after, found)
        return Finding(name, State.CHANGING, _CHANGING, after, record, found)

    def _bears(self, name: str, descriptor: int) -> bool:
        with suppress(StorageError):
            return self.storage.bears(name, descriptor)
        return False

    def _digest(
        self, name: str, descriptor: int, size: int, algorithm: str = DEFAULT_ALGORITHM
    ) -> str:
        """Read a file to its end, no faster than the rate.

        One that has grown past its size is not read for as long as it grows.
        """
        counted = hashlib.new(algorithm, usedforsecurity=False)
        position, piece = 0, self._flow.piece(CHUNK)
        # What this host has in memory is not what the storage has.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        look_at = self.clock() + LOOK_S
        while position <= size:
            wait_s = self._flow.wait_s(self.clock())
            if wait_s > 0:
                self.sleep(wait_s)
            begun = self.clock()
            if begun >= look_at:
                look_at = begun + LOOK_S
                if not self._bears(name, descriptor):
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            data = os.pread(descriptor, piece, position)
            if not data:
                break
            self._flow = self._flow.after(len(data), begun)
            counted.update(data)
            # What guests have in memory is not to make room for this reading.
            os.posix_fadvise(descriptor, position, len(data), os.POSIX_FADV_DONTNEED)
            position += len(data)
            self._read += len(data)
            self.watch(name, len(data))
        return str(Digest(algorithm, counted.hexdigest()))

    def _first(
        self, name: str, descriptor: int, facts: FileFacts, before: str
    ) -> Finding:
        """Record a first digest, of a file that nobody is fetching."""
        found = self._digest(name, descriptor, facts.size)
        after = self.storage.facts_open(name, descriptor)
        changing = Finding(name, State.CHANGING, _CHANGING, after, found=found)
        if not _unchanged(facts, after) and found != before:
            return changing
        # Whoever fetches it holds this lock; nothing is read while we do.
        if not self.locks.take(names.lock_name(name), 0.0, _LOCK_S):
            why = self.locks.last_error or "its lock is held: it is being fetched"
            return replace(changing, why=why)
        try:
            now = self.storage.facts_open(name, descriptor)
            if not _unchanged(after, now) or not self._bears(name, descriptor):
                return changing
            digest = Digest.parse(found)
            record = Published(name, now.inode, now.size, digest, later=True)
            self._records.write(record)
        finally:
            self.locks.release()
        return Finding(name, State.RECORDED, "", now, record, found)

    def _note_whole(self, record: Published) -> None:
        """Note when it was verified.  Who may not write verifies all the same."""
        with suppress(StorageError, OutcomeUnknownError):
            if record.damage:
                self._records.write(replace(record, damage=""))
            else:
                self.storage.digest_touch(record.name, record.inode)

    def _note_damaged(self, record: Published, facts: FileFacts, found: str) -> Finding:
        why = f"{facts.size} bytes and not {record.size}"
        if found:
            why = f"{found} and not {record.digest}"
        if record.damage != why:
            with suppress(StorageError, OutcomeUnknownError):
                self._records.write(replace(record, damage=why))
        return Finding(record.name, State.DAMAGED, why, facts, record, found)


_CHANGING = "it was written to while it was read"


def _unchanged(before: FileFacts, after: FileFacts) -> bool:
    return (before.size, before.mtime_ns, before.ctime_ns) == (
        after.size,
        after.mtime_ns,
        after.ctime_ns,
    )


@dataclass(frozen=True, slots=True)
class Task:
    """One file to look at, as it was listed.

    ``verified_ns`` is when it was found as recorded last, on the storage's clock;
    ``None`` where no digest is recorded.
    """

    name: str
    size: int
    verified_ns: int | None


def tasks(
    files: FileTable,
    records: Mapping[tuple[str, int], int],
    *,
    before_ns: int | None = None,
    chosen: Collection[str] = (),
) -> list[Task]:
    """List what is to be verified, what was verified longest ago first.

    So a run that was cut short is gone on with by the next.  ``before_ns`` leaves
    out what was verified since then, on the storage's clock; ``chosen`` are names
    that are asked for, none for all.  Files under way are left out.
    """
    found: list[Task] = []
    for row, name in enumerate(files.names):
        kind = files.kinds[row]
        if kind in (Kind.UNRECOGNISED, Kind.PARTIAL) or not files.regular[row]:
            continue
        if chosen and name not in chosen:
            continue
        verified_ns = records.get((name, files.inodes[row]))
        recent = before_ns is not None and (verified_ns or 0) >= before_ns
        if recent and verified_ns is not None:
            continue
        found.append(Task(name, files.sizes[row], verified_ns))
    return sorted(found, key=lambda one: (one.verified_ns or 0, one.name))
