"""The agent's side: a source of uses, fed by programs over a local socket.

A thread of its own serves the socket; the agent's loop only ever takes what
was declared, and never waits for a program.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sharedcache.core.model import Uses
from sharedcache.core.names import Kind, classify
from sharedcache.core.ports import SourceError
from sharedcache.core.referrers import Referrer, Referrers

MAX_CLIENTS = 1000
MAX_LINE = 1024
MAX_NAMES = 10_000

_MODE = 0o660
_BACKLOG = 128
_READ = 65536
_JOIN_S = 5.0
_OK = b'{"ok": true}\n'
_CREDENTIALS = struct.Struct("iII")


class UsesSocketError(Exception):
    """The socket cannot be served; the message says what to do."""


class _RefusedError(Exception):
    """A program asked for something that is not served."""


def _nobody() -> None:
    """Wake nobody."""


@dataclass(slots=True, eq=False)
class _Client:
    """One connection, with what it declared and what it has yet to be told."""

    socket: socket.socket
    who: Referrer
    input: bytes = b""
    output: bytes = b""
    names: Counter[str] = field(default_factory=Counter)


class UsesSocket:
    """A source of use: what programs on this host declare.

    ``path`` is the socket's; it is made with mode 0660.  ``on_use`` is called,
    in the serving thread, whenever a name is declared that was not.
    """

    name = "socket"

    def __init__(self, path: str, on_use: Callable[[], None] = _nobody) -> None:
        self.path = Path(path)
        self.on_use = on_use
        self._guard = threading.Lock()
        self._declared: Counter[str] = Counter()
        self._ended: set[str] = set()
        self._clients: set[_Client] = set()
        self._told = Referrers()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._listener: socket.socket | None = None
        self._inode = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve from now on; ``UsesSocketError`` if that cannot be."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listen(listener)
        except OSError as error:
            listener.close()
            raise UsesSocketError(
                f"[agent] socket {self.path} cannot be served: "
                f"{error.strerror or error}"
            ) from error
        except UsesSocketError:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        self._wake_read.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)
        self._thread = threading.Thread(
            target=self._serve, name="sharedcache-uses-socket", daemon=True
        )
        self._thread.start()

    def look(self) -> Uses:
        """Return what is declared, and what was at any time since the last look."""
        if self._thread is None or not self._thread.is_alive():
            raise SourceError(f"{self.path} is not served any more: restart the agent")
        with self._guard:
            names = {*self._declared, *self._ended}
            self._ended.clear()
            self._told = Referrers()
            for client in self._clients:
                self._told.add(list(client.names), client.who)
        return Uses.of_names(names)

    def referrers(self) -> Referrers:
        """Return the programs that had declared uses at the last look."""
        return self._told

    def close(self) -> None:
        """Serve no longer, and take the socket's name away."""
        if self._thread is not None:
            self._wake_write.send(b"x")
            self._thread.join(_JOIN_S)
        with suppress(OSError):
            if self._inode and self.path.lstat().st_ino == self._inode:
                self.path.unlink()
        if self._listener is not None:
            self._listener.close()
        for client in list(self._clients):
            client.socket.close()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _listen(self, listener: socket.socket) -> None:
        """Listen under a private name, and give the socket its name last.

        So it is never seen with another mode, and what an earlier run left
        behind is replaced.
        """
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise UsesSocketError(
                    f"[agent] socket {self.path} is there and is not a socket"
                )
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(str(self.path)) == 0:
                    raise UsesSocketError(
                        f"another agent serves [agent] socket {self.path}"
                    )
        private = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        private.unlink(missing_ok=True)
        listener.bind(str(private))
        private.chmod(_MODE)
        listener.listen(_BACKLOG)
        self._inode = private.lstat().st_ino
        private.replace(self.path)

    def _serve(self) -> None:
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._wake_read:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._tend(key.data, events)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            made, _ = self._listener.accept()
        except OSError:
            # It went away again, or this process has no descriptor left.
            return
        if len(self._clients) >= MAX_CLIENTS:
            made.close()
            return
        made.setblocking(False)
        client = _Client(made, _program(made))
        with self._guard:
            self._clients.add(client)
        self._selector.register(made, selectors.EVENT_READ, client)

    def _tend(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._receive(client)
            self._send(client)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, _RefusedError):
            self._part(client)

    def _receive(self, client: _Client) -> None:
        data = client.socket.recv(_READ)
        if not data:
            raise _RefusedError("hung up")
        client.input += data
        while b"\n" in client.input:
            line, _, client.input = client.input.partition(b"\n")
            client.output += self._answer(client, line)
        if len(client.input) > MAX_LINE or len(client.output) > _READ:
            raise _RefusedError("talks too much, or does not listen")

    def _send(self, client: _Client) -> None:
        if client.output:
            # What finds no room is sent once there is some.
            with suppress(BlockingIOError):
                sent = client.socket.send(client.output)
                client.output = client.output[sent:]
        wanted = selectors.EVENT_READ
        if client.output:
            wanted |= selectors.EVENT_WRITE
        self._selector.modify(client.socket, wanted, client)

    def _part(self, client: _Client) -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
        with self._guard:
            self._clients.discard(client)
            for name, count in client.names.items():
                self._end(name, count)

    def _answer(self, client: _Client, line: bytes) -> bytes:
        try:
            self._obey(client, line)
        except _RefusedError as error:
            return json.dumps({"error": str(error)}).encode() + b"\n"
        return _OK

    def _obey(self, client: _Client, line: bytes) -> None:
        try:
            asked = json.loads(line)
        except (ValueError, RecursionError):
            raise _RefusedError("not a line of JSON") from None
        if not isinstance(asked, dict) or len(asked) != 1:
            raise _RefusedError("not a map of one request")
        ((verb, name),) = asked.items()
        if verb == "ping":
            return
        if verb not in ("use", "release") or not isinstance(name, str):
            raise _RefusedError("ask use, release or ping")
        if classify(name) is Kind.UNRECOGNISED:
            raise _RefusedError("that is not a cache name")
        if verb == "release":
            self._release(client, name)
        else:
            self._use(client, name)

    def _use(self, client: _Client, name: str) -> None:
        if client.names.total() >= MAX_NAMES:
            raise _RefusedError(f"no more than {MAX_NAMES} names")
        with self._guard:
            client.names[name] += 1
            self._declared[name] += 1
            new = self._declared[name] == 1
        if new:
            self.on_use()

    def _release(self, client: _Client, name: str) -> None:
        if name not in client.names:
            raise _RefusedError("that name was not declared here")
        with self._guard:
            client.names[name] -= 1
            if not client.names[name]:
                del client.names[name]
            self._end(name, 1)

    def _end(self, name: str, count: int) -> None:
        """Count uses that are over; they are in the next look all the same."""
        self._ended.add(name)
        self._declared[name] -= count
        if not self._declared[name]:
            del self._declared[name]


def _program(connection: socket.socket) -> Referrer:
    """Tell who connected, by its process id, as the kernel says."""
    try:
        credentials = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
    except OSError:
        return Referrer("program")
    process, user, _ = _CREDENTIALS.unpack(credentials)
    return Referrer("program", f"process {process} of user {user}")
