"""What a cleaner's parts share: its policy, its ports, its right to act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sharedcache import ledger
from sharedcache.core.lease import Lease
from sharedcache.core.policy import CleanerPolicy
from sharedcache.core.ports import (
    Candidacy,
    Check,
    Clock,
    Coordination,
    Journal,
    NameLocks,
    Operation,
    Storage,
    StorageError,
    Tokens,
)


class DeposedError(Exception):
    """This cleaner does not lead any more, or cannot be sure: it stands down."""


class CannotStandError(Exception):
    """This cleaner could not lead if it were elected; the message says why."""


class SpentEpochError(StorageError):
    """The storage failed a takeover after its epoch was claimed: that is used up."""


class InterruptedPassError(Exception):
    """Something changed that this pass did not know: look again before acting."""


class NotAuthorisedError(InterruptedPassError):
    """A purge's transaction was refused: a node or an operator said otherwise."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class CleanerWorld:
    """The ports of one cleaner; ``stopping`` tells that it was asked to stop."""

    name: str
    policy: CleanerPolicy
    storage: Storage
    coordination: Coordination
    locks: NameLocks
    clock: Clock
    tokens: Tokens
    journal: Journal
    stopping: Callable[[], bool] = _never


@dataclass(frozen=True, slots=True)
class Leadership:
    """One leadership: its election's node, its epoch, and its lease."""

    world: CleanerWorld
    candidacy: Candidacy
    epoch: int
    epoch_version: int

    def conditions(self) -> list[Operation]:
        """Return what every transaction of this leader checks."""
        return [
            Check(self.candidacy.path, None),
            Check(ledger.EPOCH, self.epoch_version),
        ]

    def lease(self) -> Lease | None:
        """Return the lease as of the last confirmed renewal; ``None`` if lost."""
        sent = self.world.coordination.lease_sent(self.candidacy)
        if sent is None:
            return None
        return Lease(sent, self.world.coordination.session_timeout_s())

    def check(self) -> None:
        """Raise ``DeposedError`` unless the lease is good at this moment."""
        lease = self.lease()
        if lease is None:
            raise DeposedError(f"epoch {self.epoch} lost its election")
        if not lease.good(self.world.clock.boottime()):
            raise DeposedError(f"the lease of epoch {self.epoch} is over")
