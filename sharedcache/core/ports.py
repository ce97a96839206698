"""Ports: what the services ask of the world, one call one effect.

The services hold no other way to reach anything, so that a scheduler can
stand between any two effects of the shipped code.  Real adapters and the
in-memory ones pass the same contract suites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from sharedcache.core.model import FileFacts, FileTable, Uses
from sharedcache.core.referrers import Referrers


class StorageError(Exception):
    """The storage refused or failed; the effect is known not to have happened.

    ``errno`` is the operating system's number, 0 where there is none.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class NameMissingError(StorageError):
    """The name is not there (ENOENT)."""


class NameExistsError(StorageError):
    """The name is there already (EEXIST); nothing was replaced."""


class FencedError(StorageError):
    """The epoch's directory is sealed or gone (ENOTDIR, ESTALE): stand down."""


class NotEmptyStorageError(StorageError):
    """A directory still has entries (ENOTEMPTY)."""


class OutcomeUnknownError(Exception):
    """The effect may or may not have happened: look again, never assume."""


class CoordinationError(Exception):
    """ZooKeeper refused or failed; the effect is known not to have happened."""


class DisconnectedError(CoordinationError):
    """There is no usable session now; nothing fenced may be done."""


class SessionChangedError(DisconnectedError):
    """The session that the caller relies on is no more."""


class ConflictError(CoordinationError):
    """A transaction's condition did not hold.

    ``index`` is the position of the first operation that failed, ``why`` one
    of ``version``, ``missing``, ``exists``, ``not-empty``.
    """

    def __init__(self, index: int, why: str, path: str) -> None:
        super().__init__(f"operation {index} on {path}: {why}")
        self.index = index
        self.why = why
        self.path = path


class MemberExistsError(CoordinationError):
    """Another session's registration bears this node's name still."""


class SourceError(Exception):
    """A source of use could not answer; the report becomes degraded."""


@dataclass(frozen=True, slots=True)
class Record:
    """One node of ZooKeeper.  ``owner`` is the ephemeral owner, 0 for none."""

    data: bytes
    version: int
    owner: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """Require a data version, or with ``version`` ``None`` that the path exists."""

    path: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Create:
    """Create a node; fails if it exists."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Set:
    """Replace a node's data; ``version`` ``None`` writes unconditionally."""

    path: str
    data: bytes
    version: int | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a node; ``version`` ``None`` deletes unconditionally."""

    path: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Append:
    """Create a node whose name the servers complete with a number.

    The number has ten digits, begins at 0 below each parent, and rises by one
    with every child that is created there, by whomsoever; no number is given
    twice, and a transaction that failed uses none up.  Two that append to one
    parent never conflict; the only condition is that the parent exists.
    """

    path: str
    data: bytes


Operation = Check | Create | Set | Delete | Append


@dataclass(frozen=True, slots=True)
class Candidacy:
    """A won election: the election's node, owned by this very session.

    ``path`` is relative to the cluster's root like all paths, so that a
    transaction can check it.
    """

    path: str
    session: int


@dataclass(frozen=True, slots=True)
class UndecodableMember:
    """A member whose capabilities could not be decoded."""

    why: str


class Coordination(Protocol):
    """One ZooKeeper session and the tree of one cluster.

    Paths are relative to the cluster's root (``round``, ``roster/compute-1``).
    Every call fails fast with ``DisconnectedError`` while the connection is
    suspended, and never crosses the end of a session.

    Every call but ``commit`` may be repeated safely: if its answer is lost it
    raises ``DisconnectedError``, and whether it took effect shows when it is
    repeated.  What is too large for ZooKeeper (1,000,000 bytes in one request) is
    refused with ``CoordinationError`` before it is sent.
    """

    def session_id(self) -> int:
        """Return the id of the live session, or raise ``DisconnectedError``."""

    def sync(self) -> None:
        """Make this session's later reads see all that was written before."""

    def get(self, path: str) -> Record | None:
        """Read one node; ``None`` if there is none."""

    def get_many(self, paths: Sequence[str]) -> list[Record | None]:
        """Read many nodes, all requests sent together, in the order given."""

    def children(self, path: str) -> list[str]:
        """List children's names, sorted; empty if the node does not exist."""

    def commit(self, operations: Sequence[Operation]) -> None:
        """Apply all operations or none.

        Raises ``ConflictError`` if a condition failed (nothing was applied),
        ``OutcomeUnknownError`` if the answer was lost.
        """

    def ensure(self, path: str) -> None:
        """Create a node without data, and its parents, unless it exists."""

    def watch(self, path: str) -> int:
        """Count the changes of a node's data seen so far, through a watch.

        The first call sets the watch.  A lost session counts as a change.
        Cheap: later calls ask nothing of the server.
        """

    def join(self, capabilities: Mapping[str, object]) -> None:
        """Register as a member of the group ``nodes``, with this report at once.

        Raises ``MemberExistsError`` while another session's registration of
        the same name lives.
        """

    def joined(self) -> bool:
        """Whether this session's own registration is there (asks the server)."""

    def update_capabilities(self, capabilities: Mapping[str, object]) -> None:
        """Replace the member's report.

        Raises ``SessionChangedError`` if this session has no registration.
        """

    def leave(self) -> None:
        """Take this session's own registration back; harmless if there is none."""

    @property
    def member_path(self) -> str:
        """Path of this node's own registration, for transactions to check."""

    def members(self) -> dict[str, Mapping[str, object] | UndecodableMember]:
        """Read every member's report, all requests sent together."""

    def campaign(self) -> Candidacy | None:
        """Try once to win the election of the cleaners; ``None`` if another leads.

        The node of the election is read back and its owner compared.  ``None``
        also while this session cannot prove yet that its lease would be good.
        """

    def lease_sent(self, candidacy: Candidacy) -> float | None:
        """When the last renewal that was confirmed had been *sent*.

        On the boot-time clock, in seconds; ``None`` if the candidacy is lost.  A
        time from which the servers surely count the session's timeout: it may be
        older than the last renewal, by about three eighths of that timeout.  While
        the connection is suspended it stands still.
        """

    def session_timeout_s(self) -> float:
        """Return the timeout that the servers granted, in seconds."""

    def leader(self) -> str | None:
        """Name of the member that leads now, as the servers tell it."""

    def resign(self) -> None:
        """Stand down from the election; harmless when not elected.

        Raises nothing: what cannot be taken back now is taken back later.
        """


