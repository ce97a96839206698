"""One host for ``sharedcache standalone``, with every effect of its own at hand.

The shipped code runs in this process on real files.  What is not real: its
children, which are noted instead of started; ZooKeeper, for which one in memory
answers while such a child lives; and time, which passes when somebody sleeps.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sharedcache import ledger
from sharedcache.adapters.zookeeper_server import Installation, server
from sharedcache.cli.standalone import parts, processes, run
from sharedcache.cli.standalone.choice import Choice
from sharedcache.cli.standalone.display import Display
from sharedcache.cli.standalone.place import Place
from sharedcache.cli.standalone.supervisor import Supervisor
from sharedcache.core.model import Cluster, Unreadable
from tests.simulation.memory_zookeeper import MemorySession, MemoryZooKeeper
from tests.support.crash import CrashedError

BEFORE, AFTER, TORN, REFUSED = "before", "after", "torn", "refused"
MODES = (BEFORE, AFTER, TORN, REFUSED)
"""The process dies before an effect, after it, half-way through what it wrote, or
the effect is refused with EIO."""

_OS = (
    *("mkdir", "rmdir", "rename", "replace", "unlink", "link", "symlink"),
    *("chmod", "fchmod", "truncate", "ftruncate", "utime", "write", "pwrite"),
)
"""Functions of ``os`` that change files."""

_KERNEL = frozenset({"kill", "killpg", "flock", "terminate"})
"""Effects that no disk refuses."""

_FTRUNCATE = os.ftruncate
"""The real one, for tearing."""

OPENS = frozenset({"open", "io.open"})
"""Effects that what is written after them is no part of."""


@dataclass(slots=True)
class Strike:
    """Strikes the effect number ``at`` (from 0) of one run."""

    at: int = -1
    mode: str = BEFORE
    log: list[str] = field(default_factory=list)
    struck: str = ""
    dead: bool = False

    def effect(
        self, name: str, call: Callable[..., Any], *given: Any, **more: Any
    ) -> Any:
        """Let one effect happen, or not."""
        if self.dead:
            # The kernel runs no clean-up of a process that was killed.
            raise CrashedError
        number = len(self.log)
        self.log.append(name)
        if number != self.at:
            return call(*given, **more)
        self.struck = name
        if self.mode == REFUSED:
            if name in _KERNEL:
                return call(*given, **more)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.mode == AFTER:
            made = call(*given, **more)
            if name in OPENS:
                # The kernel closes what a process that was killed had open.
                _close(made)
        if self.mode == TORN and name == "fsync":
            _tear(given[0])
        self.dead = True
        raise CrashedError


def _tear(opened: int) -> None:
    there = os.fstat(opened)
    if stat.S_ISREG(there.st_mode):
        _FTRUNCATE(opened, there.st_size // 2)


def _close(opened: int | io.IOBase) -> None:
    if isinstance(opened, int):
        os.close(opened)
    else:
        opened.close()


@dataclass(slots=True)
class Clock:
    """Stands for the module ``time``; ``on_sleep`` is called after each sleep."""

    now: float = 1000.0
    on_sleep: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        """Tell the time, in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.on_sleep()

    def strftime(self, form: str) -> str:
        """Tell the time as people do."""
        return time.strftime(form, time.gmtime(self.now))


