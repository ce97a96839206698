"""Rules for looking at the instance directories."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.instances import headers as headers_module
from sharedcache.adapters.instances.base import Base
from sharedcache.adapters.instances.headers import TRIES
from sharedcache.adapters.instances.source import MAX_FILES, InstancesSource
from sharedcache.core.model import Uses
from sharedcache.core.ports import Source, SourceError
from sharedcache.core.referrers import Key, Referrer
from tests.support.images import VM, Site, X, Y, qcow2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site without instances."""
    return Site(tmp_path)


def test_no_instances(site: Site) -> None:
    """An empty directory of instances uses nothing."""
    source: Source = site.source
    assert source.name == "instances"
    assert source.look() == Uses()


def test_every_disk_counts(site: Site) -> None:
    """Root disks, rescue disks, ephemerals and odd names all count."""
    for number, disk in enumerate(("disk", "disk.rescue", "disk.eph1", "odd")):
        name = str(number) * 40
        (site.base / name).write_bytes(b"raw")
        site.disk(name, disk=disk)
    expected = Uses.of_names(str(number) * 40 for number in range(4))
    assert site.source.look() == expected


def test_ten_thousand_overlays(site: Site) -> None:
    """A directory of very many disks is read as any other."""
    first = site.disk(X)
    for number in range(9999):
        os.link(first, first.with_name(f"disk.{number}"))
    site.disk(Y, disk="disk.last")
    source = site.make(max_files=MAX_FILES)
    assert source.look() == Uses.of_names([X, Y])


def test_resize_directory(site: Site) -> None:
    """What waits for a resize to be confirmed is used."""
    site.disk(X)
    site.disk(Y, vm=f"{VM}_resize")
    assert site.source.look() == Uses.of_names([X, Y])


def test_all_kinds_of_names(site: Site) -> None:
    """Resized copies, swap and ephemeral backing files are used by name."""
    names = [f"{X}_20", "swap_512", "ephemeral_10_40d1d2c"]
    for name in names:
        site.disk(name, disk=f"disk.{name}")
    assert site.source.look() == Uses(names=frozenset(names))


@pytest.mark.parametrize("name", ["_base", "locks", "snapshots", ".hidden"])
def test_not_instances(site: Site, name: str) -> None:
    """Nova's own directories and hidden ones are no instances."""
    site.disk(vm=name, disk="overlay")
    assert site.source.look() == Uses()


def test_base_under_another_name(tmp_path: Path) -> None:
    """The cache directory is left out by identity too, also behind a link."""
    base = tmp_path / "cache"
    base.mkdir()
    (base / X).write_bytes(qcow2(str(base / Y), "raw"))
    (tmp_path / "alias").symlink_to(base)
    assert InstancesSource(str(tmp_path), str(base)).look() == Uses()


def test_linked_instance_directory(site: Site, tmp_path: Path) -> None:
    """An instance directory may be a link, but not one to nowhere."""
    real = tmp_path / ".elsewhere"
    real.mkdir()
    (real / "disk").write_bytes(qcow2(str(site.base / X), "raw"))
    (site.root / VM).symlink_to(real)
    assert site.source.look() == Uses.of_names([X])
    shutil.rmtree(real)
    with pytest.raises(SourceError, match=f"{VM}.*mount"):
        site.source.look()


def test_files_beside_the_instances(site: Site) -> None:
    """What lies beside the instances may be a disk as well, or a link to one."""
    (site.root / "compute").symlink_to(site.base / X)
    (site.root / "loose.qcow2").write_bytes(qcow2(str(site.base / Y), "raw"))
    assert site.source.look() == Uses.of_names([X, Y])
    (site.root / "loose.qcow2").unlink()
    assert site.source.look() == Uses.of_names([X])


def test_directories_in_an_instance(site: Site) -> None:
    """A disk may lie deeper; too many directories are a failure."""
    site.disk(X)
    below = site.root / VM / "a/b"
    below.mkdir(parents=True)
    (below / "disk").write_bytes(qcow2(str(site.base / Y), "raw"))
    assert site.source.look() == Uses.of_names([X, Y])
    (below / "loop").symlink_to(site.root)
    assert site.source.look() == Uses.of_names([X, Y])
    for number in range(5):
        (site.root / VM / "a" / str(number)).mkdir()
    with pytest.raises(SourceError, match="more than 6 directories"):
        site.make(max_files=6).look()


