"""Explaining one name: every rule that keeps it, and what would have to change.

That explanation and plan agree on every file is a property that is tested.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sharedcache.core import names
from sharedcache.core.damage import Damage
from sharedcache.core.gate import NodeView
from sharedcache.core.model import ManifestEntry, Report, UseIndex, Uses
from sharedcache.core.names import Kind
from sharedcache.core.obstacles import (
    Court,
    Obstacle,
    Word,
    file_obstacles,
    own_links,
)
from sharedcache.core.obstacles_quarantine import entry_obstacles
from sharedcache.core.plan import Observation, Plan, Verdict, Why
from sharedcache.core.policy import CleanerPolicy


@dataclass(frozen=True, slots=True)
class FileStory:
    """A file in ``_base``.  Ages in nanoseconds on the storage's clock.

    ``own_links`` counts the names that its inode has in quarantine.  ``damage`` is
    what was found of this very file, used since or not.
    """

    row: int
    size: int
    mtime_ns: int
    age_ns: int
    min_age_ns: int | None
    links: int
    own_links: int
    regular: bool
    verdict: Verdict
    why: Why
    obstacles: tuple[Obstacle, ...]
    damage: Damage | None = None


@dataclass(frozen=True, slots=True)
class EntryStory:
    """A quarantined entry of this name."""

    batch: str
    entry: ManifestEntry
    verdict: Verdict
    obstacles: tuple[Obstacle, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that bears on one name."""

    name: str
    kind: Kind
    held: bool
    file: FileStory | None
    entries: tuple[EntryStory, ...]
    words: tuple[Word, ...]

    @property
    def known(self) -> bool:
        """Whether there is such a file, or such an entry."""
        return self.file is not None or bool(self.entries)


def explain(
    policy: CleanerPolicy, seen: Observation, plan: Plan, asked: str
) -> Explanation:
    """Explain a cache name, an entry's id, or a quarantined file's own name."""
    name = asked
    for entry in seen.entries:
        if asked in {entry.entry, entry.leaf}:
            name = entry.name
    entries = tuple(
        (batch.batch, entry)
        for batch in seen.manifest
        for entry in batch.entries
        if entry.name == name
    )
    words = tuple(_word(view, name, entries) for view in seen.facts.nodes)
    court = Court(policy, seen, plan, words)
    row = next((r for r, one in enumerate(seen.files.names) if one == name), None)
    purged = {purging.entry.entry for purging in plan.purge}
    return Explanation(
        name=name,
        kind=names.classify(name),
        held=name in seen.holds,
        file=None if row is None else _file(court, row),
        entries=tuple(
            EntryStory(
                batch,
                entry,
                Verdict.PURGE if entry.entry in purged else Verdict.KEEP,
                tuple(entry_obstacles(court, entry)),
            )
            for batch, entry in entries
        ),
        words=words,
    )


def _word(
    view: NodeView, name: str, entries: Iterable[tuple[str, ManifestEntry]]
) -> Word:
    report = view.report
    if not isinstance(report, Report):
        return Word(view)
    ids = {entry.entry for _, entry in entries}
    now, since = _covers(report.now, name), _covers(report.since, name)
    index = UseIndex.over((report.now, report.since))
    return Word(
        view,
        now=now,
        since=since,
        family=name not in index.exact and names.family_of(name) in index.families,
        sees=bool(ids & report.sees),
        saw=bool(ids & report.saw),
        intends=bool(ids & report.intents),
        lost=name in report.lost,
    )


def _covers(uses: Uses, name: str) -> bool:
    return UseIndex.over((uses,)).covers(name)


def _file(court: Court, row: int) -> FileStory:
    files, seen = court.seen.files, court.seen
    kind = Kind(files.kinds[row])
    recognised = kind is not Kind.UNRECOGNISED
    order = seen.damaged.get(files.names[row])
    return FileStory(
        row=row,
        size=files.sizes[row],
        mtime_ns=files.mtimes_ns[row],
        age_ns=seen.storage_now_ns - files.mtimes_ns[row],
        min_age_ns=court.policy.min_age_ns(kind) if recognised else None,
        links=files.links[row],
        own_links=own_links(seen, files.inodes[row]),
        regular=bool(files.regular[row]),
        verdict=Verdict(court.plan.verdicts[row]),
        why=Why(court.plan.whys[row]),
        obstacles=tuple(file_obstacles(court, row)),
        damage=order if order and order.inode == files.inodes[row] else None,
    )
