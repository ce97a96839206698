"""What a pass saw, and what it would do: the values between planner and checker."""

from __future__ import annotations

import enum
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sharedcache.core.damage import Damage
from sharedcache.core.gate import Gate, GateFacts
from sharedcache.core.model import (
    FileTable,
    ManifestBatch,
    ManifestEntry,
    Unreadable,
)


class Verdict(enum.IntEnum):
    """What becomes of a file; the number is the code in a column."""

    KEEP = 0
    QUARANTINE = 1
    PURGE = 2

    @property
    def label(self) -> str:
        """The verdict's word in tables and JSON."""
        return self.name.lower()


class Why(enum.IntEnum):
    """The one reason of a verdict; the number is the code in a column."""

    UNRECOGNISED = 0
    NOT_REGULAR = 1
    GATE_CLOSED = 2
    HELD = 3
    USED = 4
    LINKED = 5
    OUTCOME_OPEN = 6
    TOO_YOUNG = 7
    REPORT_OLDER = 8
    BRAKE = 9
    UNUSED = 10
    WAITING = 11
    CONFIRMED = 12
    DAMAGED = 13
    """Unused and found damaged: taken without regard to its age."""

    @property
    def label(self) -> str:
        """The reason's word in tables and JSON."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the leader remembers of one node's uses, from its last calm pass.

    ``count`` is how many cache names the node used; ``keys`` stand for those
    that are remembered with this node, each name with one of its users.  While
    the node's report is shrunken, ``shrunk_ns`` is the storage's time at which
    that was first seen, and ``least`` how few names it used then.
    """

    count: int
    keys: frozenset[bytes]
    shrunk_ns: int | None = None
    least: int = 0


@dataclass(frozen=True, slots=True)
class Shrink:
    """A node whose report shrank suddenly: names used before, and now.

    ``lost`` are the keys of names that it used and that nobody uses now;
    ``since_ns`` is the storage's time at which the shrink was first seen.
    """

    node: str
    was: int
    now: int
    lost: frozenset[bytes]
    since_ns: int


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that one pass looks at, taken at one time.

    ``storage_now_ns`` is a time that the storage itself gave, no later than
    now, and was taken before the witnesses were opened.  ``approved`` is the
    digest of a plan that an operator approved.  ``name_cache_s`` is how long
    the observer's own mount may keep names cached, in seconds: it opened the
    witnesses through that cache.  ``space`` is the file system's size and what
    is free of it, in bytes, ``None`` if that could not be told.
    ``remembered`` is what leaders remember of the nodes' uses, by node.
    ``begun`` are the files of an approved plan that this leader has begun to
    carry out and whose approval stands: what is left of it is approved too.
    ``damaged`` are the orders of files that were found damaged, by name.
    """

    facts: GateFacts
    files: FileTable
    storage_now_ns: int
    round: int
    manifest: Sequence[ManifestBatch]
    holds: frozenset[str] = frozenset()
    approved: str | None = None
    name_cache_s: float = 0.0
    space: tuple[int, int] | None = None
    remembered: Mapping[str, Remembered] | Unreadable = field(default_factory=dict)
    begun: frozenset[str] = frozenset()
    damaged: Mapping[str, Damage] = field(default_factory=dict)

    @property
    def entries(self) -> Iterator[ManifestEntry]:
        """Every entry of the manifest."""
        for batch in self.manifest:
            yield from batch.entries


@dataclass(frozen=True, slots=True)
class Taking:
    """A file to quarantine, as the observation saw it."""

    name: str
    inode: int
    mtime_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Purging:
    """A confirmed entry to unlink, and the record of the manifest it is in."""

    batch: str
    entry: ManifestEntry


@dataclass(frozen=True, slots=True)
class Renewing:
    """An entry to give a new leaf: the file stays in quarantine."""

    batch: str
    entry: ManifestEntry


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pass would do; immutable, used once.

    ``verdicts`` and ``whys`` are columns beside the observation's files.
    ``waiting`` tells for each entry, by its id, what it waits for.
    ``fresh_reports`` asks for a new round, because files wait only for
    reports that are younger than they are.  ``take`` and ``purge`` begin with
    what was used least recently.  ``shrunk`` are the nodes whose reports brake
    this plan.  ``low_on_space`` tells that free space is below the mark.
    """

    gate: Gate
    digest: str
    verdicts: array[int]
    whys: array[int]
    take: tuple[Taking, ...]
    purge: tuple[Purging, ...]
    renew: tuple[Renewing, ...]
    waiting: dict[str, tuple[str, ...]]
    fresh_reports: bool
    shrunk: tuple[Shrink, ...] = ()
    low_on_space: bool = False
