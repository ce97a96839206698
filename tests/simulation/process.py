"""Processes that die and are started again, and the hosts that they run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError
from tests.simulation.memory_locks import LockTable, MemoryLocks
from tests.simulation.memory_storage import Mount
from tests.simulation.memory_zookeeper import MemorySession
from tests.simulation.ports import CALM, Odds
from tests.simulation.scheduler import Actor, KilledError

if TYPE_CHECKING:
    from tests.simulation.world import World

RESTART_S = (0.3, 4.0)
EPOCH_OF_TIME_S = 100_000.0
NAP_S = (0.0005, 0.02)
"""How far apart two answers come to requests that were sent together."""


@dataclass(slots=True, eq=False)
class Contact:
    """Whether ZooKeeper hears a session: by the network, by its process."""

    world: World
    session: MemorySession
    cut: bool = False
    silent: bool = False
    noticed_at: float = 0.0
    _losses: int = 0

    def change(self, *, cut: bool | None = None, silent: bool | None = None) -> None:
        """Note what became of the network, or of the process."""
        before = self.cut or self.silent
        self.cut = self.cut if cut is None else cut
        self.silent = self.silent if silent is None else silent
        after = self.cut or self.silent
        scheduler = self.world.scheduler
        if after and not before:
            self._losses += 1
            self.session.lose_contact()
            timeout_s = self.session.session_timeout_s()
            limit = timeout_s * (0.9 + 0.6 * scheduler.random.random())
            scheduler.after(limit, self._expire, self._losses)
            quick = scheduler.chance(0.5)
            self.noticed_at = scheduler.now + (0.0 if quick else timeout_s * 0.6)
        elif before and not after:
            self._losses += 1
            if self.world.zookeeper.alive(self.session.raw_session):
                self.session.regain_contact()
            self.session.learns_at = scheduler.now + 0.1 * scheduler.random.random()

    def _expire(self, loss: int) -> None:
        if loss == self._losses and self.session.raw_session:
            self.world.scheduler.tell(self.session.member, "session expires")
            self.world.zookeeper.end_session(self.session.raw_session)


@dataclass(slots=True, eq=False)
class Host:
    """One host: its clock, its mount, and whether guests may start on it.

    ``hung_until`` is when its mount answers again; ``broken`` the error number
    with which it answers everything, 0 for none.  The clock runs at ``rate`` times
    the true one.
    """

    world: World
    name: str
    mount: Mount
    locks: LockTable
    rate: float = 1.0
    offset: float = 0.0
    slowness: float = 1.0
    boots: int = 1
    up: bool = True
    witnessed: bool = False
    hung_until: float = 0.0
    broken: int = 0
    shutting_down: bool = False
    source: EventSource | None = None

    def may_start_guests(self) -> bool:
        """Whether guests may start: the agent of this boot has written its witness."""
        return self.up and self.witnessed and not self.shutting_down

    def boottime(self) -> float:
        """Read this host's clock, in seconds."""
        return self.offset + self.rate * self.world.scheduler.now

    def boot_id(self) -> str:
        """See the port ``Host``."""
        return f"{self.name}-boot-{self.boots}"

    def seen_otherwise(self, marker: bytes) -> tuple[str, ...]:
        """See the port ``Host``: here one mount serves everybody."""
        del marker
        return ()

    def stopping(self) -> bool:
        """See the port ``Host``."""
        return self.shutting_down

    def compute_stopped(self) -> bool:
        """See the port ``Host``: its Nova ended before the agent was told to."""
        return self.shutting_down

    def guests_gone(self) -> bool:
        """See the port ``Host``."""
        return not self.world.guests.running_on(self.name)


class EventSource:
    """What a host uses: what is there now, and what was there since the last look.

    Without ``events`` only what is there now, as a scan sees it.
    """

    name = "guests"

    def __init__(self, host: Host, *, events: bool) -> None:
        self._host = host
        self._events = events
        self._over: set[str] = set()
        self.fails = False

    def ended(self, names: tuple[str, ...]) -> None:
        """Note that names are not used any more."""
        if self._events:
            self._over.update(names)

    def look(self) -> Uses:
        """See the port ``Source``."""
        if self.fails:
            raise SourceError("the hypervisor does not answer")
        over, self._over = self._over, set()
        self._host.world.hunter.looked(self._host)
        return Uses.of_names(over | self._host.world.guests.names_on(self._host.name))


class SimulatedClock:
    """The port ``Clock`` of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def boottime(self) -> float:
        """See the port."""
        return self._process.host.boottime()

    def wall(self) -> float:
        """See the port."""
        return EPOCH_OF_TIME_S + self._process.world.scheduler.now

    def wait(self, seconds: float) -> None:
        """See the port."""
        host = self._process.host
        self._process.actor.sleep(max(seconds, 0.0) / host.rate, wakeable=True)


class SeededTokens:
    """The port ``Tokens``, from the seed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def token(self) -> str:
        """See the port."""
        return self._world.token()


class TracingJournal:
    """The port ``Journal``: into the trace, and counted."""

    def __init__(self, world: World, who: str) -> None:
        self._world = world
        self._who = who

    def event(self, name: str, /, **fields: object) -> None:
        """See the port."""
        self._world.told(self._who, name, fields)


