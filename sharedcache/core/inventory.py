"""The inventory of raw-id names: which of them were there at finalization.

Once the hashed naming is finalized nobody who reports to this cluster writes a
kernel or ramdisk under its raw image id any more.  One that appears all the same
was written by somebody who is not known here, and whose uses therefore nobody
reports: the gate closes (``docs/protocol.md``).

A name is known by its inode.  A restore links the very inode that was taken, so
it needs no exemption, and a name that was removed and is written again is a new
file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sharedcache.core import names
from sharedcache.core.model import FileTable, ManifestEntry
from sharedcache.core.names import Kind
from sharedcache.core.records import Fields, RecordError, unpacked

ANY = 0
"""In place of an inode: any one file of this name, whose download is under way."""

_NAME_BYTES, _INODE_BYTES = 16, 8
_ROW = _NAME_BYTES + _INODE_BYTES


@dataclass(frozen=True, slots=True)
class OldName:
    """A regular file under a raw image id, as a scan saw it."""

    name: str
    inode: int


@dataclass(frozen=True, slots=True)
class OldNames:
    """What one scan saw of the old naming: files, and names of partial ones."""

    files: tuple[OldName, ...] = ()
    partial: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Inventory:
    """Raw-id names that are accounted for, each with its file's inode.

    ``settled`` is ``False`` while whoever finalized may still add what was being
    downloaded at that moment.  ``version`` is the record's data version, ``-1``
    for one that is not stored; ``extra`` are fields that a later release added.
    """

    inodes: Mapping[str, int] = field(default_factory=dict)
    settled: bool = True
    version: int = -1
    extra: bytes = b""

    def knows(self, one: OldName) -> bool:
        """Whether this very file is accounted for."""
        return self.inodes.get(one.name) in (ANY, one.inode)

    def with_files(self, found: Iterable[OldName]) -> Inventory:
        """Return the inventory with these files accounted for."""
        added = {one.name: one.inode for one in found}
        return replace(self, inodes={**self.inodes, **added})


def old_names(files: FileTable) -> OldNames:
    """Find what a scan saw of the old naming; cheap for any number of files."""
    found: list[OldName] = []
    partial: set[str] = set()
    for row, kind in enumerate(files.kinds):
        if kind == Kind.KERNEL and files.regular[row]:
            found.append(OldName(files.names[row], files.inodes[row]))
        elif kind == Kind.PARTIAL:
            whole = names.lock_name(files.names[row])
            if names.classify(whole) is Kind.KERNEL:
                partial.add(whole)
    return OldNames(tuple(found), frozenset(partial))


def take(seen: OldNames, quarantined: Iterable[ManifestEntry] = ()) -> Inventory:
    """Account for everything that is there, in quarantine, or being downloaded.

    A download keeps its name open for one file: a writer gives the name to its
    partial file, or to another in its place.
    """
    inodes = dict.fromkeys(seen.partial, ANY)
    for entry in quarantined:
        if names.classify(entry.name) is Kind.KERNEL:
            inodes[entry.name] = ANY if entry.baseline is None else entry.baseline.inode
    for one in seen.files:
        # A second download may be about to replace the file.
        inodes[one.name] = ANY if one.name in seen.partial else one.inode
    return Inventory(inodes, settled=False)


def appeared(inventory: Inventory, files: Iterable[OldName]) -> tuple[OldName, ...]:
    """Name the files that nothing accounts for, sorted."""
    strange = (one for one in files if not inventory.knows(one))
    return tuple(sorted(strange, key=lambda one: one.name))


def absent(
    inventory: Inventory, seen: OldNames, quarantined: Iterable[ManifestEntry]
) -> frozenset[str]:
    """Name what is accounted for and is nowhere, whole, partial or in quarantine."""
    here = {one.name for one in seen.files} | seen.partial
    here.update(entry.name for entry in quarantined)
    return frozenset(inventory.inodes.keys() - here)


def tended(inventory: Inventory, seen: OldNames, gone: frozenset[str]) -> Inventory:
    """Return the inventory as it stands after a scan.

    Names in ``gone`` are struck off, so that they count as new if they come back;
    a download that came to its end is known by its file from here on.
    """
    inodes = {name: i for name, i in inventory.inodes.items() if name not in gone}
    for one in seen.files:
        if inodes.get(one.name) == ANY and one.name not in seen.partial:
            inodes[one.name] = one.inode
    return replace(inventory, inodes=inodes, settled=True)


def to_record(inventory: Inventory) -> dict[str, object]:
    """Turn an inventory into a map: a row of 24 bytes for each name."""
    rows = (
        bytes.fromhex(name.replace("-", "")) + inode.to_bytes(_INODE_BYTES, "big")
        for name, inode in sorted(inventory.inodes.items())
    )
    return {
        **unpacked(inventory.extra),
        "names": b"".join(rows),
        "settled": inventory.settled,
    }


def from_record(values: Mapping[str, object], version: int) -> Inventory:
    """Read an inventory back; raises ``RecordError``."""
    fields = Fields(values)
    data = values.get("names")
    if not isinstance(data, bytes) or len(data) % _ROW:
        raise RecordError("names is not a row of names and inodes")
    return Inventory(
        dict(_rows(data)),
        fields.flag("settled"),
        version,
        fields.unknown({"schema", "names", "settled"}),
    )


def _rows(data: bytes) -> Iterator[tuple[str, int]]:
    for start in range(0, len(data), _ROW):
        digits = data[start : start + _NAME_BYTES].hex()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        inode = int.from_bytes(data[start + _NAME_BYTES : start + _ROW], "big")
        yield "-".join(parts), inode
