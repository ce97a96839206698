"""Rules for reading one image's header."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.instances import qcow2 as module
from sharedcache.adapters.instances.formats import read_header
from sharedcache.adapters.instances.qcow2 import (
    MAX_READ_BYTES,
    RAW,
    Header,
    ImageError,
    ShortImageError,
)
from tests.support.images import extension, qcow2

if TYPE_CHECKING:
    from pathlib import Path


def read(tmp_path: Path, content: bytes) -> Header:
    """Write an image and read its header."""
    path = tmp_path / "image"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_header(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("backing_format", [None, "raw", "qcow2"])
def test_backing_name_and_format(
    tmp_path: Path, version: int, backing_format: str | None
) -> None:
    """Both versions give the backing file's name and, if there, its format."""
    image = qcow2("/base/file", backing_format, version=version)
    assert read(tmp_path, image) == Header("qcow2", "/base/file", backing_format)


def test_data_file(tmp_path: Path) -> None:
    """An external data file is a reference if its feature bit is set."""
    assert read(tmp_path, qcow2(data_file="/d/raw")).data_file == "/d/raw"
    unset = qcow2(extensions=extension(0x44415441, b"/d/raw"))
    assert read(tmp_path, unset).data_file is None


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"QED", b"text", b"KDM"])
def test_anything_else_is_raw(tmp_path: Path, content: bytes) -> None:
    """A file without a known magic is raw and has no chain."""
    assert read(tmp_path, content) == RAW


def test_name_that_is_not_utf8_survives(tmp_path: Path) -> None:
    """Names are bytes to the kernel, so any of them comes back as it was."""
    found = read(tmp_path, qcow2(b"/b/\xff\xfe")).backing
    assert found is not None
    assert os.fsencode(found) == b"/b/\xff\xfe"


def test_name_ends_at_nul(tmp_path: Path) -> None:
    """Names end at a NUL byte as in qemu; an empty one is no backing file."""
    assert read(tmp_path, qcow2(b"/b/x\0junk")).backing == "/b/x"
    assert read(tmp_path, qcow2(b"\0junk")).backing is None


def test_longest_name(tmp_path: Path) -> None:
    """A backing file's name has at most 1023 bytes, as in qemu."""
    assert read(tmp_path, qcow2(b"/" * 1023)).backing == "/" * 1023
    with pytest.raises(ImageError, match="1024 bytes"):
        read(tmp_path, qcow2(b"/" * 1024))


def test_name_beyond_the_first_read(tmp_path: Path) -> None:
    """A name anywhere in the first cluster is found."""
    image = qcow2("/base/x", "raw", extensions=extension(1, b"z" * 9000), size=65536)
    assert read(tmp_path, image) == Header("qcow2", "/base/x", "raw")


@pytest.mark.parametrize(
    "content",
    [
        qcow2(version=4),
        qcow2(cluster_bits=8),
        qcow2(cluster_bits=22),
        qcow2(features=1 << 5),
        qcow2("/x", extensions=struct.pack(">II", 1, 1 << 30)),
        qcow2("/x", "f" * 16),
        qcow2(data_file="d" * 5000, size=65536),
        qcow2(extensions=extension(1, b"") * 70),
        qcow2("/x", cluster_bits=9, extensions=extension(1, b"z" * 500)),
    ],
    ids=[
        "version",
        "small-cluster",
        "large-cluster",
        "feature",
        "huge-extension",
        "long-format",
        "long-data-name",
        "many-extensions",
        "name-outside-cluster",
    ],
)
def test_corrupt_headers_are_errors(tmp_path: Path, content: bytes) -> None:
    """What qemu would refuse is an error, never an image without references."""
    with pytest.raises(ImageError) as caught:
        read(tmp_path, content)
    assert not isinstance(caught.value, ShortImageError)


def test_every_cut_is_short_or_the_whole_answer(tmp_path: Path) -> None:
    """A header cut anywhere says so; it never loses a reference silently."""
    whole = qcow2("/base/x", "raw", data_file="/d/y").rstrip(b"\0")
    expected = Header("qcow2", "/base/x", "raw", "/d/y")
    assert read(tmp_path, whole) == expected
    for length in range(1, len(whole)):
        with pytest.raises(ShortImageError):
            read(tmp_path, whole[:length])


def _qed(features: int) -> bytes:
    return struct.pack("<4sIIIQ", b"QED\0", 65536, 4, 1, features).ljust(512, b"\0")


def _vmdk(descriptor: bytes, *, sectors: int = 20) -> bytes:
    head = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 2048, 128, 1, sectors)
    return head.ljust(512, b"\0") + descriptor.ljust(10240, b"\0")


_ALONE = b'parentCID=ffffffff\ncreateType="monolithicSparse"\n'


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (_qed(1), "QED"),
        (_vmdk(_ALONE + b'parentFileNameHint="x"'), "VMDK"),
        (_vmdk(_ALONE.replace(b"ffffffff", b"12345678")), "VMDK"),
        (_vmdk(b'parentCID=ffffffff\ncreateType="twoGbMaxExtentSparse"'), "VMDK"),
        (_vmdk(_ALONE, sectors=1 << 40), "VMDK"),
        (b"# Disk DescriptorFile\nversion=1\n", "VMDK"),
        (b"COWD" + b"\0" * 100, "VMDK"),
        (struct.pack(">4sIQI", b"QFI\xfb", 1, 48, 4) + b"\0" * 64, "version 1"),
    ],
)
def test_other_chains_are_refused(tmp_path: Path, content: bytes, kind: str) -> None:
    """Formats whose chains we cannot follow are named, never taken for raw."""
    with pytest.raises(ImageError, match=kind):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (_qed(0), "qed"),
        (_vmdk(_ALONE), "vmdk"),
        (struct.pack(">4sIQI", b"QFI\xfb", 1, 0, 0) + b"\0" * 64, "qcow"),
    ],
)
def test_other_formats_alone_end_a_chain(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    """Such a format without a backing file is the end of a chain."""
    assert read(tmp_path, content) == Header(kind)


def test_reads_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No header makes us read more than the stated number of bytes."""
    asked = 0
    real = os.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        nonlocal asked
        asked += length
        return real(fd, length, offset)

    monkeypatch.setattr(module.os, "pread", counting)
    names = b"".join(extension(0x44415441, b"d" * 4096) for _ in range(12))
    with pytest.raises(ImageError, match="too many bytes"):
        read(tmp_path, qcow2(extensions=names, features=4, size=65536))
    assert asked <= MAX_READ_BYTES
