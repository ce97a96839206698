"""What a writer wants of the cache: kinds, and the names that they have.

The names are those that Nova gives the same files (``core/names.py``), so that
a driver that uses this package and an unmodified Nova share them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharedcache.core.model import KernelNaming
from sharedcache.core.names import Kind, classify, digest_of
from sharedcache.core.schema import SCHEMAS, SchemaTable


class WantedError(ValueError):
    """No cache name can be made of what is wanted; the message says why."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a cache file is to its user.

    ``label`` is ``image``, ``resized``, ``kernel``, ``ramdisk``, ``swap`` or
    ``ephemeral``; ``size`` is in GiB, for swap in MiB; ``mark`` is the
    ephemeral disk's file system, as Nova marks it (7 characters).
    """

    label: str
    size: int = 0
    mark: str = ""

    @property
    def of_image(self) -> bool:
        """Whether such a file is made of an image."""
        return self.label not in ("swap", "ephemeral")


IMAGE = FileKind("image")
"""A disk image as it was downloaded."""

KERNEL = FileKind("kernel")
RAMDISK = FileKind("ramdisk")


def resized(gib: int) -> FileKind:
    """Return the kind of an image's copy that was resized to so many GiB."""
    return FileKind("resized", gib)


def swap(mib: int) -> FileKind:
    """Return the kind of the backing file of swap disks of so many MiB."""
    return FileKind("swap", mib)


def ephemeral(gib: int, mark: str) -> FileKind:
    """Return the kind of the backing file of ephemeral disks of so many GiB."""
    return FileKind("ephemeral", gib, mark)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Cache names of one file: the one to write now, and all to look for."""

    write: str
    read: tuple[str, ...]


def wanted(
    image_id: str | None,
    kind: FileKind,
    finalized_schema: int,
    schemas: SchemaTable = SCHEMAS,
) -> Wanted:
    """Name a file under the finalized schema; raises ``WantedError``.

    A kernel or ramdisk is written as the table says for the finalized schema, and
    is found under every name that it can have, its present one first.
    """
    namings = schemas.namings(finalized_schema)
    if not namings:
        raise WantedError(
            f"schema {finalized_schema} is finalized, and this release knows schemas "
            f"up to {schemas.newest}: upgrade sharedcache on this host"
        )
    if not isinstance(image_id, str | None):
        raise WantedError(f"{image_id!r} is not an image id: it must be a text")
    if kind.of_image != (image_id is not None):
        what = "needs an image id" if kind.of_image else "is of no image"
        raise WantedError(f"a file of kind {kind.label} {what}")
    if kind.label in ("kernel", "ramdisk"):
        spelt = {
            KernelNaming.SHA1: _hashed(image_id),
            KernelNaming.RAW_ID: (image_id or "").lower(),
        }
        found = tuple(spelt[naming] for naming in namings)
        return _checked(Wanted(found[0], found), Kind.IMAGE, Kind.KERNEL)
    if kind.label == "image":
        return _one(_hashed(image_id), Kind.IMAGE)
    if kind.label == "resized":
        return _one(f"{_hashed(image_id)}_{kind.size}", Kind.RESIZED)
    if kind.label == "swap":
        return _one(f"swap_{kind.size}", Kind.SWAP)
    if kind.label == "ephemeral":
        return _one(f"ephemeral_{kind.size}_{kind.mark}", Kind.EPHEMERAL)
    raise WantedError(f"there is no kind {kind.label}")


def _hashed(image_id: str | None) -> str:
    if not image_id or not image_id.isascii():
        raise WantedError(f"{image_id!r} is not an image id")
    return digest_of(image_id).hex()


def _one(name: str, kind: Kind) -> Wanted:
    return _checked(Wanted(name, (name,)), kind)


def _checked(made: Wanted, *kinds: Kind) -> Wanted:
    """Hold every name to the grammar: what it does not know is never cleaned."""
    for name in made.read:
        if classify(name) not in kinds:
            raise WantedError(f"{name!r} would not be a cache name")
    return made


def partial_of(name: str, token: str) -> str:
    """Name a download under way of a cache name; ``token`` makes it unique."""
    partial = f"{name}.{token}.part"
    if classify(partial) is not Kind.PARTIAL:
        raise WantedError(f"{partial!r} would not be a partial file's name")
    return partial
