"""Two clients of one directory, each a process of its own on this machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

from sharedcache.adapters.zookeeper_server.launcher import start_child
from sharedcache.adapters.zookeeper_server.ports import LOOPBACK
from tests.support.channel import Remote, Switchboard
from tests.support.counted import counted
from tests.support.nfs.kernel import TREE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_S = 30.0


class Clients:
    """A late leader's client and its successor's."""

    def __init__(self, late: Remote, successor: Remote) -> None:
        self.late = late
        self.successor = successor

    @property
    def both(self) -> tuple[Remote, Remote]:
        """The two of them."""
        return self.late, self.successor


@contextlib.contextmanager
def local_clients(home: Path) -> Iterator[Clients]:
    """Start two processes that share a directory of this machine."""
    root = home / "storage"
    root.mkdir()
    with contextlib.ExitStack() as stack:
        board = stack.enter_context(Switchboard())
        remotes = [
            stack.enter_context(_local(board, home / f"{name}.log", root))
            for name in ("late", "successor")
        ]
        yield Clients(*remotes)


@contextlib.contextmanager
def _local(board: Switchboard, log: Path, root: Path) -> Iterator[Remote]:
    token = board.token()
    command = [
        *(sys.executable, "-m", "tests.support.hands"),
        *(LOOPBACK, str(board.port), token, str(root)),
    ]
    with log.open("wb") as output:
        process = start_child(command, directory=TREE, output=output.fileno())

    def alive() -> None:
        if process.poll() is not None:
            raise RuntimeError(f"a client ended at once: {log.read_text()}")

    remote: Remote | None = None
    try:
        remote = board.wait(token, _START_S, alive)
        yield remote
    finally:
        if remote is not None:
            remote.close()
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if counted():
        # That the other end hung up ends it; then it reports.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_START_S)
    process.kill()
    process.wait()