class Storage(Protocol):
    """The shared directory, through directory descriptors, following no link.

    A name with a separator is refused.  Every call may raise ``StorageError``
    or ``OutcomeUnknownError``.
    """

    def read_marker(self) -> bytes | None:
        """Read ``.sharedcache/cluster``; ``None`` if there is none."""

    def create_marker(self, data: bytes) -> None:
        """Create the skeleton and the marker, durably and exclusively."""

    def read_schema(self) -> bytes | None:
        """Read ``.sharedcache/schema``; ``None`` if there is none."""

    def write_schema(self, data: bytes) -> None:
        """Replace ``.sharedcache/schema`` atomically and durably."""

    def witness_write(self, node: str, data: bytes) -> FileFacts:
        """Write a node's witness in place, durably; return its facts."""

    def witness_touch(self, node: str) -> FileFacts:
        """Set the witness's times to the storage's own clock; return its facts."""

    def witness_read(self, node: str) -> tuple[bytes, FileFacts] | None:
        """Open a witness by name and read it; ``None`` if there is none."""

    def witness_list(self) -> list[str]:
        """List the nodes that have a witness, sorted."""

    def scan(self) -> FileTable:
        """List ``_base`` itself with every entry's facts, following no link."""

    def facts(self, name: str) -> FileFacts | None:
        """Open a cache name and look at it; ``None`` if it is not there."""

    def touch(self, name: str) -> None:
        """Set a cache file's times to the storage's own clock."""

    def space(self) -> tuple[int, int]:
        """Return the file system's size and what is free of it, in bytes."""

    def name_cache_s(self) -> float:
        """How long this mount may keep names cached, in seconds (0: local)."""

    def local_locks(self) -> str:
        """Name what keeps locks on this host, a mount's option; empty if nothing."""

    def digest_list(self) -> dict[tuple[str, int], int]:
        """List the digest records by name and inode, with their times (nanoseconds).

        A record's time is when its file was last found to be as recorded.
        """

    def digest_drop(self, name: str, inode: int) -> None:
        """Remove the digest record of a file that goes; harmless if there is none."""

    def epochs(self) -> dict[int, bool]:
        """List the epochs; the value tells whether one is sealed."""

    def epoch_make(self, epoch: int) -> None:
        """Make an epoch's directory; ``NameExistsError`` if the name exists."""

    def epoch_time(self, epoch: int) -> int:
        """Touch an epoch's directory; return the storage's time (nanoseconds)."""

    def epoch_list(self, epoch: int) -> list[str]:
        """List the quarantined files of an epoch, sorted."""

    def epoch_move(self, epoch: int, leaf: str, to: int, new_leaf: str) -> None:
        """Rename a quarantined file into another epoch's directory."""

    def epoch_remove(self, epoch: int) -> None:
        """Remove an epoch's empty directory."""

    def epoch_seal(self, epoch: int) -> None:
        """Create the regular file that seals an epoch, exclusively and durably."""

    def quarantine(self, name: str, epoch: int, leaf: str) -> None:
        """Rename a cache file into an epoch's directory; never a copy."""

    def quarantined_facts(
        self, epoch: int, leaf: str, *, writable: bool = False
    ) -> FileFacts | None:
        """Open a quarantined file and look at it; ``None`` if it is not there.

        ``writable`` opens it for writing, so that no cache of the client
        answers; nothing is written.
        """

    def locked(self, name: str) -> bool:
        """Whether any qemu holds a lock on a cache file (read-only descriptor)."""

    def quarantined_locked(self, epoch: int, leaf: str) -> bool:
        """Whether any qemu holds a lock on a quarantined file (read-write)."""

    def restore(self, epoch: int, leaf: str, name: str) -> None:
        """Link a quarantined file to its cache name; never replaces."""

    def purge(self, epoch: int, leaf: str) -> None:
        """Unlink a quarantined file for good."""


