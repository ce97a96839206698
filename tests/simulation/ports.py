"""Ports with the scheduler in front of them: one call, one place to stand.

Every call but the few that a process answers by itself takes time; while it
does, anything may happen to the process, to the network, to the storage, and
to the request.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sharedcache.adapters.storage.errors import FENCED, change_error, storage_error
from sharedcache.core.model import Uses
from sharedcache.core.ports import (
    DisconnectedError,
    FencedError,
    OutcomeUnknownError,
    StorageError,
)
from tests.simulation.memory_zookeeper import MemorySession
from tests.simulation.scheduler import KilledError

if TYPE_CHECKING:
    from tests.simulation.process import Process

LOCAL = frozenset(
    {
        "session_id",
        "session_timeout_s",
        "watch",
        "lease_sent",
        "member_path",
        "name_cache_s",
        "last_error",
        "name",
        "boot_id",
        "stopping",
        "compute_stopped",
        "guests_gone",
        "seen_otherwise",
    }
)
"""What a process answers without asking anybody."""

STORAGE_CHANGES = frozenset(
    {
        "quarantine",
        "restore",
        "purge",
        "epoch_make",
        "epoch_move",
        "epoch_remove",
        "epoch_seal",
        "epoch_time",
        "witness_write",
        "witness_touch",
        "touch",
        "write_schema",
        "digest_drop",
    }
)

ZOOKEEPER_CHANGES = frozenset(
    {"commit", "join", "update_capabilities", "leave", "campaign", "resign", "ensure"}
)

SHARP = frozenset(
    {
        "commit",
        "epoch_make",
        "epoch_move",
        "epoch_remove",
        "epoch_seal",
        "purge",
        "quarantine",
        "restore",
        "update_capabilities",
    }
)
"""Where trouble hurts most, and so comes more often."""

SHARPER = 8.0
MOST = 0.25

IN_AN_EPOCH = frozenset({"quarantine", "restore", "purge", "epoch_move", "epoch_time"})

STUCK = (errno.EACCES, errno.EBUSY)
"""With what the storage refuses to unlink one file, while all else goes well."""

FAILURES = (errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOSPC, errno.EBUSY)


@dataclass(frozen=True, slots=True)
class Odds:
    """What may happen to one call, as chances; times in seconds, low to high.

    ``pause``: the process stands still before the call reaches anybody.
    ``lost_answer``: the effect happens, its answer does not come.
    ``lost_request``: neither.  ``late``: the answer is lost and the effect
    happens later, perhaps once more after a second try.  ``error``: a look at the
    storage fails; ``refusal``: a change of it is refused, or nobody can tell;
    ``stuck``: an unlink is refused.
    """

    pause: float = 0.0
    pause_s: tuple[float, float] = (0.05, 20.0)
    lost_answer: float = 0.0
    lost_request: float = 0.0
    late: float = 0.0
    late_s: tuple[float, float] = (0.05, 8.0)
    error: float = 0.0
    refusal: float = 0.0
    stuck: float = 0.0
    call_s: tuple[float, float] = (0.001, 0.02)


CALM = Odds()


class Scheduled:
    """Any port, with the scheduler in front of every call.

    What the port has is taken from it as it is, so a new method of a port needs
    nothing here: unless it is named above it is a look that takes time.
    """

    def __init__(self, process: Process, kind: str, port: Any) -> None:
        self._process = process
        self._kind = kind
        self._port = port

    def __getattr__(self, name: str) -> Any:
        """Give a call that goes through the scheduler."""
        found = getattr(self._port, name)
        if name in LOCAL or not callable(found):
            if callable(found) or name == "name":
                self.__dict__[name] = found
            return found
        process, kind = self._process, self._kind

        def scheduled(*args: Any, **kw: Any) -> Any:
            return perform(process, kind, name, lambda: found(*args, **kw), args)

        self.__dict__[name] = scheduled
        return scheduled


def perform(
    process: Process,
    kind: str,
    name: str,
    call: Callable[[], Any],
    args: tuple[Any, ...] = (),
) -> Any:
    """Let one call of a process reach the world, or not, at some time."""
    actor, scheduler = process.actor, process.world.scheduler
    if actor.dead:
        raise KilledError
    odds = process.odds()
    if scheduler.chance(_sharpened(odds.pause, name)):
        process.pause(scheduler.stretch(*odds.pause_s))
    changes = name in STORAGE_CHANGES or name in ZOOKEEPER_CHANGES
    strike = process.strike(name) if changes else ""
    if changes:
        actor.in_flight = _landing(process, kind, name, call)
    actor.sleep(scheduler.stretch(*odds.call_s) * process.host.slowness)
    _wait_for_world(process, kind, name)
    stage = process.world.stage
    if stage is not None:
        strike = stage.before(process, name, args) or strike
    actor.in_flight = None
    try:
        if changes:
            result = _change(process, kind, name, call, strike)
        else:
            result = _look(process, kind, name, call)
    except Exception as error:
        if scheduler.trace is not None:
            scheduler.tell(actor.name, f"{_shown(kind, name, args)} ! {error!r}")
        raise
    if stage is not None:
        stage.after(process, name)
    if scheduler.trace is not None:
        scheduler.tell(actor.name, f"{_shown(kind, name, args)} -> {_brief(result)}")
    return result


def _sharpened(odds: float, name: str) -> float:
    """Return the odds of a trouble for one call: higher where it hurts."""
    return min(MOST, SHARPER * odds) if name in SHARP else odds


def _look(process: Process, kind: str, name: str, call: Callable[[], Any]) -> Any:
    """Let a look have its answer, or fail."""
    if kind == "storage":
        broken = process.host.broken
        if broken or process.world.scheduler.chance(process.odds().error):
            raise storage_error(OSError(broken or errno.EIO, name), name)
    return call()


def _landing(
    process: Process, kind: str, name: str, call: Callable[[], Any]
) -> Callable[[], object]:
    """Return the effect of a request that is under way without its caller.

    ZooKeeper drops what comes over a connection that its client has left, and
    what belongs to a session that has ended; and it takes a session's requests in
    their order, so nothing lands after a later one.
    """
    session = process.session
    if kind != "zookeeper" or not isinstance(session, MemorySession):
        return call
    if name != "commit":
        return lambda: None
    connection, number = session.connection, session.raw_session
    requests = session.requests

    def landing() -> object:
        unchanged = (session.connection, session.requests) == (connection, requests)
        if unchanged and session.server.alive(number):
            return call()
        return None

    return landing


def _wait_for_world(process: Process, kind: str, name: str) -> None:
    """Wait for what a call goes through."""
    if kind == "storage":
        _wait_for_storage(process)
    elif kind == "zookeeper":
        _wait_for_network(process, name)


def _wait_for_storage(process: Process) -> None:
    """Wait while this host's mount hangs, as on a hard mount."""
    while True:
        left = process.host.hung_until - process.world.scheduler.now
        if left <= 0:
            return
        process.actor.sleep(left)


