"""Settling: the manifest in line with what lies in this epoch's directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sharedcache import audit, ledger
from sharedcache.cleaner import trail
from sharedcache.cleaner.trail import Because
from sharedcache.cleaner.world import DeposedError, Leadership
from sharedcache.core import codec, names
from sharedcache.core.acts import Changes, changes
from sharedcache.core.model import (
    Authorisation,
    Baseline,
    EntryState,
    FileFacts,
    ManifestBatch,
    ManifestEntry,
    Unreadable,
)
from sharedcache.core.ports import (
    Check,
    ConflictError,
    Create,
    Delete,
    Operation,
    Set,
)

ADOPT_TRIES = 20
"""How often a record that others write to is read and written again."""


def clear_authorisation(authorisation: Authorisation) -> Operation:
    """Return the write that clears an authorisation as it was read."""
    data = ledger.authorisation_data(Authorisation())
    return Set(ledger.AUTHORISATION, data, authorisation.version)


@dataclass(slots=True)
class Settler:
    """Brings the manifest in line with what lies in this epoch's directory.

    Entries that were moved here or renamed, or whose rename's outcome was open,
    get this epoch, the next round and a new baseline; entries that are nowhere
    leave the manifest; files that no record names are adopted.
    """

    leadership: Leadership

    def settle_all(self) -> None:
        """Settle every record of the manifest."""
        world = self.leadership.world
        here = self._here()
        known: set[str] = set()
        for name in world.coordination.children(ledger.MANIFEST):
            known |= self._settle(name, here)[0]
        # They were moved here a moment ago, under names that nobody was told.
        strange = [leaf for entry, leaf in here.items() if entry not in known]
        self._adopt(strange, asked=False)

    def settle_open(self, manifest: Sequence[ManifestBatch]) -> bool:
        """Settle what this very epoch left open; tell whether anything was written."""
        epoch = self.leadership.epoch
        open_batches = [
            batch.batch
            for batch in manifest
            if any(
                e.state is EntryState.INTENDED or e.epoch != epoch or e.asked
                for e in batch.entries
            )
        ]
        here = self._here()
        written = [self._settle(name, here)[1] for name in open_batches]
        known = {entry.entry for batch in manifest for entry in batch.entries}
        strange = [leaf for entry, leaf in here.items() if entry not in known]
        # Who was told of these names is not known any more, so a restore by them
        # may be under way.
        self._adopt(strange, asked=True)
        return any(written) or bool(strange)

    def _here(self) -> dict[str, str]:
        """Map the entries in this epoch's directory to their names there."""
        leaves = self.leadership.world.storage.epoch_list(self.leadership.epoch)
        parsed = ((names.parse_leaf(leaf), leaf) for leaf in leaves)
        return {found[1]: leaf for found, leaf in parsed if found is not None}

    def _settle(self, name: str, here: dict[str, str]) -> tuple[set[str], bool]:
        """Settle one record; return its entries' ids, and whether it was written."""
        coordination = self.leadership.world.coordination
        path = ledger.batch_path(name)
        for _ in range(ADOPT_TRIES):
            record = coordination.get(path)
            if record is None:
                return set(), False
            batch = ledger.read_batch(record)
            if isinstance(batch, Unreadable):
                # The gate closes on it; its files stay where they are.
                raise codec.RecordError(f"{path} cannot be read: {batch.why}")
            number = ledger.counter_of(coordination.get(ledger.ROUND))
            settled = self._settled(batch, here, number.value + 1)
            ids = {entry.entry for entry in batch.entries}
            if settled == batch.entries:
                return ids, False
            try:
                self._write(batch, settled, number.version)
            except ConflictError as error:
                if error.path == ledger.batch_path(name):
                    continue
                raise DeposedError(f"a successor leads: {error}") from error
            return ids, True
        raise DeposedError(f"{path} changes faster than it can be settled")

    def _write(
        self, batch: ManifestBatch, entries: tuple[ManifestEntry, ...], version: int
    ) -> None:
        transaction = [
            *self.leadership.conditions(),
            Check(ledger.ROUND, version),
            rewrite(replace(batch, entries=entries)),
            ledger.manifest_changed(self.leadership.world.tokens.token()),
        ]
        because = self._because()
        self._commit(
            transaction, changes(batch.entries, entries, because.authorised), because
        )

    def _because(self) -> Because:
        """Tell entries that were unlinked by right from those that just are not there.

        The authorisation of a predecessor is cleared only after everything is
        settled, so it still says what its leader may have unlinked.
        """
        record = self.leadership.world.coordination.get(ledger.AUTHORISATION)
        authorisation = ledger.authorisation_of(record)
        return Because(
            quarantined="unused; its rename was interrupted, and found by this leader",
            purged="confirmed by every node; unlinked as authorised to epoch "
            f"{authorisation.epoch}, and found so by this leader",
            authorised=frozenset(authorisation.leaves),
        )

    def _commit(
        self, transaction: Sequence[Operation], what: Changes, because: Because
    ) -> None:
        """Write a change of the manifest, and in the same breath tell of it."""
        world = self.leadership.world
        acts = trail.entry_acts(self.leadership, what, because)
        trail.tell(world.journal, acts)
        world.coordination.commit(audit.riding(transaction, acts))

    def _settled(
        self, batch: ManifestBatch, here: dict[str, str], next_round: int
    ) -> tuple[ManifestEntry, ...]:
        epoch = self.leadership.epoch
        settled: list[ManifestEntry] = []
        for entry in batch.entries:
            leaf = here.get(entry.entry)
            where = (epoch, leaf)
            if leaf is None:
                if not self._surely_gone(entry):
                    settled.append(entry)
                continue
            if entry.state is EntryState.TAKEN and (entry.epoch, entry.leaf) == where:
                settled.append(entry)
                continue
            again = self._start_again(entry, leaf, next_round)
            if again is not None:
                settled.append(again)
        return tuple(settled)

    def _surely_gone(self, entry: ManifestEntry) -> bool:
        """Whether an entry that is not in this directory can be forgotten.

        A predecessor's epoch is sealed, so nothing of it can appear any more.
        In our own, a rename whose outcome was lost may still land while its
        name is not back in ``_base``.
        """
        world = self.leadership.world
        if entry.epoch != self.leadership.epoch or entry.state is EntryState.TAKEN:
            world.journal.event(
                "entry-left-quarantine", name=entry.name, leaf=entry.leaf
            )
            return True
        return world.storage.facts(entry.name) is not None

    def _start_again(
        self, entry: ManifestEntry, leaf: str, next_round: int
    ) -> ManifestEntry | None:
        storage, epoch = self.leadership.world.storage, self.leadership.epoch
        facts = storage.quarantined_facts(epoch, leaf)
        if facts is None:
            return None
        now_ns = storage.epoch_time(epoch)
        return taken(entry, epoch, leaf, next_round, now_ns, facts)

    def _adopt(self, leaves: Sequence[str], *, asked: bool) -> None:
        """Write records for quarantined files that none names.

        That none does is known without a check of the manifest's version. Only
        leaders make records. An earlier one's transaction checks its epoch, which
        was claimed from it before the manifest was read. Our own requests are
        taken in their order; one whose answer was lost ended the pass, and the
        next one began with a ``sync``, after which it was done or never will be.
        """
        if not leaves:
            return
        world, epoch = self.leadership.world, self.leadership.epoch
        number = ledger.counter_of(world.coordination.get(ledger.ROUND))
        entries: list[ManifestEntry] = []
        for leaf in leaves:
            parsed = names.parse_leaf(leaf)
            if parsed is None:
                continue
            name, entry_id = parsed
            blank = ManifestEntry(
                name,
                entry_id,
                epoch,
                leaf,
                EntryState.INTENDED,
                0,
                0,
                0,
                0,
                asked=asked,
            )
            adopted = self._start_again(blank, leaf, number.value + 1)
            if adopted is not None:
                world.journal.event("adopted", name=name, leaf=leaf)
                entries.append(adopted)
        for start in range(0, len(entries), world.policy.batch):
            part = tuple(entries[start : start + world.policy.batch])
            batch = ManifestBatch(batch_name(epoch, world.tokens.token()), part)
            self._commit(
                [
                    *self.leadership.conditions(),
                    Check(ledger.ROUND, number.version),
                    Create(ledger.batch_path(batch.batch), ledger.batch_data(batch)),
                    ledger.manifest_changed(world.tokens.token()),
                ],
                changes((), part, ()),
                Because(quarantined="found in quarantine, and no record named it"),
            )


def batch_name(epoch: int, token: str) -> str:
    """Name of a new record of the manifest; never used twice."""
    return f"{epoch:010d}-{token}"


def taken(  # noqa: PLR0917 - the fields that change
    entry: ManifestEntry,
    epoch: int,
    leaf: str,
    next_round: int,
    now_ns: int,
    facts: FileFacts,
) -> ManifestEntry:
    """Return an entry as it stands after its rename, at the start of its wait.

    A link can have been asked for only by the leaf that the record named.
    """
    return replace(
        entry,
        epoch=epoch,
        leaf=leaf,
        state=EntryState.TAKEN,
        round=next_round,
        since_ns=entry.since_ns or now_ns,
        moved_ns=now_ns,
        size=facts.size,
        baseline=Baseline.of(facts),
        asked=entry.asked and (entry.epoch, entry.leaf) == (epoch, leaf),
    )


def rewrite(batch: ManifestBatch) -> Operation:
    """Return the write that replaces a record, or deletes an empty one."""
    path = ledger.batch_path(batch.batch)
    if not batch.entries:
        return Delete(path, batch.version)
    return Set(path, ledger.batch_data(batch), batch.version)
