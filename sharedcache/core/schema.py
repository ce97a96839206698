"""The table of schema versions: what each means, and what it asks of whom.

A new schema version is a row here, not a rewrite: gate, rollout, planner, agent,
writers and command line ask the table, and compare no numbers of their own.

A node that supports a version supports all below it.  What a version changes
comes in three stages: first every node can read the new form (``reads``), then,
once the version is finalized, writers write it (``naming``), and files are
removed (``cleaning``) only when every node says that it does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sharedcache.core.model import KernelNaming


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One row.

    ``reads`` are the kernel namings by which a node that supports the version
    recognises, and reports, every kernel and ramdisk that it uses; ``naming`` is
    the one that writers write once the version is finalized; ``cleaning`` tells
    whether files may be removed then.
    """

    version: int
    meaning: str
    reads: frozenset[KernelNaming]
    naming: KernelNaming
    cleaning: bool


class Writing(enum.Enum):
    """How what a node writes stands to the finalized schema."""

    DUE = "due"
    """It writes what the finalized schema asks for."""
    EARLY = "early"
    """It writes already what only a later schema asks for."""
    OLD = "old"
    """It writes what the finalized schema does not ask for any more."""
    UNKNOWN = "unknown"
    """What it writes cannot be told."""


class SchemaTableError(ValueError):
    """A table that would let a node meet what it cannot read."""


@dataclass(frozen=True, slots=True)
class SchemaTable:
    """All versions that a release knows, from 1 upwards without a gap."""

    rows: tuple[SchemaVersion, ...]

    def __post_init__(self) -> None:
        """Hold that readers come first: see ``SchemaTableError``."""
        numbers = [row.version for row in self.rows]
        if not numbers or numbers != list(range(1, len(numbers) + 1)):
            raise SchemaTableError(f"versions count up from 1, not {numbers}")
        for before, row in zip((self.rows[0], *self.rows), self.rows, strict=False):
            if not row.reads >= before.reads | {row.naming}:
                raise SchemaTableError(
                    f"version {row.version} must read what it writes, and all that "
                    f"version {before.version} reads"
                )
            if before.cleaning and not row.cleaning:
                raise SchemaTableError(f"version {row.version} would end all cleaning")

    @property
    def newest(self) -> int:
        """The newest version that this release knows."""
        return self.rows[-1].version

    def row(self, version: int) -> SchemaVersion | None:
        """Return a version's row, ``None`` for one that this release does not know."""
        return self.rows[version - 1] if 1 <= version <= len(self.rows) else None

    def may_clean(self, finalized: int) -> bool:
        """Whether files may be removed at all at this finalized version."""
        row = self.row(finalized)
        return row is not None and row.cleaning

    def cleaning_from(self, finalized: int) -> SchemaVersion:
        """Return the row by which files are removed: the finalized one, or the next.

        For a version that does not clean it is the next one that does: its demands
        are what the gate waits for.  The newest row stands for an unknown version.
        """
        if finalized > self.newest:
            return self.rows[-1]
        later = self.rows[max(1, finalized) - 1 :]
        return next((row for row in later if row.cleaning), self.rows[-1])

    def namings(self, finalized: int) -> tuple[KernelNaming, ...]:
        """Return the namings that a writer looks for; it writes the first one.

        None for a version that this release does not know: it must not write.
        """
        row = self.row(finalized)
        if row is None:
            return ()
        every = [one.naming for one in reversed(self.rows)]
        return tuple(dict.fromkeys((row.naming, *every)))

    def writing(self, finalized: int, naming: KernelNaming) -> Writing:
        """Tell whether a node writes what is due at the finalized version."""
        row = self.row(finalized)
        if row is None or naming is KernelNaming.UNKNOWN:
            return Writing.UNKNOWN
        if naming is row.naming:
            return Writing.DUE
        later = {one.naming for one in self.rows[row.version :]}
        return Writing.EARLY if naming in later else Writing.OLD

    def refusal(self, finalized: int, version: int, naming: KernelNaming) -> str | None:
        """Say why an agent may not start under the finalized version, and the way on.

        ``version`` and ``naming`` are what it was told to be.  ``None`` if it may.
        One that is told to be at an older schema stands for a node of the old
        release, which would ask nobody: it joins, closes the gate, and is named.
        """
        if finalized > self.newest:
            return (
                f"schema {finalized} is finalized, and this release knows schemas up "
                f"to {self.newest}: upgrade sharedcache on this host"
            )
        if version < finalized:
            return None
        if self.writing(finalized, naming) is Writing.OLD:
            due = self.rows[finalized - 1].naming.value
            return (
                f"schema {finalized} is finalized for good, so kernels are stored "
                f"under their {due} names, and this agent was told to write "
                f"{naming.value} ones: set [agent] kernel_naming to auto or {due}"
            )
        return None


SCHEMAS = SchemaTable(
    (
        SchemaVersion(
            1,
            "kernels and ramdisks are stored under their raw image id",
            reads=frozenset({KernelNaming.RAW_ID}),
            naming=KernelNaming.RAW_ID,
            cleaning=False,
        ),
        SchemaVersion(
            2,
            "kernels and ramdisks are stored under sha1(image id)",
            reads=frozenset({KernelNaming.RAW_ID, KernelNaming.SHA1}),
            naming=KernelNaming.SHA1,
            cleaning=True,
        ),
    )
)
"""The versions that this release knows."""