class NameLocks(Protocol):
    """Nova's own lock for a cache name, held by a helper that can be ended.

    ``last_error`` tells why the last ``take`` failed, and is empty if the lock
    was merely busy.
    """

    last_error: str

    def take(self, name: str, wait_s: float, hold_s: float) -> bool:
        """Take the lock; ``False`` if others hold it for longer than ``wait_s``.

        One lock at a time.  The helper lets it go after ``hold_s`` seconds,
        whatever becomes of this process.
        """

    def release(self) -> bool:
        """Let the lock go; ``False`` if it was lost before (``hold_s`` passed)."""


class Clock(Protocol):
    """Time of this host, and waiting."""

    def boottime(self) -> float:
        """Seconds on CLOCK_BOOTTIME, which runs on while the host is suspended."""

    def wall(self) -> float:
        """Seconds since 1970, for people to read; no rule relies on it."""

    def wait(self, seconds: float) -> None:
        """Wait, at most this long; returns early when something happened."""


class Tokens(Protocol):
    """Randomness."""

    def token(self) -> str:
        """Return 16 hexadecimal digits that were never returned before."""


class Source(Protocol):
    """One way to learn what a node uses."""

    name: str

    def look(self) -> Uses:
        """Return every use that this source sees now, or raise ``SourceError``."""


@dataclass(frozen=True, slots=True)
class Between:
    """What a source saw between two looks.

    ``unbroken`` is ``False`` if anything may have been missed: the looks
    before and after then prove nothing of the time between them.  ``referrers``
    are for people to read.
    """

    uses: Uses
    unbroken: bool
    referrers: Referrers | None = field(default=None, compare=False)


@runtime_checkable
class EventSource(Source, Protocol):
    """A source that is also told what begins and ends between looks.

    A source without ``between`` is one that only scans.
    """

    def between(self) -> Between:
        """Return what was seen since the last call; called right after ``look``.

        What the hypervisor told before that look ended is in the answer.
        Raises nothing: doubt is ``unbroken=False``.
        """


@runtime_checkable
class TellingSource(Source, Protocol):
    """A source that can also tell what refers to the names it gives.

    People read it (``explain``); no rule does.  A source without ``referrers``
    is shown by its name.
    """

    def referrers(self) -> Referrers:
        """Return what the last look met; called right after ``look``."""


class Host(Protocol):
    """What the agent must know of its host: its boot, its mounts, its end."""

    def boot_id(self) -> str:
        """Return the kernel's boot id."""

    def seen_otherwise(self, marker: bytes) -> tuple[str, ...]:
        """Name the hypervisor's processes that see another directory at the base.

        ``marker`` is the cluster's marker as this process reads it; a process
        that cannot be looked into is not named.
        """

    def stopping(self) -> bool:
        """Whether the host itself is being stopped."""

    def compute_stopped(self) -> bool:
        """Whether the compute service was seen stopped; doubt is ``False``."""

    def guests_gone(self) -> bool:
        """Whether no guest runs on this host; doubt is ``False``."""


class Journal(Protocol):
    """Where a service tells its story, a line at a time."""

    def event(self, name: str, /, **fields: object) -> None:
        """Tell one thing that happened."""
