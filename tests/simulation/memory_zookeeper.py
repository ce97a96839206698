"""A ZooKeeper in memory: one tree with its history, and sessions that lag behind.

The server applies one transaction after the other and remembers what every
node was after each of them, so that a session whose server lags can be
answered with what was true a while ago, in order and never backwards.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tooz import utils as tooz_utils

from sharedcache.core.ports import (
    Append,
    Candidacy,
    ConflictError,
    CoordinationError,
    Create,
    Delete,
    DisconnectedError,
    MemberExistsError,
    Operation,
    Record,
    SessionChangedError,
    Set,
    UndecodableMember,
)

MAX_REQUEST_BYTES = 1_000_000
OPERATION_BYTES = 160
NODES = "groups/nodes"
ELECTION = "groups/cleaners/leader"

_COMPONENT = re.compile(
    r"(?!\.{1,2}\Z)[^/\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff]+\Z"
)


@lru_cache(maxsize=4096)
def checked(path: str) -> str:
    """Return a path that ZooKeeper would take, or raise ``ValueError``."""
    if path and any(_COMPONENT.match(part) is None for part in path.split("/")):
        raise ValueError(f"{path!r} is no path of ZooKeeper")
    return path


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


@dataclass(slots=True)
class Node:
    """One path: its record now, its children now, and what both were before.

    Histories hold (transaction, value) from old to new; the children's is only
    written when a name comes or goes.  ``created`` counts the children that were
    ever created.
    """

    record: Record | None = None
    created: int = 0
    children: set[str] = field(default_factory=set)
    history: list[tuple[int, Record | None]] = field(default_factory=list)
    families: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)


class MemoryZooKeeper:
    """The servers, as one.  ``now`` is the time by which sessions lag, in seconds.

    ``on_commit`` is called after every transaction with its operations and its
    session's id; ``on_change`` with each path that it changed.  ``ghosts`` are
    sessions that came back with an old copy, ``losses`` counts for changes that
    watches must tell (``memory_copies.py``).
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.on_commit: Callable[[Sequence[Operation], int], None] | None = None
        self.on_change: Callable[[str], None] | None = None
        self.nodes: dict[str, Node] = {}
        self.sessions: dict[int, set[str]] = {}
        self.ghosts: set[int] = set()
        self.losses = 0
        self._times: list[float] = []
        self._next_session = 1
        self._sequence = 0
        self.begin()

    def begin(self) -> None:
        """Make the first nodes of an empty tree."""
        self.nodes[""] = Node(Record(b"", 0))
        for path in ("groups", NODES, "groups/cleaners", ELECTION):
            self.commit([Create(path, b"")], 0)

    # Reading.

    @property
    def last(self) -> int:
        """Number of the last transaction."""
        return len(self._times)

    def applied_by(self, when: float) -> int:
        """Return the number of the last transaction committed by a time."""
        if not self._times or self._times[-1] <= when:
            return len(self._times)
        return bisect_right(self._times, when)

    def record(self, path: str, view: int | None = None) -> Record | None:
        """Read a node as of a transaction, the last one by default."""
        node = self.nodes.get(path)
        if node is None:
            return None
        if view is None:
            return node.record
        for number, record in reversed(node.history):
            if number <= view:
                return record
        return None if path else node.record

    def children(self, path: str, view: int | None = None) -> list[str]:
        """List a node's children as of a transaction, sorted."""
        node = self.nodes.get(path)
        if node is None:
            return []
        if view is None:
            return sorted(node.children)
        for number, names in reversed(node.families):
            if number <= view:
                return list(names)
        return []

    def records_since(self, path: str, view: int) -> list[Record | None]:
        """Return all that a node was from a transaction on, the oldest first."""
        node = self.nodes.get(path)
        later = [] if node is None else [r for n, r in node.history if n > view]
        return [self.record(path, view), *later]

    def leader(self) -> str | None:
        """Name whoever stands first in the election."""
        for name in self.children(ELECTION)[:1]:
            record = self.record(f"{ELECTION}/{name}")
            return None if record is None else record.data.decode()
        return None

    def changes(self, path: str, view: int) -> int:
        """Count the transactions up to ``view`` that changed a node."""
        node = self.nodes.get(path)
        if node is None:
            return self.losses
        history = node.history
        count = len(history)
        while count and history[count - 1][0] > view:
            count -= 1
        return count + self.losses

    # Sessions.

    def open_session(self) -> int:
        """Begin a session; return its id."""
        number, self._next_session = self._next_session, self._next_session + 1
        self.sessions[number] = set()
        return number

    def alive(self, session: int) -> bool:
        """Whether the servers hear a client by this session."""
        return session in self.sessions and session not in self.ghosts

    def end_session(self, session: int) -> None:
        """End a session, with all that it registered; harmless if it ended."""
        owned = self.sessions.pop(session, set())
        if owned:
            self.commit([Delete(path, None) for path in sorted(owned)], 0)

    # Writing.

    def commit(
        self, operations: Sequence[Operation], session: int, *, ephemeral: bool = False
    ) -> None:
        """Apply all operations or none; raises ``ConflictError``.

        ``ephemeral`` makes the created nodes the session's own.
        """
        undo: list[tuple[str, Record | None]] = []
        owner = session if ephemeral else 0
        for index, operation in enumerate(operations):
            why = self._apply(operation, owner, undo)
            if why is not None:
                for path, record in reversed(undo):
                    if record is None:
                        self.nodes[_parent(path)].created -= 1
                    self._put(path, record)
                raise ConflictError(index, why, operation.path)
        self._remember([path for path, _ in undo], undo)
        if self.on_commit is not None:
            self.on_commit(operations, session)
        if self.on_change is not None:
            for path in dict.fromkeys(path for path, _ in undo):
                self.on_change(path)

    def _apply(  # noqa: PLR0911 - one return for each way to fail
        self, operation: Operation, owner: int, undo: list[tuple[str, Record | None]]
    ) -> str | None:
        """Apply one operation; return why it cannot be, ``None`` if it was."""
        path = operation.path
        if isinstance(operation, Append):
            above = self.nodes.get(_parent(path))
            path += f"{0 if above is None else above.created:010d}"
        node = self.nodes.get(path)
        record = None if node is None else node.record
        if isinstance(operation, Create | Append):
            if record is not None:
                return "exists"
            parent = self.nodes.get(_parent(path))
            if parent is None or parent.record is None:
                return "missing"
            parent.created += 1
            undo.append((path, None))
            self._put(path, Record(operation.data, 0, owner))
            return None
        if record is None:
            return "missing"
        if operation.version is not None and operation.version != record.version:
            return "version"
        if isinstance(operation, Set):
            undo.append((path, record))
            self._put(path, Record(operation.data, record.version + 1, record.owner))
        elif isinstance(operation, Delete):
            if node is not None and node.children:
                return "not-empty"
            undo.append((path, record))
            self._put(path, None)
        return None

    def _put(self, path: str, record: Record | None) -> None:
        node = self.nodes.get(path)
        if node is None:
            node = self.nodes[path] = Node()
        parent = self.nodes[_parent(path)]
        name = path.rpartition("/")[2]
        if record is None:
            parent.children.discard(name)
            if node.record is not None and node.record.owner:
                self.sessions.get(node.record.owner, set()).discard(path)
        else:
            parent.children.add(name)
            if record.owner and record.owner in self.sessions:
                self.sessions[record.owner].add(path)
        node.record = record

    def _remember(
        self, paths: Iterable[str], undo: list[tuple[str, Record | None]]
    ) -> None:
        self._times.append(self.now())
        number = len(self._times)
        for path in dict.fromkeys(paths):
            node = self.nodes[path]
            node.history.append((number, node.record))
        for path in dict.fromkeys(_parent(path) for path, _ in undo):
            parent = self.nodes[path]
            names = tuple(sorted(parent.children))
            if not parent.families or parent.families[-1][1] != names:
                parent.families.append((number, names))

    def next_sequence(self) -> int:
        """Return the next number of the election; none is used again."""
        self._sequence += 1
        return self._sequence


