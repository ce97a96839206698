"""An operator's restore: a quarantined file gets its name back, on his word.

The steps are an agent's (``docs/protocol.md``), but an operator has no report
that could carry the intent, so the manifest record itself is marked.  A marked
entry is never authorised.  Every step only adds a name, and a restore that was
cut short anywhere is finished by the next one: until then the mark stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sharedcache import audit, ledger
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.core import names
from sharedcache.core.acts import Act, Deed, Signature, Subject
from sharedcache.core.model import (
    Authorisation,
    Baseline,
    Cluster,
    EntryState,
    FileFacts,
    ManifestBatch,
    ManifestEntry,
)
from sharedcache.core.ports import (
    Check,
    Clock,
    ConflictError,
    Coordination,
    CoordinationError,
    FencedError,
    NameExistsError,
    NameLocks,
    NameMissingError,
    Operation,
    OutcomeUnknownError,
    Set,
    Storage,
    StorageError,
    Tokens,
)

TRIES = 10
"""How often a record that others write to is read and written again."""

PAUSE_S = 0.3
"""How long to wait before the next try while a successor moves the entry."""

LOCK_WAIT_S = 5.0
"""How long to wait for the name's lock, in seconds."""

LOCK_HOLD_S = 5.0
"""How long the name's lock may be held, in seconds."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of a restore.

    ``linked`` is ``False`` if the name bore this very file already, because an
    earlier try got that far, or an agent was faster.  ``untouched`` says why the
    file's time could not be set, empty if it was.
    """

    name: str
    entry: str
    size: int
    linked: bool
    untouched: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """One entry in the record that it stands in, as it was read."""

    batch: ManifestBatch
    entry: ManifestEntry

    def changed(self, entry: ManifestEntry) -> Operation:
        """Return the write that puts the changed entry into its record."""
        entries = tuple(
            entry if one.entry == entry.entry else one for one in self.batch.entries
        )
        data = ledger.batch_data(replace(self.batch, entries=entries))
        return Set(ledger.batch_path(self.batch.batch), data, self.batch.version)


