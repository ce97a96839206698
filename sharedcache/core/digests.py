"""Digests of published files, as they are recorded on the storage."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sharedcache.core import names
from sharedcache.core.records import Fields, RecordError, unpacked

LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
"""Algorithms that are known, with their digests' hexadecimal digits."""

DEFAULT_ALGORITHM = "sha256"
"""What is computed where the caller knows no digest."""

_HEX = re.compile(r"[0-9a-f]+\Z")
_RECORD = re.compile(r"(?P<name>.+)\.(?P<inode>[1-9][0-9]{0,19})\Z", re.ASCII)
_MAX_DAMAGE = 500
_FIELDS = frozenset(("schema", "name", "inode", "size", "digest", "later", "damage"))


class DigestError(ValueError):
    """A digest is not one; the message says how one is written."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest by an algorithm of ``LENGTHS``, in lower-case hexadecimal."""

    algorithm: str
    value: str

    def __str__(self) -> str:
        """Return ``algorithm:value``, as it is read."""
        return f"{self.algorithm}:{self.value}"

    @staticmethod
    def parse(text: str) -> Digest:
        """Read ``algorithm:value``; raises ``DigestError``."""
        algorithm, _, value = text.strip().lower().partition(":")
        length = LENGTHS.get(algorithm)
        if length is None or len(value) != length or not _HEX.match(value):
            raise DigestError(
                f"{text!r} is not a digest: write sha256:HEX, one of "
                f"{', '.join(LENGTHS)}"
            )
        return Digest(algorithm, value)


@dataclass(frozen=True, slots=True)
class Published:
    """What is recorded of a file: by its writer, or later by ``verify``.

    The record is about the file of this inode; another one that bears the name
    since, an unmodified Nova's say, has none.  ``size`` is in bytes.  ``later``
    tells that the digest was taken of what lay there, and not at publication.
    ``damage`` says what ``verify`` found instead, and is empty while it found the
    file whole, or has not looked; ``extra`` holds fields of a later release, packed.
    """

    name: str
    inode: int
    size: int
    digest: Digest
    later: bool = False
    damage: str = ""
    extra: bytes = b""


def to_record(published: Published) -> dict[str, object]:
    """Turn the record into a map."""
    return {
        **unpacked(published.extra),
        "name": published.name,
        "inode": published.inode,
        "size": published.size,
        "digest": str(published.digest),
        "later": published.later,
        "damage": published.damage[:_MAX_DAMAGE],
    }


def from_record(values: object) -> Published:
    """Read the record back; raises ``RecordError``."""
    fields = Fields(values)
    try:
        digest = Digest.parse(fields.text("digest"))
    except DigestError as error:
        raise RecordError(str(error)) from error
    return Published(
        fields.text("name"),
        fields.integer("inode", most=2**64 - 1),
        fields.integer("size"),
        digest,
        later=fields.flag("later", default=False),
        damage=fields.text("damage", ""),
        extra=fields.unknown(_FIELDS),
    )


def record_name(name: str, inode: int) -> str:
    """Name of the record of one file, which is found by name and inode.

    A file that is fetched again has another inode, and so a record of its own:
    nobody who takes one away can mean the other.
    """
    return f"{name}.{inode}"


def parse_record_name(record: str) -> tuple[str, int] | None:
    """Read (cache name, inode) back; ``None`` for what is no record's name."""
    match = _RECORD.match(record)
    if match is None or names.classify(match["name"]) is names.Kind.UNRECOGNISED:
        return None
    return match["name"], int(match["inode"])
