"""How long a mount may keep names cached, read from ``/proc/self/mountinfo``.

The format is that of proc(5).  The times are those of nfs(5): a client may
believe a directory's attributes, and with them the names in it, for up to
``acdirmax`` seconds, 60 unless the mount says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_NAME_CACHE_S = 60.0
"""Taken for any file system that is not known to need less (nfs(5), acdirmax)."""

_LOCAL = frozenset(
    {
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "overlay",
        "ramfs",
        "tmpfs",
        "xfs",
        "zfs",
    }
)
_NFS = frozenset({"nfs", "nfs4"})
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=all", "local_lock=posix"})


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount's file system type and its options, the super block's included."""

    kind: str
    options: tuple[str, ...]


def parse_mount(mountinfo: str, mount_id: int) -> Mount | None:
    """Find a mount by its id; ``None`` if there is no such readable line."""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if fields[0] != str(mount_id):
            continue
        # A variable number of optional fields ends with a lone dash.
        try:
            dash = fields.index("-", 6)
        except ValueError:
            return None
        after = fields[dash + 1 :]
        # The source may be empty, which leaves an empty field; the type and
        # the super block's options are the first and the last one.
        if len(after) < 2:  # noqa: PLR2004 - type, source and options
            return None
        options = (*fields[5].split(","), *after[-1].split(","))
        return Mount(after[0], options)
    return None


def parse_mount_id(fdinfo: str) -> int | None:
    """Read ``mnt_id`` from ``/proc/self/fdinfo/<descriptor>``."""
    for line in fdinfo.splitlines():
        key, _, value = line.partition(":")
        if key == "mnt_id" and value.strip().isdecimal():
            return int(value)
    return None


def local_locks_of(mount: Mount | None) -> str:
    """Name the option that keeps qemu's locks on this host; empty if there is none.

    nfs(5): ``local_lock=flock`` concerns other locks than qemu's and Nova's.
    """
    if mount is None or mount.kind not in _NFS:
        return ""
    for option in mount.options:
        if option in _LOCAL_LOCKS:
            return option
    return ""


def name_cache_of(mount: Mount | None) -> float:
    """Longest time that the mount keeps a name cached, in seconds; 0 is local.

    Doubt is the default of NFS, never 0.
    """
    if mount is None:
        return DEFAULT_NAME_CACHE_S
    if mount.kind in _LOCAL:
        return 0.0
    if mount.kind not in _NFS:
        return DEFAULT_NAME_CACHE_S
    if "noac" in mount.options:
        return 0.0
    for wanted in ("acdirmax", "actimeo"):
        for option in mount.options:
            key, _, value = option.partition("=")
            if key == wanted and value.isdecimal():
                return float(value)
    return DEFAULT_NAME_CACHE_S
