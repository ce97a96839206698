"""The demo's processes: real servers, agents and cleaners, and the operator.

Every one is the program that a production site runs, started by its own
command with a settings file of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharedcache.adapters.zookeeper_server import (
    PrivateEnsemble,
    PrivateServer,
    ServerSpec,
    start_child,
)
from sharedcache.cli.children import environment, ini
from sharedcache.cli.demo.pace import Pace
from sharedcache.cli.demo.world import NODES, World

CLUSTER = "demo"

_OPERATOR_S = 30.0
"""How long one command of the operator may take, in seconds."""

_STOP_S = 10.0
"""How long a daemon may take to stop in order, in seconds."""

_TAIL_LINES = 15


class FleetError(Exception):
    """A process is not what the story needs it to be; the message names it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command of the operator came to."""

    command: str
    code: int
    output: str
    complaint: str

    @property
    def text(self) -> str:
        """Everything that it said."""
        return "\n".join(part for part in (self.output, self.complaint) if part)


@dataclass(frozen=True, slots=True)
class Daemon:
    """One running agent or cleaner."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(slots=True)
class Fleet:
    """Starts, watches and ends every process of one demo."""

    world: World
    pace: Pace
    servers: int = 1
    _zookeeper: PrivateServer | PrivateEnsemble | None = None
    _daemons: dict[str, Daemon] = field(default_factory=dict)

    # ZooKeeper

    def start_zookeeper(self) -> None:
        """Start the private servers and wait until they serve.

        Raises ``ZooKeeperUnavailable``, or ``ServerFailedError`` with the log.
        """
        spec = ServerSpec(data_dir=self.world.root / "zookeeper", fsync=False)
        if self.servers == 1:
            self._zookeeper = PrivateServer(spec)
        else:
            self._zookeeper = PrivateEnsemble(self.servers, spec)
        self._zookeeper.start()
        self._zookeeper.wait_ready(self.pace.patience_s)

    @property
    def addresses(self) -> str:
        """Where clients find ZooKeeper."""
        if isinstance(self._zookeeper, PrivateServer):
            return self._zookeeper.address
        if self._zookeeper is None:
            raise FleetError("ZooKeeper was not started")
        return self._zookeeper.addresses

    # Daemons

    def start_agent(self, node: str, **settings: object) -> None:
        """Start a node's agent; more settings are ``[agent]``'s.

        ``schema_version=1`` stands for an older release.
        """
        world = self.world
        section: dict[str, object] = {
            "node": node,
            "sources": "instances,uses-file",
            "instances_path": world.instances(node),
            "uses_file": world.uses_file(node),
            **self.pace.agent(),
            **settings,
        }
        self._start("agents.node", node, {"agent": section})

    def start_cleaner(self, name: str) -> None:
        """Start a cleaner."""
        self._start("agents.cleaner", name, {"cleaner": self.pace.cleaner()})

    def _start(
        self, module: str, name: str, sections: Mapping[str, Mapping[str, object]]
    ) -> None:
        log = self.world.logs / f"{name}.log"
        with log.open("ab") as output:
            process = start_child(
                [
                    *(sys.executable, "-m", module),
                    *("--config-file", str(self._settings(name, sections))),
                ],
                directory=self.world.root,
                output=output.fileno(),
                environ=environment(),
            )
        self._daemons[name] = Daemon(name, process, log)

    def stop(self, *names: str) -> dict[str, int]:
        """Ask daemons to stop, all at once; return their exit codes.

        One that does not stop in time is killed, and its code is negative.
        """
        leaving = [self._daemons.pop(name) for name in names if name in self._daemons]
        for daemon in leaving:
            daemon.process.terminate()
        until = time.monotonic() + _STOP_S
        return {daemon.name: _end(daemon.process, until) for daemon in leaving}

    def await_end(self, name: str) -> int:
        """Wait for a daemon that ends by itself; return its exit code."""
        daemon = self._daemons.pop(name)
        return _end(daemon.process, time.monotonic() + _OPERATOR_S)

    def kill(self, name: str) -> int:
        """End a daemon and its helpers with SIGKILL; return its exit code."""
        process = self._daemons.pop(name).process
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def log_of(self, name: str) -> str:
        """Return what a daemon has logged so far."""
        return (self.world.logs / f"{name}.log").read_text("utf-8", "replace")

    def named(self, leader: str | None) -> str | None:
        """Return which cleaner the leader is: one is called <host>-<process id>."""
        for daemon in self._daemons.values():
            if leader is not None and leader.endswith(f"-{daemon.process.pid}"):
                return daemon.name
        return None

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the daemons that were started and not stopped."""
        return tuple(self._daemons)

    def check(self) -> None:
        """Raise ``FleetError`` if a process ended that nobody stopped."""
        for daemon in self._daemons.values():
            code = daemon.process.poll()
            if code is not None:
                raise FleetError(f"{daemon.name} ended by itself with exit code {code}")
        if self._zookeeper is not None and not self._zookeeper.running:
            raise FleetError("ZooKeeper ended by itself")

    def close(self) -> None:
        """End every process, in order where it is possible."""
        try:
            self.stop(*self._daemons)
        finally:
            if self._zookeeper is not None:
                self._zookeeper.kill()

    def tails(self) -> Iterator[tuple[str, str]]:
        """Give the end of every process's log."""
        for log in sorted(self.world.logs.glob("*.log")):
            lines = log.read_text("utf-8", "replace").splitlines()
            yield log.stem, "\n".join(lines[-_TAIL_LINES:])
        if self._zookeeper is not None:
            yield "zookeeper", self._zookeeper.log_tail(_TAIL_LINES)

    # The operator

    def operate(self, *arguments: str) -> Answer:
        """Run one ``sharedcache`` command as an operator would.

        Raises ``FleetError`` if it does not end in time.
        """
        settings = self._settings("operator", {"cleaner": self.pace.cleaner()})
        shown = " ".join(("sharedcache", *arguments))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "sharedcache.cli.main", *arguments],
                cwd=self.world.root,
                env=environment(SHAREDCACHE_CONFIG=str(settings)),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_OPERATOR_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FleetError(f"`{shown}` took longer than {_OPERATOR_S:g} s") from error
        return Answer(
            shown, done.returncode, done.stdout.rstrip(), done.stderr.rstrip()
        )

    def ask(self, *arguments: str) -> Any:
        """Run a command that only looks; return its JSON.

        Raises ``FleetError`` if it fails or says no JSON.
        """
        answer = self.operate(*arguments, "-f", "json")
        if answer.code != 0:
            raise FleetError(f"`{answer.command}` failed: {answer.text}")
        try:
            return json.loads(answer.output)
        except ValueError as error:
            raise FleetError(f"`{answer.command}` said no JSON: {error}") from error

    # Settings

    def _settings(
        self, name: str, sections: Mapping[str, Mapping[str, object]]
    ) -> Path:
        """Write one process's settings file."""
        shared = {
            "base": self.world.base,
            "zookeeper": self.addresses,
            "cluster": CLUSTER,
            "lock_path": self.world.locks,
        }
        path = self.world.root / f"{name}.conf"
        path.write_text(ini({"sharedcache": shared, **sections}), "utf-8")
        return path


def _end(process: subprocess.Popen[bytes], until: float) -> int:
    """Wait for a process that was asked to stop; kill it when the time is over."""
    try:
        return process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        # Its group is its own, so that its helpers go with it.
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def nodes_of(listed: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Index what ``node list`` said, the demo's nodes first."""
    by_name = {str(one["node"]): one for one in listed}
    return {name: by_name[name] for name in NODES if name in by_name} | by_name
