"""Becoming the leader: election, epoch, and sealing of the predecessors.

The order is the protocol's (``docs/protocol.md``): nothing is acted upon
before every lower epoch is sealed on the storage itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sharedcache import ledger
from sharedcache.cleaner.world import CleanerWorld, DeposedError, Leadership
from sharedcache.core import codec, names
from sharedcache.core.model import (
    Authorisation,
    Baseline,
    Cluster,
    EntryState,
    FileFacts,
    ManifestBatch,
    ManifestEntry,
    Unreadable,
)
from sharedcache.core.ports import (
    Candidacy,
    Check,
    ConflictError,
    CoordinationError,
    Create,
    Delete,
    NameExistsError,
    NameMissingError,
    NotEmptyStorageError,
    Operation,
    OutcomeUnknownError,
    Set,
    StorageError,
)

SEAL_TRIES = 1000
"""How often a directory is emptied again before the takeover gives up."""

ADOPT_TRIES = 20
"""How often a record that others write to is read and written again."""


def take_office(world: CleanerWorld) -> Leadership | None:
    """Try once to become the leader, predecessors sealed; ``None`` if it cannot be.

    Raises ``DeposedError`` when the office was lost on the way,
    ``CoordinationError`` and ``StorageError`` when the world failed.
    """
    if not may_stand(world):
        return None
    candidacy = world.coordination.campaign()
    if candidacy is None:
        return None
    try:
        leadership = _claim(world, candidacy)
        _make_epoch(leadership)
        Successor(leadership).take_over()
    except (
        DeposedError,
        CoordinationError,
        OutcomeUnknownError,
        StorageError,
        codec.RecordError,
    ):
        world.coordination.resign()
        raise
    world.journal.event("leading", cleaner=world.name, epoch=leadership.epoch)
    return leadership


def may_stand(world: CleanerWorld) -> bool:
    """Whether directory and tree are one cluster's and can be read.

    Nothing is written when they are not: no epoch is used up by a cleaner
    that could not take office anyway.
    """
    disk = ledger.marker_of(world.storage.read_marker())
    world.coordination.sync()
    tree = ledger.cluster_of(world.coordination.get(ledger.IDENTITY))
    if not isinstance(disk, Cluster) or disk != tree:
        return False
    reader = ledger.ManifestReader()
    reader.read(world.coordination, world.coordination.get(ledger.MANIFEST))
    if reader.broken:
        return False
    number = ledger.counter_of(world.coordination.get(ledger.EPOCH))
    return max(world.storage.epochs(), default=0) <= number.value


def _claim(world: CleanerWorld, candidacy: Candidacy) -> Leadership:
    """Raise the epoch in one transaction that checks the election's node."""
    record = world.coordination.get(ledger.EPOCH)
    number = ledger.counter_of(record)
    epoch = number.value + 1
    data = codec.pack({**codec.counter_to_record(epoch), "cleaner": world.name})
    try:
        world.coordination.commit(
            [
                Check(candidacy.path, None),
                Set(ledger.EPOCH, data, number.version),
            ]
        )
    except ConflictError as error:
        raise DeposedError(f"epoch {epoch} was claimed by another") from error
    return Leadership(world, candidacy, epoch, number.version + 1)


def _make_epoch(leadership: Leadership) -> None:
    """Make the epoch's directory; a name that is there already means deposed."""
    world, epoch = leadership.world, leadership.epoch
    leadership.check()
    highest = max(world.storage.epochs(), default=0)
    if highest < epoch:
        try:
            world.storage.epoch_make(epoch)
        except NameExistsError:
            highest = epoch
        else:
            return
    raise DeposedError(
        f"the storage knows epoch {highest} already, ours is {epoch}: deposed, or "
        "ZooKeeper went back"
    )


@dataclass(slots=True)
class Successor:
    """Takes over from every lower epoch."""

    leadership: Leadership

    def take_over(self) -> None:
        """Seal lower epochs, settle the manifest, clear the authorisation."""
        self.seal_lower_epochs()
        settler = Settler(self.leadership)
        settler.settle_all()
        self._clear_authorisation()

    def seal_lower_epochs(self) -> None:
        """Make it impossible, on the storage itself, for lower epochs to act."""
        storage = self.leadership.world.storage
        known = storage.epochs()
        for number in range(1, self.leadership.epoch):
            if not known.get(number, False):
                self._seal(number)

    def _seal(self, number: int) -> None:
        """Seal one epoch, again and again while something slips in."""
        storage = self.leadership.world.storage
        for _ in range(SEAL_TRIES):
            self.leadership.check()
            sealed = storage.epochs().get(number)
            if sealed:
                return
            try:
                if sealed is not None:
                    self._move_entries(number)
                    storage.epoch_remove(number)
                storage.epoch_seal(number)
            except NotEmptyStorageError:
                continue
            except NameExistsError:
                # Its late leader made the directory after all, or another
                # successor sealed it: look again.
                continue
            except NameMissingError:
                continue
            self.leadership.world.journal.event("sealed-epoch", epoch=number)
            return
        raise DeposedError(
            f"epoch {number} could not be sealed: something keeps "
            "writing into its directory"
        )

    def _move_entries(self, number: int) -> None:
        world, epoch = self.leadership.world, self.leadership.epoch
        for leaf in world.storage.epoch_list(number):
            parsed = names.parse_leaf(leaf)
            if parsed is None:
                raise DeposedError(
                    f"epochs/{number}/{leaf} is none of ours: move it away by hand, "
                    "so that the epoch can be sealed"
                )
            name, entry = parsed
            self.leadership.check()
            try:
                world.storage.epoch_move(
                    number, leaf, epoch, names.leaf_of(name, entry, epoch)
                )
            except NameMissingError:
                # Its leader unlinked it meanwhile, as it was authorised to.
                continue

    def _clear_authorisation(self) -> None:
        """Clear what the predecessor was authorised to, now that it is sealed."""
        coordination = self.leadership.world.coordination
        record = coordination.get(ledger.AUTHORISATION)
        authorisation = ledger.authorisation_of(record)
        if not authorisation.token:
            return
        coordination.commit(
            [
                *self.leadership.conditions(),
                clear_authorisation(authorisation),
            ]
        )


