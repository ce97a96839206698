"""Immutable values that the core reasons about.  Times and ids enter as data."""

from __future__ import annotations

import enum
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sharedcache.core import names

NANOSECONDS = 1_000_000_000


class KernelNaming(enum.Enum):
    """How a node names kernels and ramdisks that it writes."""

    RAW_ID = "raw-id"
    SHA1 = "sha1"
    UNKNOWN = "unknown"


class NodeState(enum.Enum):
    """Where a rostered node stands (glossary of the design)."""

    LIVE = "live"
    SEALED = "sealed"
    MISSING = "missing"
    DEGRADED = "degraded"
    EXPUNGED = "expunged"


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One run of an agent on one boot of its host."""

    boot_id: str
    start: int

    def __str__(self) -> str:
        """Return the form that tables show."""
        return f"{self.boot_id[:8]}/{self.start}"


@dataclass(frozen=True, slots=True)
class Uses:
    """Cache names that a node uses.

    ``images``, ``kernels`` and ``ramdisks`` are 20-byte digests of image ids;
    ``families`` are the digests whose resized copies count as used too,
    because the source knew only the image's id; ``names`` are cache names
    that are not the hexadecimal form of a digest.
    """

    images: frozenset[bytes] = frozenset()
    kernels: frozenset[bytes] = frozenset()
    ramdisks: frozenset[bytes] = frozenset()
    families: frozenset[bytes] = frozenset()
    names: frozenset[str] = frozenset()

    def __or__(self, other: Uses) -> Uses:
        """Return everything that either uses."""
        if self == other:
            return self
        return Uses(
            self.images | other.images,
            self.kernels | other.kernels,
            self.ramdisks | other.ramdisks,
            self.families | other.families,
            self.names | other.names,
        )

    def __sub__(self, other: Uses) -> Uses:
        """Return what this uses and the other does not."""
        return Uses(
            self.images - other.images,
            self.kernels - other.kernels,
            self.ramdisks - other.ramdisks,
            self.families - other.families,
            self.names - other.names,
        )

    def under_both_names(self) -> Uses:
        """Add the new name of every kernel and ramdisk that is used by its raw id.

        Most sources read names, from paths, and know no image ids: whether a raw
        id is a kernel's or a ramdisk's does not show, nor does it matter.
        """
        raw = [hashed for name in self.names if (hashed := names.hashed_name(name))]
        digests = frozenset(map(bytes.fromhex, raw))
        if digests <= self.kernels | self.ramdisks:
            return self
        return replace(self, kernels=self.kernels | digests)

    def __len__(self) -> int:
        """Count the distinct cache names, resized copies of families apart."""
        return len(self.images | self.kernels | self.ramdisks) + len(self.names)

    def cache_names(self) -> Iterator[str]:
        """Every cache name that is used, resized copies of families apart."""
        for digest in self.images | self.kernels | self.ramdisks:
            yield digest.hex()
        yield from self.names

    @staticmethod
    def of_names(cache_names: Iterable[str]) -> Uses:
        """Build from exact cache names, as backing chains give them."""
        digests: set[bytes] = set()
        others: set[str] = set()
        for name in cache_names:
            if names.classify(name) is names.Kind.IMAGE:
                digests.add(bytes.fromhex(name))
            else:
                others.add(name)
        return Uses(images=frozenset(digests), names=frozenset(others))


@dataclass(frozen=True, slots=True)
class UseIndex:
    """The union of many nodes' uses, for looking names up."""

    exact: frozenset[str]
    families: frozenset[str]

    def covers(self, name: str) -> bool:
        """Whether any of the uses protects this cache name.

        A kernel that is used by its digest is used by its raw id too.
        """
        if name in self.exact or names.hashed_name(name) in self.exact:
            return True
        return bool(self.families) and names.family_of(name) in self.families

    @staticmethod
    def over(uses: Iterable[Uses]) -> UseIndex:
        """Build the union."""
        exact: set[str] = set()
        families: set[str] = set()
        for one in uses:
            exact.update(one.cache_names())
            families.update(digest.hex() for digest in one.families)
        return UseIndex(frozenset(exact), frozenset(families))


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """A source of use that did not answer, and why."""

    source: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says of itself.

    ``upto`` is the round that was read before the looks, ``since_round`` the
    round that was read again, after the looks, when this report's window
    began; ``since`` holds everything used in that window that ``now`` does
    not hold.  ``sees`` are the quarantined entries whose inode still bears its
    cache name here, ``saw`` those that any look of the window saw so.
    ``storage_time_ns`` is the storage's own clock at the start of
    the looks, in nanoseconds.  ``caveats`` are what people should know of this
    node's evidence; no rule reads them.
    """

    node: str
    incarnation: Incarnation
    schema_version: int
    kernel_naming: KernelNaming
    upto: int
    since_round: int
    unbroken: bool
    now: Uses
    since: Uses
    storage_time_ns: int
    name_cache_s: float
    sees: frozenset[str] = frozenset()
    saw: frozenset[str] = frozenset()
    intents: frozenset[str] = frozenset()
    failures: tuple[SourceFailure, ...] = ()
    lost: tuple[str, ...] = ()
    sealed: bool = False
    release: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every source answered."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class RosterRecord:
    """A node that is expected to report, with its last report.

    ``report`` is ``None`` for a node that an operator expects and that has
    not spoken yet.  ``expunged`` keeps the tombstone's time, ``None`` while
    the node counts.
    """

    node: str
    report: Report | None = None
    expunged_at: float | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that could not be read: it counts as a node that uses everything."""

    why: str
    newer: bool = False


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the storage says of one file.  Times in nanoseconds, size in bytes."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    links: int
    regular: bool


