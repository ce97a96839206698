"""Acting: what every step of a leader shares, the stop flag above all.

Every step that takes a name away is a plan's step, and looks at the lease and
at the roster's watch right before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sharedcache import audit, ledger
from sharedcache.cleaner import settle, trail
from sharedcache.cleaner.observe import Observed
from sharedcache.cleaner.trail import Because
from sharedcache.cleaner.world import (
    CleanerWorld,
    DeposedError,
    InterruptedPassError,
    Leadership,
)
from sharedcache.core.acts import changes
from sharedcache.core.model import ManifestEntry, Unreadable
from sharedcache.core.ports import Check, Clock, ConflictError, Set
from sharedcache.core.rate import Pace

REWRITE_TRIES = 20
"""How often a record that others write to is read and written again."""

LOOK_S = 0.2
"""How often a step that waits for its turn looks at the stop flag, in seconds."""

Change = Callable[[ManifestEntry, int], ManifestEntry | None]
"""Makes an entry's new value from the entry and the next round."""


@dataclass(slots=True)
class Taken:
    """What came of quarantines: files and bytes taken, files kept after all."""

    names: list[str] = field(default_factory=list)
    size: int = 0
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Purged:
    """What came of purges: names gone, and bytes freed.

    A file that has another name still (restored before) frees nothing yet.
    ``counted`` holds the ids of the entries that are in ``names``; ``refused``
    tells of entries that the storage would not open, rename or unlink, with why.
    """

    names: list[str] = field(default_factory=list)
    size: int = 0
    counted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def count(self, entry: ManifestEntry) -> bool:
        """Count an entry that is gone for good; ``False`` if it was counted."""
        if entry.entry in self.counted:
            return False
        self.counted.add(entry.entry)
        self.names.append(entry.name)
        if entry.baseline is not None and entry.baseline.links == 1:
            self.size += entry.size
        return True


@dataclass(slots=True)
class Pacer:
    """The pace of this cleaner's renames and unlinks, over all its passes."""

    pace: Pace

    def wait(self, clock: Clock, look: Callable[[], None]) -> None:
        """Wait until the next step may be made, and count it.

        ``look`` is called every ``LOOK_S`` seconds at least, and whenever
        something happened; what it raises ends the wait.
        """
        while (wait_s := self.pace.wait_s(clock.boottime())) > 0:
            clock.wait(min(wait_s, LOOK_S))
            look()
        self.pace = self.pace.stepped(clock.boottime())


@dataclass(frozen=True, slots=True)
class Actor:
    """One pass's right to act, under one leadership and one observation.

    ``plan`` is the digest of the plan whose steps are carried out.
    """

    leadership: Leadership
    observed: Observed
    pacer: Pacer
    plan: str | None = None

    @property
    def world(self) -> CleanerWorld:
        """The ports."""
        return self.leadership.world

    def await_turn(self) -> None:
        """Wait as long as the rate asks for; look as ``may_go_on`` does meanwhile.

        No lock may be held, and the caller looks once more before its step.
        """
        self.pacer.wait(self.world.clock, self.may_go_on)

    def may_go_on(self) -> None:
        """Raise unless the lease is good and the roster is as it was observed.

        A cleaner that is asked to stop begins no further step either; what was
        done is recorded as after any interruption.
        """
        self.leadership.check()
        if self.world.stopping():
            raise InterruptedPassError("the cleaner is asked to stop")
        changes = self.world.coordination.watch(ledger.ROSTER_COUNTER)
        if changes != self.observed.roster_changes:
            raise InterruptedPassError("the roster changed during the pass")

    def raise_round(self) -> int:
        """Raise the round by one; return the new one."""
        number = self.observed.round
        data = ledger.number_data(number.value + 1, number.data)
        self.world.coordination.commit(
            [*self.leadership.conditions(), Set(ledger.ROUND, data, number.version)]
        )
        return number.value + 1

    def because(self) -> Because:
        """Return why this pass changes entries, for the audit trail."""
        seen = self.observed.seen
        return Because(
            plan=self.plan,
            round=seen.round,
            damaged={(o.name, o.inode): o.what for o in seen.damaged.values()},
        )

    def rewrite(
        self, name: str, change: Change, because: Because | None = None
    ) -> None:
        """Read one record of the manifest, change its entries, write it back.

        What that means for files is told in the same transaction.  An agent
        that restores writes the same record, so a conflict on it is read again;
        any other conflict means that a successor leads.
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
            why = because or self.because()
            what = changes(batch.entries, entries, why.authorised)
            acts = trail.entry_acts(self.leadership, what, why)
            trail.tell(self.world.journal, acts)
            transaction = [
                *self.leadership.conditions(),
                Check(ledger.ROUND, number.version),
                settle.rewrite(replace(batch, entries=entries)),
                ledger.manifest_changed(self.world.tokens.token()),
            ]
            try:
                coordination.commit(audit.riding(transaction, acts))
            except ConflictError as error:
                if error.path == path:
                    continue
                raise DeposedError(f"a successor leads: {error}") from error
            return
        raise InterruptedPassError(f"{path} changes faster than it can be written")
