"""A record's form: msgpack in ZooKeeper, JSON text on the storage, a schema number.

An older reader that meets a newer record stands back: it gets
``NewerRecordError`` and treats the record as one that forbids everything.
Sizes and shapes are bounded, so that no record can do harm by being read.

A record may hold more than its reader knows: a later release may add fields to a
map without a new schema number, if no rule of this release depends on them.
Whoever rewrites such a record carries them along, unread.  Lists have one shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import msgpack

from sharedcache.core import names
from sharedcache.core.model import Unreadable

RECORD_SCHEMA = 1
"""Schema number of every kind of record that has kept its first form."""

CAREFUL_SCHEMA = 2
"""Schema number of reports and of the manifest's batches, and the newest known.

Reports tell what any look of their window saw (``saw``), and entries whether a
link of them may land (``asked``).  Release 0.1.0 knows neither: its cleaners must
not judge by what they would leave out, nor its agents write it back without.
"""

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Largest record that is decoded, put together from its chunks."""

MAX_NUMBER = float(2**63)
"""Largest number that is read where a fraction is allowed."""

MAX_TEXT = 4096
"""Longest text of a record, in characters."""

MAX_EXTRA_BYTES = 16 * 1024
"""Most bytes of unknown fields, beside each other, that are carried along."""

_MAX_ITEMS = 2_000_000

T = TypeVar("T")


class RecordError(ValueError):
    """A record that cannot be read: cut short, empty, or of the wrong shape."""


class NewerRecordError(RecordError):
    """A record of a schema that this release does not know."""


class Fields:
    """The fields of a decoded record, each read with its type and bounds.

    ``schema`` is the record's own number.
    """

    def __init__(self, values: object) -> None:
        if not isinstance(values, Mapping):
            raise RecordError("the record is not a map")
        schema = values.get("schema")
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise RecordError("the record has no schema number")
        if schema > CAREFUL_SCHEMA:
            raise NewerRecordError(
                f"record schema {schema} is newer than {CAREFUL_SCHEMA}"
            )
        self._values = values
        self.schema = schema

    def unknown(self, known: Collection[str]) -> bytes:
        """Return the fields that are not known here, packed; empty if there are none.

        Raises ``RecordError`` if they are more than can be carried along.
        """
        return _packed({k: v for k, v in self._values.items() if k not in known})

    def has(self, key: str) -> bool:
        """Whether a field is there, and says something."""
        return self._values.get(key) is not None

    def integer(self, key: str, least: int = 0, most: int = 2**63 - 1) -> int:
        """Read a whole number within bounds."""
        value = self._values.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RecordError(f"{key} is not a whole number")
        if not least <= value <= most:
            raise RecordError(f"{key} is out of bounds")
        return value

    def number(self, key: str) -> float:
        """Read a number that is not negative."""
        value = self._values.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise RecordError(f"{key} is not a number")
        if not 0 <= value <= MAX_NUMBER:
            raise RecordError(f"{key} is out of bounds")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """Read a number that may be absent."""
        return None if self._values.get(key) is None else self.number(key)

    def text(self, key: str, default: str | None = None) -> str:
        """Read a text of bounded length."""
        return text_of(self._values.get(key, default), key)

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """Read a truth value."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise RecordError(f"{key} is not true or false")
        return value

    def items(self, key: str) -> Sequence[object]:
        """Read a list of bounded length."""
        value = self._values.get(key)
        if not isinstance(value, list | tuple) or len(value) > _MAX_ITEMS:
            raise RecordError(f"{key} is not a list, or too long")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Read a list of texts."""
        return tuple(text_of(item, key) for item in self.items(key))

    def digests(self, key: str) -> frozenset[bytes]:
        """Read digests of 20 bytes each, one after the other in one binary."""
        value = self._values.get(key)
        size = names.DIGEST_BYTES
        if not isinstance(value, bytes) or len(value) % size:
            raise RecordError(f"{key} is not a row of 20-byte digests")
        return frozenset(value[i : i + size] for i in range(0, len(value), size))

    def part(self, key: str) -> Mapping[str, object] | None:
        """Read a nested map, or nothing."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise RecordError(f"{key} is not a map")
        return {"schema": RECORD_SCHEMA, **value}


def text_of(value: object, key: str) -> str:
    """Check a text of bounded length; raises ``RecordError``."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise RecordError(f"{key} is not a text, or too long")
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        # JSON can spell half a character, which could never be written again.
        raise RecordError(f"{key} is not a text that can be encoded")
    return value


def pack(record: Mapping[str, object]) -> bytes:
    """Encode a record, with its schema number (its own or the first), for ZooKeeper."""
    packed: bytes = msgpack.packb({"schema": RECORD_SCHEMA, **record})
    return packed


def unpack(data: bytes) -> Mapping[str, object]:
    """Decode a record from ZooKeeper; raises ``RecordError``."""
    if not data:
        raise RecordError("the record is empty")
    if len(data) > MAX_RECORD_BYTES:
        raise RecordError(f"the record has {len(data)} bytes, which is too many")
    try:
        values = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise RecordError(f"the record is not msgpack ({error})") from error
    if not isinstance(values, Mapping):
        raise RecordError("the record is not a map")
    return values


def to_text(record: Mapping[str, object]) -> bytes:
    """Encode a record as one line of JSON for the storage, where people read it."""
    return (json.dumps({"schema": RECORD_SCHEMA, **record}) + "\n").encode()


def from_text(data: bytes) -> Mapping[str, object]:
    """Decode a record from the storage; raises ``RecordError``."""
    try:
        values = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the record is not JSON ({error})") from error
    if not isinstance(values, Mapping):
        raise RecordError("the record is not a map")
    return values


def readable(read: Callable[[], T]) -> T | Unreadable:
    """Turn a record that cannot be read into a value that forbids everything."""
    try:
        return read()
    except NewerRecordError as error:
        return Unreadable(str(error), newer=True)
    except RecordError as error:
        return Unreadable(str(error))


def unpacked(extra: bytes) -> Mapping[str, object]:
    """Return the fields that ``Fields.unknown`` packed."""
    if not extra:
        return {}
    fields: Mapping[str, object] = msgpack.unpackb(extra, strict_map_key=False)
    return fields


def renewed(
    data: bytes, fresh: Mapping[str, object], drop: Collection[str] = ()
) -> dict[str, object]:
    """Return a record that replaces the one in ``data``, its unknown fields included.

    Unknown is what neither ``fresh`` nor ``drop`` names.  A record that cannot be
    read has nothing to carry along: whoever must not replace it looks before.
    Raises ``RecordError`` if there is more than can be carried.
    """
    try:
        fields = Fields(unpack(data))
    except RecordError:
        return dict(fresh)
    return {**unpacked(fields.unknown({"schema", *fresh, *drop})), **fresh}


def _packed(fields: Mapping[str, object]) -> bytes:
    if not fields:
        return b""
    try:
        packed: bytes = msgpack.packb(fields)
    except (ValueError, TypeError, OverflowError) as error:
        raise RecordError(f"unknown fields cannot be carried along ({error})") from (
            error
        )
    if len(packed) > MAX_EXTRA_BYTES:
        raise RecordError(f"unknown fields take {len(packed)} bytes, which is too many")
    return packed
