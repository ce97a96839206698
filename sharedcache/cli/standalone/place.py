"""The data directory: what one standalone keeps, and who may use it now."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from sharedcache.cli.failure import Failure, RefusedFailure
from sharedcache.cli.standalone import processes

SETTINGS = "sharedcache.conf"
_STATE = "standalone.json"
_LOCK = "lock"
_PARTS = "parts.json"
_VERSION = 1
_OURS = frozenset({_LOCK, _PARTS, _STATE, SETTINGS, "logs", "zookeeper"})
_SYSTEM = Path("/var/lib/sharedcache")
_ORPHANS_S = 10.0
"""How long to wait for the processes of a run that was killed, in seconds."""


def default_directory(environ: Mapping[str, str], *, root: bool) -> Path:
    """Return where data is kept: the system's place, or the user's (XDG)."""
    if root:
        return _SYSTEM
    state = environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        # The XDG specification: a relative path is not to be used.
        state = str(Path(environ.get("HOME") or Path.home()) / ".local/state")
    return Path(state) / "sharedcache"


@dataclass(frozen=True, slots=True)
class State:
    """What is kept from one start to the next.

    ``cluster`` is a name that no other data directory has, so that a base
    that was begun with another one is known by its marker.  ``port`` is
    ZooKeeper's on loopback, ``password`` the one that its nodes are for.
    """

    base: str
    cluster: str
    port: int
    password: str
    node: str = ""
    instances: str = ""
    uses_file: str = ""
    config_files: tuple[str, ...] = ()
    version: int = _VERSION


def new_state(base: str, port: int) -> State:
    """Make the state of a first start."""
    return State(
        base=base,
        cluster=f"standalone-{secrets.token_hex(4)}",
        port=port,
        password=secrets.token_urlsafe(24),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """The data directory, for the user alone."""

    path: Path

    @property
    def settings(self) -> Path:
        """The settings file, for the parts and for an operator's commands."""
        return self.path / SETTINGS

    @property
    def zookeeper(self) -> Path:
        """ZooKeeper's own directory."""
        return self.path / "zookeeper"

    def log(self, part: str) -> Path:
        """Return a part's log."""
        return self.path / "logs" / f"{part}.log"

    @contextmanager
    def usable(self) -> Iterator[None]:
        """Say of a failure of the file system whose it is, and what to do."""
        try:
            yield
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> Failure:
        return Failure(
            f"the data directory {self.path} cannot be used "
            f"({error.strerror or error}: {error.filename or self.path}): mend that, "
            "or give another --data"
        )

    def check_outside(self, base: str) -> None:
        """Raise ``RefusedFailure`` if the directory lies in ``base``, the cache."""
        here = Path(os.path.realpath(self.path))
        if Path(os.path.realpath(base)) in (here, *here.parents):
            raise RefusedFailure(
                f"{self.path} lies in the cache directory {base}: give a --data "
                "directory outside of it"
            )

    def make(self) -> None:
        """Make the directory, or see that it is ours.

        Raises ``RefusedFailure`` if it is somebody else's, and ``Failure`` if
        it cannot be made.
        """
        with self.usable():
            self._make()

    def _make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.stat().st_uid != os.geteuid():
            raise RefusedFailure(
                f"{self.path} belongs to another user: start it as that user, or "
                "give another --data"
            )
        strange = {entry.name for entry in self.path.iterdir() if not _is_ours(entry)}
        if strange and not (self.path / _STATE).exists():
            raise RefusedFailure(
                f"{self.path} holds something else ({min(strange)}): give --data an "
                "empty directory or a new one"
            )
        # The password lies in it; a directory that was there may be open.
        self.path.chmod(0o700)
        (self.path / "logs").mkdir(exist_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for this process alone.

        The kernel lets go of the lock when the process ends, however it ends.
        Raises ``RefusedFailure`` with who holds it.
        """
        with self.usable():
            lock = (self.path / _LOCK).open("a+", encoding="utf-8")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise RefusedFailure(
                    f"{self.path} is in use by another standalone, {holder}: stop "
                    "that one, or give another --data"
                ) from error
            # On a full disk nobody learns who holds it; it is held all the same.
            with suppress(OSError):
                lock.truncate(0)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                lock.write(f"process {os.getpid()} since {since}\n")
                lock.flush()
            yield

    def load(self) -> State | None:
        """Read what an earlier start kept; ``None`` if this is the first.

        Raises ``Failure`` if it cannot be understood.
        """
        path = self.path / _STATE
        try:
            kept = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure(error) from error
        except ValueError as error:
            raise Failure(f"{path} cannot be read: {error}") from error
        if not isinstance(kept, dict) or kept.get("version") != _VERSION:
            raise Failure(f"{path} is from another release of sharedcache")
        known = {one.name for one in fields(State)}
        try:
            state = State(**{key: kept[key] for key in kept if key in known})
        except TypeError as error:
            raise Failure(f"{path} lacks something: {error}") from error
        return replace(state, config_files=tuple(state.config_files))

    def keep(self, state: State) -> None:
        """Write the state, whole or not at all."""
        with self.usable():
            told = json.dumps(asdict(state), indent=1) + "\n"
            write_private(self.path / _STATE, told)

    def note_parts(self, running: Mapping[str, int]) -> None:
        """Note the processes that run, for a start after this one was killed."""
        named = {name: processes.identity(pid) for name, pid in running.items()}
        write_private(self.path / _PARTS, json.dumps(named) + "\n")

    def outlast_orphans(self) -> None:
        """Wait until no process of an earlier run is left.

        Raises ``Failure`` naming those that do not go.
        """
        try:
            named = json.loads((self.path / _PARTS).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            # There was no run, or it was killed before its first note was whole.
            return
        known = {str(name): str(one) for name, one in dict(named).items()}
        left = processes.outlast(known, _ORPHANS_S)
        if left:
            raise Failure(
                f"processes of the run before do not end: {', '.join(left)}; they hang "
                "in the kernel, perhaps on storage that does not answer"
            )


def _is_ours(entry: Path) -> bool:
    """Whether an entry is ours, files that were never finished included."""
    unfinished = (f".{name}." for name in _OURS)
    return entry.name in _OURS or entry.name.startswith(tuple(unfinished))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    # One dot, also before a name that has one: so `_is_ours` knows what is left.
    fresh = path.with_name(f".{path.name.lstrip('.')}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
