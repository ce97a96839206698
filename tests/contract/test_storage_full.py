"""A storage without space left, in memory and on a file system of this machine."""

from __future__ import annotations

import errno
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sharedcache.core.ports import Storage, StorageError
from tests.contract.storage_real_world import RealWorld
from tests.contract.storage_world import IMAGE, LEAF, OTHER, SECOND, World
from tests.contract.test_storage_memory import MemoryWorld

FILES = 30
"""How many files and directories the small file system takes."""

Full = tuple[World, Callable[[], None]]


def _filling(base: Path) -> None:
    """Make files beside the cache until none can be made any more."""
    names = (base.parent / f"filler-{number}" for number in range(FILES))
    with pytest.raises(OSError, match="No space left"):
        deque(map(Path.touch, names), maxlen=0)


@pytest.fixture(params=["memory", pytest.param("tmpfs", marks=pytest.mark.root)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Full]:
    """Give a directory, and what fills its file system up."""
    if request.param == "memory":
        memory = MemoryWorld()
        yield memory, lambda: setattr(memory.disk, "full", True)
        return
    options = f"size=1m,nr_inodes={FILES}"
    mounting = ["mount", "-t", "tmpfs", "-o", options, "none", str(tmp_path)]
    if subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("this root may not mount anything")
    try:
        base = tmp_path / "_base"
        base.mkdir()
        real = RealWorld(base)
        yield real, lambda: _filling(base)
        real.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture
def store(place: Full) -> Storage:
    """Give a full storage with a file in ``_base`` and one in quarantine."""
    world, fill = place
    store = world.storage
    store.create_marker(b"identity")
    store.witness_write("n1", b"first")
    store.epoch_make(1)
    for name, leaf in ((IMAGE, LEAF), (OTHER, SECOND)):
        world.put(name, b"content", mtime_s=1)
        if name == IMAGE:
            store.quarantine(name, 1, leaf)
    fill()
    return store


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.epoch_make(2),
        lambda store: store.epoch_seal(2),
        lambda store: store.witness_write("n2", b"new"),
        lambda store: store.restore(1, LEAF, IMAGE),
    ],
    ids=["epoch_make", "epoch_seal", "witness_write", "restore"],
)
def test_nothing_new_is_made(store: Storage, call: Callable[[Storage], None]) -> None:
    """What needs a new name or file is refused, known not to be done."""
    with pytest.raises(StorageError) as refused:
        call(store)
    assert refused.value.errno == errno.ENOSPC
    assert store.epochs() == {1: False}
    assert store.facts(IMAGE) is None


def test_what_is_there_goes_on(store: Storage) -> None:
    """Renames, touches, a known witness and an unlink need no space."""
    store.witness_write("n1", b"second")
    store.witness_touch("n1")
    store.touch(OTHER)
    store.quarantine(OTHER, 1, SECOND)
    store.purge(1, LEAF)
    assert store.epoch_list(1) == [SECOND]
