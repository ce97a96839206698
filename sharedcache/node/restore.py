"""Restoring: a used name that lies in quarantine gets its file back.

Every step only adds: the intent is published before anything is done, the
file is linked and never renamed, and the quarantined name stays for the
leader, which renames it and lets its entry wait in full again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from sharedcache import audit, ledger
from sharedcache.core import codec, names
from sharedcache.core.acts import Act, By, Deed, Doer, Subject, rows
from sharedcache.core.model import (
    Baseline,
    EntryState,
    ManifestBatch,
    ManifestEntry,
    Report,
    Unreadable,
)
from sharedcache.core.ports import (
    Check,
    ConflictError,
    NameExistsError,
    NameMissingError,
    Operation,
    OutcomeUnknownError,
    Set,
    StorageError,
)
from sharedcache.node.look import Ground
from sharedcache.node.publish import Publisher
from sharedcache.node.world import World


class Step(enum.Enum):
    """How far one restore came."""

    DONE = "done"
    """The intent can be cleared."""
    AGAIN = "again"
    """Something was in the way: the intent stays, and the next scan goes on."""


@dataclass(slots=True)
class Restorer:
    """Carries out this node's restores; ``intents`` are those under way."""

    world: World
    publisher: Publisher
    intents: set[str] = field(default_factory=set)
    _linked: dict[str, Baseline | None] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)

    def missing_entries(
        self, wanted: Iterable[ManifestEntry]
    ) -> tuple[ManifestEntry, ...]:
        """Of the entries whose names are used, those whose name is not there."""
        missing: list[ManifestEntry] = []
        seen: set[str] = set()
        # Of several entries of one name the youngest is restored: it is the
        # file that bore the name last.
        for entry in sorted(wanted, key=_age, reverse=True):
            if entry.name in seen:
                continue
            seen.add(entry.name)
            try:
                gone = self.world.storage.facts(entry.name) is None
            except (StorageError, OutcomeUnknownError) as error:
                self.world.journal.event(
                    "restore-looked-in-vain", name=entry.name, error=error
                )
                continue
            if gone:
                missing.append(entry)
        return tuple(missing)

    def run(
        self,
        ground: Ground,
        missing: Iterable[ManifestEntry],
        report_with: Callable[[frozenset[str]], Report],
    ) -> None:
        """Restore what is missing and finish what was begun.

        ``report_with`` gives the current report with the intents named.
        """
        by_id = {e.entry: (b, e) for b in ground.manifest for e in b.entries}
        wanted = {entry.entry for entry in missing} | self.intents
        for entry_id in sorted(wanted):
            found = by_id.get(entry_id)
            if found is None:
                # Purged or settled by others since: nothing is left to do.
                self.intents.discard(entry_id)
                self._linked.pop(entry_id, None)
                continue
            self.intents.add(entry_id)
            batch, entry = found
            step = self._restore(ground, batch, entry, report_with)
            if step is Step.DONE:
                self.intents.discard(entry_id)
                self._linked.pop(entry_id, None)

    def _restore(
        self,
        ground: Ground,
        batch: ManifestBatch,
        entry: ManifestEntry,
        report_with: Callable[[frozenset[str]], Report],
    ) -> Step:
        if not self._publish_intent(ground, entry, report_with):
            return Step.AGAIN
        if not self._ask(batch, entry):
            return Step.AGAIN
        if not self._link(entry):
            return Step.AGAIN
        return self._start_again(batch, entry)

    def _publish_intent(
        self,
        ground: Ground,
        entry: ManifestEntry,
        report_with: Callable[[frozenset[str]], Report],
    ) -> bool:
        """Publish use and intent; ``False`` if the entry is authorised already."""
        coordination = self.world.coordination
        authorisation = ledger.authorisation_of(coordination.get(ledger.AUTHORISATION))
        if entry.entry in authorisation.leaves:
            self.world.journal.event("restore-too-late", name=entry.name)
            self._tell_refused(entry)
            return False
        try:
            self.publisher.publish(
                report_with(frozenset(self.intents)),
                ground.manifest,
                [Check(ledger.AUTHORISATION, authorisation.version)],
            )
        except ConflictError as error:
            self.world.journal.event("restore-waits", name=entry.name, error=error)
            return False
        return True

    def _ask(self, batch: ManifestBatch, entry: ManifestEntry) -> bool:
        """Mark the leaf as one that is asked to be linked, before it is.

        The request may outlive this agent, its lock, its report and its node's
        place on the roster; the mark stays for as long as the file bears this
        leaf.  ``False`` if it does not any more: the manifest is read again.
        """
        coordination, path = self.world.coordination, ledger.batch_path(batch.batch)
        record = coordination.get(path)
        current = None if record is None else ledger.read_batch(record)
        if record is None or not isinstance(current, ManifestBatch):
            return False
        ours = [one for one in current.entries if _same_leaf(one, entry)]
        if not ours:
            self.world.journal.event("restore-entry-moved", name=entry.name)
            return False
        if ours[0].asked:
            return True
        marked = tuple(
            replace(one, asked=True) if one is ours[0] else one
            for one in current.entries
        )
        data = ledger.batch_data(replace(current, entries=marked))
        try:
            coordination.commit(
                [
                    Set(path, data, record.version),
                    ledger.manifest_changed(self.world.tokens.token()),
                ]
            )
        except (ConflictError, OutcomeUnknownError) as error:
            self.world.journal.event("restore-again", name=entry.name, error=error)
            return False
        return True

    def _link(self, entry: ManifestEntry) -> bool:
        """Link the file to its name, under the name's lock against downloads."""
        policy = self.world.policy
        lock = names.lock_name(entry.name)
        if not self.world.locks.take(lock, policy.lock_wait_s, policy.lock_hold_s):
            self._tell_lock(entry.name)
            return False
        try:
            self.world.storage.restore(entry.epoch, entry.leaf, entry.name)
        except NameExistsError:
            # Somebody else restored or fetched it: the name is there.
            return True
        except NameMissingError:
            # A successor moved the entry, or the record is not final yet.
            self.world.journal.event("restore-entry-moved", name=entry.name)
            return False
        except (StorageError, OutcomeUnknownError) as error:
            self.world.journal.event("restore-failed", name=entry.name, error=error)
            return False
        finally:
            self.world.locks.release()
        self.world.journal.event("restored", name=entry.name, entry=entry.entry)
        self._linked[entry.entry] = None
        return True

    def _tell_lock(self, name: str) -> None:
        """Tell a lock that is held from one that cannot be taken at all."""
        error = self.world.locks.last_error
        if not error:
            self.world.journal.event("restore-lock-busy", name=name)
            return
        self.world.journal.event(
            "restore-lock-failed",
            name=name,
            error=error,
            advice="nothing can be restored: check the lock directory",
        )

    def _start_again(  # noqa: PLR0911 - each doubt ends it for this scan
        self, batch: ManifestBatch, entry: ManifestEntry
    ) -> Step:
        """Give the entry the next round and a new baseline, in one transaction."""
        coordination = self.world.coordination
        record = coordination.get(ledger.batch_path(batch.batch))
        if record is None:
            self._tell_late(entry)
            return Step.DONE
        current = ledger.read_batch(record)
        if isinstance(current, Unreadable):
            return Step.AGAIN
        try:
            number = ledger.counter_of(coordination.get(ledger.ROUND))
        except codec.RecordError:
            return Step.AGAIN
        entries, acts = [], []
        for one in current.entries:
            changed = one
            if one.entry == entry.entry:
                if not _same_leaf(one, entry):
                    return Step.AGAIN
                again = self._again(one, number.value + 1)
                if again is None:
                    return Step.AGAIN
                changed = again
                acts = self._restored(one, again)
            entries.append(changed)
        data = ledger.batch_data(replace(current, entries=tuple(entries)))
        operations: list[Operation] = [
            Check(ledger.ROUND, number.version),
            Set(ledger.batch_path(batch.batch), data, record.version),
            ledger.manifest_changed(self.world.tokens.token()),
            ledger.bump(ledger.VETO_COUNTER),
        ]
        audit.prepare(coordination)
        try:
            coordination.commit(audit.riding(operations, acts))
        except (ConflictError, OutcomeUnknownError) as error:
            self.world.journal.event("restore-again", name=entry.name, error=error)
            return Step.AGAIN
        return Step.DONE

    def _restored(self, entry: ManifestEntry, again: ManifestEntry) -> list[Act]:
        """Return the act of a restore that is not on record yet.

        It is on record together with the file's new number of links, so a run
        that finds the link made, and not recorded, tells of it.  A run that made
        the link tells in any case: a successor may have recorded the number when
        it moved the entry.
        """
        mine = entry.entry in self._linked
        if entry.baseline is None or again.baseline is None:
            restored = mine
        elif mine and entry.baseline == self._linked[entry.entry]:
            # The answer was lost, and what it told of is written.
            restored = False
        else:
            restored = mine or again.baseline.links > entry.baseline.links
        if mine:
            self._linked[entry.entry] = again.baseline
        return [self._tell(Deed.RESTORED, entry, "in use here")] if restored else []

    def _tell(
        self, deed: Deed, entry: ManifestEntry, why: str, asked: str | None = None
    ) -> Act:
        """Tell an act in the log, and return it for the record."""
        act = Act(
            deed,
            Doer(By.NODE, self.world.policy.node),
            self.world.clock.wall(),
            why,
            (Subject(entry.name, entry.entry, entry.size),),
            asked=asked,
        )
        for row in rows(act):
            self.world.journal.event("audit", **row)
        return act

    def _tell_late(self, entry: ManifestEntry) -> None:
        """Tell of a restore whose entry left the manifest meanwhile."""
        if entry.entry in self._linked:
            self._write(self._tell(Deed.RESTORED, entry, "in use here"))

    def _tell_refused(self, entry: ManifestEntry) -> None:
        """Tell once that a used file is authorised to be purged."""
        if entry.entry in self._refused:
            return
        self._refused.add(entry.entry)
        why = "the purge of this file was authorised before it was used here"
        self._write(self._tell(Deed.REFUSED, entry, why, "restore"))

    def _write(self, act: Act) -> None:
        why = audit.record(self.world.coordination, [act])
        if why is not None:
            self.world.journal.event("audit-not-written", error=why)

    def _again(self, entry: ManifestEntry, next_round: int) -> ManifestEntry | None:
        """Return the entry as it starts again; ``None`` if it cannot be looked at."""
        if entry.state is not EntryState.TAKEN:
            # The leader has yet to record the rename and will assign a round
            # later than this; writing the record makes it read it again.
            return entry
        try:
            facts = self.world.storage.quarantined_facts(entry.epoch, entry.leaf)
        except (StorageError, OutcomeUnknownError):
            return None
        if facts is None:
            return None
        return replace(entry, round=next_round, baseline=Baseline.of(facts))


def _same_leaf(one: ManifestEntry, other: ManifestEntry) -> bool:
    """Whether two readings of the manifest name the same quarantined file."""
    return (one.entry, one.epoch, one.leaf) == (other.entry, other.epoch, other.leaf)


def _age(entry: ManifestEntry) -> tuple[bool, int, str]:
    """Order entries by when they were taken; one only intended is the youngest."""
    return (entry.state is EntryState.INTENDED, entry.since_ns, entry.entry)
