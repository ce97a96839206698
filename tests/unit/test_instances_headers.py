"""Rules for what a look may remember of the one before, and what it costs."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.instances import headers as headers_module
from sharedcache.adapters.instances.headers import SETTLED_S
from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError
from tests.support.images import Site, X, Y, qcow2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site without instances."""
    return Site(tmp_path)


class Reads:
    """Counts the headers that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        real = headers_module._read_once

        def reading(path: str) -> object:
            self.paths.append(path)
            return real(path)

        monkeypatch.setattr(headers_module, "_read_once", reading)

    def taken(self) -> int:
        """Return how many there were since last asked."""
        count = len(self.paths)
        self.paths.clear()
        return count


def test_a_header_is_trusted_when_settled(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a header read well after its file last changed is remembered."""
    site.disk()
    reads = Reads(monkeypatch)
    site.source.look()
    site.ticks.now_s += SETTLED_S * 0.9
    site.source.look()
    assert reads.taken() == 2
    site.ticks.now_s += SETTLED_S * 0.1
    site.source.look()
    assert reads.taken() == 1
    for _ in range(3):
        assert site.source.look() == Uses.of_names([X])
    assert reads.taken() == 0


def test_a_change_in_the_same_tick(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file rewritten within one tick of its clock is still read anew."""
    disk = site.disk(X)
    frozen = os.stat_result(disk.lstat())
    real = headers_module.key_of
    monkeypatch.setattr(
        headers_module,
        "key_of",
        lambda status: real(frozen if status.st_ino == frozen.st_ino else status),
    )
    assert site.source.look() == Uses.of_names([X])
    site.disk(Y)
    assert site.source.look() == Uses.of_names([Y])


def test_a_changed_overlay_is_read_again(site: Site) -> None:
    """A rebase is seen by the next look, however well settled the old header."""
    site.disk(X)
    assert site.settle() == Uses.of_names([X])
    site.disk(Y)
    assert site.source.look() == Uses.of_names([Y])


def test_a_changing_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running guest's disk never keeps still; the same header twice is enough."""
    site.disk(X)
    reads = Reads(monkeypatch)
    real = headers_module._read_once
    moments = iter(range(1000))

    def moving(path: str) -> tuple[object, object, object]:
        header = real(path)[0]
        return header, next(moments), next(moments)

    monkeypatch.setattr(headers_module, "_read_once", moving)
    for _ in range(3):
        assert site.source.look() == Uses.of_names([X])
        assert reads.taken() == 2
        site.ticks.now_s += SETTLED_S
    assert site.ticks.pauses == []


def test_what_is_gone_is_forgotten(site: Site) -> None:
    """The memory of headers holds what the last whole look asked for."""
    site.disk()
    gone = site.disk(vm="gone")
    site.settle()
    assert len(site.source._headers._known) == 2
    shutil.rmtree(gone.parent)
    site.source.look()
    assert len(site.source._headers._known) == 1


def test_memory_is_bounded(site: Site) -> None:
    """Beyond its limit the memory takes no more; the answer stays right."""
    for number in range(5):
        site.disk(vm=f"vm{number}")
    site.source._headers._limit = 2
    assert site.settle() == Uses.of_names([X])
    assert len(site.source._headers._known) == 2


def test_a_failed_look_keeps_the_memory(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broken disk does not make every look read every header."""
    for number in range(5):
        site.disk(vm=f"vm{number}")
    broken = site.disk(vm="zz")
    broken.write_bytes(qcow2(cluster_bits=40))
    reads = Reads(monkeypatch)
    for _ in range(3):
        with pytest.raises(SourceError):
            site.source.look()
        site.ticks.now_s += SETTLED_S
    broken.unlink()
    site.source.look()
    site.ticks.now_s += SETTLED_S
    site.source.look()
    reads.taken()
    site.source.look()
    assert reads.taken() == 0


_STARTS = ("subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "os.system")


def test_no_process_is_started(site: Site) -> None:
    """Headers are read here, never by a process for each disk."""
    started: list[str] = []
    watching = True

    def hook(event: str, _: object) -> None:
        if watching and event.startswith(_STARTS):
            started.append(event)

    # A hook stays for the life of the process, so it is told to be quiet after.
    sys.addaudithook(hook)
    for number in range(20):
        site.disk(vm=f"vm{number}")
    site.settle()
    watching = False
    assert started == []


OVERLAYS_PER_VM = 10
VMS = 8
CALLS = {
    # One look at each overlay and one at the shared base file.
    "lstat": OVERLAYS_PER_VM * VMS + 1,
    # Each directory once, however many overlays lie in it; the marker is asked
    # for when the look begins, and _base is compared with its own inode; the
    # instances' own directory is compared with the first look's, twice,
    # and asked for changes around each listing, and after the last.
    "stat": VMS + 7,
    # The instances twice, each instance once.
    "scandir": VMS + 2,
    # The cache directory itself.
    "open": 1,
    "fstat": 1,
    "close": 1,
    "pread": 0,
    "readlink": 0,
}


def test_calls_of_a_look_without_changes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unchanged overlay costs one look at its file, and nothing else."""
    for vm in range(VMS):
        for number in range(OVERLAYS_PER_VM):
            site.disk(vm=f"vm{vm}", disk=f"disk.eph{number}")
    site.settle()
    counts = dict.fromkeys(CALLS, 0)

    def counting(function: str) -> Callable[..., object]:
        real = getattr(os, function)

        def call(*args: object, **kwargs: object) -> object:
            counts[function] += 1
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for function in CALLS:
            patch.setattr(os, function, counting(function))
        found = site.source.look()
    assert found == Uses.of_names([X])
    assert {name: counts[name] for name in CALLS if name != "lstat"} == {
        name: count for name, count in CALLS.items() if name != "lstat"
    }
    # The cache directory's own spelling is resolved part by part.
    parts = len(site.base.parts)
    assert counts["lstat"] <= CALLS["lstat"] + parts
