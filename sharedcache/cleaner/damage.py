"""Orders of files that were found damaged: who writes them, and when they go.

``verify`` finds damage and orders; the planner judges by the orders; the leader
drops those whose file is gone, and records of digests that no file has any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sharedcache import audit, ledger
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.observe import Observed
from sharedcache.cleaner.world import CleanerWorld, Leadership
from sharedcache.core import codec
from sharedcache.core.acts import Act, Deed, Signature, Subject
from sharedcache.core.damage import MAX_ORDERS, Damage, orders_to_record
from sharedcache.core.model import NANOSECONDS, Unreadable
from sharedcache.core.names import Kind
from sharedcache.core.plan import Observation
from sharedcache.core.ports import (
    Check,
    ConflictError,
    Coordination,
    CoordinationError,
    Create,
    OutcomeUnknownError,
    Set,
    StorageError,
)
from sharedcache.core.remains import orphans, spent

WRITE_TRIES = 20
"""How often the orders are read again because somebody else wrote them."""

SWEEP_S = 3600.0
"""How often a leader looks for records of files that are gone, in seconds."""

Orders = dict[str, Damage]


def order(coordination: Coordination, found: Damage, by: Signature) -> bool:
    """Order that a damaged file goes once nobody uses it; ``False`` if it stands.

    Nothing is interrupted by it: it keeps no file.  ``RefusedError`` if so many
    orders stand that not the files but the storage must be looked at.
    """

    def change(orders: Orders) -> bool:
        if found.same_as(orders.get(found.name)):
            return False
        if found.name not in orders and len(orders) >= MAX_ORDERS:
            raise RefusedError(
                f"{MAX_ORDERS} files were found damaged already: look at the storage "
                "itself first"
            )
        orders[found.name] = found
        return True

    act = Act(
        Deed.FOUND_DAMAGED,
        by.doer,
        by.when,
        found.what,
        (
            Subject(
                found.name,
                size=found.size,
                last_use_s=found.mtime_ns // NANOSECONDS,
            ),
        ),
    )
    return _change(coordination, change, act)


def withdraw(coordination: Coordination, name: str, by: Signature) -> bool:
    """Take an order back, since the file is whole; ``False`` if there is none."""
    act = Act(Deed.FOUND_WHOLE, by.doer, by.when, subjects=(Subject(name),))
    return _change(coordination, lambda orders: orders.pop(name, None) is not None, act)


def _change(
    coordination: Coordination, change: Callable[[Orders], bool], act: Act
) -> bool:
    audit.prepare(coordination)
    for _ in range(WRITE_TRIES):
        coordination.sync()
        record = coordination.get(ledger.DAMAGED)
        orders = _orders(ledger.damaged_of(record))
        if not change(orders):
            return False
        path, data = ledger.DAMAGED, _data(orders)
        write = (
            Create(path, data) if record is None else Set(path, data, record.version)
        )
        # Nothing is left in a tree that was lost: it could not be founded again.
        founded = Check(ledger.IDENTITY, None)
        try:
            coordination.commit(audit.riding([founded, write], [act]))
        except ConflictError as error:
            if error.path == ledger.IDENTITY:
                raise CoordinationError(
                    "ZooKeeper holds no such cluster: see `sharedcache status`"
                ) from error
            continue
        return True
    raise CoordinationError("the orders of damaged files could not be written")


def _orders(found: Mapping[str, Damage] | Unreadable) -> Orders:
    """Return the orders to go on from; what cannot be read is found again.

    A later release's are left alone: ``RefusedError``.
    """
    if not isinstance(found, Unreadable):
        return dict(found)
    if found.newer:
        raise RefusedError(
            f"the orders of damaged files: {found.why}: upgrade this host"
        )
    return {}


def _data(orders: Orders) -> bytes:
    return codec.pack(orders_to_record(orders.values()))


@dataclass(slots=True)
class DamageKeeper:
    """What a leader does about orders and records.  No step waits for it."""

    world: CleanerWorld
    _next_sweep: float = 0.0

    def tend(self, leadership: Leadership, observed: Observed) -> None:
        """Drop what is about no file any more; what fails is tried again later."""
        seen = observed.seen
        if not seen.facts.nodes or not len(seen.files):
            # Nothing is concluded from a directory that looks empty.
            return
        try:
            self._drop_spent(leadership, seen)
            if self.world.clock.boottime() >= self._next_sweep:
                self._next_sweep = self.world.clock.boottime() + SWEEP_S
                self._sweep(seen)
        except (CoordinationError, OutcomeUnknownError, StorageError) as error:
            self.world.journal.event("damage-not-tended", error=error)

    def _drop_spent(self, leadership: Leadership, seen: Observation) -> None:
        names = spent(seen)
        if not names:
            return
        coordination = self.world.coordination
        record = coordination.get(ledger.DAMAGED)
        found = ledger.damaged_of(record)
        if record is None or isinstance(found, Unreadable):
            return
        orders = {
            name: one
            for name, one in found.items()
            # One that was written since is of a file that was seen since.
            if name not in names or one != seen.damaged[name]
        }
        if len(orders) == len(found):
            return
        coordination.commit(
            [
                *leadership.conditions(),
                Set(ledger.DAMAGED, _data(orders), record.version),
            ]
        )
        for name in sorted(set(found) - set(orders)):
            self.world.journal.event("damaged-file-gone", file=name)

    def _sweep(self, seen: Observation) -> None:
        storage = self.world.storage
        least_ns = self.world.policy.min_age_ns(Kind.PARTIAL)
        dropped = orphans(seen, storage.digest_list(), least_ns)
        for name, inode in dropped:
            storage.digest_drop(name, inode)
        if dropped:
            self.world.journal.event("digest-records-dropped", records=len(dropped))
