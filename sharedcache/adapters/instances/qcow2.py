"""What an image's header refers to, read within bounds and without a process.

The layout is that of ``docs/interop/qcow2.txt`` of qemu, the bounds are those
of ``block/qcow2.c``: what qemu would refuse to open is an ``ImageError`` here,
since references that cannot be read may be uses.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

FIRST_READ_BYTES = 4096
"""One read of this size answers for nearly every image."""

MAX_READ_BYTES = 24 * 1024
"""No header makes us read more than this, whatever it says (bytes)."""

MAX_BACKING_NAME_BYTES = 1023
"""qemu's bound on the name of a backing file."""

MAX_DATA_NAME_BYTES = 4096
"""Longer than any path that the kernel takes, for the name of a data file."""

MAX_FORMAT_NAME_BYTES = 15
"""qemu's bound on the name of a backing file's format."""

MAX_EXTENSIONS = 64
"""qemu knows six header extensions; more than this is no sound header."""

MAGIC = b"QFI\xfb"

_HEADER = struct.Struct(">4sIQII")
_FEATURES = struct.Struct(">Q")
_LENGTH = struct.Struct(">I")
_EXTENSION = struct.Struct(">II")
_BYTES_V2 = 72
_BYTES_V3 = 104
_FEATURES_AT = 72
_LENGTH_AT = 100
_VERSION_2, _VERSION_3 = 2, 3
_CLUSTER_BITS = range(9, 22)
_FEATURE_DATA_FILE = 1 << 2
_KNOWN_FEATURES = 0b11111
_END = 0
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 0x44415441
_NAME_BYTES = {
    _BACKING_FORMAT: MAX_FORMAT_NAME_BYTES,
    _DATA_FILE: MAX_DATA_NAME_BYTES,
}


class ImageError(Exception):
    """A header that cannot be understood, so that its references are unknown."""


class ShortImageError(ImageError):
    """A header that ends too early: perhaps the file is being created now."""


@dataclass(frozen=True, slots=True)
class Header:
    """What one image refers to.

    ``backing`` and ``data_file`` are names as the image spells them,
    ``backing_format`` is ``None`` where qemu would probe.
    """

    format: str
    backing: str | None = None
    backing_format: str | None = None
    data_file: str | None = None


RAW = Header("raw")


class Window:
    """Bounded reads of one open file.  Offsets and lengths in bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._left = MAX_READ_BYTES
        self.first = b""
        self.first = self._fetch(0, FIRST_READ_BYTES)

    def upto(self, offset: int, length: int) -> bytes:
        """Return at most ``length`` bytes; fewer only where the file ends."""
        if offset + length <= len(self.first):
            return self.first[offset : offset + length]
        if len(self.first) < FIRST_READ_BYTES:
            return self.first[offset : offset + length]
        return self._fetch(offset, length)

    def exactly(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes, or raise ``ShortImageError``."""
        data = self.upto(offset, length)
        if len(data) < length:
            raise ShortImageError("the image's header ends too early")
        return data

    def _fetch(self, offset: int, length: int) -> bytes:
        """Read from the file itself; a short read is asked for again."""
        parts: list[bytes] = []
        while length > 0:
            if length > self._left:
                raise ImageError("the image's header spans too many bytes")
            part = os.pread(self._fd, length, offset)
            if not part:
                break
            self._left -= len(part)
            offset += len(part)
            length -= len(part)
            parts.append(part)
        return b"".join(parts)


def text_of(raw: bytes) -> str:
    """Decode a name as the operating system does; qemu stops at a NUL byte."""
    return os.fsdecode(raw.split(b"\0", 1)[0])


def parse(window: Window) -> Header:
    """Read the references of a qcow2 image whose magic was seen.

    Raises ``ShortImageError`` if the file ends before its header does,
    ``ImageError`` if qemu would refuse the header.
    """
    _, version, backing_at, backing_bytes, cluster_bits = _HEADER.unpack(
        window.exactly(0, _HEADER.size)
    )
    if version not in (_VERSION_2, _VERSION_3):
        raise ImageError(f"qcow2 version {version} is not known")
    if cluster_bits not in _CLUSTER_BITS:
        raise ImageError(f"the qcow2 cluster size 2^{cluster_bits} is out of bounds")
    cluster_bytes = 1 << cluster_bits
    window.exactly(0, _BYTES_V2)
    features, header_bytes = 0, _BYTES_V2
    if version == _VERSION_3:
        features, header_bytes = _version_3_fields(window, cluster_bytes)
    if backing_at > cluster_bytes:
        raise ImageError("the backing file's name lies outside the first cluster")
    has_data_file = bool(features & _FEATURE_DATA_FILE)
    backing_format, data_file = _extensions(
        window, header_bytes, backing_at or cluster_bytes, has_data_file=has_data_file
    )
    backing = ""
    if backing_at:
        if backing_bytes > min(MAX_BACKING_NAME_BYTES, cluster_bytes - backing_at):
            raise ImageError(f"the backing file's name has {backing_bytes} bytes")
        backing = text_of(window.exactly(backing_at, backing_bytes))
    return Header("qcow2", backing or None, backing_format, data_file)


def _version_3_fields(window: Window, cluster_bytes: int) -> tuple[int, int]:
    """Return the incompatible features and the header's length in bytes.

    A feature that is not known may bring references that we cannot see, as
    external data files once did, so it is refused, as qemu refuses it.
    """
    fixed = window.exactly(0, _BYTES_V3)
    features: int = _FEATURES.unpack_from(fixed, _FEATURES_AT)[0]
    header_bytes: int = _LENGTH.unpack_from(fixed, _LENGTH_AT)[0]
    if not _BYTES_V3 <= header_bytes <= cluster_bytes:
        raise ImageError(f"the qcow2 header's length {header_bytes} is out of bounds")
    if features & ~_KNOWN_FEATURES:
        raise ImageError(f"the qcow2 features {features:#x} are not all known")
    return features, header_bytes


def _extensions(
    window: Window, start: int, end: int, *, has_data_file: bool
) -> tuple[str | None, str | None]:
    """Return the backing file's format and the data file's name, if any."""
    found: dict[int, str] = {}
    at = start
    for _ in range(MAX_EXTENSIONS):
        prefix = window.upto(at, _EXTENSION.size) if at < end else b""
        if len(prefix) < _EXTENSION.size:
            # Beyond the file's end qemu reads zeros, which end the area.
            if at < end and has_data_file and _DATA_FILE not in found:
                raise ShortImageError("the image's header ends too early")
            break
        kind, length = _EXTENSION.unpack(prefix)
        at += _EXTENSION.size
        if at > end or length > end - at:
            raise ImageError("a qcow2 header extension is too large")
        if kind == _END:
            break
        if kind in _NAME_BYTES:
            if length > _NAME_BYTES[kind]:
                raise ImageError(f"a name in the qcow2 header has {length} bytes")
            found[kind] = text_of(window.exactly(at, length))
        at += (length + 7) & ~7
    else:
        raise ImageError(f"the qcow2 header has more than {MAX_EXTENSIONS} extensions")
    backing_format = found.get(_BACKING_FORMAT) or None
    return backing_format, (found.get(_DATA_FILE) or None) if has_data_file else None
