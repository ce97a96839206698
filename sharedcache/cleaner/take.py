"""Quarantine: files renamed out of ``_base``, all of which can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sharedcache import ledger
from sharedcache.cleaner.act import Actor, Taken
from sharedcache.cleaner.settle import batch_name, taken
from sharedcache.cleaner.world import (
    CleanerWorld,
    DeposedError,
    InterruptedPassError,
)
from sharedcache.core import names
from sharedcache.core.model import EntryState, ManifestBatch, ManifestEntry
from sharedcache.core.plan import Taking
from sharedcache.core.ports import (
    Check,
    Create,
    FencedError,
    NameMissingError,
    OutcomeUnknownError,
    StorageError,
)


@dataclass(frozen=True, slots=True)
class Taker:
    """Carries out the quarantines of one pass; ``result`` tells what came of them."""

    actor: Actor
    result: Taken

    @property
    def world(self) -> CleanerWorld:
        """The ports."""
        return self.actor.world

    def quarantine(self, take: Sequence[Taking]) -> None:
        """Take files out of ``_base``, batch by batch; all of it can be undone."""
        size = self.world.policy.paced_batch()
        for start in range(0, len(take), size):
            self.actor.may_go_on()
            self._quarantine_batch(take[start : start + size])

    def _quarantine_batch(self, take: Sequence[Taking]) -> None:
        leadership, observed = self.actor.leadership, self.actor.observed
        epoch = leadership.epoch
        intended = [self._intend(taking) for taking in take]
        batch = ManifestBatch(
            batch_name(epoch, self.world.tokens.token()), tuple(intended), 0
        )
        self.world.coordination.commit(
            [
                *leadership.conditions(),
                Check(ledger.ROSTER_COUNTER, observed.counters.roster),
                Create(ledger.batch_path(batch.batch), ledger.batch_data(batch)),
                ledger.manifest_changed(self.world.tokens.token()),
            ]
        )
        outcome: dict[str, ManifestEntry | None] = dict.fromkeys(
            entry.entry for entry in intended
        )
        try:
            for taking, entry in zip(take, intended, strict=True):
                outcome[entry.entry] = self._rename(taking, entry)
        except InterruptedPassError:
            # What was renamed is recorded all the same, so that its wait
            # begins.  A deposed leader leaves that to its successor, and one
            # without ZooKeeper to its next pass: the record says "intended".
            self._record(batch, outcome)
            raise
        self._record(batch, outcome)

    def _intend(self, taking: Taking) -> ManifestEntry:
        entry = self.world.tokens.token()
        epoch = self.actor.leadership.epoch
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

    def _rename(self, taking: Taking, entry: ManifestEntry) -> ManifestEntry | None:
        """Rename one file; return its entry, ``None`` if it stays in ``_base``."""
        self.actor.await_turn()
        self.actor.may_go_on()
        locks, kept = self.world.locks, self.result.kept
        lock = names.lock_name(taking.name)
        if not locks.take(lock, 0.0, self.world.policy.lock_hold_s):
            self._tell_lock(locks.last_error)
            kept[taking.name] = "lock-failed" if locks.last_error else "lock-busy"
            return None
        try:
            why = self._changed(taking)
            if why is not None:
                kept[taking.name] = why
                return None
            # The looks above may have taken long; the lease is looked at last.
            self.actor.may_go_on()
            self.world.storage.quarantine(taking.name, entry.epoch, entry.leaf)
        except NameMissingError:
            kept[taking.name] = "vanished"
            return None
        except FencedError as error:
            raise DeposedError(f"epoch {entry.epoch} is sealed: {error}") from error
        except OutcomeUnknownError as error:
            self.world.journal.event(
                "rename-outcome-unknown", name=taking.name, error=error
            )
            return entry
        except StorageError as error:
            kept[taking.name] = f"storage: {error}"
            return None
        finally:
            locks.release()
        self.result.names.append(taking.name)
        self.result.size += taking.size
        self.world.journal.event("quarantined", file=taking.name, epoch=entry.epoch)
        return self._after_rename(entry)

    def _tell_lock(self, error: str) -> None:
        """Tell of locks that fail, once a pass: a busy one is no news."""
        if error and "lock-failed" not in self.result.kept.values():
            self.world.journal.event(
                "lock-failed",
                error=error,
                advice="nothing can be taken: check the lock directory",
            )

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
            if found is None:
                return None
            if found.state is EntryState.INTENDED:
                return entry
            # Whoever restores it already has left a mark on its record.
            return replace(
                found,
                round=next_round,
                asked=entry.asked,
                restoring=entry.restoring,
            )

        self.actor.rewrite(batch.batch, change)
