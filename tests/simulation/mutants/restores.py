"""Mutants: restores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sharedcache import ledger
from sharedcache.cleaner import (
    observe,
)
from sharedcache.cleaner import restore as operator_restore
from sharedcache.core.ports import (
    NameExistsError,
    OutcomeUnknownError,
    StorageError,
)
from sharedcache.node import restore
from tests.simulation.memory_storage import MemoryStorage
from tests.simulation.mutants.registry import Patch, mutant, no_checker


@mutant("restore by rename", "I2")
def restore_by_rename(patch: Patch) -> None:
    """Take the quarantined name away when giving the cache name back."""

    def restore_(self: MemoryStorage, epoch: int, leaf: str, name: str) -> None:
        with self._acting(epoch, "restore") as there:
            self._regular(there, leaf)
            self.disk.rename(there, leaf, self.disk.base, name)

    patch.set(MemoryStorage, "restore", restore_)


@mutant("no restore of what is used", aim="marked-entry")
def no_restore(patch: Patch) -> None:
    """Leave used names in quarantine."""
    patch.set(restore.Restorer, "missing_entries", lambda *_: ())


@mutant("a restore asks no authorisation", aim="wanted-too-late")
def restore_unasked(patch: Patch) -> None:
    """Publish the intent without a look at the authorisation."""

    def publish_intent(self: Any, ground: Any, _: Any, report_with: Any) -> bool:
        self.publisher.publish(report_with(frozenset(self.intents)), ground.manifest)
        return True

    patch.set(restore.Restorer, "_publish_intent", publish_intent)


@mutant("a restore publishes no intent", aim="wanted-just-before")
def no_intent(patch: Patch) -> None:
    """Restore what is not authorised, and let nobody know before it is done."""

    def publish_intent(self: Any, _: Any, entry: Any, __: Any) -> bool:
        record = self.world.coordination.get(ledger.AUTHORISATION)
        return entry.entry not in ledger.authorisation_of(record).leaves

    patch.set(restore.Restorer, "_publish_intent", publish_intent)


@mutant("an operator's restore is not marked", aim="wanted-too-late")
def unmarked(patch: Patch) -> None:
    """Let an operator link a file without a word to the leader."""
    patch.set(operator_restore.OperatorRestore, "_mark", lambda *_: None)


@mutant("a marked entry is authorised", aim="marked-entry")
def mark_ignored(patch: Patch) -> None:
    """Confirm an entry that an operator restores."""
    _unasked(patch, marked=True)


def _unasked(patch: Patch, *, marked: bool) -> None:
    """Let leaders see no record that a restore was asked of an entry.

    ``marked`` tells of operators' marks only.
    """
    no_checker(patch)
    real = observe.Observer.observe

    def seen(entry: Any) -> Any:
        if marked and not entry.restoring:
            return entry
        return replace(entry, asked=False, restoring=entry.restoring and not marked)

    def observe_(self: observe.Observer, **kw: Any) -> observe.Observed:
        found = real(self, **kw)
        batches = tuple(
            replace(batch, entries=tuple(seen(entry) for entry in batch.entries))
            for batch in found.seen.manifest
        )
        return replace(found, seen=replace(found.seen, manifest=batches))

    patch.set(observe.Observer, "observe", observe_)


@mutant("no new name for a file that was asked to be restored", aim="late-link")
def old_leaf(patch: Patch) -> None:
    """Let a file keep the name by which a link may be under way."""
    _unasked(patch, marked=False)


@mutant("restore without the lock", "I2, I3", aim="restore-beside-a-fetch")
def no_lock(patch: Patch) -> None:
    """Link whoever holds the name's lock."""

    def link(self: restore.Restorer, entry: Any) -> bool:
        try:
            self.world.storage.restore(entry.epoch, entry.leaf, entry.name)
        except NameExistsError:
            return True
        except (StorageError, OutcomeUnknownError):
            return False
        self._linked[entry.entry] = None
        return True

    patch.set(restore.Restorer, "_link", link)