class Child:
    """A process that was not started: alive until it is told to end.

    It holds what was given to it as its output, as a real one does.
    """

    def __init__(self, pid: int, command: Sequence[str], home: Path, out: int) -> None:
        self.pid = pid
        self.strike = Strike()
        self.command = tuple(command)
        self.home = home
        self.returncode: int | None = None
        self.ends_at: float | None = None
        self._out = os.dup(out)

    @property
    def zookeeper(self) -> bool:
        """Whether it is a ZooKeeper."""
        return "./zoo.cfg" in self.command

    def port(self) -> int:
        """Read the port that a ZooKeeper listens at."""
        lines = (self.home / "zoo.cfg").read_text().splitlines()
        return int(dict(line.split("=", 1) for line in lines)["clientPort"])

    def end(self, code: int) -> None:
        """End it."""
        if self.returncode is None:
            self.returncode = code
            os.close(self._out)

    def poll(self) -> int | None:
        """See ``Popen``."""
        return self.returncode

    def terminate(self) -> None:
        """See ``Popen``: it ends in order."""
        code = 128 + signal.SIGTERM if self.zookeeper else 0
        self.strike.effect("terminate", self.end, code)

    def kill(self) -> None:
        """See ``Popen``."""
        self.strike.effect("kill", self.end, -signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """See ``Popen``; nothing here is stopped that could be continued."""
        del number

    def wait(self, timeout: float | None = None) -> int:
        """See ``Popen``: whoever waits has asked it to end."""
        del timeout
        assert self.returncode is not None
        return self.returncode


@dataclass
class LoneHost:
    """The directories, what runs, and what must never be seen.

    ``lingers_s`` is how long a child that the kernel kills with its parent is
    still there: one that hangs in the kernel ends when its call returns.
    ``kills`` has the ZooKeeper end once by itself, so that it is started again.
    """

    root: Path
    lingers_s: float = 0.0
    kills: bool = False
    clock: Clock = field(default_factory=Clock)
    strike: Strike = field(default_factory=Strike)
    children: list[Child] = field(default_factory=list)
    trees: dict[Path, MemoryZooKeeper] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        """Make a cache with two files, and a uses file."""
        self.base = self.root / "instances" / "_base"
        self.base.mkdir(parents=True)
        self.files = {"a" * 40: b"one", "b" * 40: b"two"}
        for name, data in self.files.items():
            (self.base / name).write_bytes(data)
        (self.root / "uses.json").write_text(json.dumps({"images": []}))
        self.data = self.root / "data"

    @property
    def alive(self) -> list[Child]:
        """The children that have not ended."""
        return [one for one in self.children if one.returncode is None]

    # What stands for the world.

    def spawn(
        self, command: Sequence[str], *, directory: Path, output: int, **_: object
    ) -> Child:
        """Stand for ``start_child``."""
        return self.strike.effect(  # type: ignore[no-any-return]
            "spawn", self._born, command, directory, output
        )

    def _born(self, command: Sequence[str], directory: Path, output: int) -> Child:
        born = Child(5000 + len(self.children), command, directory, output)
        if born.zookeeper and any(
            one.zookeeper and one.home == born.home for one in self.alive
        ):
            self.wrong.append("two ZooKeepers on one directory")
        born.strike = self.strike
        self.children.append(born)
        return born

    def _kill(self, pid: int, _number: int) -> None:
        """Stand for ``kill``; who hangs in the kernel does not end by it."""
        for one in self.alive:
            if one.pid == pid and one.ends_at is None:
                one.end(-signal.SIGKILL)

    def answer(self, port: int, word: str) -> str:
        """Stand for a four-letter word's answer."""
        for one in self.alive:
            if one.zookeeper and one.port() == port:
                return "Mode: standalone" if word == "srvr" else str(one.command)
        raise ConnectionRefusedError

    def free(self, port: int) -> bool:
        """Whether no ZooKeeper listens at a port."""
        return all(one.port() != port for one in self.alive if one.zookeeper)

    def identity(self, pid: int) -> str:
        """Stand for what the kernel says of a process."""
        return f"boot {pid} 1" if pid in {one.pid for one in self.alive} else ""

    def session(self, settings: Any, member: str, **_: object) -> MemorySession:
        """Stand for a session with the ZooKeeper that lives."""
        port = int(settings.zookeeper.rpartition(":")[2])
        homes = [o.home for o in self.alive if o.zookeeper and o.port() == port]
        tree = self.trees.setdefault(homes[0], MemoryZooKeeper(self.clock.monotonic))
        session = MemorySession(tree, member, self.clock.monotonic)
        for name in ("ensure", "commit"):
            call = getattr(session, name)
            setattr(session, name, partial(self.strike.effect, name, call))
        return session

    def _passes(self) -> None:
        for one in self.alive:
            if one.ends_at is not None and self.clock.now >= one.ends_at:
                one.end(-signal.SIGKILL)

    # Runs.

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put this host in the place of the world, for the shipped code."""
        self.clock.on_sleep = self._passes
        with pytest.MonkeyPatch.context() as patch:
            for module in (server, parts):
                patch.setattr(module, "start_child", self.spawn)
            for module in (run, parts, processes, server):
                patch.setattr(module, "time", self.clock)
            for module in (server, run):
                patch.setattr(
                    module, "find_installation", lambda _: Installation("java", "x")
                )
            patch.setattr(server, "four_letter_word", self.answer)
            patch.setattr(run, "is_free", self.free)
            patch.setattr(processes, "identity", self.identity)
            patch.setattr(run.wiring, "open_session", self.session)
            supervisor = partial(Supervisor, clock=self.clock.monotonic)
            patch.setattr(run, "Supervisor", supervisor)
            yield

    @contextmanager
    def _struck(self) -> Iterator[None]:
        """Send every effect of the run through the strike."""
        strike = self.strike
        really_open, really_io = os.open, io.open

        def opening(path: Any, flags: int, *given: Any, **more: Any) -> int:
            if flags & (os.O_CREAT | os.O_TRUNC):
                return strike.effect(  # type: ignore[no-any-return]
                    "open", really_open, path, flags, *given, **more
                )
            return really_open(path, flags, *given, **more)

        def io_opening(file: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return really_io(file, mode, *given, **more)
            return strike.effect("io.open", really_io, file, mode, *given, **more)

        with pytest.MonkeyPatch.context() as patch:
            for name in _OS:
                patch.setattr(os, name, partial(strike.effect, name, getattr(os, name)))
            # A process that dies loses nothing that was only not synchronised.
            patch.setattr(os, "fsync", partial(strike.effect, "fsync", os.fstat))
            for name in ("kill", "killpg"):
                patch.setattr(os, name, partial(strike.effect, name, self._kill))
            patch.setattr(fcntl, "flock", partial(strike.effect, "flock", fcntl.flock))
            patch.setattr(os, "open", opening)
            patch.setattr(io, "open", io_opening)
            patch.setattr(builtins, "open", io_opening)
            yield

    def run(self, strike: Strike | None = None) -> int | BaseException:
        """Run it once, until told to stop; return its status or what it raised."""
        self.strike = strike or Strike()
        wanted = _StopsLater(self)
        sources = Choice(
            instances=str(self.root / "instances"),
            uses_file=str(self.root / "uses.json"),
        )
        display = Display("standalone", Console(file=self.said))
        command = run.Standalone(
            Place(self.data), sources, only_host=True, verbose=False, display=display
        )
        command.wanted = wanted
        try:
            with self._struck():
                return command.run()
        except CrashedError as error:
            for one in self.alive:
                one.ends_at = self.clock.now + self.lingers_s
            self._passes()
            return error
        except Exception as error:  # noqa: BLE001 - whatever it told the operator.
            return error

    # What there is.

    def marker(self) -> Cluster | None:
        """Read the identity of the cache directory."""
        path = self.base / ".sharedcache" / "cluster"
        if not path.exists():
            return None
        found = ledger.marker_of(path.read_bytes())
        assert not isinstance(found, Unreadable)
        return found

    def tree(self) -> Cluster | None:
        """Read the identity that ZooKeeper has."""
        for one in self.trees.values():
            found = ledger.cluster_of(one.record(ledger.IDENTITY))
            assert not isinstance(found, Unreadable)
            return found
        return None


class _StopsLater(run.Wanted):
    """Asks for the end once all parts ran for a while."""

    def __init__(self, host: LoneHost) -> None:
        super().__init__()
        self._host = host
        self._looks = 0
        self._killed = not host.kills

    def stop(self) -> bool:
        """Whether to stop."""
        alive = self._host.alive
        if len(alive) == 3:
            self._looks += 1
            if not self._killed:
                self._killed = True
                next(one for one in alive if one.zookeeper).end(-signal.SIGKILL)
        return self.asked > 0 or self._looks > 2
