"""The inventory's record in ZooKeeper: how it is written, and read back.

One node holds it whole while it fits; a larger one lies in parts below that
node, which are named by what they hold and written before the record that
names them, so that no reader finds a half.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from sharedcache import ledger
from sharedcache.core import codec
from sharedcache.core.inventory import Inventory, from_record, to_record
from sharedcache.core.model import Unreadable
from sharedcache.core.ports import (
    Check,
    ConflictError,
    Coordination,
    Create,
    Delete,
    Operation,
    Record,
    Set,
)

PATH = ledger.INVENTORY


def data_of(inventory: Inventory) -> bytes:
    """Encode an inventory that is known to be small."""
    return codec.pack(to_record(inventory))


def writing(
    coordination: Coordination, inventory: Inventory, version: int | None
) -> list[Operation]:
    """Return the write of an inventory; its parts, if any, are written here.

    ``version`` is that of the record which it replaces, ``None`` if there is none.
    The write fails if a part is gone by then: whoever drops those of an earlier
    inventory may have read the record just before.
    """
    data, checks = data_of(inventory), list[Operation]()
    if len(data) > ledger.PART_BYTES:
        if version is None:
            coordination.ensure(PATH)
            version = 0
        data, checks = _in_parts(coordination, data)
    write = Create(PATH, data) if version is None else Set(PATH, data, version)
    return [*checks, write]


def is_conflict(error: ConflictError) -> bool:
    """Whether a transaction failed because somebody else wrote the inventory."""
    return error.path.partition("/")[0] == PATH


def _in_parts(coordination: Coordination, data: bytes) -> tuple[bytes, list[Operation]]:
    """Write an inventory's parts; return the record that names them, and checks."""
    mark = hashlib.sha256(data).hexdigest()
    size = ledger.PART_BYTES
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    for index, piece in enumerate(pieces):
        try:
            coordination.commit([Create(_part(mark, index), piece)])
        except ConflictError as error:
            if error.why != "exists":
                raise
            # Written before, with the same content: the name is its hash.
    head = codec.pack({"sha256": mark, "parts": len(pieces)})
    return head, [Check(_part(mark, index), None) for index in range(len(pieces))]


def _part(mark: str, index: int) -> str:
    return f"{PATH}/{mark}.{index}"


def read(
    coordination: Coordination, record: Record | None
) -> Inventory | Unreadable | None:
    """Read an inventory as of its record; ``None`` if none was taken."""
    if record is None or not record.data:
        return None
    found = codec.readable(lambda: codec.unpack(record.data))
    if isinstance(found, Unreadable):
        return found
    return codec.readable(lambda: _inventory(coordination, found, record.version))


def _inventory(
    coordination: Coordination, values: Mapping[str, object], version: int
) -> Inventory:
    if "parts" not in values:
        return from_record(values, version)
    fields = codec.Fields(values)
    mark, count = fields.text("sha256"), fields.integer("parts", most=1000)
    paths = [_part(mark, index) for index in range(count)]
    parts = coordination.get_many(paths)
    data = b"".join(part.data for part in parts if part is not None)
    if hashlib.sha256(data).hexdigest() != mark:
        raise codec.RecordError("parts of the inventory are missing or damaged")
    return replace(from_record(codec.unpack(data), version), version=version)


def drop_parts(coordination: Coordination) -> None:
    """Delete the parts that the record does not name; those it names stay.

    A part of a writer that is not done may go with them: its own transaction
    then fails, because the part is gone.
    """
    record = coordination.get(PATH)
    if record is None:
        return
    values = codec.unpack(record.data) if record.data else {}
    mark = values.get("sha256", "")
    for part in coordination.children(PATH):
        if part.partition(".")[0] == mark:
            continue
        try:
            coordination.commit([Delete(f"{PATH}/{part}", None)])
        except ConflictError:
            # It is gone already, which is what was wanted.
            continue
