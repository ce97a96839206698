"""Rules for the uses file: what it says exactly, or an error that says why not."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters import uses_file as module
from sharedcache.adapters.uses_file import MAX_BYTES, TRIES, UsesFileSource
from sharedcache.core import names
from sharedcache.core.model import UseIndex, Uses
from sharedcache.core.ports import Source, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ID = "11111111-2222-3333-4444-5555555555AB"
DIGEST = names.digest_of(ID)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the place of the file."""
    return tmp_path / "uses.json"


def look(path: Path, content: object, *, both_namings: bool = True) -> Uses:
    """Write the file and look at it."""
    path.write_text(json.dumps(content))
    source: Source = UsesFileSource(str(path), both_namings=both_namings)
    return source.look()


def test_images_protect_their_resized_copies(path: Path) -> None:
    """An image's id stands for its file and for every resized copy of it."""
    uses = look(path, {"images": [ID]})
    assert uses == Uses(images=frozenset({DIGEST}), families=frozenset({DIGEST}))
    assert UseIndex.over([uses]).covers(f"{DIGEST.hex()}_20")


@pytest.mark.parametrize("key", ["kernels", "ramdisks"])
def test_both_namings(path: Path, key: str) -> None:
    """A kernel or ramdisk is used under its digest and under its raw id."""
    uses = look(path, {key: [ID]})
    assert getattr(uses, key) == {DIGEST}
    assert uses.names == {ID.lower()}
    assert set(uses.cache_names()) == {DIGEST.hex(), ID.lower()}


@pytest.mark.parametrize("key", ["kernels", "ramdisks"])
def test_old_release(path: Path, key: str) -> None:
    """A node of the old release knows kernels and ramdisks by raw id only."""
    uses = look(path, {key: [ID]}, both_namings=False)
    assert uses == Uses(names=frozenset({ID.lower()}))


def test_names(path: Path) -> None:
    """Cache names count exactly as they are."""
    uses = look(path, {"names": ["a" * 40, f"{'b' * 40}_5", "swap_512"]})
    assert uses == Uses(
        images=frozenset({bytes.fromhex("a" * 40)}),
        names=frozenset({f"{'b' * 40}_5", "swap_512"}),
    )


def test_everything_is_optional(path: Path) -> None:
    """An empty object says that nothing is used."""
    assert look(path, {}) == Uses()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "sound JSON"),
        (b'{"images": [', "sound JSON"),
        (b'{"images": []} {}', "sound JSON"),
        (b"[" * 100_000, "sound JSON"),
        (b'{"images": [], "images": []}', "given twice"),
        (b'{"images": ["\xff"]}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "sound JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"image": []}', "'image' is not known"),
        (b'{"images": {}}', "list of strings"),
        (b'{"images": null}', "list of strings"),
        (b'{"images": [1]}', "list of strings"),
        (b'{"images": ["x"]}', "not an image id"),
        (b'{"kernels": [""]}', "not an image id"),
        (b'{"ramdisks": ["' + b"y" * 5000 + b'"]}', "not an image id"),
        (b'{"names": ["../escape"]}', "not a cache name"),
    ],
)
def test_doubt_is_an_error(path: Path, content: bytes, problem: str) -> None:
    """Whatever is not exactly understood fails, naming file, problem and remedy."""
    path.write_bytes(content)
    with pytest.raises(SourceError, match=problem) as caught:
        UsesFileSource(str(path)).look()
    assert str(caught.value).startswith(f"uses file {path}: ")
    assert "; " in str(caught.value)
    assert len(str(caught.value)) < 500


def test_missing(path: Path) -> None:
    """A file that is not there is a failure, not an empty list."""
    with pytest.raises(SourceError, match="create it"):
        UsesFileSource(str(path)).look()


def test_not_a_file(path: Path, tmp_path: Path) -> None:
    """A pipe or directory is refused and cannot hang the look."""
    os.mkfifo(path)
    for place in (path, tmp_path):
        with pytest.raises(SourceError, match="regular file"):
            UsesFileSource(str(place)).look()


def test_largest_size(path: Path) -> None:
    """The largest allowed file is read, one byte more is refused."""
    path.write_bytes(b"{}".ljust(MAX_BYTES))
    assert UsesFileSource(str(path)).look() == Uses()
    path.write_bytes(b"{}".ljust(MAX_BYTES + 1))
    with pytest.raises(SourceError, match="more than"):
        UsesFileSource(str(path)).look()


def _changing(path: Path, times: int) -> Callable[[int, int], bytes]:
    """Return a reader below which the file grows, so many times."""
    real = module._read_upto
    left = [times]

    def reading(fd: int, limit: int) -> bytes:
        content = real(fd, limit)
        if left[0]:
            left[0] -= 1
            with path.open("ab") as file:
                file.write(b" ")
        return content

    return reading


def test_a_change_while_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changed while it was read is read again, a few times."""
    path.write_text(json.dumps({"images": [ID]}))
    monkeypatch.setattr(module, "_read_upto", _changing(path, TRIES - 1))
    assert UsesFileSource(str(path)).look().images == {DIGEST}
    monkeypatch.setattr(module, "_read_upto", _changing(path, TRIES))
    with pytest.raises(SourceError, match="rename"):
        UsesFileSource(str(path)).look()
