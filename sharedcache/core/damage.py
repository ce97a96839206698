"""Damage: files whose content is not what their writer recorded, and orders of it.

An order is durable, in ZooKeeper, and names one state of one file.  It lets the
planner take that file before its minimum age, and lifts no other rule
(``docs/decisions/0028-damaged-files.md``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sharedcache.core.records import RECORD_SCHEMA, Fields, RecordError, unpacked

MAX_ORDERS = 1000
"""Most orders that stand at a time: more damage than this is the storage's own,
and a record of so many, with the longest names, still fits one znode."""

_MAX_WHO = 100
_FIELDS = frozenset(
    ("schema", "name", "inode", "size", "mtime_ns", "recorded", "found", "by", "at")
)
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Damage:
    """What was found of one file.

    It is about the file of this inode as it was then: once its size or its time
    of last use is another one, it was used or mended since, and the order waits
    for the next look.  ``mtime_ns`` in nanoseconds on the storage's clock,
    ``size`` in bytes; ``recorded`` and ``found`` are digests, ``found`` empty
    where the size alone told.  ``by`` is user@host, ``at`` seconds since 1970;
    ``extra`` holds fields of a later release, packed.
    """

    name: str
    inode: int
    size: int
    mtime_ns: int
    recorded: str
    found: str
    by: str
    at: float
    extra: bytes = b""

    def is_of(self, inode: int, size: int, mtime_ns: int) -> bool:
        """Whether a file is the one that was looked at, and unchanged since."""
        return (self.inode, self.size, self.mtime_ns) == (inode, size, mtime_ns)

    def same_as(self, other: Damage | None) -> bool:
        """Whether both say the same of the same state of a file."""
        return (
            other is not None
            and self.name == other.name
            and self.found == other.found
            and other.is_of(self.inode, self.size, self.mtime_ns)
        )

    @property
    def what(self) -> str:
        """What is wrong, in a few words."""
        if not self.found:
            return f"{self.size} bytes, and not as many as were recorded"
        return f"{self.found} and not {self.recorded}"


def orders_to_record(orders: Iterable[Damage]) -> dict[str, object]:
    """Turn orders into a map."""
    return {
        "orders": [
            {
                **unpacked(one.extra),
                "name": one.name,
                "inode": one.inode,
                "size": one.size,
                "mtime_ns": one.mtime_ns,
                "recorded": one.recorded,
                "found": one.found,
                "by": one.by[:_MAX_WHO],
                "at": one.at,
            }
            for one in sorted(orders, key=lambda one: one.name)
        ]
    }


def orders_from_record(values: object) -> Mapping[str, Damage]:
    """Read orders back, by name; raises ``RecordError``."""
    found = [_order(item) for item in Fields(values).items("orders")]
    return {one.name: one for one in found}


def _order(item: object) -> Damage:
    if not isinstance(item, Mapping):
        raise RecordError("an order is not a map")
    fields = Fields({"schema": RECORD_SCHEMA, **item})
    return Damage(
        fields.text("name"),
        fields.integer("inode", most=2**64 - 1),
        fields.integer("size"),
        # A file's time may lie before 1970: anybody who may write it can set it.
        fields.integer("mtime_ns", least=-_LARGEST),
        fields.text("recorded"),
        fields.text("found"),
        fields.text("by"),
        fields.number("at"),
        fields.unknown(_FIELDS),
    )
