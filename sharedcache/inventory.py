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
) -> Operation:
    """Return the write of an inventory; its parts, if any, are written here.

    ``version`` is that of the record which it replaces, ``None`` if there is none.
    """
    data = data_of(inventory)
    if len(data) > ledger.PART_BYTES:
        if version is None:
            coordination.ensure(PATH)
            version = 0
        data = _in_parts(coordination, data)
    return Create(PATH, data) if version is None else Set(PATH, data, version)


def _in_parts(coordination: Coordination, data: bytes) -> bytes:
    """Write an inventory's parts; return the record that names them."""
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
    return codec.pack({"sha256": mark, "parts": len(pieces)})


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
    then fails, because the record has changed since it was read.
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
