"""Mutants: offices, seals and unlinks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from sharedcache.cleaner import (
    act,
    lead,
    purge,
    settle,
    take,
)
from sharedcache.cleaner.world import InterruptedPassError
from sharedcache.core import names
from tests.simulation.mutants.registry import Patch, mutant


@mutant("no seal", "I2", aim="deposed")
def no_seal(patch: Patch) -> None:
    """Move entries, and leave the predecessors' directories open."""

    def seal(self: lead.Successor) -> None:
        storage = self.leadership.world.storage
        for number, sealed in storage.epochs().items():
            if number < self.leadership.epoch and not sealed:
                self._move_entries(number)

    patch.set(lead.Successor, "seal_lower_epochs", seal)


@mutant("authorisation cleared before the seal", aim="restore-in-a-takeover")
def clear_first(patch: Patch) -> None:
    """Forget what a predecessor may unlink while it may still unlink it."""

    def take_over(self: lead.Successor) -> None:
        self._clear_authorisation()
        self.seal_lower_epochs()
        settle.Settler(self.leadership).settle_all()

    patch.set(lead.Successor, "take_over", take_over)


@mutant("authorisation cleared while an unlink is outstanding", aim="late-unlink")
def clear_outstanding(patch: Patch) -> None:
    """Take a lost answer to an unlink for a refusal."""
    real = purge.Purger._unlink

    def unlink(self: purge.Purger, authorisation: Any, entries: Any) -> set[str]:
        refused: set[str] = set()
        for entry in entries:
            try:
                refused |= real(self, authorisation, [entry])
            except InterruptedPassError as error:
                if "unlink unknown" not in str(error):
                    raise
                refused.add(entry.entry)
        return refused

    patch.set(purge.Purger, "_unlink", unlink)


@mutant("the lease is not looked at", "I2", aim="deposed")
def no_lease(patch: Patch) -> None:
    """Go on whatever became of the office."""
    patch.set(act.Actor, "may_go_on", lambda _: None)


@mutant("the lease is not looked at, and nothing is sealed", "I2", aim="deposed")
def no_lease_no_seal(patch: Patch) -> None:
    """Take out the lease together with what covers for it."""
    no_seal(patch)
    no_lease(patch)


@mutant("quarantined names are used again", aim="unlink-of-another-time")
def name_again(patch: Patch) -> None:
    """Give a file the quarantined name that one of its cache name had before."""
    real = take.Taker._intend

    def intend(self: take.Taker, taking: Any) -> Any:
        entry = hashlib.sha1(taking.name.encode()).hexdigest()[:16]  # noqa: S324
        leaf = names.leaf_of(taking.name, entry, self.actor.leadership.epoch)
        return replace(real(self, taking), entry=entry, leaf=leaf)

    patch.set(take.Taker, "_intend", intend)


@mutant("a takeover leaves entries their rounds", aim="late-link-in-a-takeover")
def kept_round(patch: Patch) -> None:
    """Move quarantined files to one's own epoch, and let their wait go on."""
    real = settle.taken

    def taken(entry: Any, epoch: int, leaf: str, next_round: int, *rest: Any) -> Any:
        kept = entry.round if entry.epoch != epoch else 0
        return real(entry, epoch, leaf, kept or next_round, *rest)

    patch.set(settle, "taken", taken)
