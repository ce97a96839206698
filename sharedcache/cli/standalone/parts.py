"""The three parts: a ZooKeeper, an agent and a cleaner, each a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sharedcache.adapters.zookeeper_server import PrivateServer, start_child
from sharedcache.cli.children import environment
from sharedcache.cli.standalone.logs import LogFile

_POLL_S = 0.05
STOP_S = 20.0
"""How long a daemon may take to stop in order, in seconds."""

WRONG_SETTINGS = 2
"""The exit code of a daemon whose settings do not become right by trying on."""


class Part(Protocol):
    """One part, as the supervisor sees it."""

    name: str
    log: LogFile

    @property
    def pid(self) -> int | None:
        """Its process; ``None`` unless it runs."""
        ...

    @property
    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal; ``None`` while it runs."""
        ...

    def start(self) -> None:
        """Start it, again if it ran before; raises ``OSError``."""
        ...

    def stop(self, hurry: Callable[[], bool]) -> bool:
        """Stop it; whether that was in order.  ``hurry`` says not to wait."""
        ...


class Daemon:
    """An agent or a cleaner, in a process group of its own."""

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, log: LogFile
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process; ``None`` unless it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal; ``None`` while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it; the kernel ends it with this process."""
        output = self.log.open()
        try:
            self._process = start_child(
                self._command,
                directory=self._directory,
                output=output,
                environ=environment(),
            )
        finally:
            os.close(output)

    def stop(self, hurry: Callable[[], bool]) -> bool:
        """Ask it to stop, and kill it with its helpers if it does not."""
        process = self._process
        if process is None or process.poll() is not None:
            return True
        process.terminate()
        until = time.monotonic() + STOP_S
        while process.poll() is None:
            if hurry() or time.monotonic() >= until:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return False
            time.sleep(_POLL_S)
        # One that was only just started has not begun to listen to signals, and
        # has not begun anything else either.
        return process.returncode in {0, -signal.SIGTERM}


def daemon(
    name: str, module: str, settings: Sequence[str], directory: Path, log: LogFile
) -> Daemon:
    """Make one of our daemons, which logs to standard error whatever files say."""
    command = [
        *(sys.executable, "-m", module),
        *(f"--config-file={path}" for path in settings),
        *("--log-file=", "--log-dir=", "--nouse-journal", "--nouse-json"),
    ]
    return Daemon(name, command, directory, log)


class Server:
    """The private ZooKeeper."""

    name = "zookeeper"

    def __init__(self, server: PrivateServer, log: LogFile) -> None:
        self._server = server
        self.log = log
        server.log_path = log.path

    @property
    def pid(self) -> int | None:
        """Its process; ``None`` unless it runs."""
        return self._server.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal; ``None`` while it runs."""
        return self._server.exit_code

    def start(self) -> None:
        """Start it, and do not wait until it serves: its clients do that."""
        # Whoever makes the log decides who may read it.
        os.close(self.log.open())
        self._server.start()

    @property
    def serving(self) -> bool:
        """Whether it answers its clients."""
        return self._server.mode() is not None

    def stop(self, hurry: Callable[[], bool]) -> bool:
        """End it: ZooKeeper loses nothing that it has acknowledged."""
        if hurry():
            self._server.kill()
            return False
        self._server.stop()
        # A JVM that was asked to end says 128 and the signal's number.
        return self._server.exit_code in {None, 0, 128 + signal.SIGTERM}


def how_it_ended(code: int | None) -> str:
    """Say an exit code as people do."""
    if code is None:
        return "is not there"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