def _wait_for_network(process: Process, name: str) -> None:
    """Wait until the client notices that nobody answers."""
    contact = process.contact
    if contact is None or not contact.cut:
        return
    left = contact.noticed_at - process.world.scheduler.now
    if left > 0:
        process.actor.sleep(left)
        if name == "commit":
            raise OutcomeUnknownError("no answer from ZooKeeper")


def _change(
    process: Process, kind: str, name: str, call: Callable[[], Any], strike: str
) -> Any:
    """Let a change happen, be refused, or leave its caller in doubt."""
    scheduler, odds = process.world.scheduler, process.odds()
    if strike == "before":
        process.die()
    if name == "resign":
        # It says nothing in any case: what is lost, the session's end mends.
        return None if scheduler.chance(odds.lost_request) else call()
    lost = _lost(kind, name)
    if strike == "lost" or (not strike and scheduler.chance(odds.lost_request)):
        process.bounce(kind)
        raise lost
    late = _sharpened(odds.late, name)
    if strike == "late" or (not strike and scheduler.chance(late)):
        process.land_later(_landing(process, kind, name, call), odds.late_s)
        raise lost
    if kind == "storage" and strike in {"", "refused"}:
        number = _refusal(process, name, strike)
        if number:
            raise _failed(process, name, number, call)
    result = call()
    if strike == "after":
        process.die()
    if strike == "unknown" or (not strike and scheduler.chance(odds.lost_answer)):
        process.bounce(kind)
        raise lost
    return result


def _refusal(process: Process, name: str, strike: str) -> int:
    """Return the error number by which a change of the storage fails, 0 for none."""
    scheduler, odds = process.world.scheduler, process.odds()
    if strike:
        return errno.EBUSY
    if process.host.broken:
        return process.host.broken
    if scheduler.chance(odds.refusal):
        return scheduler.random.choice(FAILURES)
    if name == "purge" and scheduler.chance(odds.stuck):
        return scheduler.random.choice(STUCK)
    return 0


def _failed(
    process: Process, name: str, number: int, call: Callable[[], Any]
) -> Exception:
    """Return what the shipped adapter makes of an error of a change.

    An error that is no refusal leaves open whether the change came about, and so
    it may have.
    """
    if number in FENCED and name in IN_AN_EPOCH:
        return FencedError(f"{name}: {errno.errorcode[number]}", number)
    error = change_error(OSError(number, name), name)
    if isinstance(error, OutcomeUnknownError) and process.world.scheduler.chance(0.5):
        # Whatever else would have been refused about it, the answer is this one.
        with suppress(StorageError, OutcomeUnknownError):
            call()
    return error


def _lost(kind: str, name: str) -> Exception:
    """Return how a lost answer shows itself to the caller."""
    if kind == "zookeeper" and name != "commit":
        return DisconnectedError(f"the answer to {name} was lost")
    return OutcomeUnknownError(f"the answer to {name} was lost")


def _shown(kind: str, name: str, args: tuple[Any, ...]) -> str:
    return f"{kind}.{name}({', '.join(_brief(arg) for arg in args)})"


def _brief(value: object) -> str:
    """Show a value in so few characters that a trace can be read."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Uses):
        return "uses " + " ".join(sorted(name[:6] for name in value.cache_names()))
    if isinstance(value, list | tuple) and value and hasattr(value[0], "path"):
        return "[" + " ".join(_operation(one) for one in value) + "]"
    text = str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _operation(one: Any) -> str:
    version = getattr(one, "version", None)
    suffix = "" if version is None else f"@{version}"
    return f"{type(one).__name__.lower()}:{one.path}{suffix}"
