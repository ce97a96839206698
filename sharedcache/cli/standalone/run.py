"""``sharedcache standalone`` from its first line to its last."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sharedcache import ledger
from sharedcache.adapters.settings import Settings
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.systemd import notify
from sharedcache.adapters.zookeeper_server import (
    DirectoryInUseError,
    PrivateServer,
    ServerSpec,
    ZooKeeperUnavailable,
    find_installation,
    free_ports,
    is_free,
)
from sharedcache.cleaner.finalize import Founded, RefusedError, found
from sharedcache.cli import wiring
from sharedcache.cli.failure import Failure, RefusedFailure
from sharedcache.cli.signals import heard
from sharedcache.cli.signing import signature
from sharedcache.cli.standalone import choice as chosen
from sharedcache.cli.standalone import guard
from sharedcache.cli.standalone.choice import Choice
from sharedcache.cli.standalone.display import Display
from sharedcache.cli.standalone.logs import LogFile, acts
from sharedcache.cli.standalone.parts import Part, Server, daemon
from sharedcache.cli.standalone.place import Place, State, new_state
from sharedcache.cli.standalone.supervisor import Supervisor
from sharedcache.cli.standalone.watch import Watch
from sharedcache.core.model import NANOSECONDS
from sharedcache.core.obstacles import spell

DONE, FAILED = 0, 1

_TICK_S = 0.2
_TRIM_S = 10.0
_READY_S = 60.0
_CONNECT_S = 10.0
_ORPHAN_S = 10.0
_PORT_S = 3.0
"""How long the port of the last run is waited for before another is taken."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Wanted:
    """How often a signal asked for the end: once to stop, twice to hurry."""

    asked: int = 0

    def stop(self) -> bool:
        """Whether to stop."""
        return self.asked > 0

    def hurry(self) -> bool:
        """Whether not to wait for anybody."""
        return self.asked > 1

    def ask(self, _number: int) -> None:
        """Take note of a signal."""
        self.asked += 1


