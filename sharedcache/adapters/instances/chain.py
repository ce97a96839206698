"""Walks the whole backing chain of a disk and tells the cache names on it.

Every name is followed as qemu follows it: relative names start from the
directory of the image as its own path spells it, links are resolved by the
kernel, and a format that the image gives is not probed again.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from sharedcache.adapters.instances import paths
from sharedcache.adapters.instances.base import Base, Identity, is_absence, why
from sharedcache.adapters.instances.filenames import Reference, references
from sharedcache.adapters.instances.headers import Headers
from sharedcache.adapters.instances.qcow2 import Header, ImageError
from sharedcache.core import names
from sharedcache.core.ports import SourceError

MAX_DEPTH = 200
"""Images on one chain; qemu itself becomes unusable long before."""

MAX_REFERENCES = 1000
"""Files that one disk may lead to, data files and all."""

MAX_LINKS = 40
"""Symbolic links in a row, as in the kernel."""

_NO_PROBE = "raw"
_CHECKED = frozenset({"qcow2", "vmdk"})
"""Formats with references, where a header of another kind has not told them: qemu
reads a VMDK descriptor also where it would not find one by probing."""

_Place = tuple[int, int, Identity, str | None]


@dataclass(frozen=True, slots=True)
class _Node:
    """One file of a chain: cache names it was reached by, and what it leads to.

    ``place`` is ``None`` for a file that is not there.
    """

    used: frozenset[str]
    place: _Place | None
    leads_to: tuple[Reference, ...] = ()


class Chains:
    """The chains of many disks in one look; shared images are read once."""

    def __init__(self, base: Base, headers: Headers) -> None:
        self._base = base
        self._headers = headers
        self._nodes: dict[Reference, _Node] = {}

    def names_of(self, disk: str, image_format: str | None = None) -> frozenset[str]:
        """Return the cache names that a disk refers to, directly or not.

        ``disk`` is an absolute path.  Raises ``FileNotFoundError`` if the
        disk itself is not there (any more), ``SourceError`` where a part of
        the chain cannot be known.
        """
        first = Reference(disk, image_format)
        top = self._visit(first)
        if top.place is None and not top.used:
            self._check_not_a_link(disk)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), disk)
        used = set(top.used)
        places = {top.place}
        pending = [(reference, 1) for reference in top.leads_to]
        while pending:
            reference, depth = pending.pop()
            node = self._nodes.get(reference)
            if node is None:
                node = self._nodes[reference] = self._visit_backing(reference, disk)
            used |= node.used
            if node.place is None or node.place in places:
                # A chain that comes back to itself has told all its names.
                continue
            places.add(node.place)
            if depth >= MAX_DEPTH or len(places) > MAX_REFERENCES:
                raise SourceError(
                    f"the backing chain of {disk} is deeper than {MAX_DEPTH} images;"
                    " shorten it with 'qemu-img rebase' or block-commit"
                )
            pending.extend((below, depth + 1) for below in node.leads_to)
        return frozenset(used)

    def _check_not_a_link(self, disk: str) -> None:
        """Refuse a link that leads nowhere: what it led to is not known."""
        try:
            target = paths.target_of(disk)
        except OSError:
            return
        raise SourceError(
            f"{disk} is a link to {target}, which is not there;"
            " mount or activate what it leads to, or remove the link"
        )

    def _visit_backing(self, reference: Reference, disk: str) -> _Node:
        """Visit a file that an image refers to.

        One that is missing has a chain of its own that cannot be known, unless
        it is in ``_base``: there its name is a use, and the use restores it.
        """
        node = self._visit(reference)
        if node.place is not None or node.used:
            return node
        if reference.format == _NO_PROBE:
            # Perhaps a host that spells the cache directory otherwise made it.
            name = paths.last_of(reference.path)
            if names.classify(name) is not names.Kind.UNRECOGNISED:
                return _Node(frozenset({name}), None)
        else:
            raise SourceError(
                f"{reference.path}, on the backing chain of {disk}, is not there:"
                " mount or restore it, or remove the broken disk"
            )
        return node

    def _visit(self, reference: Reference) -> _Node:
        """Resolve a path link by link, then read what the file refers to."""
        used: set[str] = set()
        path = reference.path.rstrip("/")
        home: Identity | None = None
        for _ in range(MAX_LINKS):
            parent = paths.parent_of(path) or "/"
            in_base, identity = self._base.holds(parent)
            home = home or identity
            name = paths.last_of(path)
            if in_base and names.classify(name) is not names.Kind.UNRECOGNISED:
                used.add(name)
            status = _status(path)
            if status is None:
                return _Node(frozenset(used), None)
            used |= self._base.bound(status)
            if not stat.S_ISLNK(status.st_mode):
                break
            path = paths.join(parent, _target(path))
        else:
            raise SourceError(
                f"{reference.path} leads through more than {MAX_LINKS} links;"
                " remove the loop"
            )
        used |= self._base.looped(status)
        image_format = reference.format
        place = (status.st_dev, status.st_ino, home or (0, 0), image_format)
        if image_format == _NO_PROBE or not _is_image_file(status):
            return _Node(frozenset(used), place)
        try:
            header = self._headers.header(path, status)
            found = _references_of(header, reference)
        except ImageError as error:
            raise SourceError(
                f"cannot tell what {reference.path} refers to: {error};"
                " repair or remove the image"
            ) from error
        except OSError as error:
            if is_absence(error):
                return _Node(frozenset(used), None)
            raise _unreadable(reference.path, error) from error
        return _Node(frozenset(used), place, found)


def _is_image_file(status: os.stat_result) -> bool:
    """Whether qemu could find a header there without blocking us."""
    return stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)


def _unreadable(path: str, error: OSError) -> SourceError:
    """Name the file and what to do about it."""
    return SourceError(
        f"cannot read {path}: {why(error)}; let the agent read it and check the storage"
    )


def _status(path: str) -> os.stat_result | None:
    """Look at a path without following a link; ``None`` if it is not there."""
    try:
        return os.lstat(path)
    except OSError as error:
        if is_absence(error):
            return None
        raise _unreadable(path, error) from error


def _target(path: str) -> str:
    """Read a link; one that has just been replaced leads to itself again."""
    try:
        return paths.target_of(path)
    except OSError as error:
        if is_absence(error) or error.errno == errno.EINVAL:
            return path
        raise _unreadable(path, error) from error


def _references_of(header: Header, image: Reference) -> tuple[Reference, ...]:
    """Return the files that an image's header names."""
    if image.format in _CHECKED and header.format != image.format:
        raise ImageError(f"it is used as {image.format} and is not")
    found: list[Reference] = []
    directory = paths.parent_of(image.path)
    if header.backing is not None:
        found += references(header.backing, header.backing_format, directory)
    if header.data_file is not None:
        found += _data_file(header.data_file)
    return tuple(found)


def _data_file(name: str) -> tuple[Reference, ...]:
    """Return the data file, which is never probed.

    qemu looks for a relative name from its own working directory, which
    nobody else can know.  It is no cache file if its last part is no cache
    name; otherwise it is in doubt.
    """
    relative = not name.startswith("/") and ":" not in name.split("/", 1)[0]
    last = paths.last_of(name.rstrip("/"))
    if relative and names.classify(last) is names.Kind.UNRECOGNISED:
        return ()
    # A directory that is empty leaves a relative name relative: an error.
    return references(name, _NO_PROBE, "")
