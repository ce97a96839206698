"""Hands elsewhere: requests to a process of its own, here or in a guest.

One request is one line of JSON, `[call, arguments]`, and so is its answer,
`["value", anything]` or `["failed", traceback]`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from sharedcache.adapters.zookeeper_server.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_S = 300.0
"""How long one call may take, in seconds."""

_MAX_HELLO_BYTES = 200
_HELLO_S = 10.0


class RemoteError(AssertionError):
    """A call failed in a way that no storage answers; it carries the traceback."""


class Remote:
    """A process at the other end of a connection; one call at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rw", encoding="utf-8", newline="\n")
        self._lock = threading.Lock()

    def ask(self, call: str, *arguments: object) -> Any:
        """Make a call there; return what it returned."""
        with self._lock:
            self._stream.write(json.dumps([call, arguments]) + "\n")
            self._stream.flush()
            line = self._stream.readline()
        if not line:
            raise RemoteError(f"the process ended during {call}{arguments}")
        kind, value = json.loads(line)
        if kind != "value":
            raise RemoteError(f"{call}{arguments} failed:\n{value}")
        return value

    def close(self) -> None:
        """Hang up, which ends the process."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._connection.close()


class Switchboard:
    """Waits on loopback for processes that call back, each with its own token."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._called: dict[str, Remote] = {}

    def __enter__(self) -> Self:
        """Listen for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._listener.close()

    @staticmethod
    def token() -> str:
        """Make what a process proves itself with."""
        return secrets.token_hex(16)

    def wait(self, token: str, deadline_s: float, alive: Callable[[], None]) -> Remote:
        """Wait for one process; `alive` raises if it has ended.

        Raises TimeoutError after `deadline_s` seconds.
        """
        self._listener.settimeout(1.0)
        for _ in range(max(1, round(deadline_s))):
            if token in self._called:
                return self._called.pop(token)
            alive()
            with contextlib.suppress(TimeoutError):
                self._accept()
        raise TimeoutError(f"nobody called back within {deadline_s:g} s")

    def _accept(self) -> None:
        """Take one call, for whoever waits for it: they come in any order."""
        connection, _ = self._listener.accept()
        connection.settimeout(_HELLO_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = connection.recv(_MAX_HELLO_BYTES).decode("ascii", "replace")
        connection.settimeout(ANSWER_S)
        self._called[hello.strip()] = Remote(connection)
