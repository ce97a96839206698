"""The cluster's marker, the finalized schema and the nodes' witnesses."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sharedcache.adapters.storage.descriptors import (
    CONTROL,
    FILE,
    Descriptors,
    Look,
    facts_of,
    listing,
    open_directory,
    opened,
    plain,
    shown,
)
from sharedcache.adapters.storage.errors import changing, reading, settle
from sharedcache.core.model import FileFacts
from sharedcache.core.ports import NameMissingError, StorageError

MAX_CONTROL_BYTES = 64 * 1024
"""A control file that is longer than this is not ours."""

WITNESS_BYTES = 512
"""Every witness has this size, so that writing one never changes its length."""

MAX_WITNESS_DATA_BYTES = WITNESS_BYTES - 5
"""Room in a witness: its last five bytes are ``%04d\\n``, the data's length."""

_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644


class ControlFiles(Descriptors):
    """Everything in ``.sharedcache`` but the epochs."""

    def read_marker(self) -> bytes | None:
        """Read the cluster's marker; ``None`` if there is none.

        The base is opened by its path again, and what follows goes through
        this very opening: an empty mount shows itself here, and nothing
        later can be about another directory than the one whose identity
        was read.
        """
        self.refresh()
        return self._read_control("cluster")

    def create_marker(self, data: bytes) -> None:
        """Create the skeleton and the marker, durably and exclusively.

        ``NameExistsError`` if the directory is bound already.  The marker is
        complete before it gets its name, so nobody ever reads half of one.
        """
        with self._looking() as look:
            make_directory(look.base, CONTROL)
            control = look.control()
            make_directory(control, "nodes")
            make_directory(control, "epochs")
            with written_apart(control, "cluster", data) as temporary:
                with changing("give the cluster's marker its name"):
                    os.link(
                        temporary,
                        "cluster",
                        src_dir_fd=control,
                        dst_dir_fd=control,
                        follow_symlinks=False,
                    )
                with changing("remove the marker's temporary name"):
                    os.unlink(temporary, dir_fd=control)
            settle("create the cluster's marker", control, look.base)

    def read_schema(self) -> bytes | None:
        """Read the finalized schema; ``None`` if there is none."""
        return self._read_control("schema")

    def write_schema(self, data: bytes) -> None:
        """Replace the finalized schema atomically and durably."""
        with self._looking() as look:
            control = look.control()
            with (
                written_apart(control, "schema", data) as temporary,
                changing("replace the finalized schema"),
            ):
                os.rename(temporary, "schema", src_dir_fd=control, dst_dir_fd=control)
            settle("replace the finalized schema", control)

    def _read_control(self, name: str) -> bytes | None:
        def call(look: Look) -> bytes | None:
            try:
                control = look.control()
            except NameMissingError:
                # A directory that was never bound, or an empty mount: the
                # caller asks exactly that.
                return None
            found = read_file(control, name)
            return None if found is None else found[0]

        return self._read(call)

    def witness_write(self, node: str, data: bytes) -> FileFacts:
        """Write a node's witness in place, durably; return its facts.

        In place, because another client may keep this name in its cache for
        a minute: the name must go on leading to the inode that is current.
        At most ``MAX_WITNESS_DATA_BYTES`` bytes.
        """
        what = f"write the witness of {shown(plain(node))}"
        record = pack_witness(data)
        with self._looking() as look:
            nodes = look.nodes()
            with changing(what), opened(node, _WITNESS_FLAGS, nodes) as descriptor:
                status = os.fstat(descriptor)
                _require_witness(status, node)
                if status.st_size == 0:
                    # New, and whatever our umask, other nodes must read it.
                    os.fchmod(descriptor, _FILE_MODE)
                # One write within one page: a reader sees the old record or
                # the new one.
                written = os.pwrite(descriptor, record, 0)
                if written != WITNESS_BYTES:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                if status.st_size > WITNESS_BYTES:
                    os.ftruncate(descriptor, WITNESS_BYTES)
                settle(what, descriptor, nodes)
                return facts_of(os.fstat(descriptor))

    def witness_touch(self, node: str) -> FileFacts:
        """Set the witness's times to the storage's own clock; return its facts.

        ``NameMissingError`` if there is no witness.
        """
        what = f"touch the witness of {shown(plain(node))}"
        with self._looking() as look:
            nodes = look.nodes()
            with changing(what), opened(node, os.O_RDONLY | FILE, nodes) as descriptor:
                _require_witness(os.fstat(descriptor), node)
                # Without a time given the server takes its own: the ages of
                # files are differences of times that one clock gave.
                os.utime(descriptor)
                return facts_of(os.fstat(descriptor))

    def witness_read(self, node: str) -> tuple[bytes, FileFacts] | None:
        """Open a witness by name and read it; ``None`` if there is none.

        A record that is not whole is returned as it lies there, for the
        reader to refuse.
        """
        plain(node)

        def call(look: Look) -> tuple[bytes, FileFacts] | None:
            found = read_file(look.nodes(), node, f"{CONTROL}/nodes")
            if found is None:
                return None
            return unpack_witness(found[0]), found[1]

        return self._read(call)

    def witness_list(self) -> list[str]:
        """List the nodes that have a witness, sorted; strangers are not hidden."""

        def call(look: Look) -> list[str]:
            with reading("list the witnesses"):
                return [shown(name) for name in listing(look.nodes())]

        return self._read(call)


