"""How long names may be cached is read from the mount, and doubt is the longest."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.storage.mountinfo import (
    Mount,
    local_locks_of,
    name_cache_of,
    parse_mount,
    parse_mount_id,
)

if TYPE_CHECKING:
    from pathlib import Path

_MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
93 27 0:52 / /srv/a\040b rw,noatime shared:44 master:2 - nfs4 s:/x rw,acdirmax=15,hard
94 93 0:52 /d /srv/bind rw,noac - nfs4 store:/x rw,vers=4.1,hard
95 27 0:53 / /srv/empty rw - tmpfs  rw,size=4k
96 27 0:54 / /srv/dash rw unknown:- - nfs - rw,actimeo=3
97 27 0:55 / /srv/bad rw
98 27 0:55 / /srv/bad rw -
99 27 0:55 / /srv/bad rw - ext4
"""


def _options(text: str) -> Mount:
    return Mount("nfs4", tuple(text.split(",")))


def test_mount_is_found_by_its_id() -> None:
    """Type, mount options and super block options, whatever stands between."""
    found = parse_mount(_MOUNTINFO, 93)
    assert found is not None
    assert found.kind == "nfs4"
    assert set(found.options) >= {"noatime", "acdirmax=15", "hard"}
    assert parse_mount(_MOUNTINFO, 27) == Mount(
        "ext4", ("rw", "relatime", "rw", "discard")
    )
    assert parse_mount(_MOUNTINFO, 95) == Mount("tmpfs", ("rw", "rw", "size=4k"))
    assert parse_mount(_MOUNTINFO, 96) == Mount("nfs", ("rw", "rw", "actimeo=3"))


@pytest.mark.parametrize("mount_id", [0, 2, 9, 97, 98, 99])
def test_unreadable_or_missing_lines(mount_id: int) -> None:
    """A line that is not there, or not whole, is no mount."""
    assert parse_mount(_MOUNTINFO, mount_id) is None
    assert name_cache_of(None) == 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pos:\t0\nflags:\t02100000\nmnt_id:\t93\nino:\t2\n", 93),
        ("pos:\t0\n", None),
        ("mnt_id:\tx\n", None),
        ("", None),
    ],
)
def test_mount_id(text: str, expected: int | None) -> None:
    """The id is that of the descriptor's own mount."""
    assert parse_mount_id(text) == expected


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs", "bcachefs"]
)
def test_local_file_systems_cache_nothing_false(kind: str) -> None:
    """What one kernel alone writes is never out of date in it."""
    assert name_cache_of(Mount(kind, ("rw", "acdirmax=9"))) == 0


@pytest.mark.parametrize("kind", ["ceph", "fuse.glusterfs", "virtiofs", "9p", "cifs"])
def test_other_file_systems_are_in_doubt(kind: str) -> None:
    """What is not known is taken to cache as long as NFS does."""
    assert name_cache_of(Mount(kind, ("rw",))) == 60


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("rw,vers=4.1", 60),
        ("rw,acdirmin=1,acdirmax=7,acregmax=9", 7),
        ("rw,actimeo=5", 5),
        ("rw,actimeo=5,acdirmax=8", 8),
        ("rw,acdirmax=0", 0),
        ("rw,noac,acdirmax=30", 0),
        ("rw,acdirmax=x", 60),
        ("rw,acdirmax=-1", 60),
        ("rw,acdirmax", 60),
        ("", 60),
    ],
)
def test_nfs_tells_acdirmax(options: str, expected: float) -> None:
    """`acdirmax` bounds what a client believes of names; unreadable is 60."""
    assert name_cache_of(_options(options)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("rw,nolock", "nolock"),
        ("rw,local_lock=all", "local_lock=all"),
        ("rw,local_lock=posix", "local_lock=posix"),
        ("rw,local_lock=flock", ""),
        ("rw,local_lock=none", ""),
        ("", ""),
    ],
)
def test_locks_that_stay_here(options: str, expected: str) -> None:
    """The locks of qemu are POSIX ones: `local_lock=flock` does not concern them."""
    assert local_locks_of(_options(options)) == expected
    assert local_locks_of(None) == ""


def test_real_mount_is_found(tmp_path: Path) -> None:
    """The test's own directory is on some mount of this machine."""
    with DirectoryStorage(str(tmp_path)) as storage:
        assert storage.name_cache_s() in (0, 60)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
def test_tmpfs_is_local() -> None:
    """The whole way, on a file system whose type is known everywhere."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("there is no /dev/shm")
    with DirectoryStorage("/dev/shm") as storage:
        assert storage.name_cache_s() == 0
