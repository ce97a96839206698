"""Keeping the inventory of raw-id names, and an operator's word on what appeared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sharedcache import audit, inventory, ledger
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.observe import Observed, Observer
from sharedcache.cleaner.trail import doer, tell
from sharedcache.cleaner.world import Leadership
from sharedcache.core.acts import Act, Deed, Signature, upon
from sharedcache.core.inventory import (
    Inventory,
    OldName,
    absent,
    appeared,
    take,
    tended,
)
from sharedcache.core.model import Rollout, Unreadable
from sharedcache.core.ports import ConflictError, Operation

TRIES = 5
"""How often an acknowledgement meets a record that changed, before it gives up."""


@dataclass(slots=True)
class InventoryKeeper:
    """Keeps a leader's inventory true to what its whole passes see."""

    _absent: frozenset[str] = frozenset()

    def begin(self) -> None:
        """Begin a leadership: nothing was seen absent yet."""
        self._absent = frozenset()

    def tend(self, leadership: Leadership, observed: Observed) -> bool:
        """Take an inventory where there is none, or bring it up to date.

        Called after a whole look.  Tells whether one was taken: then the gate is
        to be judged anew.  Writes nothing if nothing changed.
        """
        found = observed.seen.facts.inventory
        rollout = observed.rollout
        if not isinstance(rollout, Rollout) or isinstance(found, Unreadable):
            return False
        if not observed.seen.facts.schemas.may_clean(rollout.finalized_schema):
            return False
        if found is None:
            return self._take(leadership, observed)
        # Listing a directory in which names come and go may miss one once.
        gone = absent(found, observed.old_names, observed.seen.entries)
        after = tended(found, observed.old_names, gone & self._absent)
        self._absent = gone
        if after != found:
            self._write(leadership, observed, after, [])
        return False

    def _take(self, leadership: Leadership, observed: Observed) -> bool:
        """Account for what is there: nobody did so when the schema was finalized.

        What appeared before this is not told from what was there; an earlier
        release had no such check at all.
        """
        world = leadership.world
        taken = replace(take(observed.old_names, observed.seen.entries), settled=True)
        act = _taken(leadership, taken)
        tell(world.journal, [act])
        audit.prepare(world.coordination)
        self._write(leadership, observed, taken, audit.operations([act]))
        return True

    @staticmethod
    def _write(
        leadership: Leadership,
        observed: Observed,
        after: Inventory,
        more: Sequence[Operation],
    ) -> None:
        """Write it, unless somebody else did since: then the next pass goes on."""
        coordination = leadership.world.coordination
        version = observed.later[ledger.INVENTORY]
        write = inventory.writing(coordination, after, version)
        try:
            coordination.commit([*leadership.conditions(), *write, *more])
        except ConflictError as error:
            if not inventory.is_conflict(error):
                raise
            leadership.world.journal.event("inventory-changed-meanwhile")
            return
        inventory.drop_parts(coordination)


def _taken(leadership: Leadership, taken: Inventory) -> Act:
    world = leadership.world
    return Act(
        Deed.INVENTORY_TAKEN,
        doer(world, leadership.epoch),
        world.clock.wall(),
        f"none was taken at finalization; {len(taken.inodes)} raw-id names are there",
    )


def acknowledge(
    observer: Observer, names: Sequence[str] | None, by: Signature
) -> list[str]:
    """Account for files that appeared, on an operator's word; return their names.

    ``names`` is ``None`` for all of them; then an inventory that is damaged is
    taken anew, too.  Raises ``RefusedError`` for a name that did not appear.
    """
    for _ in range(TRIES):
        observed = observer.observe(scan=True)
        strange, base = _strange(observed, everything=names is None)
        wanted = strange if names is None else _chosen(strange, names)
        if not wanted and isinstance(observed.seen.facts.inventory, Inventory):
            return []
        coordination = observer.coordination
        why = "raw-id names that appeared after finalization"
        act = upon(
            Act(Deed.ACKNOWLEDGED, by.doer, by.when, why),
            [one.name for one in wanted],
        )
        audit.prepare(coordination)
        write = inventory.writing(
            coordination, base.with_files(wanted), observed.later[ledger.INVENTORY]
        )
        try:
            coordination.commit(audit.riding(write, [act]))
        except ConflictError as error:
            if not inventory.is_conflict(error):
                raise
            continue
        inventory.drop_parts(coordination)
        return [one.name for one in wanted]
    raise RefusedError("the inventory changes faster than it can be written: try again")


def _strange(
    observed: Observed, *, everything: bool
) -> tuple[tuple[OldName, ...], Inventory]:
    """Return what appeared, and the inventory that it is to be added to."""
    found, rollout = observed.seen.facts.inventory, observed.rollout
    schemas = observed.seen.facts.schemas
    if isinstance(rollout, Unreadable) or rollout.finalized_schema > schemas.newest:
        raise RefusedError(
            "this release cannot tell which schema is finalized: see `sharedcache "
            "rollout status`"
        )
    if not schemas.may_clean(rollout.finalized_schema):
        raise RefusedError(
            "no hashed naming is finalized yet, so no raw-id name can appear: see "
            "`sharedcache rollout status`"
        )
    if isinstance(found, Inventory):
        return appeared(found, observed.old_names.files), found
    if isinstance(found, Unreadable) and found.newer:
        raise RefusedError(f"the inventory was written by a newer release: {found.why}")
    if found is None or not everything:
        raise RefusedError(
            "there is no inventory yet: the leader takes one at its next pass"
            if found is None
            else "the inventory cannot be read: give --all to take it anew"
        )
    anew = replace(take(observed.old_names, observed.seen.entries), settled=True)
    return observed.old_names.files, anew


def _chosen(strange: Sequence[OldName], names: Sequence[str]) -> tuple[OldName, ...]:
    by_name = {one.name: one for one in strange}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise RefusedError(
            f"{unknown[0]} is not among the raw-id names that appeared: `sharedcache "
            "rollout status` names those"
        )
    return tuple(by_name[name] for name in dict.fromkeys(names))
