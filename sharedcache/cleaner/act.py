"""Acting: quarantine, rounds, authorisation and the unlink, a step at a time.

Every step that takes a name away is a plan's step, and looks at the lease and
at the roster's watch right before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from sharedcache import ledger
from sharedcache.cleaner.observe import Observed
from sharedcache.cleaner.settle import batch_name, clear_authorisation, rewrite, taken
from sharedcache.cleaner.world import (
    CleanerWorld,
    DeposedError,
    InterruptedPassError,
    Leadership,
)
from sharedcache.core import codec, names
from sharedcache.core.model import (
    Authorisation,
    Baseline,
    EntryState,
    ManifestBatch,
    ManifestEntry,
    Unreadable,
)
from sharedcache.core.plan import Purging, Taking
from sharedcache.core.ports import (
    Check,
    ConflictError,
    Create,
    FencedError,
    NameMissingError,
    OutcomeUnknownError,
    Set,
    StorageError,
)

REWRITE_TRIES = 20
"""How often a record that others write to is read and written again."""

Change = Callable[[ManifestEntry, int], ManifestEntry | None]
"""Makes an entry's new value from the entry and the next round."""


@dataclass(slots=True)
class Taken:
    """What came of a quarantine: files and bytes taken, files kept after all."""

    names: list[str] = field(default_factory=list)
    size: int = 0
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Purged:
    """What came of a purge: names gone, bytes freed, entries that start again.

    A file that has another name still (restored before) frees nothing yet.
    """

    names: list[str] = field(default_factory=list)
    size: int = 0
    again: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Actor:
    """Carries out one pass's plan under one leadership."""

    leadership: Leadership
    observed: Observed

    @property
    def world(self) -> CleanerWorld:
        """The ports."""
        return self.leadership.world

    def _may_go_on(self) -> None:
        """Raise unless the lease is good and the roster is as it was observed."""
        self.leadership.check()
        changes = self.world.coordination.watch(ledger.ROSTER_COUNTER)
        if changes != self.observed.roster_changes:
            raise InterruptedPassError("the roster changed during the pass")

    # Quarantine

    def quarantine(self, take: Sequence[Taking]) -> Taken:
        """Take files out of ``_base``, batch by batch; all of it can be undone."""
        result = Taken()
        size = self.world.policy.batch
        for start in range(0, len(take), size):
            self._may_go_on()
            self._quarantine_batch(take[start : start + size], result)
        return result

    def _quarantine_batch(self, take: Sequence[Taking], result: Taken) -> None:
        epoch = self.leadership.epoch
        intended = [self._intend(taking) for taking in take]
        batch = ManifestBatch(
            batch_name(epoch, self.world.tokens.token()), tuple(intended), 0
        )
        self.world.coordination.commit(
            [
                *self.leadership.conditions(),
                Check(ledger.ROSTER_COUNTER, self.observed.counters.roster),
                Create(ledger.batch_path(batch.batch), ledger.batch_data(batch)),
                ledger.bump(ledger.MANIFEST),
            ]
        )
        outcome: dict[str, ManifestEntry | None] = dict.fromkeys(
            entry.entry for entry in intended
        )
        try:
            for taking, entry in zip(take, intended, strict=True):
                outcome[entry.entry] = self._rename(taking, entry, result)
        except InterruptedPassError:
            # What was renamed is recorded all the same, so that its wait
            # begins.  A deposed leader leaves that to its successor, and one
            # without ZooKeeper to its next pass: the record says "intended".
            self._record(batch, outcome)
            raise
        self._record(batch, outcome)

    def _intend(self, taking: Taking) -> ManifestEntry:
        entry = self.world.tokens.token()
        epoch = self.leadership.epoch
        leaf = names.leaf_of(taking.name, entry, epoch)
        return ManifestEntry(
            name=taking.name,
            entry=entry,
            epoch=epoch,
            leaf=leaf,
            state=EntryState.INTENDED,
            round=0,
            since_ns=0,
            moved_ns=0,
            size=taking.size,
        )

    def _rename(
        self, taking: Taking, entry: ManifestEntry, result: Taken
    ) -> ManifestEntry | None:
        """Rename one file; return its entry, ``None`` if it stays in ``_base``."""
        self._may_go_on()
        policy, locks = self.world.policy, self.world.locks
        if not locks.take(taking.name, 0.0, policy.lock_hold_s):
            result.kept[taking.name] = "lock-busy"
            return None
        try:
            why = self._changed(taking)
            if why is not None:
                result.kept[taking.name] = why
                return None
            # The looks above may have taken long; the lease is looked at last.
            self._may_go_on()
            self.world.storage.quarantine(taking.name, entry.epoch, entry.leaf)
        except NameMissingError:
            result.kept[taking.name] = "vanished"
            return None
        except FencedError as error:
            raise DeposedError(f"epoch {entry.epoch} is sealed: {error}") from error
        except OutcomeUnknownError as error:
            self.world.journal.event(
                "rename-outcome-unknown", name=taking.name, error=error
            )
            return entry
        except StorageError as error:
            result.kept[taking.name] = f"storage: {error}"
            return None
        finally:
            locks.release()
        result.names.append(taking.name)
        result.size += taking.size
        return self._after_rename(entry)

    def _changed(self, taking: Taking) -> str | None:
        """Look at the file once more, under its lock; tell why it stays."""
        facts = self.world.storage.facts(taking.name)
        if facts is None:
            return "vanished"
        if (facts.inode, facts.mtime_ns) != (taking.inode, taking.mtime_ns):
            return "touched"
        if self.world.storage.locked(taking.name):
            return "qemu-lock"
        return None

    def _after_rename(self, entry: ManifestEntry) -> ManifestEntry:
        """Record inode and baseline as found after the rename."""
        storage = self.world.storage
        try:
            facts = storage.quarantined_facts(entry.epoch, entry.leaf)
            if facts is None:
                return entry
            now_ns = storage.epoch_time(entry.epoch)
        except (StorageError, OutcomeUnknownError) as error:
            # It stays intended, and is looked at again by the next pass.
            self.world.journal.event(
                "look-after-rename-failed", name=entry.name, error=error
            )
            return entry
        return taken(entry, entry.epoch, entry.leaf, 0, now_ns, facts)

    def _record(
        self, batch: ManifestBatch, outcome: dict[str, ManifestEntry | None]
    ) -> None:
        """Write what became of a batch and assign it to the next round."""

        def change(entry: ManifestEntry, next_round: int) -> ManifestEntry | None:
            found = outcome.get(entry.entry, entry)
            if found is None or found.state is EntryState.INTENDED:
                return found
            return replace(found, round=next_round)

        self._rewrite(batch.batch, change)

    # Rounds

    def raise_round(self) -> int:
        """Raise the round by one; return the new one."""
        number = self.observed.round
        data = codec.pack(codec.counter_to_record(number.value + 1))
        self.world.coordination.commit(
            [*self.leadership.conditions(), Set(ledger.ROUND, data, number.version)]
        )
        return number.value + 1

    # Purge

    def purge(self, planned: Sequence[Purging]) -> Purged:
        """Unlink confirmed entries: one transaction authorises each batch."""
        result = Purged()
        chosen = planned[: self.world.policy.batch]
        ready = [p for p in chosen if self._unchanged(p.entry, result)]
        if result.again:
            # Their records change, so the versions that the authorisation
            # checks must be read again: the next pass goes on.
            self._start_again([p for p in chosen if p.entry.entry in result.again])
            return result
        if ready:
            authorisation = self._authorise(ready)
            self._unlink(authorisation, [p.entry for p in ready], result)
            self.finish(authorisation, {p.batch for p in ready})
        return result

    def _unchanged(self, entry: ManifestEntry, result: Purged) -> bool:
        """Open the inode read-write and compare it with its baseline."""
        storage = self.world.storage
        try:
            facts = storage.quarantined_facts(entry.epoch, entry.leaf, writable=True)
            if facts is None:
                result.again[entry.entry] = "gone"
            elif entry.baseline is None or Baseline.of(facts) != entry.baseline:
                result.again[entry.entry] = "changed"
            elif storage.quarantined_locked(entry.epoch, entry.leaf):
                result.again[entry.entry] = "qemu-lock"
            else:
                return True
        except FencedError as error:
            raise DeposedError(f"epoch {entry.epoch} is sealed: {error}") from error
        return False

    def _start_again(self, planned: Iterable[Purging]) -> None:
        """Give changed entries the next round and a new baseline."""
        by_batch: dict[str, set[str]] = {}
        for purging in planned:
            by_batch.setdefault(purging.batch, set()).add(purging.entry.entry)

        for batch, ids in sorted(by_batch.items()):

            def change(
                entry: ManifestEntry, next_round: int, ids: set[str] = ids
            ) -> ManifestEntry | None:
                if entry.entry not in ids:
                    return entry
                facts = self.world.storage.quarantined_facts(entry.epoch, entry.leaf)
                if facts is None:
                    return None
                return replace(entry, round=next_round, baseline=Baseline.of(facts))

            self._rewrite(batch, change)

    def _authorise(self, ready: Sequence[Purging]) -> Authorisation:
        """Commit the one transaction that lets a named batch be unlinked."""
        observed = self.observed
        versions = {b.batch: b.version for b in observed.seen.manifest}
        authorisation = Authorisation(
            token=self.world.tokens.token(),
            epoch=self.leadership.epoch,
            leaves={p.entry.entry: p.entry.leaf for p in ready},
            version=observed.authorisation.version + 1,
        )
        data = codec.pack(codec.authorisation_to_record(authorisation))
        self._may_go_on()
        try:
            self.world.coordination.commit(
                [
                    *self.leadership.conditions(),
                    Check(ledger.ROSTER_COUNTER, observed.counters.roster),
                    Check(ledger.VETO_COUNTER, observed.counters.veto),
                    *(
                        Check(ledger.batch_path(batch), versions[batch])
                        for batch in sorted({p.batch for p in ready})
                    ),
                    Set(ledger.AUTHORISATION, data, observed.authorisation.version),
                ]
            )
        except ConflictError as error:
            raise InterruptedPassError(f"not authorised: {error}") from error
        except OutcomeUnknownError as error:
            # The next pass reads the token back and goes on from there.
            raise InterruptedPassError(f"authorisation unknown: {error}") from error
        return authorisation

    def _unlink(
        self,
        authorisation: Authorisation,
        entries: Sequence[ManifestEntry],
        result: Purged,
    ) -> None:
        for entry in entries:
            self._may_go_on()
            try:
                self.world.storage.purge(authorisation.epoch, entry.leaf)
            except NameMissingError:
                # An earlier attempt of this very authorisation did it.
                pass
            except FencedError as error:
                raise DeposedError(f"sealed while unlinking: {error}") from error
            except OutcomeUnknownError as error:
                raise InterruptedPassError(f"unlink unknown: {error}") from error
            result.names.append(entry.name)
            if entry.baseline is not None and entry.baseline.links == 1:
                result.size += entry.size

    def resume(self, purged: Purged) -> bool:
        """Finish an authorisation that an earlier pass of this epoch left standing.

        Tells whether there was one.  Its names are gone for good, so the
        unlinks are repeated until every outcome is known.
        """
        authorisation = self.observed.authorisation
        if not authorisation.token or authorisation.epoch != self.leadership.epoch:
            return False
        ids = authorisation.leaves
        entries = [e for e in self.observed.seen.entries if e.entry in ids]
        self._unlink(authorisation, entries, purged)
        batches = {
            batch.batch
            for batch in self.observed.seen.manifest
            if any(e.entry in ids for e in batch.entries)
        }
        self.finish(authorisation, batches)
        return True

    def finish(self, authorisation: Authorisation, batches: set[str]) -> None:
        """Take unlinked entries out of the manifest; then clear the authorisation."""

        def change(entry: ManifestEntry, _: int) -> ManifestEntry | None:
            return None if entry.entry in authorisation.leaves else entry

        for batch in sorted(batches):
            self._rewrite(batch, change)
        self.world.coordination.commit(
            [*self.leadership.conditions(), clear_authorisation(authorisation)]
        )

    # Records

    def _rewrite(self, name: str, change: Change) -> None:
        """Read one record of the manifest, change its entries, write it back.

        An agent that restores writes the same record, so a conflict on it is
        read again; any other conflict means that a successor leads.
        """
        coordination, path = self.world.coordination, ledger.batch_path(name)
        for _ in range(REWRITE_TRIES):
            record = coordination.get(path)
            if record is None:
                return
            batch = ledger.read_batch(record)
            if isinstance(batch, Unreadable):
                raise InterruptedPassError(f"{path} cannot be read: {batch.why}")
            number = ledger.counter_of(coordination.get(ledger.ROUND))
            changed = [change(entry, number.value + 1) for entry in batch.entries]
            entries = tuple(entry for entry in changed if entry is not None)
            if entries == batch.entries:
                return
            try:
                coordination.commit(
                    [
                        *self.leadership.conditions(),
                        Check(ledger.ROUND, number.version),
                        rewrite(replace(batch, entries=entries)),
                        ledger.bump(ledger.MANIFEST),
                    ]
                )
            except ConflictError as error:
                if error.path == path:
                    continue
                raise DeposedError(f"a successor leads: {error}") from error
            return
        raise InterruptedPassError(f"{path} changes faster than it can be written")
