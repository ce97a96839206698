"""The table of schema versions: what each means and what it requires.

A new schema version is a row here, not a rewrite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sharedcache.core.model import NEWEST_SCHEMA, KernelNaming


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One schema version.

    ``naming`` is how writers name kernels once it is finalized;
    ``cleaning`` whether files may be removed once it is finalized.
    """

    version: int
    naming: KernelNaming
    cleaning: bool
    meaning: str


SCHEMAS: Mapping[int, SchemaVersion] = {
    1: SchemaVersion(
        1,
        KernelNaming.RAW_ID,
        cleaning=False,
        meaning="kernels and ramdisks are stored under their raw image id",
    ),
    2: SchemaVersion(
        2,
        KernelNaming.SHA1,
        cleaning=True,
        meaning="kernels and ramdisks are stored under sha1(image id)",
    ),
}


def is_known(version: int) -> bool:
    """Whether this release knows the schema version."""
    return version in SCHEMAS


def may_clean(finalized: int) -> bool:
    """Whether cleaning is allowed at all at this finalized schema."""
    return finalized in SCHEMAS and SCHEMAS[finalized].cleaning


def newest() -> int:
    """Return the newest schema version that this release knows."""
    return NEWEST_SCHEMA
