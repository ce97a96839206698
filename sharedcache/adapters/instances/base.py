"""The cache directory as something that paths lead into."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sharedcache.adapters.instances import paths
from sharedcache.core import names
from sharedcache.core.ports import SourceError

_MOUNTINFO = "/proc/self/mountinfo"
_DELETED = "//deleted"
_LOOP = "loop/backing_file"
_LOOPS = (f"/sys/dev/block/{{}}:{{}}/{_LOOP}", f"/sys/dev/block/{{}}:{{}}/../{_LOOP}")
"""Of a loop device, and of a partition on one."""
_LOOP_DELETED = " (deleted)"
_ESCAPED = re.compile(r"\\([0-7]{3})")
_MARKER = ".sharedcache/cluster"
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Identity = tuple[int, int]


def is_absence(error: OSError) -> bool:
    """Whether the error says that a name is not there, and nothing else."""
    return error.errno in _NOT_THERE


def why(error: OSError) -> str:
    """Return the operating system's own words."""
    return error.strerror or str(error)


@dataclass(slots=True)
class Base:
    """``_base``, known by its device and inode, for the length of one look.

    Directories are compared by identity, so that bind mounts, links and
    ``..`` on the way make no difference.  What was found of a directory is
    remembered until the look is over.
    """

    identity: Identity
    spellings: frozenset[str]
    marker: Identity | None
    _bound: dict[Identity, frozenset[str]] = field(default_factory=dict)
    _parents: dict[str, tuple[bool, Identity | None]] = field(default_factory=dict)

    def bound(self, status: os.stat_result) -> frozenset[str]:
        """Return the cache names of a file that is mounted somewhere by itself."""
        return self._bound.get((status.st_dev, status.st_ino), frozenset())

    def looped(self, status: os.stat_result) -> frozenset[str]:
        """Return the cache name of the file that a loop device stands for.

        The kernel names the file as it is called now, in quarantine too.  Raises
        ``SourceError`` if that cannot be read.
        """
        numbers = os.major(status.st_rdev), os.minor(status.st_rdev)
        for pattern in _LOOPS if stat.S_ISBLK(status.st_mode) else ():
            name = _cache_name(_text_of(pattern.format(*numbers)), _LOOP_DELETED)
            if name:
                return frozenset({name})
        return frozenset()

    def holds(self, parent: str) -> tuple[bool, Identity | None]:
        """Tell whether a directory is ``_base``, and its identity if it exists.

        A directory that is not there is compared by its spelling.  Raises
        ``SourceError`` if it cannot be told.
        """
        known = self._parents.get(parent)
        if known is None:
            known = self._parents[parent] = self._compare(parent)
        return known

    def _compare(self, parent: str) -> tuple[bool, Identity | None]:
        """Compare a directory that was not seen in this look."""
        try:
            status = paths.status_of(parent)
        except OSError as error:
            if is_absence(error):
                return os.path.normpath(parent) in self.spellings, None
            raise SourceError(
                f"cannot tell whether {parent} is the cache directory:"
                f" {why(error)}; let the agent search it"
            ) from error
        identity = (status.st_dev, status.st_ino)
        if identity == self.identity:
            return True, identity
        if status.st_ino != self.identity[1]:
            return False, identity
        # The same storage mounted once more has another device number.
        same = self.marker is not None and self.marker == _marker_of(parent)
        return same, identity


def _marker_of(directory: str) -> Identity | None:
    """Return what tells the cluster's marker from that of another directory."""
    try:
        status = paths.status_of(paths.join(directory, _MARKER))
    except OSError as error:
        if is_absence(error):
            return None
        raise SourceError(
            f"cannot read {directory}/{_MARKER}: {why(error)}; let the agent search it"
        ) from error
    return status.st_ino, status.st_size


@contextmanager
def opened(path: str) -> Iterator[Base]:
    """Hold ``_base`` open, so that its inode cannot become another directory's.

    Raises ``SourceError`` if it cannot be opened.
    """
    try:
        fd = os.open(path, _DIRECTORY)
    except OSError as error:
        raise SourceError(
            f"cannot open the cache directory {path}: {why(error)};"
            " mount it, or correct the setting 'base'"
        ) from error
    try:
        status = os.fstat(fd)
        spellings = frozenset({os.path.normpath(path), os.path.realpath(path)})
        identity = (status.st_dev, status.st_ino)
        bound = _bound_files(status.st_dev)
        yield Base(identity, spellings, _marker_of(path), bound)
    finally:
        os.close(fd)


def _bound_files(device: int) -> dict[Identity, frozenset[str]]:
    r"""Find cache files that are mounted by themselves, under any other path.

    The fourth field of a line of mountinfo (proc(5)) is what is mounted, as its
    file system names it, in quarantine too; a space is ``\040`` there, and no
    cache name has one.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    found: dict[Identity, frozenset[str]] = {}
    for line in _mounts():
        fields = line.split(" ", 5)
        if len(fields) < 6 or fields[2] != number:  # noqa: PLR2004 - as split
            continue
        name = _cache_name(fields[3], _DELETED)
        if not name:
            continue
        try:
            status = paths.status_of(_ESCAPED.sub(_unescaped, fields[4]))
        except OSError as error:
            if is_absence(error):
                continue
            raise SourceError(
                f"cannot look at the mounted file {fields[4]}: {why(error)};"
                " let the agent search the way to it, or unmount it"
            ) from error
        identity = (status.st_dev, status.st_ino)
        found[identity] = found.get(identity, frozenset()) | {name}
    return found


def _cache_name(path: str, deleted: str) -> str:
    """Tell which cache file the kernel means, in quarantine too; empty if none."""
    last = paths.last_of(path.removesuffix(deleted))
    leaf = names.parse_leaf(last)
    name = last if leaf is None else leaf[0]
    return "" if names.classify(name) is names.Kind.UNRECOGNISED else name


def _mounts() -> list[str]:
    """Read this process's mounts; none where there is no such file."""
    return _text_of(_MOUNTINFO).splitlines()


def _text_of(path: str) -> str:
    """Read what the kernel says of something; nothing where it says nothing."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - paths here are strings
            return file.read().removesuffix("\n")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {why(error)}; let the agent read it"
        ) from error


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))