@dataclass(slots=True)
class Standalone:
    """One run.  ``verbose`` shows what the parts log."""

    place: Place
    choice: Choice
    only_host: bool
    verbose: bool
    display: Display = field(default_factory=lambda: Display("sharedcache standalone"))
    wanted: Wanted = field(default_factory=Wanted)

    def run(self) -> int:
        """Run until a signal says to stop; return the exit status.

        Raises ``Failure`` and its kinds, ``SettingsError`` and ``OSError``
        for what keeps it from running; every part is stopped then.
        """
        try:
            find_installation(os.environ)
        except ZooKeeperUnavailable as error:
            raise Failure(f"standalone needs a ZooKeeper: {error}") from error
        # What is wrong with the options alone is said before anything is made.
        kept = self.place.load()
        self.place.check_outside(chosen.base_of(self.choice.after(kept), kept))
        self.place.make()
        with heard(_SIGNALS, self.wanted.ask), self.place.held():
            settings, state = self._settle()
            self.place.outlast_orphans()
            return self._supervised(settings, state)

    def _settle(self) -> tuple[Settings, State]:
        """Check everything that can be checked before anything is started."""
        kept = self.place.load()
        choice = self.choice.after(kept)
        base = chosen.base_of(choice, kept)
        if kept is not None and Path(base) != Path(kept.base):
            raise RefusedFailure(
                f"{self.place.path} is the data directory of {kept.base}, not of "
                f"{base}: give another --data"
            )
        state = kept or new_state(base, free_ports(1)[0])
        guard.check_base(Path(base), state.cluster)
        if not self.only_host:
            guard.check_alone(Path(base))
        state = self._with_port(state)
        with self.place.usable():
            settings, state = chosen.settle(choice, state, self.place.settings)
        self.choice = choice
        self.place.keep(state)
        note = guard.owner_note(Path(base))
        if note:
            self.display.say(note)
        return settings, state

    def _with_port(self, state: State) -> State:
        """Keep ZooKeeper's port, unless somebody else has it now."""
        until = time.monotonic() + _PORT_S
        while not is_free(state.port):
            if time.monotonic() >= until:
                port = free_ports(1)[0]
                self.display.say(
                    f"ZooKeeper's port {state.port} is somebody else's now; it takes "
                    f"{port}"
                )
                return replace(state, port=port)
            time.sleep(_TICK_S)
        return state

    def _supervised(self, settings: Settings, state: State) -> int:
        supervisor = Supervisor(self.display.say, self.place.note_parts)
        orderly = False
        try:
            self._start(supervisor, settings, state)
        finally:
            notify("STOPPING=1")
            orderly = supervisor.stop(self.wanted.hurry)
        self.display.say("Stopped." if orderly else "Stopped, not all in order.")
        return DONE if orderly else FAILED

    def _start(self, supervisor: Supervisor, settings: Settings, state: State) -> None:
        """Start the parts one after the other, then tend them."""
        server = self._server(state)
        self._start_alone(supervisor, server)
        self.display.say(f"ZooKeeper starts on 127.0.0.1:{state.port}")
        if not self._await_ready(server):
            return
        session = wiring.open_session(
            settings,
            wiring.cleaner_name("-watch"),
            session_timeout_s=settings.cleaner.session_timeout_s,
        )
        watch = Watch(settings, session)
        try:
            session.start(_CONNECT_S)
            self._say_founded(_found(settings, watch))
            daemons = self._daemons()
            for part in daemons:
                supervisor.start(part)
            self._say_how_to(settings)
            notify("READY=1\nSTATUS=Running")
            if self.display.terminal:
                watch.start()
            self._tend(supervisor, [server, *daemons], watch)
        finally:
            watch.stop()
            session.stop()

    def _start_alone(self, supervisor: Supervisor, server: Server) -> None:
        """Start ZooKeeper once no other one runs from its directory.

        One may that no note names: the run before was killed right after its
        start.
        """
        until = time.monotonic() + _ORPHAN_S
        while True:
            try:
                supervisor.start(server)
            except DirectoryInUseError as error:
                if time.monotonic() >= until:
                    raise Failure(
                        f"{error.filename}: {error.strerror}; it hangs in the kernel, "
                        "perhaps on storage that does not answer: start again once "
                        "it is gone"
                    ) from error
                time.sleep(_TICK_S)
            else:
                return

    def _server(self, state: State) -> Server:
        spec = ServerSpec(
            data_dir=self.place.zookeeper,
            client_port=state.port,
            # Nobody but us is to ask it for what it holds.
            options={"4lw.commands.whitelist": "srvr,envi"},
        )
        return Server(PrivateServer(spec), LogFile(self.place.log("zookeeper")))

    def _await_ready(self, server: Server) -> bool:
        """Wait until ZooKeeper serves; ``False`` if told to stop meanwhile."""
        until = time.monotonic() + _READY_S
        while not self.wanted.stop():
            if server.serving:
                return True
            late = time.monotonic() >= until
            if late or server.pid is None:
                raise Failure(
                    f"ZooKeeper {'is not ready' if late else 'has ended'}; the end of "
                    f"its log, {server.log.path}: {server.log.tail(5)}"
                )
            time.sleep(_TICK_S)
        return False

    def _daemons(self) -> list[Part]:
        files = chosen.chain(self.choice, self.place.settings)
        modules = {"agent": "agents.node", "cleaner": "agents.cleaner"}
        return [
            daemon(name, module, files, self.place.path, LogFile(self.place.log(name)))
            for name, module in modules.items()
        ]

    def _say_founded(self, done: Founded | str) -> None:
        if isinstance(done, str):
            self.display.say(f"Nothing is removed: {done}", style="red")
            return
        if not done.created:
            self.display.say(f"Going on with cluster {done.cluster.name}")
            return
        self.display.say(
            f"Begun: cluster {done.cluster.name}, schema {done.finalized_schema}; the "
            "directory is bound to it from now on"
        )
        self.display.say(
            "Nova's own cleaner must be off: [image_cache] "
            "remove_unused_base_images = False"
        )

    def _say_how_to(self, settings: Settings) -> None:
        ages = settings.cleaner.min_age_s
        self.display.say(
            f"Looking after {settings.base} by {', '.join(settings.agent.sources)}; a "
            f"file must be unused for {_spelled(max(ages.values()))} (the longest of "
            f"its kinds) and lie in quarantine for "
            f"{_spelled(settings.cleaner.grace_s)}"
        )
        files = ":".join(chosen.chain(self.choice, self.place.settings))
        self.display.say("The other commands work against it, for instance:")
        self.display.say(f"    SHAREDCACHE_CONFIG={files} sharedcache status")

    def _tend(
        self, supervisor: Supervisor, parts: Sequence[Part], watch: Watch
    ) -> None:
        trimmed = time.monotonic()
        self.display.begin()
        try:
            while not self.wanted.stop():
                supervisor.tend()
                for part in parts:
                    self._tell(part)
                if time.monotonic() - trimmed >= _TRIM_S:
                    trimmed = time.monotonic()
                    for part in parts:
                        part.log.trim()
                self.display.show(watch.sight, supervisor.standing)
                time.sleep(_TICK_S)
        finally:
            self.display.end()

    def _tell(self, part: Part) -> None:
        lines = part.log.follow()
        if self.verbose:
            for line in lines:
                self.display.say(f"{part.name} | {line}", style="dim")
        told = list(acts(lines))
        if told and not (self.verbose and not self.display.terminal):
            self.display.act(part.name, told)


def _spelled(seconds: float) -> str:
    return spell(int(seconds * NANOSECONDS))


def _found(settings: Settings, watch: Watch) -> Founded | str:
    """Bind directory and tree to one identity, or see that they are.

    Where ZooKeeper lost its data, that is told and not refused: with the parts
    running nothing is removed, and an operator can recover.
    """
    session = watch.session
    with DirectoryStorage(settings.require_base()) as storage:
        try:
            identity = uuid.uuid4().hex
            name, by = settings.cluster, signature()
            return found(session, storage, name, identity, None, by=by)
        except RefusedError as error:
            if ledger.cluster_of(session.get(ledger.IDENTITY)) is not None:
                raise
            return str(error)
