"""Purging: confirmed entries authorised in one transaction, then unlinked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sharedcache import ledger
from sharedcache.cleaner.act import Actor, Purged
from sharedcache.cleaner.settle import clear_authorisation
from sharedcache.cleaner.trail import Because
from sharedcache.cleaner.world import (
    CleanerWorld,
    DeposedError,
    InterruptedPassError,
    NotAuthorisedError,
)
from sharedcache.core import codec
from sharedcache.core.model import Authorisation, Baseline, ManifestEntry
from sharedcache.core.plan import Purging
from sharedcache.core.ports import (
    Check,
    ConflictError,
    FencedError,
    NameMissingError,
    OutcomeUnknownError,
    Set,
    StorageError,
)


@dataclass(frozen=True, slots=True)
class Purger:
    """Carries out the purges of one pass; ``result`` tells what came of them."""

    actor: Actor
    result: Purged

    @property
    def world(self) -> CleanerWorld:
        """The ports."""
        return self.actor.world

    def purge(self, planned: Sequence[Purging]) -> bool:
        """Unlink confirmed entries: one transaction authorises each batch.

        Tells whether to look again at once, because entries changed.
        """
        chosen = planned[: self.world.policy.paced_batch()]
        changed: list[Purging] = []
        ready = [p for p in chosen if self._unchanged(p, changed)]
        if changed:
            # Their records change, so the versions that the authorisation
            # checks must be read again: the next pass goes on.
            self._start_again(changed)
            return True
        if ready:
            authorisation = self._authorise(ready)
            refused = self._unlink(authorisation, [p.entry for p in ready])
            because = self.actor.because()
            rule = f"confirmed by every node, round {because.round}"
            because = replace(because, purged=rule)
            self.finish(authorisation, {p.batch for p in ready}, refused, because)
        return len(planned) > len(chosen)

    def _unchanged(self, purging: Purging, changed: list[Purging]) -> bool:
        """Open the inode read-write and compare it with its baseline."""
        storage, entry = self.world.storage, purging.entry
        try:
            facts = storage.quarantined_facts(entry.epoch, entry.leaf, writable=True)
            same = facts is not None and entry.baseline == Baseline.of(facts)
            if same and not storage.quarantined_locked(entry.epoch, entry.leaf):
                return True
        except FencedError as error:
            raise DeposedError(f"epoch {entry.epoch} is sealed: {error}") from error
        except StorageError as error:
            # One file that cannot be opened must not hold the others back.
            self._refuse(entry, error)
            return False
        changed.append(purging)
        return False

    def _refuse(self, entry: ManifestEntry, error: StorageError) -> None:
        self.result.refused[entry.entry] = str(error)
        self.world.journal.event("purge-refused", file=entry.leaf, error=error)

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

            self.actor.rewrite(batch, change)

    def _authorise(self, ready: Sequence[Purging]) -> Authorisation:
        """Commit the one transaction that lets a named batch be unlinked."""
        observed = self.actor.observed
        versions = {b.batch: b.version for b in observed.seen.manifest}
        authorisation = Authorisation(
            token=self.world.tokens.token(),
            epoch=self.actor.leadership.epoch,
            leaves={p.entry.entry: p.entry.leaf for p in ready},
            version=observed.authorisation.version + 1,
        )
        data = codec.pack(codec.authorisation_to_record(authorisation))
        self.actor.may_go_on()
        try:
            self.world.coordination.commit(
                [
                    *self.actor.leadership.conditions(),
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
            raise NotAuthorisedError(f"not authorised: {error}") from error
        except OutcomeUnknownError as error:
            # The next pass reads the token back and goes on from there.
            raise InterruptedPassError(f"authorisation unknown: {error}") from error
        return authorisation

    def _unlink(
        self, authorisation: Authorisation, entries: Sequence[ManifestEntry]
    ) -> set[str]:
        """Unlink what is authorised; return the ids that the storage refused.

        A refusal is a known outcome: the file is there and stays restorable
        once the authorisation is cleared.
        """
        refused: set[str] = set()
        for entry in entries:
            self.actor.await_turn()
            self.actor.may_go_on()
            self._forget(entry)
            # That may have taken long; the lease is looked at last.
            self.actor.may_go_on()
            try:
                self.world.storage.purge(authorisation.epoch, entry.leaf)
            except NameMissingError:
                # An earlier attempt of this very authorisation did it.
                pass
            except FencedError as error:
                raise DeposedError(f"sealed while unlinking: {error}") from error
            except OutcomeUnknownError as error:
                raise InterruptedPassError(f"unlink unknown: {error}") from error
            except StorageError as error:
                self._refuse(entry, error)
                refused.add(entry.entry)
                continue
            if self.result.count(entry):
                self.world.journal.event("purged", file=entry.name, epoch=entry.epoch)
        return refused

    def _forget(self, entry: ManifestEntry) -> None:
        """Drop the digest record of a file whose last name goes.

        Before that, while nothing else can have its inode's number: a record that
        stayed would one day be taken for another file's.  No unlink waits for it.
        """
        base = entry.baseline
        if base is None or base.links != 1:
            return
        try:
            self.world.storage.digest_drop(entry.name, base.inode)
        except (StorageError, OutcomeUnknownError) as error:
            self.world.journal.event(
                "digest-record-left", file=entry.name, inode=base.inode, error=error
            )

    def resume(self) -> bool:
        """Finish an authorisation that an earlier pass of this epoch left standing.

        Tells whether there was one.  Its names are gone for good, so the
        unlinks are repeated until every outcome is known.
        """
        observed, leadership = self.actor.observed, self.actor.leadership
        authorisation = observed.authorisation
        if not authorisation.token or authorisation.epoch != leadership.epoch:
            return False
        ids = authorisation.leaves
        entries = [e for e in observed.seen.entries if e.entry in ids]
        refused = self._unlink(authorisation, entries)
        batches = {
            batch.batch
            for batch in observed.seen.manifest
            if any(e.entry in ids for e in batch.entries)
        }
        # The plan that confirmed them was an earlier pass's.
        because = Because(purged="confirmed by every node; finished by a later pass")
        self.finish(authorisation, batches, refused, because)
        return True

    def finish(
        self,
        authorisation: Authorisation,
        batches: set[str],
        refused: set[str],
        because: Because,
    ) -> None:
        """Take unlinked entries out of the manifest; then clear the authorisation."""
        gone = frozenset(authorisation.leaves) - refused
        because = replace(because, authorised=gone)

        def change(entry: ManifestEntry, _: int) -> ManifestEntry | None:
            return None if entry.entry in gone else entry

        for batch in sorted(batches):
            self.actor.rewrite(batch, change, because)
        self.world.coordination.commit(
            [
                *self.actor.leadership.conditions(),
                clear_authorisation(authorisation),
            ]
        )
