"""One private server: started, watched, disturbed and stopped."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import subprocess
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from sharedcache.adapters.zookeeper_server.installation import find_installation
from sharedcache.adapters.zookeeper_server.launcher import start_child
from sharedcache.adapters.zookeeper_server.ports import (
    LOOPBACK,
    four_letter_word,
    free_ports,
)
from sharedcache.adapters.zookeeper_server.spec import LOGGING_FILES, render_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from sharedcache.adapters.zookeeper_server.spec import ServerSpec

START_DEADLINE_S = 60.0
POLL_S = 0.05
# More failures in a row than this to bind a port that was free a moment ago are
# not a race but a fault.
PORT_ATTEMPTS = 5
_STOP_GRACE_S = 5.0
_LOG_TAIL_LINES = 40
_LOG_TAIL_BYTES = 64 * 1024
_MAIN_CLASS = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


class ServerFailedError(RuntimeError):
    """A server ended or did not become ready; the message carries its log's tail."""


class DirectoryInUseError(OSError):
    """A server that was started from this directory still runs."""


class ServerMode(StrEnum):
    """What a server that serves says of itself."""

    STANDALONE = "standalone"
    LEADER = "leader"
    FOLLOWER = "follower"
    OBSERVER = "observer"
    READ_ONLY = "read-only"


