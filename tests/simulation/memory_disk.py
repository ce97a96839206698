"""A shared file system in memory: directories, inodes, links, one clock.

This is the server: what is true at any moment.  Clients, with their caches and
their refusals, are in ``memory_storage.py``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sharedcache.core.model import FileFacts

TICK_NS = 4_000_000
"""Times have this grain: file systems take them from the kernel's tick."""


@dataclass(slots=True, eq=False)
class Inode:
    """One file, or something that is none (``kind`` other than ``file``).

    ``touched_ns`` are the modification times that touches gave it, the oldest first,
    behind the one that it had at first.
    """

    number: int
    kind: str = "file"
    data: bytes = b""
    mtime_ns: int = 0
    ctime_ns: int = 0
    links: int = 0
    locks: int = 0
    touched_ns: list[int] = field(default_factory=list)

    def time_before(self, when_ns: int) -> int:
        """Return the modification time that it surely had before a moment."""
        earlier = [one for one in self.touched_ns if one < when_ns]
        return earlier[-1] if earlier else (*self.touched_ns, self.mtime_ns)[0]

    def facts(self) -> FileFacts:
        """Return what a stat of it says."""
        return FileFacts(
            inode=self.number,
            size=len(self.data),
            mtime_ns=self.mtime_ns,
            ctime_ns=self.ctime_ns,
            links=self.links,
            regular=self.kind == "file",
        )


@dataclass(slots=True, eq=False)
class Folder:
    """One directory: its names; ``gone`` once it was removed."""

    title: str
    names: dict[str, Inode | Folder] = field(default_factory=dict)
    mtime_ns: int = 0
    changes: int = 0
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """A name that went: from where, of what, and to where if it was a rename.

    ``new`` is the name that it got by that.
    """

    folder: Folder
    name: str
    inode: Inode
    to: Folder | None = None
    replaced: bool = False
    new: str = ""


def refuse(number: int, what: str) -> OSError:
    """Make the error that the system would give."""
    return OSError(number, what)


class MemoryDisk:
    """The server.  ``now_s`` is its clock, in seconds.

    ``on_removal`` is called right after a name of a file was taken away, by
    unlink, by rename, or because a rename replaced it; ``on_witness`` when a node
    wrote its witness.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._number = 100
        self.base = Folder("_base")
        self.control: Folder | None = None
        self.nodes: Folder | None = None
        self.epochs: Folder | None = None
        self.full = False
        self.digests: dict[tuple[str, int], int] = {}
        self.on_removal: Callable[[Removal], None] | None = None
        self.on_witness: Callable[[str, bytes], None] | None = None

    def now_ns(self) -> int:
        """Read the clock, in the grain of file times."""
        return int(self._now_s() * 1e9) // TICK_NS * TICK_NS

    def make_skeleton(self) -> None:
        """Make ``.sharedcache`` and what is in it, unless it is there."""
        if self.control is None:
            self.control, self.nodes = Folder(".sharedcache"), Folder("nodes")
            self.epochs = Folder("epochs")

    def new_file(self, data: bytes = b"", kind: str = "file") -> Inode:
        """Make an inode that has no name yet."""
        if self.full:
            raise refuse(errno.ENOSPC, "no space left")
        self._number += 1
        now_ns = self.now_ns()
        return Inode(self._number, kind, data, now_ns, now_ns)

    def create(self, folder: Folder, name: str, node: Inode | Folder) -> None:
        """Give something new its name, exclusively."""
        self._living(folder)
        if name in folder.names:
            raise refuse(errno.EEXIST, name)
        if self.full and isinstance(node, Folder):
            raise refuse(errno.ENOSPC, name)
        folder.names[name] = node
        if isinstance(node, Inode):
            node.links += 1
        self._changed(folder)

    def link(self, inode: Inode, folder: Folder, name: str) -> None:
        """Add a name to a file that has one."""
        self._living(folder)
        if inode.links == 0:
            raise refuse(errno.ENOENT, name)
        if self.full and name not in folder.names:
            raise refuse(errno.ENOSPC, name)
        self.create(folder, name, inode)
        inode.ctime_ns = self.now_ns()

    def unlink(self, folder: Folder, name: str) -> None:
        """Take a file's name away."""
        inode = self.file(folder, name)
        del folder.names[name]
        self._lost(inode)
        self._changed(folder)
        self._tell(Removal(folder, name, inode))

    def rename(self, folder: Folder, name: str, to: Folder, new: str) -> None:
        """Rename a file, replacing what bears the new name."""
        self._living(to)
        inode = self.file(folder, name)
        old = to.names.get(new)
        if isinstance(old, Folder):
            raise refuse(errno.EISDIR, new)
        if old is inode:
            return
        del folder.names[name]
        to.names[new] = inode
        inode.ctime_ns = self.now_ns()
        self._changed(folder)
        self._changed(to)
        if old is not None:
            self._lost(old)
            self._tell(Removal(to, new, old, replaced=True))
        self._tell(Removal(folder, name, inode, to, new=new))

    def remove_folder(self, parent: Folder, name: str) -> None:
        """Remove an empty directory."""
        self._living(parent)
        found = parent.names.get(name)
        if found is None:
            raise refuse(errno.ENOENT, name)
        if isinstance(found, Inode):
            raise refuse(errno.ENOTDIR, name)
        if found.names:
            raise refuse(errno.ENOTEMPTY, name)
        del parent.names[name]
        found.gone = True
        self._changed(parent)

    def touch(self, inode: Inode) -> None:
        """Set a file's times to the server's clock."""
        inode.touched_ns = inode.touched_ns or [inode.mtime_ns]
        inode.mtime_ns = inode.ctime_ns = self.now_ns()
        inode.touched_ns.append(inode.mtime_ns)

    def touch_folder(self, folder: Folder) -> None:
        """Set a directory's times to the server's clock."""
        self._living(folder)
        folder.mtime_ns = self.now_ns()

    def file(self, folder: Folder, name: str) -> Inode:
        """Look a file up by its name."""
        self._living(folder)
        found = folder.names.get(name)
        if found is None:
            raise refuse(errno.ENOENT, name)
        if isinstance(found, Folder):
            raise refuse(errno.EISDIR, name)
        return found

    def everything(self) -> Iterator[tuple[Folder, str, Inode]]:
        """Every name of every file in ``_base`` and in the epochs."""
        folders = [self.base]
        if self.epochs is not None:
            folders += [f for f in self.epochs.names.values() if isinstance(f, Folder)]
        for folder in folders:
            for name, node in folder.names.items():
                if isinstance(node, Inode):
                    yield folder, name, node

    @staticmethod
    def _living(folder: Folder) -> None:
        if folder.gone:
            raise refuse(errno.ESTALE, folder.title)

    def _changed(self, folder: Folder) -> None:
        folder.mtime_ns = self.now_ns()
        folder.changes += 1

    def _lost(self, inode: Inode) -> None:
        inode.links -= 1
        inode.ctime_ns = self.now_ns()

    def _tell(self, removal: Removal) -> None:
        if self.on_removal is not None:
            self.on_removal(removal)
