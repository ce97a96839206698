"""Cache names of what a writer wants, by the stage of the rollout."""

from __future__ import annotations

from typing import Any

import pytest

from sharedcache.core.codec import RecordError
from sharedcache.core.digests import (
    Digest,
    DigestError,
    Published,
    from_record,
    to_record,
)
from sharedcache.core.names import Kind, classify, lock_name
from sharedcache.core.wanted import (
    IMAGE,
    KERNEL,
    RAMDISK,
    FileKind,
    WantedError,
    ephemeral,
    partial_of,
    resized,
    swap,
    wanted,
)

IMAGE_ID = "0b5cbd6e-6f3a-4d3c-9a51-0123456789ab"


@pytest.mark.parametrize("kind", [KERNEL, RAMDISK])
def test_kernels_are_named_by_the_stage(kind: FileKind) -> None:
    """The raw id until schema 2 is finalized, its digest after; both are read."""
    hashed = wanted(IMAGE_ID, IMAGE, 2).write
    assert wanted(IMAGE_ID, kind, 1).write == IMAGE_ID
    assert wanted(IMAGE_ID.upper(), kind, 1).read == (IMAGE_ID, hashed)
    assert wanted(IMAGE_ID, kind, 2).write == hashed
    assert wanted(IMAGE_ID, kind, 2).read == (hashed, IMAGE_ID)


@pytest.mark.parametrize("kind", [IMAGE, KERNEL, swap(512)])
def test_nothing_is_named_under_a_schema_that_is_not_known(kind: FileKind) -> None:
    """A writer that does not know the finalized schema stands back."""
    with pytest.raises(WantedError, match="upgrade sharedcache"):
        wanted(IMAGE_ID if kind.of_image else None, kind, 3)


@pytest.mark.parametrize("finalized", [1, 2])
def test_other_kinds_have_novas_names(finalized: int) -> None:
    """Names are those of Nova's image cache, and of the kind that is meant."""
    image = wanted("any id at all", IMAGE, finalized).write
    assert classify(image) is Kind.IMAGE
    assert wanted("any id at all", resized(20), finalized).write == f"{image}_20"
    assert wanted(None, swap(512), finalized).read == ("swap_512",)
    name = wanted(None, ephemeral(2, "40d1d2c"), finalized).write
    assert name == "ephemeral_2_40d1d2c"


@pytest.mark.parametrize(
    ("image_id", "kind"),
    [
        (None, IMAGE),
        ("", IMAGE),
        ("ü", IMAGE),
        (b"1", IMAGE),
        (7, KERNEL),
        (IMAGE_ID, swap(1)),
        (IMAGE_ID, ephemeral(1, "x")),
        (IMAGE_ID, resized(0)),
        (IMAGE_ID, resized(-1)),
        (None, swap(-1)),
        (None, ephemeral(1, "../x")),
        ("not-a-uuid", KERNEL),
        ("../../etc/passwd", KERNEL),
        (IMAGE_ID, FileKind("floppy")),
    ],
)
def test_what_has_no_cache_name_is_refused(image_id: Any, kind: FileKind) -> None:
    """A name outside the grammar would never be cleaned, or would lead elsewhere."""
    with pytest.raises(WantedError):
        wanted(image_id, kind, 2)


def test_a_partial_file_is_known_as_one_of_its_whole() -> None:
    """The cleaner collects it when old, under the lock of the whole name."""
    for kind, ident in ((IMAGE, IMAGE_ID), (KERNEL, IMAGE_ID), (swap(5), None)):
        whole = wanted(ident, kind, 1).write
        partial = partial_of(whole, "0123456789abcdef")
        assert classify(partial) is Kind.PARTIAL
        assert lock_name(partial) == whole
    with pytest.raises(WantedError):
        partial_of("README", "0123456789abcdef")


def test_digests_are_read_as_they_are_written() -> None:
    """An algorithm and as many digits as it gives; nothing else passes."""
    text = "sha256:" + "0f" * 32
    assert str(Digest.parse(text.upper())) == text
    for wrong in ("", "0f" * 32, "sha256:", "sha1:" + "0f" * 32, "sha256:" + "0g" * 32):
        with pytest.raises(DigestError):
            Digest.parse(wrong)


def test_a_record_of_a_published_file() -> None:
    """It comes back whole, with any inode that a storage gives, or is refused."""
    digest = Digest("sha1", "0f" * 20)
    one = Published("swap_1", 2**64 - 1, 2**40, digest)
    record = {"schema": 1, **to_record(one)}
    assert from_record(record) == one
    with pytest.raises(RecordError):
        from_record({**record, "digest": "sha1:x"})
