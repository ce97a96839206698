"""The cache directory as something that paths lead into."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sharedcache.adapters.instances import paths
from sharedcache.core.ports import SourceError

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
    _parents: dict[str, tuple[bool, Identity | None]] = field(default_factory=dict)

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
        yield Base((status.st_dev, status.st_ino), spellings, _marker_of(path))
    finally:
        os.close(fd)
