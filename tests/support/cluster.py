"""A whole cluster for tests: real agents and cleaners as processes, one directory."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sharedcache.adapters.zookeeper_server import start_child
from tests.support.counted import counted
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FAST_AGENT: Mapping[str, object] = {
    "report_interval_s": 0.3,
    "touch_interval_s": 60,
    "session_timeout_s": 4,
}
"""Settings of an agent that is done looking before a test is tired of waiting."""

FAST_CLEANER: Mapping[str, object] = {
    "pass_interval_s": 0.5,
    "session_timeout_s": 4,
    "round_interval_s": 0.2,
    "grace_s": 0.2,
    "min_age_image_s": 0,
    "min_age_resized_s": 0,
    "min_age_partial_s": 0,
}
"""Settings of a cleaner that takes and purges within a few rounds."""

OLD_S = 7 * 86400.0
_COMMAND_S = 90.0
_STOP_S = 20.0
_TAIL_LINES = 60


def cache_name(image_id: str) -> str:
    """Name a file of the new naming, as Nova does."""
    return hashlib.sha1(image_id.encode()).hexdigest()  # noqa: S324 - Nova's naming


def image_id(number: int) -> str:
    """Make an image id that is easy to find again in a log."""
    return f"{number:08x}-0000-4000-8000-{number:012x}"


@dataclass(frozen=True)
class Answer:
    """What came of one ``sharedcache`` command."""

    command: str
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Read the standard output as JSON."""
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise AssertionError(f"no JSON from {self}") from error


@dataclass
class Daemon:
    """One agent or cleaner: its settings, and its process while it runs.

    ``prefix`` is a program, by its absolute path, that runs it as another user.
    """

    name: str
    module: str
    config: Path
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there, be it stopped by a signal or not."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the last run."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    def start(self) -> None:
        """Start it, again if it ran before."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as output:
            self.process = start_child(
                [
                    *self.prefix,
                    *(sys.executable, "-m", self.module),
                    *("--config-file", str(self.config)),
                ],
                directory=self.config.parent,
                output=output.fileno(),
                environ=clean_environment(**self.environ),
            )

    def signal(self, number: int) -> None:
        """Send a signal to the process; one that has ended gets none."""
        assert self.process is not None, f"{self.name} was never started"
        self.process.send_signal(number)

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: it does nothing and knows nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> int:
        """End it without a chance to say anything; return its exit code."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def stop(self) -> int:
        """Ask it to stop; return its exit code.  Fails if it does not."""
        self.resume()
        assert self.process is not None
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended by itself; return its exit code."""
        assert self.process is not None
        return self.process.wait(_STOP_S)

    def tail(self) -> str:
        """Return the end of its log."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])