@dataclass(slots=True)
class FileTable:
    """The entries of ``_base`` as columns, one row a file."""

    names: list[str] = field(default_factory=list)
    kinds: array[int] = field(default_factory=lambda: array("B"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    mtimes_ns: array[int] = field(default_factory=lambda: array("q"))
    inodes: array[int] = field(default_factory=lambda: array("Q"))
    links: array[int] = field(default_factory=lambda: array("Q"))
    regular: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.names)

    def append(self, name: str, facts: FileFacts) -> None:
        """Add a row; its kind follows from the name."""
        self.names.append(name)
        self.kinds.append(names.classify(name))
        self.sizes.append(facts.size)
        self.mtimes_ns.append(facts.mtime_ns)
        self.inodes.append(facts.inode)
        self.links.append(facts.links)
        self.regular.append(facts.regular)


class EntryState(enum.Enum):
    """How far a manifest entry has come."""

    INTENDED = "intended"
    """Written before the rename; the file may still bear its cache name."""
    TAKEN = "taken"
    """Renamed, looked at after the rename, and assigned to a round."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a quarantined inode looked like when its round was assigned."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    links: int

    @staticmethod
    def of(facts: FileFacts) -> Baseline:
        """Take the facts that a purge compares."""
        return Baseline(
            facts.inode, facts.size, facts.mtime_ns, facts.ctime_ns, facts.links
        )


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file on its way to be purged.

    ``since_ns`` is the storage's time of the first quarantine, from which the
    grace counts; ``moved_ns`` the storage's time of the latest rename, from
    which the caches' lifetimes count; ``round`` 0 while only intended.
    ``restoring`` marks an operator's restore under way.  ``asked`` says that a
    link of this very leaf was asked for by somebody, and may land at any time:
    the entry is not purged before it bears another leaf.  ``extra`` holds what a
    later release has added, packed, to be carried along (``core/records.py``).
    """

    name: str
    entry: str
    epoch: int
    leaf: str
    state: EntryState
    round: int
    since_ns: int
    moved_ns: int
    size: int
    baseline: Baseline | None = None
    restoring: bool = False
    asked: bool = False
    extra: bytes = b""

    def __post_init__(self) -> None:
        """Hold that whoever restores has asked for a link, and may die of it."""
        if self.restoring and not self.asked:
            object.__setattr__(self, "asked", True)


@dataclass(frozen=True, slots=True)
class ManifestBatch:
    """A record of the manifest: entries that were taken together.

    ``extra`` holds what a later release has added, packed.
    """

    batch: str
    entries: tuple[ManifestEntry, ...]
    version: int = -1
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class Authorisation:
    """The one record that lets a named batch be unlinked.

    ``leaves`` maps each entry's id to its name below ``epochs/<epoch>``.
    An empty ``token`` means that nothing is authorised.
    """

    token: str = ""
    epoch: int = 0
    leaves: Mapping[str, str] = field(default_factory=dict)
    version: int = -1


@dataclass(frozen=True, slots=True)
class Cluster:
    """Identity that binds a directory to one tree of ZooKeeper."""

    name: str
    identity: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the cluster has committed to.

    ``extra`` holds what a later release has added, packed.
    """

    finalized_schema: int
    finalized_by: str = ""
    finalized_at: float = 0.0
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class Witness:
    """A node's file on the storage, as the leader reads it.

    ``incarnation`` is ``None`` when the file cannot be read.
    """

    node: str
    incarnation: Incarnation | None
    mtime_ns: int
