"""One client of a shared directory, in a process of its own.

It does what it is told, one effect at a time, by bare system calls or through
the shipped adapter, and says what the storage answered.  As a program it calls
back to the tests' process and serves it (`tests/support/channel.py`): on this
machine, or in a guest that mounts the directory over the network.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cleaner.lead import Successor
from sharedcache.cleaner.world import DeposedError
from sharedcache.core import names
from sharedcache.core.model import FileFacts
from sharedcache.core.ports import OutcomeUnknownError, StorageError

DONE = "done"
QEMU_BYTES = (100, 201, 203)
_STOP_S = 60.0
_POLL_S = 0.05


class Office:
    """A leadership that never finds out that it is over.

    The shipped steps ask it before each effect and are told to go on: what
    stops such a leader is the storage alone.
    """

    def __init__(self, storage: DirectoryStorage, epoch: int) -> None:
        self.epoch = epoch
        self.storage = storage
        self.journal = self
        self.world = self
        self.events: list[dict[str, object]] = []

    def check(self) -> None:
        """Say that the lease is good."""

    def event(self, what: str, **fields: object) -> None:
        """Keep what the leader would log."""
        self.events.append({"what": what, **fields})


class Hands:
    """Everything that a test may want done; every argument and answer is JSON."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root
        self._storage: DirectoryStorage | None = None
        self._held: dict[str, int] = {}
        self._stopped: _Stopped | None = None

    # Where.

    def enter(self, place: str) -> None:
        """Work in a directory below the root from here on."""
        self.leave()
        self.base = self.root / place
        self._storage = DirectoryStorage(str(self.base))

    def found(self, place: str) -> None:
        """Make a cache directory below the root, bind it, and work in it."""
        (self.root / place).mkdir()
        self.enter(place)
        assert self._storage is not None
        self._storage.create_marker(b"identity")

    def leave(self) -> None:
        """Close whatever is open."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
        if self._storage is not None:
            self._storage.close()
            self._storage = None

    def hold(self, path: str) -> None:
        """Open a file or a directory, and keep it open under its path."""
        self._held[path] = os.open(self.base / path, os.O_RDONLY)

    def warm(self, path: str) -> list[str]:
        """Fill this client's caches with a directory, its names and their files."""
        names = sorted(os.listdir(self.base / path))  # noqa: PTH208 - names only
        for name in names:
            (self.base / path / name).stat()
        return names

    # Effects.

    def store(self, call: str, *arguments: object, **options: object) -> list[Any]:
        """Make a call of the shipped adapter; return `[answer, value]`."""
        assert self._storage is not None
        method = getattr(self._storage, call)
        return _answer(lambda: _plain(method(*map(_given, arguments), **options)))

    def writable_facts(self, epoch: int, leaf: str) -> list[Any]:
        """Look at a quarantined file as the purge does."""
        return self.store("quarantined_facts", epoch, leaf, writable=True)

    def system(self, call: str, *paths: str) -> str:
        """Make a bare system call; return what it answered.

        A path `@directory/name` means the name in a directory that is held
        open.
        """
        return str(_answer(lambda: self._system(call, *paths))[0])

    def _system(self, call: str, *paths: str) -> None:
        names, directories = zip(*map(self._at, paths), strict=True)
        if call in ("rename", "link"):
            source, target = directories
            getattr(os, call)(*names, src_dir_fd=source, dst_dir_fd=target)
        elif call == "create":
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            os.close(os.open(names[0], flags, 0o644, dir_fd=directories[0]))
        elif call == "open":
            os.close(os.open(names[0], os.O_RDONLY, dir_fd=directories[0]))
        else:
            getattr(os, call)(names[0], dir_fd=directories[0])

    def _at(self, path: str) -> tuple[str, int | None]:
        if not path.startswith("@"):
            return str(self.base / path), None
        directory, _, name = path[1:].rpartition("/")
        return name, self._held[directory]

    def lock(self, path: str) -> None:
        """Hold a running qemu's locks on a file, until it is dropped."""
        self.hold(path)
        for byte in QEMU_BYTES:
            wanted = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
            fcntl.fcntl(self._held[path], fcntl.F_OFD_SETLK, wanted)

    def drop(self, path: str) -> None:
        """Close what was held open, its locks with it."""
        os.close(self._held.pop(path))

    def put(self, path: str, text: str) -> None:
        """Write a file."""
        (self.base / path).parent.mkdir(parents=True, exist_ok=True)
        (self.base / path).write_text(text)

    # Looks.

    def read(self, path: str) -> str | None:
        """Read a file; `None` if there is none."""
        try:
            return (self.base / path).read_text()
        except FileNotFoundError:
            return None

    def look(self, path: str) -> list[Any]:
        """Stat a path, or a held one (`@path`), and say what is there."""
        if path.startswith("@"):
            return _answer(lambda: _facts(os.fstat(self._held[path[1:]])))
        return _answer(lambda: _facts((self.base / path).stat()))

    def look_opened(self, path: str) -> list[Any]:
        """Open a path and look at what was opened."""

        def look() -> dict[str, int]:
            descriptor = os.open(self.base / path, os.O_RDONLY)
            try:
                return _facts(os.fstat(descriptor))
            finally:
                os.close(descriptor)

        return _answer(look)

    def listing(self, path: str) -> list[str]:
        """List a directory as the adapter does, through what is held of it."""
        descriptor = os.open(".", os.O_RDONLY, dir_fd=self._held[path])
        try:
            return sorted(os.listdir(descriptor))  # noqa: PTH208 - a descriptor
        finally:
            os.close(descriptor)

    def clock_ns(self) -> int:
        """Tell this host's own clock."""
        return time.time_ns()

    def until(
        self, wanted: object, limit_s: float, call: str, *arguments: Any
    ) -> list[Any]:
        """Ask again and again until the answer is as wanted, or time is up.

        A wanted text is compared with the answer alone, anything else with
        answer and value.  Returns `[first look, last look, seconds]`, looks as
        they were compared.
        """
        start = time.monotonic()
        looks: list[object] = []
        while True:
            look = getattr(self, call)(*arguments)
            looks.append(look[0] if isinstance(wanted, str) else look)
            passed = time.monotonic() - start
            if looks[-1] == wanted or passed > limit_s:
                return [looks[0], looks[-1], passed]
            time.sleep(_POLL_S)

    # Several effects, as a leader makes them.

    def take_over(self, epoch: int, make: bool) -> list[Any]:  # noqa: FBT001 - from JSON
        """Take office with the shipped steps: make the epoch, seal lower ones."""
        assert self._storage is not None
        storage = self._storage

        def steps() -> list[dict[str, object]]:
            office = Office(storage, epoch)
            if make:
                storage.epoch_make(epoch)
            successor: Any = Successor
            successor(office).seal_lower_epochs()
            return office.events

        return _answer(steps)

    def take_until_refused(self, epoch: int, limit: int) -> list[Any]:
        """Write a cache file and quarantine it, again and again.

        Returns the leaves that were taken, and the answer that ended it.
        """
        taken: list[str] = []
        answer = DONE
        for number in range(limit):
            name = f"{number:040x}"
            leaf = names.leaf_of(name, f"{number:016x}", epoch)
            self.put(name, name)
            answer = str(self.store("quarantine", name, epoch, leaf)[0])
            if answer != DONE:
                break
            taken.append(leaf)
        return [taken, answer]

    def all_of(self, calls: list[list[Any]]) -> list[str]:
        """Make all calls of the adapter, whatever the answers."""
        return [str(self.store(call, *given)[0]) for call, *given in calls]

    def stop_before(self, system_call: str, call: str, given: list[Any]) -> None:
        """Begin one of these calls, and stop it right before a system call."""
        method = getattr(self, call)
        self._stopped = _Stopped(system_call, lambda: method(*given))

    def go_on(self) -> list[Any]:
        """Let the stopped call go on; return its answer."""
        assert self._stopped is not None
        return self._stopped.go_on()

    # Programs.

    def program(self, command: list[str], environ: dict[str, str]) -> list[Any]:
        """Run a program to its end; return its exit code and all its output."""
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
        )
        return [done.returncode, done.stdout.decode("utf-8", "replace")]

    def text(self, path: str) -> str:
        """Read a file of this host, such as one of /proc."""
        return Path(path).read_text("utf-8", "replace")


