"""The leader's side of the audit trail: what it tells, refuses, and drops.

What becomes of files is told by the transactions that write it to the
manifest (``entry_acts``), so a successor that finds out tells it in the same
way.  Lines of the log come first, since the deed is done by then: a line may
come twice, after a crash or a lost answer, but none is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sharedcache import audit
from sharedcache.cleaner.world import CleanerWorld, Leadership
from sharedcache.core.acts import (
    Act,
    By,
    Changes,
    Deed,
    Doer,
    Subject,
    rows,
    spread,
    subjects_of,
)
from sharedcache.core.model import ManifestEntry, Unreadable
from sharedcache.core.ports import (
    CoordinationError,
    Delete,
    Journal,
    Operation,
    OutcomeUnknownError,
    Set,
)

KEPT_ACTS = 10_000
"""How many acts stay in ZooKeeper; the log has them all."""

TEND_S = 60.0
"""How often the trail is looked at by the leader, in seconds."""

TEND_ACTS = 1_000
"""The leader looks at it sooner after this many acts of its own."""

REPEAT_S = 3600.0
"""A refusal that says the same is told once in this time, in seconds."""

MAX_REFUSALS = 20
"""Most refusals that a leadership writes in ``REPEAT_S``."""

_VANISHED = "not there, though no unlink of it was authorised"

_DROPS = 500
"""Most acts that one transaction drops."""


@dataclass(frozen=True, slots=True)
class Because:
    """Why entries change: the rules, and the plan and round of the pass.

    ``purged`` is the rule by which entries in ``authorised`` left for good.
    ``damaged`` are the files, by name and inode, that were found damaged.
    """

    quarantined: str = "unused"
    purged: str = ""
    authorised: frozenset[str] = frozenset()
    plan: str | None = None
    round: int | None = None
    damaged: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def why_taken(self, entry: ManifestEntry) -> str:
        """Return the rule by which one entry was quarantined."""
        if entry.baseline is None:
            return self.quarantined
        found = self.damaged.get((entry.name, entry.baseline.inode))
        return self.quarantined if found is None else f"damaged and unused: {found}"


def doer(world: CleanerWorld, epoch: int) -> Doer:
    """Name a cleaner in its epoch as an act's doer."""
    return Doer(By.CLEANER, world.name, epoch)


def entry_acts(leadership: Leadership, what: Changes, because: Because) -> list[Act]:
    """Return the acts that a change of the manifest's entries stands for."""
    blank = Act(
        Deed.QUARANTINED,
        doer(leadership.world, leadership.epoch),
        leadership.world.clock.wall(),
        plan=because.plan,
        round=because.round,
    )
    taken: dict[str, list[ManifestEntry]] = {}
    for entry in what.quarantined:
        taken.setdefault(because.why_taken(entry), []).append(entry)
    told: list[tuple[Deed, str, Sequence[ManifestEntry]]] = [
        *((Deed.QUARANTINED, why, entries) for why, entries in taken.items()),
        (Deed.PURGED, because.purged, what.purged),
        (Deed.VANISHED, _VANISHED, what.vanished),
    ]
    return [
        replace(
            blank,
            deed=deed,
            why=why,
            subjects=subjects_of(entries, freed=deed is Deed.PURGED),
        )
        for deed, why, entries in told
        if entries
    ]


def tell(journal: Journal, acts: Iterable[Act]) -> None:
    """Tell acts in the log, a line for each of their subjects and names."""
    for act in acts:
        for row in rows(spread(act)):
            journal.event("audit", **row)


