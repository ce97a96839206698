"""The audit trail in ZooKeeper: how acts are written, read and kept within bounds.

Every act is a child of ``audit`` whose number the servers give (``Append``):
writers check nothing of each other's and name nothing that another could name,
so they lose nothing of each other's, and no transaction fails because of the
trail.  The numbers are in the order of the transactions, without gaps.

``audit`` itself holds the trail's mark: where it begins, how far the leader has
read it, and how many acts lie between.  Only leaders write it.  Readers go on
from there by number, so nobody lists children of which there may be many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sharedcache import ledger
from sharedcache.core import codec
from sharedcache.core.acts import Act, act_from_bytes, act_to_record, parts
from sharedcache.core.model import Unreadable
from sharedcache.core.ports import (
    Append,
    Check,
    ConflictError,
    Coordination,
    CoordinationError,
    Create,
    Delete,
    Operation,
    OutcomeUnknownError,
    Record,
)

TRAIL = "audit"
_ACT = f"{TRAIL}/act-"

WINDOW = 32
"""How many acts are read at once; as many missing ones end the trail."""

MAX_TRANSACTION_BYTES = 950_000
"""Acts that would make a transaction larger are left off: the act comes first."""

_OPERATION_BYTES = 300


def act_path(number: int) -> str:
    """Path of an act by its number."""
    return f"{_ACT}{number:010d}"


def prepare(coordination: Coordination) -> None:
    """Make the trail's place unless it is there, in a cluster that is founded.

    Clusters that were founded by an earlier release have none.  Whoever adds
    acts to a transaction calls this some time before.
    """
    if coordination.get(TRAIL) is not None:
        return
    try:
        coordination.commit([Check(ledger.IDENTITY, None), *founding()])
    except ConflictError:
        # Somebody else made it, or there is no cluster: then there is nothing
        # to tell of, and the caller's own transaction says so.
        return


def founding() -> list[Operation]:
    """Return what founds a trail, as a part of founding a cluster."""
    return [Create(TRAIL, b"")]


def operations(acts: Iterable[Act]) -> list[Operation]:
    """Return what a transaction must do to have these acts on record."""
    return [
        Append(_ACT, codec.pack(act_to_record(part)))
        for act in acts
        for part in parts(act)
    ]


def riding(transaction: Sequence[Operation], acts: Iterable[Act]) -> list[Operation]:
    """Return a transaction with acts added at its end, as many as fit.

    Of subjects for which there is no room only the number is written: what a
    transaction does must not fail because it is also told.
    """
    result = list(transaction)
    room = MAX_TRANSACTION_BYTES - sum(_size(operation) for operation in result)
    for act in acts:
        for part in parts(act):
            (written,) = operations([part])
            if _size(written) > room:
                missed = len(part.subjects) + len(part.together)
                short = replace(
                    part,
                    subjects=(),
                    together=(),
                    left_off=part.left_off + missed,
                )
                (written,) = operations([short])
            room -= _size(written)
            result.append(written)
    return result


def _size(operation: Operation) -> int:
    data = b"" if isinstance(operation, Check | Delete) else operation.data
    return _OPERATION_BYTES + len(operation.path) + len(data)


def record(coordination: Coordination, acts: Iterable[Act]) -> str | None:
    """Write acts that have no transaction of their own; return why not, if so.

    Nothing hangs on these: what fails is told by the caller, and not repeated.
    """
    try:
        prepare(coordination)
        coordination.commit(operations(acts))
    except (CoordinationError, OutcomeUnknownError) as error:
        return str(error)
    return None


@dataclass(frozen=True, slots=True)
class Mark:
    """What a leader knows of the trail.

    Acts below ``oldest`` are dropped, those below ``seen`` were read by a
    leader, and ``acts`` counts those in between, by their subjects.
    ``version`` is the data version of the record, ``extra`` what a later release
    has added to it, packed.
    """

    oldest: int = 0
    seen: int = 0
    acts: int = 0
    version: int = -1
    extra: bytes = b""


def mark_data(mark: Mark) -> bytes:
    """Encode the trail's mark."""
    fresh = {"oldest": mark.oldest, "seen": mark.seen, "acts": mark.acts}
    return codec.pack({**codec.unpacked(mark.extra), **fresh})


def mark_of(record: Record | None) -> Mark | Unreadable:
    """Read the trail's mark; a trail without one has just begun."""
    if record is None:
        return Mark()
    if not record.data:
        return Mark(version=record.version)
    data, version = record.data, record.version

    def read() -> Mark:
        fields = codec.Fields(codec.unpack(data))
        oldest = fields.integer("oldest")
        seen = fields.integer("seen", least=oldest)
        extra = fields.unknown({"schema", "oldest", "seen", "acts"})
        return Mark(oldest, seen, fields.integer("acts"), version, extra)

    return codec.readable(read)


def read_mark(coordination: Coordination) -> Mark:
    """Read the trail's mark; one that cannot be read is made up from a listing."""
    record = coordination.get(TRAIL)
    mark = mark_of(record)
    if isinstance(mark, Mark):
        return mark
    found = [_number(name) for name in coordination.children(TRAIL)]
    oldest = min((number for number in found if number is not None), default=0)
    return Mark(oldest, oldest, 0, -1 if record is None else record.version)


def _number(name: str) -> int | None:
    digits = name.removeprefix("act-")
    return int(digits) if digits.isascii() and digits.isdigit() else None


@dataclass(frozen=True, slots=True)
class Told:
    """An act of the trail by its number; ``Unreadable`` if it is damaged or newer."""

    number: int
    act: Act | Unreadable

    @property
    def count(self) -> int:
        """How many acts it counts for."""
        return 1 if isinstance(self.act, Unreadable) else self.act.count


def forward(coordination: Coordination, start: int, seen: int) -> Iterator[Told]:
    """Read from ``start`` to the end, the oldest first, a window at a time.

    ``seen`` is the mark's: below it a window may be empty, since its acts may
    just be dropped.
    """
    while True:
        found = window(coordination, start, start + WINDOW)
        yield from found
        start += WINDOW
        if not found and start >= seen:
            return


def backward(coordination: Coordination, mark: Mark) -> Iterator[Told]:
    """Read from the end to the oldest, the newest first, a window at a time."""
    newer = list(forward(coordination, mark.seen, mark.seen))
    yield from reversed(newer)
    end = mark.seen
    while end > mark.oldest:
        start = max(mark.oldest, end - WINDOW)
        yield from reversed(window(coordination, start, end))
        end = start


def window(coordination: Coordination, start: int, end: int) -> list[Told]:
    """Read the acts from ``start`` to before ``end`` that are there."""
    numbers = range(start, end)
    records = coordination.get_many([act_path(number) for number in numbers])
    return [
        Told(number, _readable(record.data))
        for number, record in zip(numbers, records, strict=True)
        if record is not None
    ]


def _readable(data: bytes) -> Act | Unreadable:
    return codec.readable(lambda: act_from_bytes(data))
