"""Properties of the reader of image headers, over all that a disk can hold."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from sharedcache.adapters.instances import qcow2 as module
from sharedcache.adapters.instances.filenames import references
from sharedcache.adapters.instances.formats import read_header
from sharedcache.adapters.instances.qcow2 import (
    MAX_BACKING_NAME_BYTES,
    MAX_DATA_NAME_BYTES,
    MAX_FORMAT_NAME_BYTES,
    MAX_READ_BYTES,
    Header,
    ImageError,
)
from tests.support.images import extension, names_of, qcow2

magics = st.sampled_from([b"QFI\xfb", b"QED\0", b"KDMV", b"COWD", b"# Di"])
u32 = st.integers(0, 2**32 - 1) | st.integers(0, 4096)
u64 = st.integers(0, 2**64 - 1) | st.integers(0, 70_000)
plausible = st.builds(
    lambda version, at, length, bits, features, header, rest: (
        struct.pack(">4sIQII", b"QFI\xfb", version, at, length, bits).ljust(72, b"\1")
        + struct.pack(">QQQII", features, 0, 0, 4, header)
        + rest
    ),
    st.integers(0, 4),
    u64,
    u32,
    st.integers(8, 22),
    st.integers(0, 63),
    st.sampled_from([72, 104, 112, 120]) | u32,
    st.binary(max_size=600),
)
contents = st.one_of(
    st.binary(max_size=300),
    st.builds(bytes.__add__, magics, st.binary(max_size=700)),
    plausible,
)
kinds = st.sampled_from([0, 0xE2792ACA, 0x44415441, 0x6803F857]) | u32
paths = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda text: len(text.encode()) <= MAX_BACKING_NAME_BYTES)


def read(content: bytes) -> Header:
    """Read a header and hold the reader to its bounds."""
    asked = 0
    real = os.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        nonlocal asked
        asked += length
        return real(fd, length, offset)

    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        with mock.patch.object(module.os, "pread", counting):
            try:
                return read_header(file.fileno())
            finally:
                # A file shorter than the first read ends in one empty read.
                assert asked <= MAX_READ_BYTES + module.FIRST_READ_BYTES


@settings(max_examples=500)
@given(content=contents)
def test_any_bytes_give_a_header_or_an_error(content: bytes) -> None:
    """Whatever a disk holds: a header within its bounds, or an ``ImageError``."""
    try:
        header = read(content)
    except ImageError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
        return
    for text, bound in (
        (header.backing, MAX_BACKING_NAME_BYTES),
        (header.backing_format, MAX_FORMAT_NAME_BYTES),
        (header.data_file, MAX_DATA_NAME_BYTES),
    ):
        assert text is None or 0 < len(os.fsencode(text)) <= bound
        assert text is None or "\0" not in text


@given(
    extensions=st.lists(st.tuples(kinds, st.binary(max_size=64)), max_size=8),
    cut=st.integers(0, 1000),
)
def test_any_extensions(extensions: list[tuple[int, bytes]], cut: int) -> None:
    """Extensions in any order and number never lose the backing file's name."""
    area = b"".join(extension(kind, data) for kind, data in extensions)
    content = qcow2("/base/x", "raw", extensions=area)[: 4096 - cut]
    try:
        assert read(content).backing == "/base/x"
    except ImageError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


@given(name=paths, version=st.sampled_from([2, 3]))
def test_every_name_comes_back(name: str, version: int) -> None:
    """Any name that fits is read back exactly."""
    assert read(qcow2(name, "qcow2", version=version)).backing == name


@settings(max_examples=300)
@given(
    name=paths
    | paths.map("json:{}".format)
    | st.recursive(
        st.none() | st.booleans() | st.text(max_size=6),
        lambda inner: (
            st.dictionaries(
                st.sampled_from(["file", "driver", "filename", "file.filename", "a.b"]),
                inner,
                max_size=3,
            )
            | st.lists(inner, max_size=2)
        ),
    ).map(lambda tree: "json:" + json.dumps(tree))
)
def test_any_name_gives_files_or_an_error(name: str) -> None:
    """Any backing name leads to absolute paths, or is an ``ImageError``."""
    try:
        found = references(name, None, "/directory")
    except ImageError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
        return
    for one in found:
        assert one.path.startswith("/")
        assert "\0" not in one.path
        assert os.fsencode(one.path)


@settings(max_examples=100)
@given(
    names=st.lists(st.sampled_from("abcdef"), min_size=6, max_size=6),
    formats=st.lists(st.sampled_from([None, "qcow2", "raw"]), min_size=6, max_size=6),
)
def test_any_graph_of_images_ends(names: list[str], formats: list[str | None]) -> None:
    """However images refer to each other, the walk ends with the base names."""
    with tempfile.TemporaryDirectory() as root:
        base = Path(root)
        digests = {letter: letter * 40 for letter in "abcdef"}
        for letter, target, image_format in zip("abcdef", names, formats, strict=True):
            image = qcow2(digests[target], image_format)
            (base / digests[letter]).write_bytes(image)
        expected, at, probed = set(), "a", True
        while at not in expected and probed:
            expected.add(at)
            index = "abcdef".index(at)
            at, probed = names[index], formats[index] != "raw"
        expected.add(at)
        found = names_of(base, base / digests["a"])
        assert found == {digests[letter] for letter in expected}
