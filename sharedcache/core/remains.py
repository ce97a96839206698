"""What an observation still accounts for: which notes about files are about none.

Orders and digest records are about one file each, by name and inode.
"""

from __future__ import annotations

from collections.abc import Mapping

from sharedcache.core.plan import Observation

About = tuple[str, int]
"""A file, by cache name and inode."""


def spent(seen: Observation) -> frozenset[str]:
    """Name the orders whose file is gone for good, or is another one.

    One that lies in quarantine can be restored, so its order stands.  Only an
    observation with its files tells.
    """
    known, open_names = _known(seen)
    return frozenset(
        one.name
        for one in seen.damaged.values()
        if (one.name, one.inode) not in known and one.name not in open_names
    )


def orphans(
    seen: Observation, records: Mapping[About, int], least_ns: int
) -> list[About]:
    """Find the records, by name and inode, of files that are nowhere any more.

    ``records`` gives the time of each, in nanoseconds.  A writer records before it
    publishes; so one younger than ``least_ns`` is let be.
    """
    known, open_names = _known(seen)
    return sorted(
        about
        for about, time_ns in records.items()
        if about not in known
        and about[0] not in open_names
        and seen.storage_now_ns - time_ns > least_ns
    )


def _known(seen: Observation) -> tuple[set[About], set[str]]:
    """Return the files that are there or in quarantine, and names under way."""
    here = set(zip(seen.files.names, seen.files.inodes, strict=True))
    kept = {(e.name, e.baseline.inode) for e in seen.entries if e.baseline is not None}
    return here | kept, {e.name for e in seen.entries if e.baseline is None}
