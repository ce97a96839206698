"""Becoming the leader: election, epoch, and sealing of the predecessors.

The order is the protocol's (``docs/protocol.md``): nothing is acted upon
before every lower epoch is sealed on the storage itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sharedcache import audit, ledger
from sharedcache.cleaner import trail
from sharedcache.cleaner.settle import Settler, clear_authorisation
from sharedcache.cleaner.world import (
    CannotStandError,
    CleanerWorld,
    DeposedError,
    Leadership,
    SpentEpochError,
)
from sharedcache.core import codec, names
from sharedcache.core.acts import Act, Deed
from sharedcache.core.model import (
    Cluster,
)
from sharedcache.core.ports import (
    Candidacy,
    Check,
    ConflictError,
    Coordination,
    CoordinationError,
    FencedError,
    NameExistsError,
    NameMissingError,
    NotEmptyStorageError,
    OutcomeUnknownError,
    Set,
    Storage,
    StorageError,
)

SEAL_TRIES = 1000
"""How often a directory is emptied again before the takeover gives up."""


def take_office(world: CleanerWorld) -> Leadership | None:
    """Try once to become the leader, predecessors sealed; ``None`` if it cannot be.

    Raises ``CannotStandError`` when it could not succeed anyway,
    ``DeposedError`` when the office was lost on the way,
    ``CoordinationError`` and ``StorageError`` when the world failed, and of the
    latter ``SpentEpochError`` when an epoch's number was used up by it.
    """
    if world.coordination.leader() not in (None, world.name):
        return None
    check_standing(world.coordination, world.storage)
    candidacy = world.coordination.campaign()
    if candidacy is None:
        return None
    try:
        audit.prepare(world.coordination)
        leadership = _claim(world, candidacy)
        _make_epoch(leadership)
        Successor(leadership).take_over()
    except FencedError:
        world.coordination.resign()
        raise
    except StorageError as error:
        # Nothing is asked of the storage before the epoch is claimed.
        world.coordination.resign()
        raise SpentEpochError(str(error), error.errno) from error
    except (
        DeposedError,
        CoordinationError,
        OutcomeUnknownError,
        codec.RecordError,
    ):
        world.coordination.resign()
        raise
    world.journal.event("leading", cleaner=world.name, epoch=leadership.epoch)
    return leadership


def hindrance(coordination: Coordination, storage: Storage) -> str | None:
    """Tell why no cleaner could take office now; ``None`` if one could.

    Raises ``CoordinationError`` and ``StorageError`` when the world failed.
    """
    try:
        check_standing(coordination, storage)
    except (CannotStandError, codec.RecordError) as error:
        return str(error)
    return None


def check_standing(coordination: Coordination, storage: Storage) -> None:
    """Raise ``CannotStandError`` if taking office could not succeed.

    Nothing is written then: no epoch is used up, and no entry's wait starts
    again, by a cleaner that would have to stand down at once.
    """
    disk = ledger.marker_of(storage.read_marker())
    coordination.sync()
    tree = ledger.cluster_of(coordination.get(ledger.IDENTITY))
    if not isinstance(disk, Cluster) or disk != tree:
        raise CannotStandError(
            "directory and ZooKeeper do not name one cluster: the gate's reasons in "
            "`sharedcache status` say more"
        )
    reader = ledger.ManifestReader()
    reader.read(coordination, coordination.get(ledger.MANIFEST))
    for batch, broken in reader.broken.items():
        raise CannotStandError(f"the manifest's record {batch}: {broken.why}")
    with ledger.reading("the epoch"):
        number = ledger.counter_of(coordination.get(ledger.EPOCH))
    epochs = storage.epochs()
    if max(epochs, default=0) > number.value:
        raise CannotStandError(
            f"the storage knows epoch {max(epochs)}, ZooKeeper {number.value}: if "
            "ZooKeeper was restored from a copy, run `sharedcache recover`"
        )
    for epoch in (epoch for epoch, sealed in epochs.items() if not sealed):
        _check_leaves(storage, epoch)


def _check_leaves(storage: Storage, epoch: int) -> None:
    """Raise ``CannotStandError`` if something of somebody else's lies in an epoch."""
    try:
        leaves = storage.epoch_list(epoch)
    except FencedError:
        # Sealed meanwhile: there is nothing left in it.
        return
    for leaf in leaves:
        if names.parse_leaf(leaf) is None:
            raise CannotStandError(
                f"epochs/{epoch}/{leaf} is none of ours: move it away by hand, so "
                "that the epoch can be sealed"
            )


def _claim(world: CleanerWorld, candidacy: Candidacy) -> Leadership:
    """Raise the epoch in one transaction that checks the election's node."""
    record = world.coordination.get(ledger.EPOCH)
    number = ledger.counter_of(record)
    epoch = number.value + 1
    data = ledger.number_data(epoch, number.data, cleaner=world.name)
    act = Act(
        Deed.TOOK_OFFICE,
        trail.doer(world, epoch),
        world.clock.wall(),
        "won the election",
    )
    try:
        world.coordination.commit(
            [
                Check(candidacy.path, None),
                Set(ledger.EPOCH, data, number.version),
                *audit.operations([act]),
            ]
        )
    except ConflictError as error:
        raise DeposedError(f"epoch {epoch} was claimed by another") from error
    trail.tell(world.journal, [act])
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
    _sealed: list[int] = field(default_factory=list)

    def take_over(self) -> None:
        """Seal lower epochs, settle the manifest, clear the authorisation."""
        self.seal_lower_epochs()
        self._tell_sealed()
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

    def _tell_sealed(self) -> None:
        """Have the seals on record; one that a crash left out is told by its file."""
        if not self._sealed:
            return
        world = self.leadership.world
        numbers = ", ".join(str(number) for number in self._sealed)
        act = Act(
            Deed.SEALED_EPOCHS,
            trail.doer(world, self.leadership.epoch),
            world.clock.wall(),
            f"epochs {numbers}: a later leader took over",
        )
        trail.write(world, [act])

    def _seal(self, number: int) -> None:
        """Seal one epoch, again and again while something slips in."""
        storage = self.leadership.world.storage
        for _ in range(SEAL_TRIES):
            self.leadership.check()
            sealed = storage.epochs().get(number)
            if sealed:
                return
            if sealed is not None:
                self._move_entries(number)
            try:
                if sealed is not None:
                    storage.epoch_remove(number)
                storage.epoch_seal(number)
            except NotEmptyStorageError:
                continue
            except (NameExistsError, NameMissingError, FencedError):
                # Its late leader made the directory after all, or another
                # successor removed or sealed it: look again.  What is refused
                # here is about that epoch; our own was not asked.
                continue
            self.leadership.world.journal.event("sealed-epoch", epoch=number)
            self._sealed.append(number)
            return
        raise DeposedError(
            f"epoch {number} could not be sealed: something keeps "
            "writing into its directory"
        )

    def _move_entries(self, number: int) -> None:
        world, epoch = self.leadership.world, self.leadership.epoch
        try:
            leaves = world.storage.epoch_list(number)
        except FencedError:
            # Another successor sealed it meanwhile: nothing is left in it.
            return
        for leaf in leaves:
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
