"""The source ``instances``: what the disks in the instance directories use."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable

from sharedcache.adapters.instances import paths
from sharedcache.adapters.instances.base import (
    Base,
    Identity,
    is_absence,
    opened,
    why,
)
from sharedcache.adapters.instances.chain import Chains
from sharedcache.adapters.instances.headers import Headers
from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError
from sharedcache.core.referrers import Referrer, Referrers

MAX_INSTANCES = 100_000
"""Instance directories; more are a setting that points elsewhere."""

MAX_FILES = 100_000
"""Entries of one instance directory; more are something else's directory."""

MAX_LISTINGS = 20
"""How often a directory is listed while names come and go."""

_NOT_INSTANCES = frozenset({"_base", "locks", "snapshots", "compute_nodes"})
"""Nova's own entries beside the instances; overlays of a live snapshot refer
to the backing file of a disk that is in its instance directory."""

_NOT_DISKS = frozenset(
    {
        "disk.info",
        "kernel",
        "kernel.rescue",
        "libvirt.xml",
        "ramdisk",
        "ramdisk.rescue",
        "unrescue.xml",
    }
)
_CONSOLE = "console.log"
_DISK_INFO = "disk.info"
_MAX_DISK_INFO_BYTES = 64 * 1024

_Listed = tuple[str, int]
_Place = tuple[int, Identity, Identity | None]


