"""What each call costs in system calls, as exact numbers.

A pass looks at 100,000 files, on storage where each call can be a round trip.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Self

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from tests.contract.storage_world import IMAGE, LEAF, MOVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_COUNTED = (
    "open",
    "close",
    "stat",
    "fstat",
    "fstatvfs",
    "rename",
    "link",
    "unlink",
    "utime",
    "mkdir",
    "rmdir",
    "fsync",
    "fchmod",
    "ftruncate",
    "pread",
    "write",
    "pwrite",
)


class _CountedEntry:
    """A directory's entry whose stat is counted."""

    def __init__(self, entry: os.DirEntry[str], counts: Counter[str]) -> None:
        self.name = entry.name
        self._entry, self._counts = entry, counts

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        self._counts["stat"] += 1
        return self._entry.stat(follow_symlinks=follow_symlinks)

    def __getattr__(self, name: str) -> object:
        pytest.fail(f"a listing's entry was asked for {name}")


class _CountedListing:
    """What os.scandir gives."""

    def __init__(self, descriptor: int, counts: Counter[str]) -> None:
        counts["scandir"] += 1
        self._entries, self._counts = _SCANDIR(descriptor), counts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()

    def __iter__(self) -> Iterator[_CountedEntry]:
        return (_CountedEntry(entry, self._counts) for entry in self._entries)


_SCANDIR = os.scandir


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[DirectoryStorage]:
    """Give a bound directory with an epoch, everything below the base open."""
    with DirectoryStorage(str(tmp_path)) as storage:
        storage.create_marker(b"identity")
        storage.epoch_make(1)
        storage.epoch_make(2)
        storage.witness_write("n", b"w")
        (tmp_path / IMAGE).write_bytes(b"x")
        yield storage


def _count(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> Counter[str]:
    counts: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            counts[name] += 1
            return real(*arguments, **options)

        return counted

    with monkeypatch.context() as patch:
        for name in _COUNTED:
            patch.setattr(os, name, counting(name, getattr(os, name)))
        patch.setattr(fcntl, "fcntl", counting("fcntl", fcntl.fcntl))
        patch.setattr(os, "scandir", lambda fd: _CountedListing(fd, counts))
        call()
    return counts


def test_scan(
    storage: DirectoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stat a file, and one opened listing for all of them."""
    for number in range(100):
        (tmp_path / f"swap_{number}").touch()
    assert _count(monkeypatch, storage.scan) == {
        "open": 1,
        "scandir": 1,
        "stat": 101,
        "close": 1,
    }


def test_facts(storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory opened, then the name, and one look at it.

    Close-to-open for names, which the directory's own attributes vouch for,
    and for the file; no look at a missing name.
    """
    assert _count(monkeypatch, lambda: storage.facts(IMAGE)) == {
        "open": 2,
        "fstat": 1,
        "close": 2,
    }
    assert _count(monkeypatch, lambda: storage.facts("swap_1")) == {
        "open": 2,
        "close": 1,
    }


def test_touch(storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the type, then the time; no opening."""
    counts = _count(monkeypatch, lambda: storage.touch(IMAGE))
    assert counts == {"stat": 1, "utime": 1}


def test_locked(storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One opening, one look, one question."""
    assert _count(monkeypatch, lambda: storage.locked(IMAGE)) == {
        "open": 1,
        "fstat": 1,
        "fcntl": 1,
        "close": 1,
    }


def test_quarantine(storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch by its name, both names looked at, one rename, two fsyncs.

    And one link that is refused, by which a client learns what it renamed.
    """
    assert _count(monkeypatch, lambda: storage.quarantine(IMAGE, 1, LEAF)) == {
        "open": 1,
        "stat": 2,
        "rename": 1,
        "link": 1,
        "fsync": 2,
        "close": 1,
    }


def test_quarantined_files(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call opens the epoch by its name, where a seal would show."""
    storage.quarantine(IMAGE, 1, LEAF)
    assert _count(monkeypatch, lambda: storage.quarantined_facts(1, LEAF)) == {
        "open": 2,
        "fstat": 1,
        "close": 2,
    }
    assert _count(monkeypatch, lambda: storage.quarantined_locked(1, LEAF)) == {
        "open": 2,
        "fstat": 1,
        "fcntl": 1,
        "close": 2,
    }
    assert _count(monkeypatch, lambda: storage.restore(1, LEAF, IMAGE)) == {
        "open": 1,
        "stat": 1,
        "link": 1,
        "fsync": 1,
        "close": 1,
    }
    assert _count(monkeypatch, lambda: storage.epoch_move(1, LEAF, 2, MOVED)) == {
        "open": 2,
        "stat": 1,
        "rename": 1,
        "fsync": 2,
        "close": 2,
    }
    assert _count(monkeypatch, lambda: storage.purge(2, MOVED)) == {
        "open": 1,
        "unlink": 1,
        "fsync": 1,
        "close": 1,
    }


def test_purge_asks_the_server(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a purge files are opened for writing, so that no cache answers."""
    storage.quarantine(IMAGE, 1, LEAF)
    real, access = os.open, []

    def opening(path: str, flags: int, mode: int = 0, *, dir_fd: int) -> int:
        if path == LEAF:
            access.append(flags & os.O_ACCMODE)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", opening)
    storage.quarantined_facts(1, LEAF)
    storage.quarantined_facts(1, LEAF, writable=True)
    storage.quarantined_locked(1, LEAF)
    assert access == [os.O_RDONLY, os.O_RDWR, os.O_RDWR]


def test_witness(storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness is written with one write, made durable with its directory."""
    assert _count(monkeypatch, lambda: storage.witness_write("n", b"w2")) == {
        "open": 1,
        "fstat": 2,
        "pwrite": 1,
        "fsync": 2,
        "close": 1,
    }
    assert _count(monkeypatch, lambda: storage.witness_touch("n")) == {
        "open": 1,
        "fstat": 2,
        "utime": 1,
        "close": 1,
    }
    assert _count(monkeypatch, lambda: storage.witness_read("n")) == {
        "open": 1,
        "fstat": 1,
        "pread": 1,
        "close": 1,
    }


def test_read_marker(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base and what is below are opened anew; the old ones are closed."""
    assert _count(monkeypatch, storage.read_marker) == {
        # The base, .sharedcache, the marker; of these the marker is closed,
        # and the four that were open before.
        "open": 3,
        "fstat": 2,
        "pread": 1,
        "close": 5,
    }


_SCAN = """
import sys
from sharedcache.adapters.storage import DirectoryStorage
with DirectoryStorage(sys.argv[1]) as storage:
    assert len(storage.scan()) == int(sys.argv[2])
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_scan_as_the_kernel_counts(tmp_path: Path) -> None:
    """Twice the files cost exactly that many more stats, and nothing else."""

    def stats(files: int) -> int:
        base = tmp_path / str(files)
        base.mkdir()
        for number in range(files):
            (base / f"swap_{number}").touch()
        trace = tmp_path / f"trace-{files}"
        tracing = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=%%stat,openat"]
        done = subprocess.run(
            [*tracing, sys.executable, "-c", _SCAN, str(base), str(files)],
            check=False,
            stderr=subprocess.PIPE,
        )
        if b"ptrace" in done.stderr.lower():
            pytest.skip("processes may not be traced here")
        assert done.returncode == 0, done.stderr
        lines = trace.read_text("utf-8", "replace").splitlines()
        assert not any("openat" in line and "swap_" in line for line in lines)
        return sum("swap_" in line for line in lines)

    assert stats(50) == 50
    assert stats(100) == 100