@lru_cache(maxsize=2048)
def _decoded(data: bytes) -> Any:
    """Decode a member's report as tooz does; what went wrong if it cannot be."""
    try:
        report = tooz_utils.loads(data)
    except Exception as error:  # noqa: BLE001 - as the real adapter: another process's bytes.
        return UndecodableMember(f"{type(error).__name__}: {error}")
    if not isinstance(report, dict):
        return UndecodableMember(f"a {type(report).__name__}, not a report")
    if not all(isinstance(key, str) for key in report):
        return UndecodableMember("a key is not text")
    return report


class MemorySession:
    """The port ``Coordination`` over a ``MemoryZooKeeper``.

    ``boottime`` is this host's clock, in seconds.  ``lag_s`` is how far the
    server that this session is connected to is behind.  ``between`` is called
    between requests that are sent together, and tells whether time has passed:
    each is answered by itself, in their order, and later ones of what is later.
    """

    def __init__(
        self,
        server: MemoryZooKeeper,
        member: str,
        boottime: Callable[[], float],
        timeout_s: float = 4.0,
        lag_s: float = 0.0,
    ) -> None:
        self.server = server
        self.member = member
        self.lag_s = lag_s
        self.reachable: Callable[[], bool] = lambda: True
        self.between: Callable[[], bool] = lambda: False
        self._boottime = boottime
        self._timeout_s = timeout_s
        self._session = 0
        self._view = 0
        self._disturbed = 0
        self._watched: set[str] = set()
        self._candidacy: Candidacy | None = None
        self._elected_path = ""
        self._granted = 0.0
        self._lost_at: float | None = None
        self.learns_at = 0.0
        self.connection = 0
        self.requests = 0

    # Life.

    def start(self, within_s: float = 15.0) -> None:
        """Connect with a new session; ``DisconnectedError`` if none is reached."""
        del within_s
        if self._session:
            return
        if not self.reachable():
            raise DisconnectedError("cannot connect to ZooKeeper")
        self._open()

    def stop(self) -> None:
        """End the session in good order, if the servers are reached."""
        session, self._session = self._session, 0
        self._forget()
        if session and self.reachable():
            self.server.end_session(session)

    def _open(self) -> None:
        self._session = self.server.open_session()
        self._view = max(self._view, self.server.last)
        self._granted = self._boottime()
        self._lost_at = None
        self.connection += 1

    def _forget(self) -> None:
        self._candidacy = None
        self._elected_path = ""
        self._disturbed += 1

    @property
    def raw_session(self) -> int:
        """Id of the session as this process believes it, 0 for none."""
        return self._session

    @property
    def watched(self) -> frozenset[str]:
        """Paths with a watch."""
        return frozenset(self._watched)

    def lose_contact(self) -> None:
        """Note that the servers hear no more of this session."""
        if self._lost_at is None:
            self._lost_at = self._boottime()

    def regain_contact(self) -> None:
        """Note that the connection is back, and every watch disturbed."""
        self._lost_at = None
        self._disturbed += 1
        self.connection += 1

    def bounce(self) -> None:
        """Note that the connection broke and came back, perhaps elsewhere."""
        self._disturbed += 1
        self.connection += 1

    def notice(self) -> None:
        """Learn, as the client's own thread does, whether the session ended.

        Not before ``learns_at``, in the servers' time: a process that was stopped
        believes for a moment that all is as it was.
        """
        if (
            self._session
            and self.reachable()
            and self.server.now() >= self.learns_at
            and not self.server.alive(self._session)
        ):
            self._forget()
            self._open()

    def _local(self) -> int:
        """Return the session for what is answered by this process alone."""
        if not self._session:
            raise DisconnectedError("the session with ZooKeeper is not started")
        if not self.reachable():
            raise DisconnectedError("no connection to ZooKeeper")
        return self._session

    def _contact(self) -> int:
        """Return the session for a request to the servers."""
        session = self._local()
        if not self.server.alive(session):
            self._forget()
            self._open()
            raise DisconnectedError("the session has expired")
        self.requests += 1
        behind = self.server.applied_by(self.server.now() - self.lag_s)
        self._view = max(self._view, behind)
        return session

    def session_id(self) -> int:
        """See the port."""
        self.notice()
        return self._local()

    def session_timeout_s(self) -> float:
        """See the port."""
        return self._timeout_s

    # Records.

    def sync(self) -> None:
        """See the port."""
        self._contact()
        self._view = self.server.last

    def get(self, path: str) -> Record | None:
        """See the port."""
        return self.get_many([path])[0]

    def get_many(self, paths: Sequence[str]) -> list[Record | None]:
        """See the port."""
        self._contact()
        return list(self._together(paths))

    def _together(self, paths: Sequence[str]) -> Iterator[Record | None]:
        """Read nodes one after the other; whatever else happens comes in between."""
        for number, path in enumerate(paths):
            if number and self.between():
                self._contact()
            yield self.server.record(checked(path), self._view)

    def children(self, path: str) -> list[str]:
        """See the port."""
        self._contact()
        return self.server.children(checked(path), self._view)

    def ensure(self, path: str) -> None:
        """See the port."""
        session = self._contact()
        parts = checked(path).split("/")
        for count in range(1, len(parts) + 1):
            one = "/".join(parts[:count])
            if self.server.record(one) is None:
                self.server.commit([Create(one, b"")], session)
        self._view = self.server.last

    def watch(self, path: str) -> int:
        """See the port."""
        self.notice()
        self._local()
        self._watched.add(checked(path))
        behind = self.server.applied_by(self.server.now() - self.lag_s)
        self._view = max(self._view, behind)
        return self._disturbed + self.server.changes(path, self._view)

    def commit(self, operations: Sequence[Operation]) -> None:
        """See the port."""
        session = self._contact()
        if not operations:
            return
        size = 0
        for operation in operations:
            size += len(checked(operation.path)) + OPERATION_BYTES
            if isinstance(operation, Create | Set | Append):
                size += len(operation.data)
        _check_size(size)
        self.server.commit(operations, session)
        self._view = self.server.last

    # The group of nodes.

    @property
    def member_path(self) -> str:
        """See the port."""
        return f"{NODES}/{self.member}"

    def join(self, capabilities: Mapping[str, object]) -> None:
        """See the port."""
        session = self._contact()
        data = tooz_utils.dumps(dict(capabilities))
        _check_size(len(data) + 500)
        record = self.server.record(self.member_path)
        if record is None:
            self.server.commit(
                [Create(self.member_path, data)], session, ephemeral=True
            )
        elif record.owner == session:
            self.server.commit([Set(self.member_path, data, None)], session)
        else:
            raise MemberExistsError(f"another session is registered as {self.member}")
        self._view = self.server.last

    def joined(self) -> bool:
        """See the port."""
        session = self._contact()
        record = self.server.record(self.member_path, self._view)
        return record is not None and record.owner == session

    def update_capabilities(self, capabilities: Mapping[str, object]) -> None:
        """See the port."""
        session = self._contact()
        data = tooz_utils.dumps(dict(capabilities))
        _check_size(len(data) + 500)
        record = self.server.record(self.member_path)
        if record is None or record.owner != session:
            raise SessionChangedError(f"this session is not registered: {self.member}")
        self.server.commit([Set(self.member_path, data, None)], session)
        self._view = self.server.last

    def leave(self) -> None:
        """See the port."""
        session = self._contact()
        record = self.server.record(self.member_path)
        if record is not None and record.owner == session:
            self.server.commit([Delete(self.member_path, None)], session)
            self._view = self.server.last

    def members(self) -> dict[str, Mapping[str, object] | UndecodableMember]:
        """See the port."""
        self._contact()
        found: dict[str, Mapping[str, object] | UndecodableMember] = {}
        names = self.server.children(NODES, self._view)
        if self.between():
            self._contact()
        records = self._together([f"{NODES}/{name}" for name in names])
        for name, record in zip(names, records, strict=True):
            if record is None:
                continue
            if name.isascii():
                found[name] = _decoded(record.data)
            else:
                found[name] = UndecodableMember("its name is not ASCII")
        return found

    # The election of the cleaners.

    def _contenders(self) -> list[tuple[str, Record]]:
        paths = [f"{ELECTION}/{name}" for name in self.server.children(ELECTION)]
        found = ((path, self.server.record(path)) for path in paths)
        return [(path, record) for path, record in found if record is not None]

    def campaign(self) -> Candidacy | None:
        """See the port.

        A node of ours that is not the candidacy is left from an answer that
        was lost, and is swept before anything else.
        """
        session = self._contact()
        held = self._candidacy
        for path, record in self._contenders():
            if record.owner == session and (held is None or held.path != path):
                self.server.commit([Delete(path, None)], session)
        standing = self._contenders()
        if held is not None and [path for path, _ in standing[:1]] == [held.path]:
            return held
        self._candidacy = None
        if standing:
            return None
        path = f"{ELECTION}/{self.server.next_sequence():010d}"
        self.server.commit(
            [Create(path, self.member.encode())], session, ephemeral=True
        )
        self._view = self.server.last
        self._candidacy = Candidacy(path, session)
        return self._candidacy

    def lease_sent(self, candidacy: Candidacy) -> float | None:
        """See the port.

        Renewals go out eight times in the session's timeout, and each proves
        what was sent a quarter of it earlier, as with the real adapter.
        """
        self.notice()
        if not self._session or candidacy != self._candidacy:
            return None
        now = self._boottime() if self._lost_at is None else self._lost_at
        step = self._timeout_s / 8
        sent = now // step * step - 2 * step
        return max(sent, self._granted - step)

    def leader(self) -> str | None:
        """See the port."""
        self._contact()
        for name in self.server.children(ELECTION, self._view):
            record = self.server.record(f"{ELECTION}/{name}", self._view)
            if record is not None:
                return record.data.decode("utf-8", "replace")
        return None

    def resign(self) -> None:
        """See the port."""
        self._candidacy = None
        try:
            session = self._contact()
        except DisconnectedError:
            return
        for path, record in self._contenders():
            if record.owner == session:
                self.server.commit([Delete(path, None)], session)
        self._view = self.server.last


def _check_size(size: int) -> None:
    if size > MAX_REQUEST_BYTES:
        raise CoordinationError(
            f"{size} bytes, more than the {MAX_REQUEST_BYTES} that ZooKeeper takes"
        )
