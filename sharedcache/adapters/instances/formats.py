"""Which format an image has, and a refusal of those whose chains we cannot read.

qemu's other formats that can have a backing file are recognised so that they
are never taken for raw, which has no chain.  One without a backing file is
the end of a chain like any other.
"""

from __future__ import annotations

import re
import struct

from sharedcache.adapters.instances.qcow2 import (
    MAGIC,
    RAW,
    Header,
    ImageError,
    ShortImageError,
    Window,
    parse,
)

MAX_DESCRIPTOR_BYTES = 16 * 1024
"""qemu writes VMDK descriptors of 10 KiB; a longer one is refused."""

_QCOW = struct.Struct(">4sIQ")
_QED = struct.Struct("<4sIIIQ")
_QED_MAGIC = b"QED\0"
_QED_HAS_BACKING = 1
_VMDK = struct.Struct("<4sIIQQQQ")
_VMDK_MAGIC = b"KDMV"
_VMDK_OLD_MAGIC = b"COWD"
_VMDK_TEXT = re.compile(
    rb"# Disk DescriptorFile|(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n"
)
"""A descriptor that names its extents, as qemu's ``vmdk_probe`` knows it."""

_VMDK_SINGLE = (b'"monolithicsparse"', b'"streamoptimized"')
_SECTOR_BYTES = 512
_MAGIC_BYTES = 4
_ADVICE = "only qcow2 chains are followed: convert it with qemu-img"


def read_header(fd: int) -> Header:
    """Tell an open image's format and references.

    Reads at most ``MAX_READ_BYTES`` bytes.  Raises ``ShortImageError`` for a
    qcow2 header that is cut short, ``ImageError`` for one that is corrupt and
    for another format with a backing file, and ``OSError``.
    """
    window = Window(fd)
    magic = window.first[:_MAGIC_BYTES]
    if magic == MAGIC:
        _, version, backing_at = _QCOW.unpack(window.exactly(0, _QCOW.size))
        if version > 1:
            return parse(window)
        if backing_at:
            raise ImageError(f"a qcow version 1 image with a backing file; {_ADVICE}")
        return Header("qcow")
    if magic == _QED_MAGIC:
        return _qed(window)
    if magic == _VMDK_MAGIC:
        return _vmdk(window)
    if magic == _VMDK_OLD_MAGIC or _VMDK_TEXT.match(window.first):
        raise ImageError(f"a VMDK image of several files; {_ADVICE}")
    if magic and MAGIC.startswith(magic):
        raise ShortImageError("the image's header ends too early")
    return RAW


def _qed(window: Window) -> Header:
    """Refuse a QED image with a backing file."""
    features = _QED.unpack(window.exactly(0, _QED.size))[4]
    if features & _QED_HAS_BACKING:
        raise ImageError(f"a QED image with a backing file; {_ADVICE}")
    return Header("qed")


def _vmdk(window: Window) -> Header:
    """Refuse a VMDK image unless its own descriptor says that it stands alone."""
    fields = _VMDK.unpack(window.exactly(0, _VMDK.size))
    at, length = fields[5] * _SECTOR_BYTES, fields[6] * _SECTOR_BYTES
    if not at or not 0 < length <= MAX_DESCRIPTOR_BYTES:
        raise ImageError(f"a VMDK image without a descriptor of its own; {_ADVICE}")
    descriptor = window.upto(at, length).lower()
    alone = b"parentcid=ffffffff" in descriptor
    if not alone or b"parentfilenamehint" in descriptor:
        raise ImageError(f"a VMDK image with a backing file; {_ADVICE}")
    if not any(kind in descriptor for kind in _VMDK_SINGLE):
        raise ImageError(f"a VMDK image of several files; {_ADVICE}")
    return Header("vmdk")