class _Stopped:
    """A call that waits in the middle, on a thread of its own."""

    def __init__(self, system_call: str, call: Callable[[], list[Any]]) -> None:
        self._go = threading.Event()
        self._answer: list[Any] = []
        reached = threading.Event()
        real = getattr(os, system_call)

        def stopping(*arguments: Any, **options: Any) -> Any:
            setattr(os, system_call, real)
            reached.set()
            assert self._go.wait(_STOP_S)
            return real(*arguments, **options)

        setattr(os, system_call, stopping)
        self._thread = threading.Thread(
            target=lambda: self._answer.append(call()), daemon=True
        )
        self._thread.start()
        if not reached.wait(_STOP_S):
            raise RuntimeError(f"{system_call} was never reached: {self._answer}")

    def go_on(self) -> list[Any]:
        self._go.set()
        self._thread.join(_STOP_S)
        answer: list[Any] = self._answer.pop()
        return answer


def _answer(call: Callable[[], object]) -> list[Any]:
    """Make a call; return `[answer, value]`.

    The answer of the adapter is the class of its error, since that is what a
    service goes by; that of a system call is the name of its number.
    """
    try:
        return [DONE, call()]
    except StorageError as error:
        number = errno.errorcode.get(error.errno, str(error.errno))
        return [type(error).__name__, f"{number}: {error}"]
    except (OutcomeUnknownError, DeposedError) as error:
        return [type(error).__name__, str(error)]
    except OSError as error:
        return [errno.errorcode.get(error.errno or 0, str(error.errno)), None]


def _facts(status: os.stat_result) -> dict[str, int]:
    return {
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "links": status.st_nlink,
    }


def _given(value: object) -> object:
    """Take `{"bytes": base64}` for bytes, which JSON has not."""
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"])
    return value


def given_bytes(data: bytes) -> dict[str, str]:
    """Give bytes in an argument."""
    return {"bytes": base64.b64encode(data).decode()}


def _plain(value: object) -> object:
    """Make JSON of what the adapter returns."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, FileFacts):
        return dataclasses.asdict(value)
    return value


def serve(host: str, port: int, token: str, root: Path) -> None:
    """Call back and do what is asked until the other side hangs up."""
    hands = Hands(root)
    with socket.create_connection((host, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(f"{token}\n".encode())
        stream = connection.makefile("rw", encoding="utf-8", newline="\n")
        for line in stream:
            call, arguments = json.loads(line)
            try:
                answer = ["value", getattr(hands, call)(*arguments)]
            except Exception:  # noqa: BLE001 - the tests' process judges it
                answer = ["failed", traceback.format_exc()]
            stream.write(json.dumps(answer) + "\n")
            stream.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
