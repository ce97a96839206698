"""A program's side: declaring uses, never for longer than a stated time."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter
from contextlib import suppress

ANSWER_S = 0.5
"""How long the agent may take to answer, in seconds."""

RETRY_S = 5.0
"""How soon an agent that did not answer is asked again, in seconds."""

_ANSWER_BYTES = 4096


class AgentLink:
    """The connection with the local agent, made when it is needed.

    ``path`` is the agent's socket, empty for none.  Every call ends within
    three times ``answer_s``, and raises nothing: no agent is no error.
    """

    def __init__(
        self, path: str, *, answer_s: float = ANSWER_S, retry_s: float = RETRY_S
    ) -> None:
        self._path = path
        self._answer_s = answer_s
        self._retry_s = retry_s
        self._guard = threading.Lock()
        self._names: Counter[str] = Counter()
        self._socket: socket.socket | None = None
        self._not_before = 0.0
        self._pid = os.getpid()

    def use(self, name: str) -> bool:
        """Declare a use; whether an agent took it."""
        if self._forked():
            return False
        with self._guard:
            self._names[name] += 1
            if self._socket is None:
                return self._connect()
            return self._ask("use", name) or self._connect()

    def release(self, name: str) -> None:
        """Take one declaration of a use back."""
        if self._forked():
            return
        with self._guard:
            if self._names[name] > 1:
                self._names[name] -= 1
            else:
                del self._names[name]
            if self._socket is not None:
                self._ask("release", name)

    def refresh(self) -> bool:
        """See that the agent is there; declare everything anew to a new one."""
        if self._forked():
            return False
        with self._guard:
            if not self._path or not self._names:
                return False
            if self._socket is not None and self._ask("ping", name=True):
                return True
            return self._connect()

    def close(self) -> None:
        """Take everything back."""
        if self._forked():
            return
        with self._guard:
            self._names.clear()
            self._drop()

    def _forked(self) -> bool:
        """Whether this is a child, whose words would count as the parent's own."""
        return os.getpid() != self._pid

    def _connect(self) -> bool:
        """Connect and declare all that is used; called with the guard held."""
        if not self._path or time.monotonic() < self._not_before:
            return False
        self._drop()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(self._answer_s)
        try:
            made.connect(self._path)
        except OSError:
            made.close()
            self._not_before = time.monotonic() + self._retry_s
            return False
        self._socket = made
        uses = [name for name, count in self._names.items() for _ in range(count)]
        return all(self._ask("use", name) for name in uses)

    def _ask(self, verb: str, name: str | bool) -> bool:  # noqa: FBT001 - a ping names nothing
        """Ask one thing; whether the answer is a good one.  No answer ends it."""
        if self._socket is None:
            return False
        try:
            self._socket.settimeout(self._answer_s)
            self._socket.sendall(json.dumps({verb: name}).encode() + b"\n")
            answer = _line_from(self._socket, self._answer_s)
        except OSError as error:
            self._drop()
            if isinstance(error, TimeoutError):
                # It hangs.  One that hung up may have been started again.
                self._not_before = time.monotonic() + self._retry_s
            return False
        return b'"ok"' in answer

    def _drop(self) -> None:
        made, self._socket = self._socket, None
        if made is not None:
            with suppress(OSError):
                made.close()


def _line_from(made: socket.socket, within_s: float) -> bytes:
    """Receive one short line; raises ``OSError`` if none comes in time.

    The time is for the whole line: an agent that gives it a byte at a time hangs.
    """
    answer, until = b"", time.monotonic() + within_s
    while not answer.endswith(b"\n"):
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the agent does not finish its answer")
        made.settimeout(left_s)
        data = made.recv(_ANSWER_BYTES)
        if not data or len(answer) > _ANSWER_BYTES:
            raise ConnectionResetError("the agent hung up")
        answer += data
    return answer