@dataclass(slots=True)
class OperatorRestore:
    """Restores one entry, named by its cache name, its id, or its file's name.

    ``who`` is the operator, as the audit trail names them: user@host.
    """

    coordination: Coordination
    storage: Storage
    locks: NameLocks
    clock: Clock
    tokens: Tokens
    who: str

    def run(self, asked: str) -> Restored:
        """Restore it, or finish a restore of it that was cut short.

        Raises ``RefusedError`` if it cannot be, with what to do, and what the
        ports raise; then the mark stands, and running it again goes on.
        """
        self._check_cluster()
        entry_id = self._choose(asked).entry.entry
        self._mark(entry_id, asked)
        linked, untouched = self._link(entry_id, asked)
        found = self._start_again(entry_id, asked, linked=linked)
        if not linked:
            self._require_ours(found.entry)
        entry = found.entry
        return Restored(entry.name, entry.entry, entry.size, linked, untouched)

    def _check_cluster(self) -> None:
        """Refuse to link files of one cluster under the word of another."""
        self.coordination.sync()
        disk = ledger.marker_of(self.storage.read_marker())
        tree = ledger.cluster_of(self.coordination.get(ledger.IDENTITY))
        if not isinstance(disk, Cluster) or disk != tree:
            raise RefusedError(
                "directory and ZooKeeper do not name one cluster: see `sharedcache "
                "status`"
            )

    def _all(self) -> Sequence[_Found]:
        """Read the whole manifest, newest word first."""
        reader = ledger.ManifestReader()
        self.coordination.sync()
        parent = self.coordination.get(ledger.MANIFEST)
        batches = reader.read(self.coordination, parent)
        return [_Found(batch, entry) for batch in batches for entry in batch.entries]

    def _choose(self, asked: str) -> _Found:
        """Find the entry that is meant.

        Of several of one name the one whose restore was begun is finished
        first; else the youngest is meant: the file that bore the name last.
        """
        every = self._all()
        found = [f for f in every if asked in {f.entry.entry, f.entry.leaf}]
        found = found or [f for f in every if f.entry.name == asked]
        if not found:
            raise RefusedError(
                f"{asked} is not in quarantine: `sharedcache quarantine list` names "
                "what is, `sharedcache explain` tells where it is"
            )
        return max(
            found,
            key=lambda f: (f.entry.restoring, f.entry.since_ns, f.entry.entry),
        )

    def _again(self, entry_id: str, asked: str) -> _Found:
        """Read the entry anew: a successor may have moved it."""
        for found in self._all():
            if found.entry.entry == entry_id:
                return found
        raise RefusedError(
            f"{asked} has left the quarantine meanwhile: `sharedcache explain {asked}`"
        )

    def _mark(self, entry_id: str, asked: str) -> None:
        """Mark the record, unless the entry may be unlinked at any moment."""

        def attempt(found: _Found) -> list[Operation] | None:
            entry = found.entry
            if entry.restoring:
                return None
            if entry.state is not EntryState.TAKEN:
                raise RefusedError(
                    f"{entry.name} is being renamed into quarantine at this moment: "
                    "try again in a few seconds"
                )
            authorisation = self._not_authorised(entry)
            return [
                Check(ledger.AUTHORISATION, authorisation.version),
                found.changed(replace(entry, restoring=True)),
                ledger.manifest_changed(self.tokens.token()),
                ledger.bump(ledger.VETO_COUNTER),
            ]

        self._write(entry_id, asked, attempt)

    def _not_authorised(self, entry: ManifestEntry) -> Authorisation:
        authorisation = ledger.authorisation_of(
            self.coordination.get(ledger.AUTHORISATION)
        )
        if entry.entry in authorisation.leaves:
            raise RefusedError(
                f"{entry.name} is confirmed by every node and being unlinked: it is "
                "too late; fetch the image again under that name"
            )
        return authorisation

    def _write(
        self,
        entry_id: str,
        asked: str,
        attempt: Callable[[_Found], list[Operation] | None],
    ) -> None:
        """Read the entry and write it back changed, as often as others were faster.

        An answer that was lost is met by reading again: each attempt begins
        with what the record says.
        """
        lost: OutcomeUnknownError | None = None
        for _ in range(TRIES):
            operations = attempt(self._again(entry_id, asked))
            if operations is None:
                return
            try:
                self.coordination.commit(operations)
            except ConflictError:
                continue
            except OutcomeUnknownError as error:
                lost = error
                continue
            return
        if lost is not None:
            raise lost
        raise CoordinationError(
            f"the record of {asked} changes faster than it can be written: try again"
        )

    def _link(self, entry_id: str, asked: str) -> tuple[bool, str]:
        """Link the file to its name, and touch it, under the name's lock.

        Tells whether it was linked now, and why it could not be touched.
        """
        failure: Exception | None = None
        for _ in range(TRIES):
            entry = self._again(entry_id, asked).entry
            lock = names.lock_name(entry.name)
            if not self.locks.take(lock, LOCK_WAIT_S, LOCK_HOLD_S):
                why = self.locks.last_error or "somebody downloads or starts a guest"
                raise RefusedError(
                    f"the lock of {entry.name} is taken ({why}): run this again, "
                    "what was begun is finished then"
                )
            try:
                self.storage.restore(entry.epoch, entry.leaf, entry.name)
            except NameExistsError:
                return False, self._touch(entry)
            except (FencedError, NameMissingError, OutcomeUnknownError) as error:
                # A successor moves the entry, or the answer was lost: look again.
                failure = error
            else:
                return True, self._touch(entry)
            finally:
                self.locks.release()
            self.clock.wait(PAUSE_S)
        raise StorageError(f"{asked} was not linked, run this again: {failure}")

    def _touch(self, entry: ManifestEntry) -> str:
        """Set the file's time to now, as an agent does with what is used.

        Without it the file's age would let the next pass take it again.  Under
        the lock, since a leader that planned before the mark looks at the time
        once more when it has that lock.
        """
        try:
            if self._is_ours(entry):
                self.storage.touch(entry.name)
        except (StorageError, OutcomeUnknownError) as error:
            return str(error)
        return ""

    def _start_again(self, entry_id: str, asked: str, *, linked: bool) -> _Found:
        """Give the entry the next round and a new baseline, and take the mark off.

        One transaction: with the mark gone and the old round it could be
        confirmed by looks from before the link.  The restore is on record with
        it, if the name is this file's.
        """
        token: list[_Found] = []

        def attempt(found: _Found) -> list[Operation] | None:
            if not found.entry.restoring:
                # The answer to an earlier attempt was lost, or another
                # operator's restore of this very entry is done.
                token.append(found)
                return None
            number = ledger.counter_of(self.coordination.get(ledger.ROUND))
            entry = replace(
                found.entry,
                round=number.value + 1,
                baseline=Baseline.of(self._facts(found.entry)),
                restoring=False,
            )
            token[:] = [replace(found, entry=entry)]
            operations: list[Operation] = [
                Check(ledger.ROUND, number.version),
                found.changed(entry),
                ledger.manifest_changed(self.tokens.token()),
                ledger.bump(ledger.VETO_COUNTER),
            ]
            return audit.riding(operations, self._acts(found.entry, linked=linked))

        self._write(entry_id, asked, attempt)
        return token[-1]

    def _acts(self, entry: ManifestEntry, *, linked: bool) -> list[Act]:
        if not linked and not self._is_ours(entry):
            return []
        audit.prepare(self.coordination)
        by = Signature(self.who, self.clock.wall())
        why = "by hand" if linked else "by hand; the name was back already"
        subject = Subject(entry.name, entry.entry, entry.size)
        return [Act(Deed.RESTORED, by.doer, by.when, why, (subject,))]

    def _facts(self, entry: ManifestEntry) -> FileFacts:
        facts = self.storage.quarantined_facts(entry.epoch, entry.leaf)
        if facts is None:
            raise StorageError(
                f"{entry.leaf} is not to be found in quarantine now: run this again"
            )
        return facts

    def _is_ours(self, entry: ManifestEntry) -> bool:
        """Whether the cache name bears this entry's very file."""
        facts = self.storage.facts(entry.name)
        return facts is not None and facts.inode == self._facts(entry).inode

    def _require_ours(self, entry: ManifestEntry) -> None:
        if not self._is_ours(entry):
            raise RefusedError(
                f"{entry.name} is in the cache already, as another file (fetched "
                "again since): nothing was replaced"
            )
