"""The source ``proc``: what running hypervisor processes hold open.

The destination of an incoming migration has its guest's files open and holds
no lock on them yet; and a guest keeps the file that it opened, whatever has
become of the name since.  So files are known here by inode.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from sharedcache.core import names
from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError
from sharedcache.core.referrers import Referrer, Referrers

# ruff: noqa: PTH100, PTH115, PTH116, PTH208
# Paths are strings here: an object for each descriptor costs more than the look.

_PROGRAMS = "qemu"
_KVM = "kvm"
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's own: ``PROC_PID_INIT_INO`` in include/linux/proc_ns.h."""

_DELETED = " (deleted)"
_EPOCHS = ".sharedcache/epochs"
_MAX_CMDLINE_BYTES = 1024 * 1024
_UNLOCKED = re.compile(rb"""locking["']?\s*[=:]\s*["']?off""")
UNLOCKED = "a qemu runs with file.locking=off: not all its files bear locks"
_REMEDY = (
    "run the agent as root, or give its unit AmbientCapabilities= and"
    " CapabilityBoundingSet= of CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"
)


@dataclass(slots=True)
class _Open:
    """What processes hold open, each with those who do.

    ``inodes`` are those on the cache's own file system.  ``spelt`` are cache
    names by which the kernel calls a file that lies in the cache directory, or
    on another device, of which it cannot be told what it is.
    """

    inodes: dict[int, set[Referrer]] = field(default_factory=dict)
    spelt: dict[str, set[Referrer]] = field(default_factory=dict)


