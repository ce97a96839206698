"""Renewing: a quarantined file gets a name that no restore was asked of.

A restore's ``link`` can stay under way after the agent that sent it has died,
and land when everything else is settled.  Once the file bears another name, such
a link finds nothing (``docs/protocol.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharedcache.cleaner.act import Actor, Purged
from sharedcache.cleaner.settle import Settler
from sharedcache.cleaner.world import (
    CleanerWorld,
    DeposedError,
    InterruptedPassError,
)
from sharedcache.core import names
from sharedcache.core.model import ManifestEntry
from sharedcache.core.plan import Renewing
from sharedcache.core.ports import (
    FencedError,
    NameExistsError,
    NameMissingError,
    OutcomeUnknownError,
    StorageError,
)


@dataclass(frozen=True, slots=True)
class Renewer:
    """Carries out the renewals of one pass; ``result`` takes what was refused."""

    actor: Actor
    result: Purged

    @property
    def world(self) -> CleanerWorld:
        """The ports."""
        return self.actor.world

    def renew(self, planned: Sequence[Renewing]) -> bool:
        """Give entries new leaves; tell whether the manifest was written.

        The record names the old leaf, marked, until the rename is known, so an
        interrupted renewal is found by settling: the entry's id is in both
        names, and the mark keeps the entry from being purged.
        """
        chosen = planned[: self.world.policy.paced_batch()]
        if not chosen:
            return False
        try:
            for renewing in chosen:
                self._rename(renewing.entry)
        except InterruptedPassError:
            # What was renamed is recorded all the same, so that it can be
            # restored.
            self._settle()
            raise
        return self._settle()

    def _settle(self) -> bool:
        manifest = self.actor.observed.seen.manifest
        return Settler(self.actor.leadership).settle_open(manifest)

    def _rename(self, entry: ManifestEntry) -> None:
        """Rename one quarantined file within this epoch's directory."""
        self.actor.await_turn()
        self.actor.may_go_on()
        epoch, leaf = self.actor.leadership.epoch, names.next_leaf(entry.leaf)
        try:
            self.world.storage.epoch_move(epoch, entry.leaf, epoch, leaf)
        except FencedError as error:
            raise DeposedError(f"epoch {epoch} is sealed: {error}") from error
        except (NameExistsError, NameMissingError):
            # An earlier attempt, whose answer was lost, has done it.
            return
        except OutcomeUnknownError as error:
            self.world.journal.event(
                "rename-outcome-unknown", name=entry.name, error=error
            )
            return
        except StorageError as error:
            self.result.refused[entry.entry] = str(error)
            self.world.journal.event("renewal-refused", file=entry.leaf, error=error)
            return
        self.world.journal.event("renewed", file=entry.name, leaf=leaf)