@dataclass(slots=True)
class Trail:
    """What a cleaner keeps in mind of the trail while it leads."""

    world: CleanerWorld
    _next_tend: float = 0.0
    _done: int = 0
    _refused: dict[tuple[str, str], float] = field(default_factory=dict)

    def begin(self) -> None:
        """Begin a leadership."""
        self._next_tend = self.world.clock.boottime()
        self._refused.clear()

    def refuse(
        self,
        leadership: Leadership,
        asked: str,
        why: str,
        subjects: tuple[Subject, ...] = (),
    ) -> None:
        """Have a refusal on record, unless it was told a short while ago."""
        now = self.world.clock.boottime()
        self._refused = {k: t for k, t in self._refused.items() if t > now}
        key = (asked, why)
        if key in self._refused or len(self._refused) >= MAX_REFUSALS:
            return
        self._refused[key] = now + REPEAT_S
        act = Act(
            Deed.REFUSED,
            doer(self.world, leadership.epoch),
            self.world.clock.wall(),
            why,
            subjects,
            asked=asked,
        )
        write(self.world, [act])

    def tend(self, leadership: Leadership, done: int) -> None:
        """Tell what operators did, and drop what is too old, if it is time.

        ``done`` counts the files that this cleaner took and purged.  Nothing
        hangs on it: what fails is told, and tried again the next time.
        """
        now = self.world.clock.boottime()
        if now < self._next_tend and done - self._done < TEND_ACTS:
            return
        self._next_tend, self._done = now + TEND_S, done
        try:
            self._tend(leadership)
        except (CoordinationError, OutcomeUnknownError) as error:
            self.world.journal.event("audit-not-tended", error=error)

    def _tend(self, leadership: Leadership) -> None:
        coordination = self.world.coordination
        record = coordination.get(audit.TRAIL)
        found = audit.mark_of(record)
        if record is None or (isinstance(found, Unreadable) and found.newer):
            # A later release keeps it in its own way.
            return
        before = audit.read_mark(coordination)
        mark = self._read_on(before)
        drops: list[Operation] = []
        while mark.acts > KEPT_ACTS and mark.oldest < mark.seen:
            mark = self._drop(mark, drops)
            if len(drops) >= _DROPS:
                mark = self._write(leadership, mark, drops)
        if mark != before or isinstance(found, Unreadable):
            self._write(leadership, mark, drops)

    def _read_on(self, mark: audit.Mark) -> audit.Mark:
        """Read what was written since; tell in the log what operators did.

        Cleaners and agents tell their own acts; an operator's command has no
        log but this one.
        """
        for told in audit.forward(self.world.coordination, mark.seen, mark.seen):
            act = told.act
            if not isinstance(act, Unreadable) and act.doer.by == By.OPERATOR:
                tell(self.world.journal, [act])
            mark = replace(mark, seen=told.number + 1, acts=mark.acts + told.count)
        return mark

    def _drop(self, mark: audit.Mark, drops: list[Operation]) -> audit.Mark:
        """Drop the oldest acts of one window, down to what is kept."""
        end = min(mark.seen, mark.oldest + audit.WINDOW)
        oldest, acts = end, mark.acts
        for told in audit.window(self.world.coordination, mark.oldest, end):
            if acts <= KEPT_ACTS:
                oldest = told.number
                break
            acts -= told.count
            drops.append(Delete(audit.act_path(told.number), None))
        # An empty trail counts from 0, whatever was miscounted before.
        acts = 0 if oldest == mark.seen else max(0, acts)
        return replace(mark, oldest=oldest, acts=acts)

    def _write(
        self, leadership: Leadership, mark: audit.Mark, drops: list[Operation]
    ) -> audit.Mark:
        self.world.coordination.commit(
            [
                *leadership.conditions(),
                Set(audit.TRAIL, audit.mark_data(mark), mark.version),
                *drops,
            ]
        )
        drops.clear()
        return replace(mark, version=mark.version + 1)


def write(world: CleanerWorld, acts: Sequence[Act]) -> None:
    """Tell acts that have no transaction of their own, in the log and in ZooKeeper."""
    tell(world.journal, acts)
    why = audit.record(world.coordination, acts)
    if why is not None:
        world.journal.event("audit-not-written", error=why)
