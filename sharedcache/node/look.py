"""A look: rounds read around it, the manifest before it, every source in it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from sharedcache import ledger
from sharedcache.core.model import (
    NANOSECONDS,
    Cluster,
    EntryState,
    KernelNaming,
    ManifestBatch,
    ManifestEntry,
    SourceFailure,
    Unreadable,
    UseIndex,
    Uses,
)
from sharedcache.core.names import Kind, classify
from sharedcache.core.ports import (
    Between,
    EventSource,
    OutcomeUnknownError,
    Source,
    SourceError,
    StorageError,
    TellingSource,
)
from sharedcache.core.referrers import Referrers, Sightings
from sharedcache.core.window import Look, Windows
from sharedcache.node.world import Identity, World

Answer = TypeVar("Answer")

MAX_CAVEATS = 20
"""Caveats that a report bears; one of each kind is what to expect."""

EARLIER_RUN = "last report"
"""What stands in for a source that has not answered in this run yet."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What ZooKeeper said before a look."""

    round: int
    manifest: tuple[ManifestBatch, ...]
    broken_manifest: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look found.

    ``vanished`` are used names that are not in ``_base``; ``storage_time_ns``
    is the storage's clock before the first source was asked.
    """

    windows: Windows
    uses: Uses
    sees: frozenset[str]
    failures: tuple[SourceFailure, ...]
    vanished: tuple[str, ...]
    storage_time_ns: int
    name_cache_s: float
    caveats: tuple[str, ...]


@dataclass(slots=True)
class Looker:
    """Takes looks, one after the other, and keeps the windows."""

    world: World
    identity: Identity
    windows: Windows = field(default_factory=Windows)
    sightings: Sightings = field(default_factory=Sightings)
    _manifest: ledger.ManifestReader = field(default_factory=ledger.ManifestReader)
    _last_good: dict[str, Uses] = field(default_factory=dict)
    _inherited: Uses | None = None
    _unbroken: bool = False
    _untaken: Between = field(default_factory=lambda: Between(Uses(), unbroken=True))
    _weak: dict[str, AbstractSet[str]] = field(default_factory=dict)
    _gone: dict[str, tuple[str, int]] = field(default_factory=dict)
    _untouchable: set[str] = field(default_factory=set)

    def ground(self) -> Ground:
        """Read the round, then the manifest, as of no earlier than now.

        The round comes first: a manifest entry of round r was written before
        r was raised, so whoever reads r finds the entry.
        """
        coordination = self.world.coordination
        coordination.sync()
        number = self._round()
        parent = coordination.get(ledger.MANIFEST)
        manifest = self._manifest.read(coordination, parent)
        return Ground(number, manifest, bool(self._manifest.broken))

    def look(self, ground: Ground) -> Sight:
        """Look at everything, between two readings of the round."""
        storage_time_ns, cache_s, failures = self._storage(ground)
        sees = self._sees(ground, failures)
        uses = self._sources(failures)
        between = self._between(uses, failures)
        vanished = self._touch(uses, storage_time_ns)
        # A lagging server may answer with an older round, and an older round
        # here would claim that the window began before it did.
        self.world.coordination.sync()
        reread = self._round()
        unbroken = self._unbroken and between.unbroken and not failures
        self._take(Look(ground.round, reread, uses, unbroken, sees, between.uses))
        self._unbroken = not failures
        self.sightings.forget(uses | self.windows.coverage().since)
        return Sight(
            self.windows,
            uses,
            sees,
            tuple(failures),
            vanished,
            storage_time_ns,
            cache_s,
            self._caveats(),
        )

    def look_alone(self) -> None:
        """Look while ZooKeeper is out of reach: the uses join the open windows."""
        present = self.windows.present
        if present is None or not self._unbroken:
            return
        storage_time_ns, _, failures = self._storage(None)
        uses = self._sources(failures)
        between = self._between(uses, failures)
        self._touch(uses, storage_time_ns)
        if failures or not between.unbroken:
            # No round was read around this look, so no new window may begin
            # with it: coverage ends here.
            self.break_coverage()
        else:
            self._take(
                Look(
                    present.upto,
                    present.reread,
                    uses,
                    unbroken=True,
                    between=between.uses,
                )
            )

    def break_coverage(self) -> None:
        """Something may have been missed: the next report is a first look only."""
        self.windows = Windows()
        self._unbroken = False
        self._untaken = Between(Uses(), unbroken=True)

    def inherit(self, uses: Uses | None) -> None:
        """Take over what this node's last report said, from before this run.

        It stands in for a source that has not answered in this run yet.
        """
        self._inherited = uses

    @property
    def blind(self) -> bool:
        """Whether some use may be known neither by this run nor by the last.

        A report of such a look would say that less is in use than is.
        """
        silent = any(s.name not in self._last_good for s in self.world.sources)
        return silent and self._inherited is None

    def _round(self) -> int:
        record = self.world.coordination.get(ledger.ROUND)
        with ledger.reading("the round"):
            return ledger.counter_of(record).value

    def _take(self, look: Look) -> None:
        self._untaken = Between(Uses(), unbroken=True)
        self.windows = self.windows.after(look)

    def _storage(self, ground: Ground | None) -> tuple[int, float, list[SourceFailure]]:
        """Check the directory's identity, and read its clock."""
        failures: list[SourceFailure] = []
        storage = self.world.storage
        storage_time_ns, cache_s = 0, 0.0
        try:
            marker = storage.read_marker()
            found = ledger.marker_of(marker)
            if found != self.identity.cluster:
                failures.append(SourceFailure("storage", _not_ours(found)))
            else:
                facts = storage.witness_touch(self.world.policy.node)
                storage_time_ns = facts.mtime_ns
                cache_s = storage.name_cache_s()
                failures.extend(self._mounts(marker or b""))
        except (StorageError, OutcomeUnknownError) as error:
            failures.append(SourceFailure("storage", str(error)))
        if ground is not None and ground.broken_manifest:
            failures.append(
                SourceFailure(
                    "manifest",
                    "a record of the manifest cannot be read: see `sharedcache status`",
                )
            )
        return storage_time_ns, cache_s, failures

    def _caveats(self) -> tuple[str, ...]:
        """Tell what weakens this node's evidence, for people."""
        try:
            how = self.world.storage.local_locks()
        except (StorageError, OutcomeUnknownError):
            # The report says it already: the base is not what it was.
            how = ""
        found = {f"{how}: locks of this node's guests stay on it"} if how else set()
        return tuple(sorted(found.union(*self._weak.values()))[:MAX_CAVEATS])

    def _mounts(self, marker: bytes) -> list[SourceFailure]:
        """See that the hypervisor's files and the agent's are the same."""
        return [
            SourceFailure(
                "mount",
                f"{who} sees another directory at the base than the agent does: "
                "give both the same mount",
            )
            for who in self.world.host.seen_otherwise(marker)
        ]

    def _sees(self, ground: Ground, failures: list[SourceFailure]) -> frozenset[str]:
        """Open every quarantined name here and see whether it is gone.

        One look for each round is enough while the entry stays as it is: the
        name was found gone after that round was raised.
        """
        sees: set[str] = set()
        gone: dict[str, tuple[str, int]] = {}
        for batch in ground.manifest:
            for entry in batch.entries:
                if entry.state is not EntryState.TAKEN or entry.baseline is None:
                    continue
                mark = (f"{entry.leaf}/{entry.round}", ground.round)
                if self._gone.get(entry.entry) == mark:
                    gone[entry.entry] = mark
                elif self._still_there(entry, failures):
                    sees.add(entry.entry)
                else:
                    gone[entry.entry] = mark
        self._gone = gone
        return frozenset(sees)

    def _still_there(self, entry: ManifestEntry, failures: list[SourceFailure]) -> bool:
        try:
            facts = self.world.storage.facts(entry.name)
        except (StorageError, OutcomeUnknownError) as error:
            failures.append(SourceFailure("storage", f"{entry.name}: {error}"))
            return True
        return (
            facts is not None
            and entry.baseline is not None
            and facts.inode == entry.baseline.inode
        )

    def _sources(self, failures: list[SourceFailure]) -> Uses:
        """Ask every source; one that fails keeps its last good answer."""
        union, earlier = Uses(), Uses()
        for source in self.world.sources:
            try:
                self._last_good[source.name] = _answer(source.look(), Uses)
                self._remember(source)
            except SourceError as error:
                failures.append(SourceFailure(source.name, str(error)))
            except Exception as error:  # noqa: BLE001 - a third party's source must not end the agent
                what = f"{type(error).__name__}: {error}"
                failures.append(SourceFailure(source.name, what))
            if source.name in self._last_good:
                union |= self._last_good[source.name]
            elif self._inherited is not None:
                earlier = self._inherited
        self.sightings.looked(EARLIER_RUN, earlier, None, self.world.clock.wall())
        return self._spelt(union | earlier)

    def _spelt(self, uses: Uses) -> Uses:
        """Spell uses as this node's schema reads them, whatever the source knows."""
        policy = self.world.policy
        row = policy.schemas.row(policy.schema_version)
        if row is None or KernelNaming.SHA1 not in row.reads:
            return uses
        return uses.under_both_names()

    def _remember(self, source: Source) -> None:
        """Keep what a source says of itself, for whoever asks."""
        told: Referrers | None = None
        if isinstance(source, TellingSource):
            try:
                said: object = source.referrers()
                told = said if isinstance(said, Referrers) else None
            except Exception as error:  # noqa: BLE001 - a third party's source must not end the agent
                self.world.journal.event(
                    "referrers-untold", source=source.name, error=error
                )
        weak = () if told is None else told.caveats
        self._weak[source.name] = frozenset(str(one) for one in weak)
        uses, now_s = self._last_good[source.name], self.world.clock.wall()
        self.sightings.looked(source.name, uses, told, now_s)

    def _between(self, uses: Uses, failures: list[SourceFailure]) -> Between:
        """Ask the sources that are told of events what they were told.

        A look that ends early, because ZooKeeper does not answer, joins no
        window.  What it saw and was told, which no source says twice, is kept
        for the next one.
        """
        seen, unbroken = self._untaken.uses | uses, self._untaken.unbroken
        for source in self.world.sources:
            if not isinstance(source, EventSource):
                continue
            try:
                told = _answer(source.between(), Between)
            except Exception as error:  # noqa: BLE001 - a third party's source must not end the agent
                what = f"{type(error).__name__}: {error}"
                failures.append(SourceFailure(source.name, what))
                continue
            seen |= self._spelt(told.uses)
            now_s = self.world.clock.wall()
            self.sightings.heard(source.name, told.uses, told.referrers, now_s)
            if not told.unbroken:
                unbroken = False
                self.world.journal.event("events-lost", source=source.name)
        self._untaken = Between(seen, unbroken)
        return self._untaken

    def _touch(self, uses: Uses, storage_time_ns: int) -> tuple[str, ...]:
        """Touch what is used and was not touched lately; name what is not there.

        A kernel is reported under both its names and has only one of them, so
        a digest or a raw id alone does not mean that a file is lost.
        """
        vanished: list[str] = []
        interval_ns = int(self.world.policy.touch_interval_s * NANOSECONDS)
        kernels = {digest.hex() for digest in uses.kernels | uses.ramdisks}
        images = {digest.hex() for digest in uses.images - uses.families}
        for name in sorted(set(uses.cache_names())):
            try:
                facts = self.world.storage.facts(name)
                if facts is None:
                    surely = name in images or (
                        name not in kernels
                        and classify(name) not in (Kind.KERNEL, Kind.IMAGE)
                    )
                    if surely:
                        vanished.append(name)
                elif facts.regular and storage_time_ns - facts.mtime_ns >= interval_ns:
                    self.world.storage.touch(name)
            except (StorageError, OutcomeUnknownError) as error:
                # Nova ignores a base that it may not touch; the report still
                # protects the name, so the age alone suffers.
                if name not in self._untouchable:
                    self.world.journal.event("touch-failed", name=name, error=error)
                    self._untouchable.add(name)
        if storage_time_ns == 0:
            return ()
        return tuple(vanished)

    def wanted_entries(self, ground: Ground, uses: Uses) -> tuple[ManifestEntry, ...]:
        """Entries of the manifest whose names this node uses."""
        used = UseIndex.over([uses])
        return tuple(
            entry
            for batch in ground.manifest
            for entry in batch.entries
            if used.covers(entry.name)
        )


def _answer(answer: object, kind: type[Answer]) -> Answer:
    """Return what a source answered, if it is what a source answers."""
    if not isinstance(answer, kind):
        raise TypeError(f"it answered {answer!r}, which is no {kind.__name__}")
    return answer


def _not_ours(found: Cluster | Unreadable | None) -> str:
    """Say what became of the base directory, and what to do about it."""
    if found is None:
        return "the base directory has no cluster marker any more: is it mounted?"
    if isinstance(found, Unreadable):
        return (
            f"the base directory's cluster marker cannot be read ({found.why}): look "
            "at the storage, and put a copy of the file back"
        )
    return (
        f"the base directory belongs to another cluster now ({found.name}, "
        f"{found.identity}): mount the right one"
    )