class StopFlag:
    """The daemons' stop flag."""

    def __init__(self) -> None:
        self.asked = False

    def wanted(self) -> bool:
        """Whether the process was asked to stop."""
        return self.asked


@dataclass(slots=True, eq=False)
class Process:
    """One daemon under its supervisor: started, killed, started again.

    ``body`` is its main function, called with this process; what it needs is
    made anew for every run.
    """

    world: World
    host: Host
    title: str
    body: Callable[[Process], None]
    actor: Any = None
    session: MemorySession | None = None
    contact: Contact | None = None
    locks: MemoryLocks | None = None
    stop: StopFlag = field(default_factory=StopFlag)
    wanted: bool = True
    calls: int = 0

    @property
    def running(self) -> bool:
        """Whether there is a process now."""
        return self.actor is not None and not self.actor.dead

    def start(self, _: object = None) -> None:
        """Start it, unless it runs, or its host is down."""
        if self.running or not self.wanted or not self.host.up:
            return
        self.world.scheduler.tell(self.title, "starts")
        self.stop = StopFlag()
        self.actor = Actor(
            self.world.scheduler, self.title, lambda _: self.body(self), self._ended
        )

    def connect_with(self, member: str, timeout_s: float) -> MemorySession:
        """Make the session of this run."""
        world = self.world
        session = MemorySession(
            world.zookeeper,
            member,
            self.host.boottime,
            timeout_s,
            world.lag_s(),
        )
        contact = Contact(world, session)
        contact.cut = world.is_cut(self.host)
        session.reachable = lambda: not contact.cut
        session.between = self._nap
        self.session, self.contact = session, contact
        return session

    def lock_port(self) -> MemoryLocks:
        """Make the locks' helper of this run."""
        self.locks = MemoryLocks(self.host.locks, self._wait)
        return self.locks

    def _nap(self) -> bool:
        """Let a little time pass between two answers, or not."""
        scheduler, profile = self.world.scheduler, self.world.profile
        naps = bool(profile.torn) and scheduler.chance(profile.torn)
        if naps:
            self.actor.sleep(scheduler.stretch(*NAP_S))
        return naps

    def _wait(self, seconds: float) -> None:
        self.actor.sleep(seconds)

    def odds(self) -> Odds:
        """Return what may happen to this process's calls now."""
        return CALM if self.world.calm else self.world.profile.odds

    def strike(self, name: str) -> str:
        """Return what must happen to this very call, if it was singled out."""
        return self.world.strike(self, name)

    def kill(self) -> None:
        """Kill it where it stands; what it asked for may land all the same."""
        if not self.running:
            return
        self.world.scheduler.tell(self.title, "is killed")
        landing = self.actor.in_flight
        if landing is not None and self.world.scheduler.chance(0.5):
            self.land_later(landing, self.world.profile.odds.late_s)
        self.actor.kill()
        self._leave_behind()
        self._again()

    def die(self) -> None:
        """Die at this very call of its own."""
        self.world.scheduler.tell(self.title, "dies")
        self.actor.dead = True
        self._leave_behind()
        self._again()
        raise KilledError

    def _leave_behind(self) -> None:
        if self.contact is not None:
            self.contact.change(silent=True)
        if self.locks is not None:
            self.locks.end()

    def _again(self) -> None:
        scheduler = self.world.scheduler
        scheduler.after(scheduler.stretch(*RESTART_S), self.start)

    def _ended(self, error: BaseException | None) -> None:
        if self.locks is not None:
            self.locks.end()
        if self.session is not None:
            left = self.session.raw_session
            self.session.stop()
            if left and self.contact is not None and self.contact.cut:
                # The servers heard nothing of the end: they wait for the timeout.
                self.world.scheduler.after(
                    self.session.session_timeout_s(),
                    lambda _: self.world.zookeeper.end_session(left),
                )
        self.world.process_ended(self, error)
        if self.wanted:
            self._again()

    def pause(self, seconds: float) -> None:
        """Let it stand still for a while."""
        scheduler = self.world.scheduler
        if scheduler.trace is not None and seconds > 1:
            scheduler.tell(self.title, f"stands still for {seconds:.1f} s")
        self.actor.stand_still(scheduler.now + seconds)
        contact = self.contact
        if contact is None or seconds < contact.session.session_timeout_s() / 8:
            return
        contact.change(silent=True)
        scheduler.after(seconds, self._resumed, (self.actor, contact))

    def _resumed(self, which: tuple[Actor, Contact]) -> None:
        actor, contact = which
        if not actor.dead and actor.awake_at <= self.world.scheduler.now:
            contact.change(silent=False)

    def bounce(self, kind: str) -> None:
        """Lose an answer: of ZooKeeper, that means that the connection broke."""
        if kind == "zookeeper" and self.session is not None:
            self.session.bounce()

    def land_later(
        self, landing: Callable[[], object], within_s: tuple[float, float]
    ) -> None:
        """Let a request take effect after its caller gave up or died."""
        scheduler = self.world.scheduler
        title = self.title

        def land(_: object) -> None:
            self.world.acting = title
            try:
                landing()
            except KilledError:
                raise
            except Exception as error:  # noqa: BLE001 - nobody hears the answer
                scheduler.tell(title, f"a late request comes to nothing: {error!r}")
            else:
                scheduler.tell(title, "a late request takes effect")
            finally:
                self.world.acting = ""

        scheduler.after(scheduler.stretch(*within_s), land)