@dataclass
class Cluster:
    """A base directory, its daemons, and an operator's command line.

    ``zookeeper`` is ``host:port``, ``name`` the cluster's.  Nothing is started
    and nothing initialised by itself.  ``environ`` adds to the environment of the
    operator's commands.  As a context manager it ends every
    process at the end and prints their logs, which pytest shows on a failure.
    """

    root: Path
    zookeeper: str
    name: str
    cleaner_settings: Mapping[str, object] = field(default_factory=dict)
    daemons: dict[str, Daemon] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the directories and the operator's settings."""
        self.base.mkdir(parents=True)
        (self.root / "uses").mkdir()
        self.operator_config = self.write_config("operator", {})

    def clean_by(self, **settings: object) -> None:
        """Change ``[cleaner]`` for the operator and for daemons made later."""
        self.cleaner_settings = {**self.cleaner_settings, **settings}
        self.operator_config = self.write_config("operator", {})

    def __enter__(self) -> Self:
        """Use the cluster for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every process and show what it logged."""
        self.close()
        for daemon in self.daemons.values():
            print(f"--- {daemon.name} ({daemon.log})\n{daemon.tail()}")  # noqa: T201

    def close(self) -> None:
        """End every process at once; when `make coverage` counts, let each report."""
        running = [daemon for daemon in self.daemons.values() if daemon.running]
        if counted():
            for daemon in running:
                daemon.resume()
                daemon.signal(signal.SIGTERM)
            for daemon in running:
                with suppress(subprocess.TimeoutExpired):
                    daemon.wait()
        for daemon in running:
            if daemon.running:
                daemon.kill()

    @property
    def base(self) -> Path:
        """The shared cache directory."""
        return self.root / "instances" / "_base"

    # Files

    def put(
        self, name: str, content: bytes = b"x" * 1000, age_s: float = OLD_S
    ) -> Path:
        """Put a file into the cache directory, last used ``age_s`` seconds ago."""
        path = self.base / name
        path.write_bytes(content)
        then = time.time() - age_s
        os.utime(path, (then, then))
        return path

    def names(self) -> set[str]:
        """List the files in the cache directory."""
        return {p.name for p in self.base.iterdir() if p.name != ".sharedcache"}

    def quarantined(self) -> set[str]:
        """List the cache names of what lies in quarantine on the storage."""
        epochs = self.base / ".sharedcache" / "epochs"
        return {path.name.rsplit(".", 2)[0] for path in epochs.glob("*/*")}

    # Daemons

    def agent(
        self,
        node: str,
        /,
        *,
        uses: Mapping[str, Iterable[str]] | None = None,
        start: bool = True,
        **settings: object,
    ) -> Daemon:
        """Make an agent with a uses file, and start it.

        ``uses`` is the uses file's content; more settings are ``[agent]``'s.
        """
        self.use(node, **(uses or {}))
        values = {"node": node, "uses_file": self._uses_file(node)}
        section = {**values, **FAST_AGENT, **settings}
        return self._daemon(node, "agents.node", {"agent": section}, start=start)

    def cleaner(
        self, name: str = "cleaner-1", /, *, start: bool = True, **settings: object
    ) -> Daemon:
        """Make a cleaner and start it; more settings are ``[cleaner]``'s."""
        section = self._cleaner_section(settings)
        return self._daemon(name, "agents.cleaner", {"cleaner": section}, start=start)

    def use(self, node: str, **uses: Iterable[str]) -> None:
        """Write a node's uses file whole: images, kernels, ramdisks, names."""
        path = self._uses_file(node)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({key: list(ids) for key, ids in uses.items()}))
        fresh.replace(path)

    def _uses_file(self, node: str) -> Path:
        return self.root / "uses" / f"{node}.json"

    def _cleaner_section(self, settings: Mapping[str, object]) -> dict[str, object]:
        return {**FAST_CLEANER, **self.cleaner_settings, **settings}

    def _daemon(
        self,
        name: str,
        module: str,
        sections: Mapping[str, Mapping[str, object]],
        *,
        start: bool,
    ) -> Daemon:
        config = self.write_config(name, sections)
        daemon = Daemon(name, module, config, self.root / f"{name}.log")
        self.daemons[name] = daemon
        if start:
            daemon.start()
        return daemon

    def write_config(
        self, name: str, sections: Mapping[str, Mapping[str, object]]
    ) -> Path:
        """Write a settings file for one process, the shared sections included."""
        shared = {
            "base": self.base,
            "zookeeper": self.zookeeper,
            "cluster": self.name,
        }
        every = {
            "sharedcache": shared,
            "cleaner": self._cleaner_section({}),
            **sections,
        }
        lines: list[str] = []
        for section, settings in every.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {value}" for key, value in settings.items()]
        path = self.root / f"{name}.conf"
        path.write_text("\n".join([*lines, ""]))
        return path

    # The operator

    def run(self, *arguments: str) -> Answer:
        """Run one ``sharedcache`` command as an operator would, from a script."""
        done = subprocess.run(
            [sys.executable, "-m", "sharedcache.cli.main", *arguments],
            cwd=self.root,
            env=clean_environment(
                **{"SHAREDCACHE_CONFIG": str(self.operator_config), **self.environ}
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=_COMMAND_S,
            check=False,
        )
        command = " ".join(("sharedcache", *arguments))
        return Answer(command, done.returncode, done.stdout, done.stderr)

    def ask(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with ``-f json``; return its JSON, if it exits as expected."""
        answer = self.run(*arguments, "-f", "json")
        assert answer.code == code, answer
        return answer.json()

    def init(self, *arguments: str) -> Any:
        """Initialise the cluster."""
        return self.ask("init", *arguments)

    def gate_codes(self) -> set[str]:
        """Name the reasons for which the gate is closed."""
        return {r["code"] for r in self.ask("status")["gate"]["reasons"]}

    def live_nodes(self) -> set[str]:
        """Name the nodes that are live."""
        return {n["node"] for n in self.ask("node", "list") if n["state"] == "live"}

    def wait_live(self, *nodes: str, deadline_s: float = 30.0) -> None:
        """Wait until these nodes are live."""
        self.wait(lambda: self.live_nodes() >= set(nodes), f"{nodes} live", deadline_s)

    def wait(
        self, predicate: Callable[[], object], what: str, deadline_s: float = 30.0
    ) -> None:
        """Wait for something, with what is awaited named if it does not come."""
        eventually(predicate, deadline_s, what)


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of ours, and with some."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SHAREDCACHE_")}
    return {**kept, **more}