class InstancesSource:
    """Reads ``<instances_path>/<instance>`` and ``<instance>_resize``.

    Every directory below ``instances_path`` counts as an instance's, except
    ``_base`` (by name and by identity), ``locks``, ``snapshots``,
    ``compute_nodes`` and names that begin with a dot.  In each, and in the
    directories in it, every file is taken for a disk, running guest or not, as
    are files beside the instances' directories.  Files whose content a guest or a user
    writes and that no hypervisor opens as an image (``console.log``,
    ``kernel``) are not probed, so that nobody can fake a chain there.

    Every instance's directory is read, whichever host's guest it is: nobody
    but this node may be left to read an orphan.  The directory that the first
    look found must stay: another in its place, or what a missing mount lays
    bare, would say that there are no guests.

    An overlay in the moment of its creation has no backing file yet, so a
    boot under way is seen by the next look.  For changes that *other* hosts
    make, a network file system may answer from its cache for a while.
    ``monotonic`` and ``pause`` are in seconds.  Not for several threads.
    """

    name = "instances"

    def __init__(
        self,
        instances_path: str,
        base: str,
        *,
        max_instances: int = MAX_INSTANCES,
        max_files: int = MAX_FILES,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = paths.absolute(instances_path)
        self._base = paths.absolute(base)
        self._place: _Place | None = None
        self._max_instances = max_instances
        self._max_files = max_files
        self._headers = Headers(monotonic=monotonic, pause=pause)
        self._told = Referrers()

    def look(self) -> Uses:
        """Return the uses of every disk, by whole backing chains.

        Raises ``SourceError``, naming the path and what to do, if anything
        that is there could not be read or understood.
        """
        complete = False
        self._headers.begin()
        self._told = Referrers()
        try:
            with opened(self._base) as base:
                before = self._place_of(base)
                if self._place not in {None, before}:
                    raise self._exchanged()
                used = self._scan(base)
                if self._place_of(base) != before:
                    raise self._exchanged()
            self._place = before
            complete = True
        finally:
            self._headers.finish(complete=complete)
        return Uses.of_names(used)

    def referrers(self) -> Referrers:
        """Return the disks that the last look found, by what they use."""
        return self._told

    def _place_of(self, base: Base) -> _Place:
        """Tell this directory from any other that may take its place.

        The same storage mounted once more has another device number.  Where
        the cluster's marker lies on that storage too, it stands for it.
        """
        try:
            status = paths.status_of(self._path)
        except OSError as error:
            raise self._not_listed(error) from error
        device = status.st_dev
        if base.marker is not None and device == base.identity[0]:
            device = 0
        return device, (status.st_ino, base.identity[1]), base.marker

    def _exchanged(self) -> SourceError:
        """Say that the guests known before are not to be seen any more."""
        return SourceError(
            f"{self._path} is another directory than the one that this agent began"
            " with: mount that one again; if the new one is right, restart the agent"
        )

    def _not_listed(self, error: OSError) -> SourceError:
        """Say that the directory itself cannot be read."""
        return SourceError(
            f"cannot list {self._path}: {why(error)};"
            " mount it, or correct the setting 'instances_path'"
        )

    def _scan(self, base: Base) -> set[str]:
        """Scan until a listing shows nothing new.

        An instance directory may be renamed (a resize) behind the place that
        a listing has come to, so one listing is never enough, and the last is
        one during which the directory kept still.
        """
        chains = Chains(base, self._headers)
        used: set[str] = set()
        read: set[tuple[_Listed, bool]] = set()
        vanished: set[tuple[_Listed, bool]] = set()
        for _ in range(MAX_LISTINGS):
            before = self._changed()
            fresh = [
                one
                for one in self._instances(base)
                if one not in read
                and (one not in vanished or self._is_back(self._path, one[0]))
            ]
            if not fresh and self._changed() == before:
                return used
            for one in fresh:
                (name, _inode), is_directory = one
                if is_directory:
                    whole = self._scan_instance(name, chains, used)
                else:
                    whole = self._add_disk(self._path, name, chains, used)
                (read if whole else vanished).add(one)
        raise SourceError(
            f"{self._path} changed during each of {MAX_LISTINGS} listings;"
            " find out what keeps renaming its directories"
        )

    def _changed(self) -> int:
        """Tell when a name in the directory was made, renamed or removed last."""
        try:
            return paths.status_of(self._path).st_mtime_ns
        except OSError as error:
            raise self._not_listed(error) from error

    @staticmethod
    def _is_back(directory: str, one: _Listed) -> bool:
        """Whether a name is there that was gone when it was to be read.

        A network file system may list a name for a while that is not there.
        """
        return os.path.lexists(paths.join(directory, one[0]))

    def _instances(self, base: Base) -> list[tuple[_Listed, bool]]:
        """List the instance directories, and the files beside them (``False``)."""
        found: list[tuple[_Listed, bool]] = []
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if entry.name in _NOT_INSTANCES or entry.name.startswith("."):
                        continue
                    is_instance = self._is_instance(entry, base)
                    if not is_instance and entry.is_dir():
                        continue
                    if len(found) >= self._max_instances:
                        raise SourceError(
                            f"{self._path} holds more than {self._max_instances}"
                            " entries; correct the setting 'instances_path'"
                        )
                    found.append(((entry.name, entry.inode()), is_instance))
        except OSError as error:
            raise self._not_listed(error) from error
        return found

    def _is_instance(self, entry: os.DirEntry[str], base: Base) -> bool:
        """Whether an entry is an instance's directory, or a link to one."""
        if entry.is_symlink():
            return _leads_to_directory(entry.path) and not base.holds(entry.path)[0]
        if not entry.is_dir(follow_symlinks=False):
            return False
        return entry.inode() != base.identity[1] or not base.holds(entry.path)[0]

    def _scan_instance(self, name: str, chains: Chains, used: set[str]) -> bool:
        """Add the uses of every file below one instance's directory.

        ``False`` if it, or a directory in it, vanished meanwhile.
        """
        pending, count, whole = [paths.join(self._path, name)], 1, True
        while pending:
            found = self._scan_directory(pending.pop(), chains, used)
            if found is None:
                whole = False
                continue
            count += len(found)
            if count > self._max_files:
                raise SourceError(
                    f"{self._path}/{name} holds more than {self._max_files}"
                    " directories; move what is not an instance elsewhere"
                )
            pending.extend(found)
        return whole

    def _scan_directory(
        self, path: str, chains: Chains, used: set[str]
    ) -> list[str] | None:
        """Add the uses of every file of one directory; return the directories in it.

        A file that vanished may have been renamed, so the directory is listed
        again; if it vanished itself, there is nothing to return.
        """
        read: set[_Listed] = set()
        vanished: set[_Listed] = set()
        below: dict[_Listed, str] = {}
        for _ in range(MAX_LISTINGS):
            entries = self._entries(path)
            if entries is None:
                return None
            again = False
            for one, is_directory in entries:
                if is_directory:
                    below[one] = paths.join(path, one[0])
                elif one not in read and (
                    one not in vanished or self._is_back(path, one)
                ):
                    whole = self._add_disk(path, one[0], chains, used)
                    (read if whole else vanished).add(one)
                    again |= not whole
            if not again:
                return list(below.values())
        raise SourceError(
            f"{path} changed during each of {MAX_LISTINGS} listings;"
            " find out what keeps renaming its files"
        )

    def _entries(self, path: str) -> list[tuple[_Listed, bool]] | None:
        """List what a directory holds, with whether each is a directory itself.

        Returns ``None`` if the directory is gone.
        """
        found: list[tuple[_Listed, bool]] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if len(found) >= self._max_files:
                        raise SourceError(
                            f"{path} holds more than {self._max_files} files;"
                            " move what is not an instance elsewhere"
                        )
                    listed = (entry.name, entry.inode())
                    found.append((listed, entry.is_dir(follow_symlinks=False)))
        except OSError as error:
            if is_absence(error):
                return None
            raise SourceError(
                f"cannot list {path}: {why(error)}; let the agent read it"
                " and check the storage"
            ) from error
        return found

    def _add_disk(
        self, directory: str, name: str, chains: Chains, used: set[str]
    ) -> bool:
        """Add what one file uses; ``False`` if it vanished meanwhile."""
        path = paths.join(directory, name)
        not_a_disk = name in _NOT_DISKS or name.startswith(_CONSOLE)
        try:
            found = chains.names_of(path, "raw" if not_a_disk else None)
        except FileNotFoundError:
            return False
        except SourceError:
            if not os.path.lexists(path):
                # What it refers to was deleted with it.
                return False
            if not _recorded_raw(directory, name):
                raise
        else:
            used |= found
            self._told.add(found, Referrer("disk", path=path))
        return True


def _leads_to_directory(link: str) -> bool:
    """Follow a link among the instance directories; one that ends nowhere fails."""
    try:
        return stat.S_ISDIR(paths.status_of(link).st_mode)
    except OSError as error:
        if is_absence(error) and not os.path.lexists(link):
            return False
        raise SourceError(
            f"{link} is a link that cannot be followed ({why(error)});"
            " mount what it leads to, or remove the link"
        ) from error


def _recorded_raw(directory: str, name: str) -> bool:
    """Whether Nova's ``disk.info`` says that the hypervisor opens a disk as raw.

    The guest writes every byte of such a disk, and could put a header there
    that makes this source fail, and with it hold back everybody's purging.
    Nothing is lost by letting that header be: qemu does not read it either.
    """
    try:
        with open(paths.join(directory, _DISK_INFO), "rb") as file:  # noqa: PTH123 - paths here are strings, as chains give them
            recorded = json.loads(file.read(_MAX_DISK_INFO_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(recorded, dict):
        return False
    formats = {
        image_format
        for path, image_format in recorded.items()
        if paths.last_of(path) == name
    }
    return formats == {"raw"}