class ProcSource:
    """Reads ``/proc/<pid>/fd`` of every qemu, and finds the inodes in the cache.

    ``proc`` is for tests.
    """

    name = "proc"

    def __init__(self, base: str, *, proc: str = "/proc") -> None:
        self._base = os.path.abspath(base)
        self._proc = proc
        self._told = Referrers()

    def look(self) -> Uses:
        """Return the cache files that any qemu holds open, under all their names.

        Raises ``SourceError`` if a qemu cannot be looked into, or the host's
        processes are hidden.
        """
        self._see_all()
        try:
            base = os.stat(self._base)
            directories = {self._base, os.path.realpath(self._base)}
        except OSError as error:
            raise SourceError(
                f"cannot open the cache directory {self._base}: {error.strerror};"
                " mount it, or correct the setting 'base'"
            ) from error
        found, told = _Open(), Referrers()
        for process in self._processes():
            program = self._qemu(process)
            if program:
                if self._locks_nothing(process):
                    told.caveats.add(UNLOCKED)
                self._collect(process, program, (base.st_dev, directories), found)
        # The directories are read after the descriptors: what was open then
        # has a place now, or has none any more.
        by_name = found.spelt
        for name, inode in self._names_of(found.inodes.keys()):
            by_name.setdefault(name, set()).update(found.inodes[inode])
        for name, processes in by_name.items():
            for one in processes:
                told.add([name], one)
        self._told = told
        return Uses.of_names(by_name)

    def referrers(self) -> Referrers:
        """Return the processes that the last look found, by what they hold."""
        return self._told

    def _see_all(self) -> None:
        """Refuse to speak for a host whose processes are hidden from us."""
        try:
            namespace = os.readlink(f"{self._proc}/self/ns/pid")
            os.stat(f"{self._proc}/1/comm")
        except OSError as error:
            raise SourceError(
                f"cannot see the host's processes in {self._proc}:"
                f" {error.strerror}; mount it without hidepid"
            ) from error
        if namespace != _INITIAL_PID_NAMESPACE:
            raise SourceError(
                "the agent sees another PID namespace than the host's;"
                " run it in the host's"
            )

    def _processes(self) -> list[str]:
        try:
            return [one for one in os.listdir(self._proc) if one.isdecimal()]
        except OSError as error:
            raise SourceError(
                f"cannot list {self._proc}: {error.strerror}; mount it"
            ) from error

    def _qemu(self, process: str) -> str:
        """Name a process's program if it is a qemu, else return nothing.

        Other users' programs are hidden from an ordinary user: then what the
        process calls itself counts, on its command line or by its short name.
        """
        at = f"{self._proc}/{process}"
        try:
            programs = [os.readlink(f"{at}/exe").removesuffix(_DELETED)]
        except FileNotFoundError:
            # A thread of the kernel, or a process that has ended.
            return ""
        except ProcessLookupError:
            return ""
        except OSError:
            programs = [
                _first_of(f"{at}/cmdline"),
                _first_of(f"{at}/comm").rstrip("\n"),
            ]
        for program in programs:
            last = program.rpartition("/")[2]
            if last.startswith(_PROGRAMS) or last == _KVM:
                return last
        return ""

    def _locks_nothing(self, process: str) -> bool:
        """Whether a qemu was told to lock none of its files."""
        try:
            with open(f"{self._proc}/{process}/cmdline", "rb") as file:  # noqa: PTH123 - see above
                return _UNLOCKED.search(file.read(_MAX_CMDLINE_BYTES)) is not None
        except OSError:
            return False

    def _collect(
        self,
        process: str,
        program: str,
        place: tuple[int, set[str]],
        found: _Open,
    ) -> None:
        """Add what one process holds open; ``place`` is the cache directory's."""
        at = f"{self._proc}/{process}/fd"
        who = f"{program}, process {process}"
        try:
            for descriptor in os.listdir(at):
                self._add(f"{at}/{descriptor}", who, place, found)
        except (FileNotFoundError, ProcessLookupError):
            return
        except OSError as error:
            raise SourceError(
                f"cannot look into the hypervisor's process {process}:"
                f" {error.strerror}; {_REMEDY}"
            ) from error

    @staticmethod
    def _add(link: str, who: str, place: tuple[int, set[str]], found: _Open) -> None:
        """Add one descriptor, unless it was closed meanwhile."""
        device, directories = place
        try:
            status = os.stat(link)
            target = os.readlink(link).removesuffix(_DELETED)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(status.st_mode):
            return
        referrer = Referrer("process", who, target)
        parent, _, last = target.rpartition("/")
        inside = parent in directories
        quarantined = any(parent.startswith(f"{one}/{_EPOCHS}/") for one in directories)
        if status.st_dev == device or inside or quarantined:
            found.inodes.setdefault(status.st_ino, set()).add(referrer)
        if inside or status.st_dev != device:
            # Another mount of the storage, perhaps in another namespace, has
            # another device number and other paths; and a name that was taken
            # away under this file is used all the same.
            leaf = names.parse_leaf(last)
            name = last if leaf is None else leaf[0]
            if names.classify(name) is not names.Kind.UNRECOGNISED:
                found.spelt.setdefault(name, set()).add(referrer)

    def _names_of(self, inodes: AbstractSet[int]) -> list[tuple[str, int]]:
        """Find every name that the inodes have, in the cache and in quarantine.

        A file goes from the cache into quarantine, and there from a lower
        epoch into a higher one: reading in that order cannot miss it.
        """
        found: list[tuple[str, int]] = []
        if not inodes:
            return found
        try:
            for name, inode in _entries(self._base):
                recognised = names.classify(name) is not names.Kind.UNRECOGNISED
                if inode in inodes and recognised:
                    found.append((name, inode))
            for epoch in self._epochs():
                for leaf, inode in _entries(epoch):
                    parsed = names.parse_leaf(leaf)
                    if inode in inodes and parsed is not None:
                        found.append((parsed[0], inode))
        except OSError as error:
            raise SourceError(
                f"cannot list the cache directory {self._base}: {error.strerror};"
                " let the agent read it and check the storage"
            ) from error
        return found

    def _epochs(self) -> Iterator[str]:
        """Go through the epochs' directories, until there is no further one."""
        top = f"{self._base}/{_EPOCHS}"
        seen = -1
        while True:
            try:
                listed = {int(one) for one in os.listdir(top) if one.isdecimal()}
            except FileNotFoundError:
                return
            further = sorted(one for one in listed if one > seen)
            if not further:
                return
            seen = further[-1]
            yield from (f"{top}/{one}" for one in further)


def _entries(directory: str) -> list[tuple[str, int]]:
    """List names and inodes; nothing of an epoch that is sealed or removed."""
    try:
        with os.scandir(directory) as entries:
            return [(entry.name, entry.inode()) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        if _EPOCHS in directory:
            return []
        raise


def _first_of(path: str) -> str:
    """Read a text up to its first NUL byte; nothing if that cannot be."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see above
            return os.fsdecode(file.read(4096).partition(b"\0")[0])
    except OSError:
        return ""