def clear_authorisation(authorisation: Authorisation) -> Operation:
    """Return the write that clears an authorisation as it was read."""
    data = codec.pack(codec.authorisation_to_record(Authorisation()))
    return Set(ledger.AUTHORISATION, data, authorisation.version)


@dataclass(slots=True)
class Settler:
    """Brings the manifest in line with what lies in this epoch's directory.

    Entries that were moved here, or whose rename's outcome was open, get this
    epoch, the next round and a new baseline; entries that are nowhere leave
    the manifest; files that no record names are adopted.
    """

    leadership: Leadership

    def settle_all(self) -> None:
        """Settle every record of the manifest."""
        world = self.leadership.world
        here = self._here()
        known: set[str] = set()
        for name in world.coordination.children(ledger.MANIFEST):
            known |= self._settle(name, here)
        self._adopt([leaf for entry, leaf in here.items() if entry not in known])

    def settle_open(self, manifest: Sequence[ManifestBatch]) -> bool:
        """Settle what this very epoch left open; tell whether anything changed."""
        epoch = self.leadership.epoch
        open_batches = [
            batch.batch
            for batch in manifest
            if any(
                e.state is EntryState.INTENDED or e.epoch != epoch
                for e in batch.entries
            )
        ]
        here = self._here()
        for name in open_batches:
            self._settle(name, here)
        known = {entry.entry for batch in manifest for entry in batch.entries}
        strange = [leaf for entry, leaf in here.items() if entry not in known]
        self._adopt(strange)
        return bool(open_batches or strange)

    def _here(self) -> dict[str, str]:
        """Map the entries in this epoch's directory to their names there."""
        leaves = self.leadership.world.storage.epoch_list(self.leadership.epoch)
        parsed = ((names.parse_leaf(leaf), leaf) for leaf in leaves)
        return {found[1]: leaf for found, leaf in parsed if found is not None}

    def _settle(self, name: str, here: dict[str, str]) -> set[str]:
        """Settle one record; return the ids of the entries that it named."""
        coordination = self.leadership.world.coordination
        path = ledger.batch_path(name)
        for _ in range(ADOPT_TRIES):
            record = coordination.get(path)
            if record is None:
                return set()
            batch = ledger.read_batch(record)
            if isinstance(batch, Unreadable):
                # The gate closes on it; its files stay where they are.
                raise codec.RecordError(f"{path} cannot be read: {batch.why}")
            number = ledger.counter_of(coordination.get(ledger.ROUND))
            settled = self._settled(batch, here, number.value + 1)
            if settled == batch.entries:
                return {entry.entry for entry in batch.entries}
            try:
                self._write(batch, settled, number.version)
            except ConflictError as error:
                if error.path == ledger.batch_path(name):
                    continue
                raise DeposedError(f"a successor leads: {error}") from error
            return {entry.entry for entry in batch.entries}
        raise DeposedError(f"{path} changes faster than it can be settled")

    def _write(
        self, batch: ManifestBatch, entries: tuple[ManifestEntry, ...], version: int
    ) -> None:
        self.leadership.world.coordination.commit(
            [
                *self.leadership.conditions(),
                Check(ledger.ROUND, version),
                rewrite(replace(batch, entries=entries)),
                ledger.bump(ledger.MANIFEST),
            ]
        )

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

    def _adopt(self, leaves: Sequence[str]) -> None:
        """Write records for quarantined files that none names."""
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
                name, entry_id, epoch, leaf, EntryState.INTENDED, 0, 0, 0, 0
            )
            adopted = self._start_again(blank, leaf, number.value + 1)
            if adopted is not None:
                world.journal.event("adopted", name=name, leaf=leaf)
                entries.append(adopted)
        for start in range(0, len(entries), world.policy.batch):
            part = tuple(entries[start : start + world.policy.batch])
            batch = ManifestBatch(batch_name(epoch, world.tokens.token()), part)
            world.coordination.commit(
                [
                    *self.leadership.conditions(),
                    Check(ledger.ROUND, number.version),
                    Create(ledger.batch_path(batch.batch), ledger.batch_data(batch)),
                    ledger.bump(ledger.MANIFEST),
                ]
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
    """Return an entry as it stands after its rename, at the start of its wait."""
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
    )


def rewrite(batch: ManifestBatch) -> Operation:
    """Return the write that replaces a record, or deletes an empty one."""
    path = ledger.batch_path(batch.batch)
    if not batch.entries:
        return Delete(path, batch.version)
    return Set(path, ledger.batch_data(batch), batch.version)