_WITNESS_FLAGS = os.O_RDWR | os.O_CREAT | FILE


def pack_witness(data: bytes) -> bytes:
    """Return the record for a witness: data, spaces, the data's length."""
    if len(data) > MAX_WITNESS_DATA_BYTES:
        raise StorageError(
            f"a witness holds {MAX_WITNESS_DATA_BYTES} bytes, not {len(data)}"
        )
    return data.ljust(MAX_WITNESS_DATA_BYTES) + b"%04d\n" % len(data)


def unpack_witness(record: bytes) -> bytes:
    """Return the data of a record, or the record itself if it is not whole."""
    length = record[MAX_WITNESS_DATA_BYTES:-1]
    if len(record) != WITNESS_BYTES or not length.isdigit():
        return record
    return record[: int(length)]


def _require_witness(status: os.stat_result, node: str) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise StorageError(
            f"the witness of {shown(node)} is not a regular file with one name: "
            "look who made it, then remove it by hand"
        )


def read_file(
    directory: int, name: str, folder: str = CONTROL
) -> tuple[bytes, FileFacts] | None:
    """Read a small control file; ``None`` if it is not there.

    ``folder`` is the directory's path below the base, for messages.
    """
    path = f"{folder}/{shown(name)}"
    with reading(f"read {path}"):
        try:
            with opened(name, os.O_RDONLY | FILE, directory) as descriptor:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise StorageError(
                        f"{path} is not a regular file: nobody of sharedcache made "
                        "it, so look who did, and move it away by hand"
                    )
                # One byte more than allowed tells a file that is too long.
                data = os.pread(descriptor, MAX_CONTROL_BYTES + 1, 0)
        except FileNotFoundError:
            return None
    if len(data) > MAX_CONTROL_BYTES:
        raise StorageError(f"{path} is longer than any that we write: look who made it")
    return data, facts_of(status)


def make_directory(parent: int, name: str) -> None:
    """Create a directory of the skeleton unless it is there."""
    with changing(f"create the directory {name}"):
        try:
            os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
        except FileExistsError:
            return
    descriptor = open_directory(name, parent)
    try:
        # The umask of whoever runs `init` must not shut out the other nodes.
        with changing(f"set the mode of the directory {name}"):
            os.fchmod(descriptor, _DIRECTORY_MODE)
    finally:
        os.close(descriptor)


@contextmanager
def written_apart(directory: int, name: str, data: bytes) -> Iterator[str]:
    """Write data to a private name, durably; remove that if the block fails."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE
    what = f"write {name} under a temporary name"
    try:
        with changing(what), opened(temporary, flags, directory) as descriptor:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fchmod(descriptor, _FILE_MODE)
            settle(what, descriptor)
        yield temporary
    except BaseException:
        # It is our own private partial file; if it is left, it means nothing.
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