def test_who_refers(site: Site) -> None:
    """Each disk is told with what it leads to, and only what is there now."""
    path = site.disk(X)
    site.disk(Y, vm="other")
    site.source.look()
    told = site.source.referrers()
    assert told.of(Key(X)) == ([Referrer("disk", path=str(path))], 1)
    path.unlink()
    site.source.look()
    assert site.source.referrers().of(Key(X)) == ([], 0)


def test_another_directory_in_its_place(tmp_path: Path) -> None:
    """What an unmounted or exchanged directory shows is no answer, until it is back."""
    site = Site(tmp_path)
    instances = tmp_path / "instances"
    instances.mkdir()
    source = InstancesSource(str(instances), str(site.base))
    assert source.look() == Uses()
    aside = instances.rename(tmp_path / "aside")
    instances.mkdir()
    with pytest.raises(SourceError, match="mount that one again"):
        source.look()
    instances.rmdir()
    aside.rename(instances)
    assert source.look() == Uses()


def test_exchange_during_a_look(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is exchanged while it is read gives no answer either."""
    site.disk(X)
    scan = InstancesSource._scan

    def exchanging(self: InstancesSource, base: Base) -> set[str]:
        used = scan(self, base)
        site.root.rename(site.root.with_name("aside"))
        site.root.mkdir()
        return used

    monkeypatch.setattr(InstancesSource, "_scan", exchanging)
    with pytest.raises(SourceError, match="mount that one again"):
        site.source.look()


@pytest.mark.parametrize("marked", [True, False])
def test_same_storage_mounted_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, marked: bool
) -> None:
    """Mounted again, a storage has another device number; the marker vouches."""
    if marked:
        marker = site.base / ".sharedcache/cluster"
        marker.parent.mkdir()
        marker.write_text("this cluster")
    site.disk(X)
    assert site.source.look() == Uses.of_names([X])
    device = site.root.stat().st_dev
    real_status, real_fstat = os.stat, os.fstat

    def moved(status: os.stat_result) -> os.stat_result:
        fields = list(status)
        fields[2] = status.st_dev + 1 if status.st_dev == device else status.st_dev
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", lambda fd: moved(real_fstat(fd)))
    monkeypatch.setattr(os, "stat", lambda path, **how: moved(real_status(path, **how)))
    if marked:
        assert site.source.look() == Uses.of_names([X])
    else:
        with pytest.raises(SourceError, match="restart the agent"):
            site.source.look()


def test_missing_instances_path(site: Site) -> None:
    """A missing directory is a failure, not an empty one."""
    source = InstancesSource(str(site.root / "none"), str(site.base))
    with pytest.raises(SourceError, match="mount it"):
        source.look()


def test_missing_base(site: Site) -> None:
    """A missing cache directory is a failure."""
    source = InstancesSource(str(site.root), str(site.root / "none"))
    with pytest.raises(SourceError, match="mount it"):
        source.look()


def test_bounds(site: Site) -> None:
    """Too many instances or files are a failure, not a partial answer."""
    for number in range(3):
        site.disk(vm=f"vm{number}")
        site.disk(vm="vm0", disk=f"disk.eph{number}")
    assert site.make(max_instances=3, max_files=4).look() == Uses.of_names([X])
    with pytest.raises(SourceError, match="more than 2 entries"):
        site.make(max_instances=2).look()
    with pytest.raises(SourceError, match="more than 3 files"):
        site.make(max_files=3).look()


def test_short_header_is_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is being created is read again, then it is a failure."""
    disk = site.disk()
    whole = disk.read_bytes()
    disk.write_bytes(whole[:80])
    with pytest.raises(SourceError, match="ends too early") as caught:
        site.source.look()
    assert str(disk) in str(caught.value)
    assert len(site.ticks.pauses) == TRIES
    monkeypatch.setattr(site.ticks, "pause", lambda _: disk.write_bytes(whole))
    assert site.make().look() == Uses.of_names([X])


def test_corrupt_header_names_the_disk(site: Site) -> None:
    """A corrupt header is a failure that names the disk."""
    disk = site.disk()
    disk.write_bytes(qcow2(cluster_bits=40))
    with pytest.raises(SourceError, match="repair") as caught:
        site.source.look()
    assert str(disk) in str(caught.value)


def test_guest_written_header(site: Site) -> None:
    """A guest cannot make the source fail through a disk recorded as raw."""
    disk = site.disk()
    disk.write_bytes(qcow2(cluster_bits=40))
    info = disk.with_name("disk.info")
    for other in ({str(disk): "qcow2"}, [str(disk)]):
        info.write_text(json.dumps(other))
        with pytest.raises(SourceError):
            site.source.look()
    info.write_text(json.dumps({str(disk): "raw"}))
    assert site.source.look() == Uses()


@pytest.mark.parametrize("name", ["console.log", "console.log.0", "kernel", "ramdisk"])
def test_files_that_are_no_disks(site: Site, name: str) -> None:
    """What a guest or user writes and nobody opens as an image is not probed."""
    site.disk(disk=name)
    assert site.source.look() == Uses()
    path = site.root / VM / name
    path.unlink()
    path.symlink_to(site.base / X)
    assert site.source.look() == Uses.of_names([X])


def test_unlistable_directory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance directory that cannot be listed is a failure."""
    disk = site.disk()
    real = os.scandir

    def failing(path: str) -> object:
        if path == str(disk.parent):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(SourceError, match=f"{VM}: Permission denied"):
        site.source.look()


@pytest.mark.parametrize("function", ["scandir", "stat"])
def test_unlistable_instances_path(
    site: Site, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """What cannot be listed, or be seen to keep still, is a failure and not empty."""
    site.disk()
    source = site.make()
    real, calls = getattr(os, function), [0]

    def failing(path: object, *args: object, **options: object) -> object:
        if path == str(site.root):
            calls[0] += 1
            # The first look at it tells which directory it is.
            if function == "scandir" or calls[0] == 2:
                raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, function, failing)
    with pytest.raises(SourceError, match=r"cannot list .*instances_path"):
        source.look()


def test_a_link_that_goes_while_it_is_followed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance's link that is gone now is no failure: the next listing tells."""
    (site.root / VM).symlink_to(site.root / ".nowhere")
    _after_listing(monkeypatch, site.root, (site.root / VM).unlink)
    assert site.source.look() == Uses()


def _after_listing(
    monkeypatch: pytest.MonkeyPatch, listed: Path, act: Callable[[], object]
) -> None:
    """Do something once, right after a directory was listed the first time."""
    real = os.scandir
    left = [act]

    class Listing:
        """A listing that was taken before the change."""

        def __init__(self, path: str) -> None:
            with real(path) as entries:
                self.entries = list(entries)
            if path == str(listed) and left:
                left.pop()()

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(os, "scandir", Listing)


def test_resize_behind_the_listing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance renamed while we read is found under its new name."""
    directory = site.disk().parent
    moved = directory.with_name(f"{VM}_resize")
    _after_listing(monkeypatch, site.root, lambda: directory.rename(moved))
    assert site.source.look() == Uses.of_names([X])


def test_revert_behind_the_listing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that took a known name is told apart by its inode."""
    resized = site.disk(Y, vm=f"{VM}_resize").parent
    directory = site.disk(X).parent
    real = os.scandir

    @contextlib.contextmanager
    def listing(path: str) -> Iterator[list[os.DirEntry[str]]]:
        if path == str(resized) and resized.exists():
            # The new directory was read; now the old one takes its name.
            directory.rename(site.root / ".trash")
            resized.rename(directory)
        with real(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name)

    monkeypatch.setattr(os, "scandir", listing)
    assert site.source.look() == Uses.of_names([X, Y])
    assert not resized.exists()


def test_deletion_behind_the_overlay(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overlay whose backing file is deleted with it is no failure."""
    disk = site.disk()
    disk.write_bytes(qcow2("snapshot", "qcow2"))
    real = headers_module._read_once

    def deleting(path: str) -> object:
        header = real(path)
        shutil.rmtree(disk.parent)
        return header

    monkeypatch.setattr(headers_module, "_read_once", deleting)
    assert site.source.look() == Uses()


def test_file_renamed_behind_the_listing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk renamed while we read is found under its new name."""
    disk = site.disk()
    renamed = disk.with_name("disk.backup")
    _after_listing(monkeypatch, disk.parent, lambda: disk.rename(renamed))
    assert site.source.look() == Uses.of_names([X])


def test_deletion_behind_the_listing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that is deleted while we read is no failure."""
    directory = site.disk().parent
    site.disk(Y, vm="other")
    _after_listing(monkeypatch, directory, lambda: shutil.rmtree(directory))
    assert site.source.look() == Uses.of_names([Y])
    site.disk()
    _after_listing(monkeypatch, site.root, lambda: shutil.rmtree(directory))
    assert site.source.look() == Uses.of_names([Y])


@pytest.mark.parametrize("what", ["directory", "file", "nested"])
def test_away_and_back_behind_the_listing(
    site: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What is gone when it is to be read, and has its name again after, is read."""
    disk = site.disk(disk="sub/disk" if what == "nested" else "disk")
    moving = disk if what == "file" else disk.parent
    trash = site.root / ".trash"
    real = os.scandir
    left = ["away", "back"]

    @contextlib.contextmanager
    def listing(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with real(path) as entries:
            found = list(entries)
        again = path == str(site.root) or (what == "file" and path == str(disk.parent))
        if left == ["away", "back"] and path == str(moving.parent):
            left.pop(0)
            moving.rename(trash)
        elif left == ["back"] and again:
            left.pop()
            trash.rename(moving)
            with real(path) as entries:
                found = list(entries)
        yield found

    monkeypatch.setattr(os, "scandir", listing)
    assert site.source.look() == Uses.of_names([X])
    assert not left


def test_stale_listing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that a listing shows and that are not there end the look all the same."""
    gone = site.disk(Y, vm="gone")
    away = site.disk(Y, disk="away")
    kept = site.disk(X)
    stale = {}
    for directory in (site.root, gone.parent, kept.parent):
        with os.scandir(directory) as entries:
            stale[str(directory)] = list(entries)
    shutil.rmtree(gone.parent)
    away.unlink()
    real = os.scandir

    @contextlib.contextmanager
    def listing(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with real(path):
            yield stale[path]

    monkeypatch.setattr(os, "scandir", listing)
    assert site.source.look() == Uses.of_names([X])


def test_listing_that_the_directory_changed_under(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that shows nothing new counts only if nothing was renamed under it."""
    disk = site.disk()
    real = os.scandir
    short = [2]

    @contextlib.contextmanager
    def listing(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with real(path) as entries:
            found = list(entries)
        if path == str(site.root) and short[0]:
            # A rename took the name past the place that the listing had come to.
            short[0] -= 1
            os.utime(site.root, ns=(0, short[0]))
            found = [one for one in found if one.path != str(disk.parent)]
        yield found

    monkeypatch.setattr(os, "scandir", listing)
    assert site.source.look() == Uses.of_names([X])


def test_endless_changes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that never come to rest are a failure, not an endless look."""
    site.disk(vm="vm0")
    count = [0]
    real = os.scandir

    def renaming(path: str) -> object:
        if path == str(site.root):
            old = site.root / f"vm{count[0]}"
            count[0] += 1
            old.rename(site.root / f"vm{count[0]}")
        return real(path)

    monkeypatch.setattr(os, "scandir", renaming)
    with pytest.raises(SourceError, match="keeps renaming"):
        site.source.look()


def test_endless_renames_in_an_instance(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disks that are never where they were listed are a failure too."""
    disk = site.disk()
    count = 0
    real = os.scandir

    @contextlib.contextmanager
    def listing(path: str) -> Iterator[list[os.DirEntry[str]]]:
        nonlocal count
        with real(path) as entries:
            found = list(entries)
        if path == str(disk.parent):
            next(disk.parent.iterdir()).rename(disk.with_name(f"disk.{count}"))
            count += 1
        yield found

    monkeypatch.setattr(os, "scandir", listing)
    with pytest.raises(SourceError, match="keeps renaming its files"):
        site.source.look()
