"""A partial file: what a fetch writes, before it gets its cache name."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from sharedcache.adapters.storage import NO_SPACE
from sharedcache.cache.errors import (
    DamagedError,
    LostLockError,
    NoSpaceError,
    StorageFailedError,
)
from sharedcache.core.digests import DEFAULT_ALGORITHM, Digest

CHUNK = 1 << 20
"""How much is read at a time where this package reads, in bytes."""

_RENEWALS = 6
_POLL_S = 0.2
_STOP_S = 5.0


class Partial:
    """What a fetch is given to put the file's content into.

    ``write`` appends.  Whoever has another program write the file gives it
    ``path``, and calls ``progress`` meanwhile, or lets ``run`` do both.  A
    fetch that does neither for longer than the stall limit loses its turn.
    ``foreign`` tells that another program may have written the file, ``checked``
    that the caller knows the size or the digest of the whole.
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        *,
        algorithm: str = DEFAULT_ALGORITHM,
        stall_s: float,
        renew: Callable[[], bool],
        room: Callable[[int], None],
        size: int | None = None,
        checked: bool = False,
    ) -> None:
        self._path = path
        self.descriptor = descriptor
        self._algorithm = algorithm
        self._stall_s = stall_s
        self._renew = renew
        self._room = room
        self._wanted = size
        self.checked = checked or size is not None
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._pool = ThreadPoolExecutor(1, "sharedcache-digest")
        self._written = 0
        self.foreign = False
        self._next_renewal = time.monotonic() + stall_s / _RENEWALS

    def close(self) -> None:
        """End the thread that computes the digest; the descriptor stays open.

        Its number is forgotten: a fetch that left a thread behind would otherwise
        reach whatever file bears that number next.
        """
        self._pool.shutdown()
        self.descriptor = -1

    @property
    def name(self) -> str:
        """The file's name in the cache directory."""
        return self._path.name

    @property
    def stall_s(self) -> float:
        """How long a fetch may stand still before it loses its turn, in seconds."""
        return self._stall_s

    @property
    def size(self) -> int:
        """Bytes that ``write`` wrote."""
        return self._written

    @property
    def path(self) -> Path:
        """Path of the file, for another program to write it.

        The digest is then computed by reading the file when it is finished.
        """
        self.foreign = True
        return self._path

    def write(self, data: bytes | memoryview) -> int:
        """Append; return how much, which is all.

        ``NoSpaceError`` or ``StorageFailedError`` if the storage refuses,
        ``DamagedError`` for more than the whole is to have.
        """
        view = memoryview(data).cast("B")
        size = view.nbytes
        if self._wanted is not None and self._written + size > self._wanted:
            raise DamagedError(f"{self.name} gets more than {self._wanted} bytes")
        # The digest is computed while the storage takes the same bytes.
        hashing = self._pool.submit(self._hash.update, view)
        try:
            rest = view
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError as error:
            kind = NoSpaceError if error.errno in NO_SPACE else StorageFailedError
            raise kind(f"cannot write {self.name}: {error.strerror}") from error
        finally:
            # The caller may use its buffer again.
            wait([hashing])
        self._written += size
        self.progress()
        return size

    def progress(self) -> None:
        """Say that this fetch is alive and gets on.

        Raises ``LostLockError`` if it came too late, and ``NoSpaceError`` once
        the storage has less free than the reserve.
        """
        now = time.monotonic()
        if now < self._next_renewal:
            return
        self.renew()
        self._room(0)
        self._next_renewal = now + self._stall_s / _RENEWALS

    def expect(self, size: int) -> None:
        """Say how many bytes the whole has, as soon as a source tells.

        ``NoSpaceError`` if they would leave less free than the reserve,
        ``DamagedError`` if the caller knows it otherwise.
        """
        if self._wanted not in (None, size):
            raise DamagedError(
                f"{self.name} is to have {self._wanted} bytes, not {size}"
            )
        self._room(max(0, size - self._written))

    def renew(self) -> None:
        """Renew the lock at once; ``LostLockError`` if it was lost."""
        if not self._renew():
            self.lose()

    def lose(self) -> NoReturn:
        """Raise ``LostLockError``: this fetch must not go on."""
        raise LostLockError(
            f"the fetch of {self.name} stood still for longer than "
            f"{self._stall_s:g} s, and lost its turn"
        )

    def restart(self) -> None:
        """Begin again with an empty file."""
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self._hash = hashlib.new(self._algorithm, usedforsecurity=False)
        self._written = 0

    def run(self, *command: str | Path) -> None:
        """Run a program that writes ``path``; ``DamagedError`` if it fails.

        The file's growth is its progress: a program under which the file does
        not change for longer than the stall limit is killed.
        """
        with subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as child:
            try:
                complaint = self._watch(child)
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0:
            raise DamagedError(
                f"{command[0]} failed with {child.returncode}: {complaint.strip()}"
            )

    def _watch(self, child: subprocess.Popen[bytes]) -> str:
        seen, since = self._state(), time.monotonic()
        while True:
            try:
                _, errors = child.communicate(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                now, state = time.monotonic(), self._state()
                if state != seen:
                    seen, since = state, now
                    self.progress()
                elif now - since > self._stall_s:
                    raise LostLockError(
                        f"{child.args!r} wrote nothing for {self._stall_s:g} s"
                    ) from None
            else:
                return errors.decode("utf-8", "replace")[-1000:]

    def _state(self) -> tuple[int, int, int]:
        # By its path: the program may put another file in its place.
        with suppress(OSError):
            status = self._path.stat()
            return status.st_size, status.st_blocks, status.st_mtime_ns
        return 0, 0, 0

    def finish(self, digest: Digest | None) -> tuple[int, Digest]:
        """Check size and digest; return them.  ``DamagedError`` if they differ.

        Nothing at all is no file, unless the caller knows that it is to be empty.
        """
        try:
            actual = os.fstat(self.descriptor).st_size
            if self.foreign or actual != self._written:
                self._read_again()
        except OSError as error:
            raise StorageFailedError(
                f"cannot read {self.name} again: {error.strerror}"
            ) from error
        found = Digest(self._algorithm, self._hash.hexdigest())
        if self._wanted not in (None, actual):
            raise DamagedError(f"{self.name} has {actual} bytes, not {self._wanted}")
        if not actual and not self.checked:
            raise DamagedError(f"the fetch of {self.name} gave nothing")
        if digest is not None and digest != found:
            raise DamagedError(f"{self.name} has digest {found}, not {digest}")
        return actual, found

    def _read_again(self) -> None:
        self._hash = hashlib.new(self._algorithm, usedforsecurity=False)
        position = 0
        while data := os.pread(self.descriptor, CHUNK, position):
            self._hash.update(data)
            position += len(data)
            self.progress()


def refuse_below(free: int, size: int, reserve_percent: float, needed: int) -> None:
    """Raise ``NoSpaceError`` if ``needed`` more bytes would eat into the reserve."""
    if (free - needed) * 100 < reserve_percent * size:
        raise NoSpaceError(
            f"{free} bytes are free and {needed} are needed, and {reserve_percent:g} % "
            "stay reserved: free some space, or lower the reserve"
        )


Fetch = Callable[[Partial], None]
"""Fills a partial file, or raises; whatever it raises reaches the caller."""
