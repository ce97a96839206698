"""Nova's own lock for a cache name, beside an unmodified Nova.

Nova takes ``<instances_path>/locks/nova-<name>`` around fetching a base file,
creating an overlay on it, and removing it.  The lock is held by a helper
process, because a lock file on storage that hangs cannot be waited for with
any bound from within, and because a lock must end even if we are stopped.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

_HELPER = Path(__file__).with_name("helper.py")
_START_S = 5.0
_ANSWER_S = 2.0
_REAP_S = 1.0


class _HelperLostError(Exception):
    """The helper ended, or did not answer in time."""


class _Helper:
    """One run of the helper, with the pipes to it."""

    def __init__(self, lock_dir: str) -> None:
        # By its path, isolated and without site packages: it needs nothing
        # but the standard library, and so starts in a few hundredths of a
        # second.  A session of its own keeps the terminal's signals away.
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_HELPER), lock_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            start_new_session=True,
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise _HelperLostError("the helper has no pipes")
        self._to = self.process.stdin.fileno()
        self._from = self.process.stdout.fileno()
        self._input = b""
        self._poll = select.poll()
        self._poll.register(self._from, select.POLLIN)

    def send(self, line: str) -> None:
        """Send a line, which always fits into the empty pipe."""
        try:
            os.write(self._to, os.fsencode(line + "\n"))
        except OSError as error:
            raise _HelperLostError("the helper for Nova's locks ended") from error

    def receive(self, within_s: float) -> str:
        """Return the helper's next line, or raise when the time is over."""
        until = time.monotonic() + within_s
        while b"\n" not in self._input:
            left = until - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise _HelperLostError(
                    f"the helper for Nova's locks did not answer in {within_s:g} s: "
                    "does the storage of the lock directory hang?"
                )
            data = os.read(self._from, 4096)
            if not data:
                raise _HelperLostError("the helper for Nova's locks ended")
            self._input += data
        line, _, self._input = self._input.partition(b"\n")
        return os.fsdecode(line)

    def end(self) -> bool:
        """Kill it; whether it is gone.

        One that waits for the storage in the kernel may take its time.
        """
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.process.kill()
        try:
            self.process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            return False
        return True


class NovaNameLocks:
    """The port of name locks over Nova's lock directory.

    ``lock_dir`` is ``<instances_path>/locks``; it is made like its parent
    directory if it is missing.  ``start_s`` bounds the start of the helper,
    ``answer_s`` what it may need beyond the time asked for, both in seconds.
    ``last_error`` says why the last ``take`` failed, and is empty if the lock
    was merely busy.
    """

    def __init__(
        self, lock_dir: str, *, start_s: float = _START_S, answer_s: float = _ANSWER_S
    ) -> None:
        self._lock_dir = str(Path(lock_dir).absolute())
        self._start_s = start_s
        self._answer_s = answer_s
        self._helper: _Helper | None = None
        self._ending: list[_Helper] = []
        self._guard = threading.Lock()
        self.last_error = ""

    def __enter__(self) -> Self:
        """Use the locks for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the helper."""
        self.close()

    def take(self, name: str, wait_s: float, hold_s: float) -> bool:
        """Take the lock; ``False`` if it was not to be had within ``wait_s``.

        Never takes longer than ``wait_s + answer_s``, and ``start_s`` if the
        helper must be started.  A helper that does not answer, because the
        storage hangs, is killed, and the next call starts a new one.  The
        lock ends ``hold_s`` seconds after it was granted or renewed at the
        latest, whatever becomes of this process.  One lock at a time: while one is
        held, or another thread asks for one, the answer is ``False``.
        ``ValueError`` if the name is not one of a directory's entry.
        """
        _require_name(name)
        if not self._guard.acquire(blocking=False):
            self.last_error = ""
            return False
        try:
            answer = self._ask(f"take {wait_s:.6f} {hold_s:.6f} {name}", wait_s)
        finally:
            self._guard.release()
        self.last_error = answer.removeprefix("error ") if answer != "busy" else ""
        if answer == "held":
            self.last_error = ""
            return True
        return False

    def held(self, name: str) -> bool | None:
        """Whether anybody holds the lock; ``None`` if there is no telling.

        Only asked, never taken, so that nobody has to wait because of it; then
        ``last_error`` says why.  Never takes longer than ``start_s`` and
        ``answer_s``.  ``ValueError`` if the name is not one of a directory's entry.
        """
        _require_name(name)
        with self._guard:
            answer = self._ask(f"probe {name}", 0.0)
        self.last_error = ""
        if answer in {"held", "free"}:
            return answer == "held"
        self.last_error = answer.removeprefix("error ")
        return None

    def renew(self, hold_s: float) -> bool:
        """Hold the lock for ``hold_s`` seconds from now; ``False`` if it was lost.

        For whoever makes progress with what takes longer than a lock may be
        held: one that hangs renews nothing, and its lock ends.
        """
        with self._guard:
            if self._helper is None or self._helper.process.poll() is not None:
                self._end()
                return False
            return self._ask(f"renew {hold_s:.6f}", 0.0) == "renewed"

    def release(self) -> bool:
        """Let the lock go; ``False`` if it was lost before (``hold_s`` passed)."""
        with self._guard:
            if self._helper is None or self._helper.process.poll() is not None:
                self._end()
                return False
            return self._ask("drop", 0.0) == "dropped"

    def close(self) -> None:
        """End the helper, and with it any lock."""
        with self._guard:
            self._end()
            self._reap()

    def _ask(self, line: str, wait_s: float) -> str:
        try:
            helper = self._running()
            helper.send(line)
            return helper.receive(wait_s + self._answer_s)
        except (_HelperLostError, OSError) as error:
            # Whatever it holds ends with it; a new one knows nothing of it.
            self._end()
            return f"error {error}"

    def _running(self) -> _Helper:
        self._reap()
        if self._helper is not None and self._helper.process.poll() is not None:
            # Its lock's time was over, or somebody killed it.
            self._end()
        if self._helper is None:
            self._helper = _Helper(self._lock_dir)
            self._helper.receive(self._start_s)
        return self._helper

    def _end(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None and not helper.end():
            self._ending.append(helper)

    def _reap(self) -> None:
        self._ending = [one for one in self._ending if one.process.poll() is None]


def _require_name(name: str) -> None:
    if name in ("", ".", "..") or any(mark in name for mark in "/\0\n"):
        raise ValueError(f"{name!r} is not a cache name")