class PrivateServer:
    """One ZooKeeper server in a directory of its own.

    As a context manager it is started and ready inside, and stopped after.  The
    directory keeps its data and its log, and a stopped server can be started
    again from it.  Raises ZooKeeperUnavailable if none can be started here.
    """

    def __init__(
        self, spec: ServerSpec, environ: Mapping[str, str] | None = None
    ) -> None:
        self.spec = spec
        self.log_path = spec.data_dir / "server.log"
        self._installation = find_installation(
            os.environ if environ is None else environ
        )
        self._port: int | None = spec.client_port
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._paused = False
        self._served = False
        self._log_start = 0
        self._token = f"sharedcache-{secrets.token_hex(8)}"

    @property
    def port(self) -> int:
        """The port for clients, final once `wait_ready` has returned."""
        if self._port is None:
            self._port = free_ports(1)[0]
        return self._port

    @property
    def address(self) -> str:
        """Where clients connect, as `host:port`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The JVM's process id, None unless it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the JVM is there, be it ready, starting or paused."""
        return self.pid is not None

    @property
    def exit_code(self) -> int | None:
        """What the JVM ended with, negative for a signal; None before it ended."""
        return None if self._process is None else self._process.poll()

    @property
    def wanted(self) -> bool:
        """Whether it is meant to run: started, and not stopped or killed by us."""
        return self._wanted

    @property
    def paused(self) -> bool:
        """Whether `pause` was the last word."""
        return self.running and self._paused

    @property
    def port_was_taken(self) -> bool:
        """Whether this start's log says that a port had another owner."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                return b"Address already in use" in log.read()
        except FileNotFoundError:
            return False

    def start(self) -> None:
        """Start the JVM and return at once; does nothing while it runs.

        Raises OSError if the directory cannot be written or Java cannot be run,
        DirectoryInUseError if somebody else's server still runs from it.
        """
        if self.running:
            return
        home = self.spec.data_dir
        (home / "conf").mkdir(parents=True, exist_ok=True)
        (home / "data").mkdir(exist_ok=True)
        with self.log_path.open("ab") as log:
            self._claim(log.fileno())
            self._configure()
            self._log_start = log.tell()
            self._process = start_child(
                self._command(), directory=home, output=log.fileno()
            )
        self._wanted = True
        self._paused = False

    def _claim(self, log: int) -> None:
        """Lock the log, for as long as the JVM has it open.

        The lock belongs to the open file that the JVM inherits, so it tells of
        one whose parent was killed before it could note it anywhere, and that
        does not end because it hangs in the kernel.  Two servers would ruin
        each other's data.
        """
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryInUseError(
                error.errno,
                "a ZooKeeper of an earlier run has not ended yet",
                str(self.spec.data_dir),
            ) from error

    def _configure(self) -> None:
        home = self.spec.data_dir
        (home / "zoo.cfg").write_text(render_config(self.spec, self.port))
        (home / "data" / "myid").write_text(f"{self.spec.server_id}\n")
        for name, text in LOGGING_FILES.items():
            (home / "conf" / name).write_text(text)

    def _command(self) -> list[str]:
        return [
            self._installation.java,
            f"-Xmx{self.spec.heap_mib}m",
            # A short life on a busy machine: start fast, with few threads.
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            "-XX:ErrorFile=./java-crash.log",
            "-Djava.net.preferIPv4Stack=true",
            "-Dzookeeper.jmx.log4j.disable=true",
            # The default grows its log by 64 MiB at the first write.
            "-Dzookeeper.preAllocSize=4096",
            f"-Dzookeeper.forceSync={'yes' if self.spec.fsync else 'no'}",
            # The four-letter word `envi` shows the user's name, which makes it a
            # place for a mark by which we know this server from another's.
            f"-Duser.name={self._token}",
            *self.spec.java_options,
            *("-cp", f"./conf:{self._installation.classpath}"),
            *(_MAIN_CLASS, "./zoo.cfg"),
        ]

    def mode(self) -> ServerMode | None:
        """Ask the server what it is; None unless it serves clients now.

        An answer from some other server that took our port counts as none.
        """
        try:
            lines = four_letter_word(self.port, "srvr").splitlines()
            modes = [line[6:] for line in lines if line.startswith("Mode: ")]
            if not modes or self._token not in four_letter_word(self.port, "envi"):
                return None
        except OSError:
            return None
        return ServerMode(modes[0])

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until the server serves clients.

        A new server that finds its port taken is started on another one, unless
        the port was asked for.  Raises ServerFailedError after `deadline_s`
        seconds, or at once if the JVM has ended.
        """
        deadline = time.monotonic() + deadline_s
        attempts = 1
        while self.mode() is None:
            if not self.running:
                movable = self.spec.client_port is None and not self._served
                if not (movable and self.port_was_taken and attempts < PORT_ATTEMPTS):
                    raise self._failure("has ended")
                attempts += 1
                self._port = None
                self.start()
            if time.monotonic() >= deadline:
                raise self._failure(f"was not ready after {deadline_s:g} s")
            time.sleep(POLL_S)
        self._served = True

    def _failure(self, what: str) -> ServerFailedError:
        return ServerFailedError(
            f"the ZooKeeper server at {self.address} {what}; the end of its log, "
            f"{self.log_path}:\n{self.log_tail()}",
        )

    def stop(self) -> None:
        """End the server with SIGTERM, or SIGKILL if it takes too long."""
        self._wanted = False
        if self._process is None:
            return
        self._process.terminate()
        # A paused process acts on SIGTERM only when it is continued.
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would, and wait until it is gone."""
        self._wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Freeze the server with SIGSTOP and return once it stands still.

        Its sockets stay open: to clients it is a server that does not answer.
        Raises ServerFailedError if it does not run.
        """
        pid = self.pid
        if pid is None:
            raise self._failure("does not run and cannot be paused")
        os.kill(pid, signal.SIGSTOP)
        # The end is waited for as well, or a server that was killed at the same
        # time would never stand still.  Its status is left for Popen to find.
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self._paused = True

    def resume(self) -> None:
        """Let a paused server go on; does nothing to any other."""
        if self.paused and self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self._paused = False

    def log_tail(self, lines: int = _LOG_TAIL_LINES) -> str:
        """Give the last `lines` lines of the server's log, at most 64 KiB."""
        try:
            with self.log_path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(0, end - _LOG_TAIL_BYTES))
                text = log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
