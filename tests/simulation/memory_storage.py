"""The storage port in memory: one client's mount of a ``MemoryDisk``.

A mount keeps names and listings for a while, as NFS clients do: it may open an
old inode through an entry that it has cached, or miss a name that has come.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sharedcache.adapters.storage.control import pack_witness, unpack_witness
from sharedcache.adapters.storage.descriptors import cache_entry, plain
from sharedcache.adapters.storage.errors import FENCED, change_error, storage_error
from sharedcache.core import names
from sharedcache.core.model import FileFacts, FileTable
from sharedcache.core.ports import (
    FencedError,
    NameExistsError,
    NameMissingError,
    NotEmptyStorageError,
    StorageError,
)
from tests.simulation.memory_disk import Folder, Inode, MemoryDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_BYTES = 1 << 40
BLOCK = 4096


def _no_cache() -> bool:
    return False


class Mount:
    """What one host's kernel remembers of names; shared by all its processes.

    ``cache_s`` is how long, in seconds, ``kept_s`` how long names of ``_base`` are
    kept; ``stale`` is asked whether this very lookup is answered from memory, as
    far as memory goes.
    """

    def __init__(
        self,
        disk: MemoryDisk,
        now_s: Callable[[], float],
        cache_s: float = 0.0,
        stale: Callable[[], bool] = _no_cache,
        kept_s: float | None = None,
    ) -> None:
        self.disk = disk
        self.cache_s = cache_s
        self._kept_s = cache_s if kept_s is None else kept_s
        self._now_s = now_s
        self._stale = stale
        self._names: dict[tuple[Folder, str], tuple[float, Inode | None]] = {}
        self._listings: dict[Folder, tuple[float, dict[str, Inode | Folder]]] = {}

    def lookup(
        self, folder: Folder, name: str, *, tempted: bool = False
    ) -> Inode | Folder | None:
        """Open a name, through the cache if it still has it.

        ``tempted`` leaves nothing to chance: what is remembered is opened.
        """
        if folder.gone:
            raise OSError(errno.ESTALE, folder.title)
        kept_s = self._kept_s if folder is self.disk.base else self.cache_s
        if kept_s:
            kept = self._names.get((folder, name))
            if kept is not None and self._now_s() - kept[0] <= kept_s:
                inode = kept[1]
                # An inode without a name is stale to the server, and the client
                # then asks for the name again.
                if (inode is None or inode.links > 0) and (tempted or self._stale()):
                    return inode
        found = folder.names.get(name)
        if kept_s and not isinstance(found, Folder):
            self._names[folder, name] = (self._now_s(), found)
        return found

    def remembered(self, name: str) -> Inode | None:
        """Return the file that this client's memory of a cache name leads to.

        Only if the name leads elsewhere by now, or nowhere.
        """
        kept = self._names.get((self.disk.base, name))
        if kept is None or self._now_s() - kept[0] > self._kept_s:
            return None
        inode = kept[1]
        if inode is None or not inode.links:
            return None
        return None if self.disk.base.names.get(name) is inode else inode

    def remember(self, name: str, inode: Inode) -> None:
        """Remember where a cache name led until this moment."""
        if self._kept_s:
            self._names[self.disk.base, name] = (self._now_s(), inode)

    def listing(self, folder: Folder) -> dict[str, Inode | Folder]:
        """List a directory, through the cache if it still has it."""
        if folder.gone:
            raise OSError(errno.ESTALE, folder.title)
        kept = self._listings.get(folder)
        if (
            kept is not None
            and self._now_s() - kept[0] <= self.cache_s
            and self._stale()
        ):
            return kept[1]
        found = dict(folder.names)
        if self.cache_s:
            self._listings[folder] = (self._now_s(), found)
        return found

    def forget(self, folder: Folder, name: str) -> None:
        """Drop what this client itself has just changed."""
        self._names.pop((folder, name), None)
        self._listings.pop(folder, None)

    def reset(self) -> None:
        """Forget everything, as a boot does."""
        self._names.clear()
        self._listings.clear()


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(
            error, f"{what} ({os.strerror(error.errno or 0)})"
        ) from error


@contextmanager
def _changing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise change_error(error, what) from error


class MemoryStorage:
    """The port ``Storage`` through one ``Mount``."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount

    @property
    def disk(self) -> MemoryDisk:
        """The server."""
        return self.mount.disk

    # The cluster's files.

    def _control(self) -> Folder:
        control = self.disk.control
        if control is None:
            raise NameMissingError(".sharedcache is missing", errno.ENOENT)
        return control

    def _read_control(self, name: str) -> bytes | None:
        if self.disk.control is None:
            return None
        found = self.disk.control.names.get(name)
        return found.data if isinstance(found, Inode) else None

    def read_marker(self) -> bytes | None:
        """See the port."""
        return self._read_control("cluster")

    def create_marker(self, data: bytes) -> None:
        """See the port."""
        self.disk.make_skeleton()
        with _changing("create the marker"):
            self.disk.create(self._control(), "cluster", self.disk.new_file(data))

    def read_schema(self) -> bytes | None:
        """See the port."""
        return self._read_control("schema")

    def write_schema(self, data: bytes) -> None:
        """See the port."""
        control = self._control()
        with _changing("write the schema"):
            fresh = self.disk.new_file(data)
            control.names.pop("schema", None)
            self.disk.create(control, "schema", fresh)

    # Witnesses.

    def _nodes(self) -> Folder:
        self._control()
        if self.disk.nodes is None:
            raise NameMissingError("nodes is missing", errno.ENOENT)
        return self.disk.nodes

    def witness_write(self, node: str, data: bytes) -> FileFacts:
        """See the port."""
        record = pack_witness(data)
        nodes, name = self._nodes(), plain(node)
        with _changing(f"write the witness of {name}"):
            found = nodes.names.get(name)
            if not isinstance(found, Inode):
                found = self.disk.new_file()
                self.disk.create(nodes, name, found)
                self.mount.forget(nodes, name)
            found.data = record
            self.disk.touch(found)
            if self.disk.on_witness is not None:
                self.disk.on_witness(name, data)
            return found.facts()

    def witness_touch(self, node: str) -> FileFacts:
        """See the port."""
        nodes, name = self._nodes(), plain(node)
        with _changing(f"touch the witness of {name}"):
            found = self.disk.file(nodes, name)
            self.disk.touch(found)
            return found.facts()

    def witness_read(self, node: str) -> tuple[bytes, FileFacts] | None:
        """See the port."""
        nodes, name = self._nodes(), plain(node)
        with _reading(f"read the witness of {name}"):
            found = self.mount.lookup(nodes, name)
        if not isinstance(found, Inode):
            return None
        return unpack_witness(found.data), found.facts()

    def witness_list(self) -> list[str]:
        """See the port."""
        return sorted(self.mount.listing(self._nodes()))

    # Cache files.

    def scan(self) -> FileTable:
        """See the port."""
        table = FileTable()
        for name, node in self.mount.listing(self.disk.base).items():
            inode = node if isinstance(node, Inode) else Inode(0, "directory")
            if isinstance(node, Inode) and node.links == 0:
                continue
            table.append(name, inode.facts())
        return table

    def facts(self, name: str) -> FileFacts | None:
        """See the port."""
        cache_entry(name)
        with _reading(f"look at {name}"):
            found = self.mount.lookup(self.disk.base, name)
        return found.facts() if isinstance(found, Inode) else None

    def _regular(self, folder: Folder, name: str) -> Inode:
        with _reading(f"look at {name}"):
            found = self.disk.file(folder, name)
        if found.kind != "file":
            raise StorageError(f"{name} is not a regular file and is left alone")
        return found

    def touch(self, name: str) -> None:
        """See the port."""
        self.disk.touch(self._regular(self.disk.base, cache_entry(name)))

    def space(self) -> tuple[int, int]:
        """See the port."""
        used = sum(BLOCK + len(i.data) for _, _, i in self.disk.everything())
        return SIZE_BYTES, 0 if self.disk.full else max(0, SIZE_BYTES - used)

    def digest_list(self) -> dict[tuple[str, int], int]:
        """See the port."""
        return dict(self.disk.digests)

    def digest_drop(self, name: str, inode: int) -> None:
        """See the port."""
        self.disk.digests.pop((cache_entry(name), inode), None)

    def name_cache_s(self) -> float:
        """See the port."""
        return self.mount.cache_s

    def local_locks(self) -> str:
        """See the port."""
        return ""

    def locked(self, name: str) -> bool:
        """See the port."""
        return self._regular(self.disk.base, cache_entry(name)).locks > 0

    # Epochs.

    def _epochs(self) -> Folder:
        self._control()
        if self.disk.epochs is None:
            raise NameMissingError("epochs is missing", errno.ENOENT)
        return self.disk.epochs

    @staticmethod
    def _name(epoch: int) -> str:
        if epoch < 1:
            raise StorageError(f"there is no epoch {epoch}")
        return str(epoch)

    def _epoch(self, epoch: int) -> Folder:
        found = self._epochs().names.get(self._name(epoch))
        if isinstance(found, Folder):
            return found
        number = errno.ENOENT if found is None else errno.ENOTDIR
        raise FencedError(f"epoch {epoch} is sealed or gone", number)

    @contextmanager
    def _acting(self, epoch: int, what: str) -> Iterator[Folder]:
        folder = self._epoch(epoch)
        try:
            yield folder
        except OSError as error:
            if error.errno in FENCED:
                raise FencedError(f"epoch {epoch} is sealed", error.errno) from error
            raise change_error(error, what) from error

    def epochs(self) -> dict[int, bool]:
        """See the port."""
        found = self.mount.listing(self._epochs())
        return {int(name): isinstance(node, Inode) for name, node in found.items()}

    def epoch_make(self, epoch: int) -> None:
        """See the port."""
        epochs, name = self._epochs(), self._name(epoch)
        with _changing(f"make epoch {epoch}"):
            self.disk.create(epochs, name, Folder(name))
        self.mount.forget(epochs, name)

    def epoch_time(self, epoch: int) -> int:
        """See the port."""
        with self._acting(epoch, f"touch epoch {epoch}") as folder:
            self.disk.touch_folder(folder)
            return folder.mtime_ns

    def epoch_list(self, epoch: int) -> list[str]:
        """See the port."""
        return sorted(self.mount.listing(self._epoch(epoch)))

    def epoch_move(self, epoch: int, leaf: str, to: int, new_leaf: str) -> None:
        """See the port."""
        plain(leaf)
        plain(new_leaf)
        with self._acting(to, f"move {leaf}") as there:
            source = self._epochs().names.get(self._name(epoch))
            if not isinstance(source, Folder):
                raise NameMissingError(f"{leaf} is not there", errno.ENOENT)
            self._require_absent(there, new_leaf)
            self.disk.rename(source, leaf, there, new_leaf)
            self.mount.forget(source, leaf)
            self.mount.forget(there, new_leaf)

    def epoch_remove(self, epoch: int) -> None:
        """See the port."""
        epochs, name = self._epochs(), self._name(epoch)
        try:
            self.disk.remove_folder(epochs, name)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise FencedError(f"epoch {epoch} is sealed", error.errno) from error
            if error.errno == errno.ENOTEMPTY:
                raise NotEmptyStorageError(f"epoch {epoch}", error.errno) from error
            raise change_error(error, f"remove epoch {epoch}") from error
        self.mount.forget(epochs, name)

    def epoch_seal(self, epoch: int) -> None:
        """See the port."""
        epochs, name = self._epochs(), self._name(epoch)
        with _changing(f"seal epoch {epoch}"):
            self.disk.create(epochs, name, self.disk.new_file())
        self.mount.forget(epochs, name)

    @staticmethod
    def _require_absent(folder: Folder, leaf: str) -> None:
        if leaf in folder.names:
            raise NameExistsError(f"{leaf} is there already", errno.EEXIST)

    def quarantine(self, name: str, epoch: int, leaf: str) -> None:
        """See the port."""
        plain(leaf)
        if names.classify(cache_entry(name)) is names.Kind.UNRECOGNISED:
            raise StorageError(f"{name} is no cache name and is left alone")
        with self._acting(epoch, f"rename {name}") as there:
            self._regular(self.disk.base, name)
            self._require_absent(there, leaf)
            self.disk.rename(self.disk.base, name, there, leaf)
            self.mount.forget(self.disk.base, name)
            self.mount.forget(there, leaf)

    def quarantined_facts(
        self, epoch: int, leaf: str, *, writable: bool = False
    ) -> FileFacts | None:
        """See the port."""
        del writable
        plain(leaf)
        found = self._epoch(epoch).names.get(leaf)
        return found.facts() if isinstance(found, Inode) else None

    def quarantined_locked(self, epoch: int, leaf: str) -> bool:
        """See the port."""
        return self._regular(self._epoch(epoch), plain(leaf)).locks > 0

    def restore(self, epoch: int, leaf: str, name: str) -> None:
        """See the port."""
        plain(leaf)
        cache_entry(name)
        with self._acting(epoch, f"restore {name}") as there:
            inode = self._regular(there, leaf)
            self.disk.link(inode, self.disk.base, name)
            self.mount.forget(self.disk.base, name)

    def purge(self, epoch: int, leaf: str) -> None:
        """See the port."""
        plain(leaf)
        with self._acting(epoch, f"unlink {leaf}") as there:
            self.disk.unlink(there, leaf)
            self.mount.forget(there, leaf)
