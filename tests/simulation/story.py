"""What a story can see and do, and how it ends."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import msgpack

from tests.simulation.desk import Word, say
from tests.simulation.memory_disk import Inode
from tests.simulation.oracle import FOREIGN
from tests.simulation.scheduler import Actor
from tests.simulation.stage import POLL_S, Hold, Stage

if TYPE_CHECKING:
    from tests.simulation.process import Host
    from tests.simulation.world import World

LATE_S = (1.5, 3.0)
"""How long a node's next look is put off, so that the leader may act before it."""

LOOKING = frozenset({"look", "facts", "touch"})
"""What an agent asks for right before it reads the round again."""


def otherwise(**changes: Any) -> Mapping[str, Any]:
    """Name what a story's cluster has otherwise than ``profile.told`` says."""
    return changes


class CutShortError(Exception):
    """What the story waited for did not come: this seed tells another one."""


@dataclass(eq=False)
class Story(ABC):
    """One story.  ``tell`` is its body, run as an actor of its own.

    ``changes`` are what its cluster has otherwise than ``profile.told`` says.
    """

    world: World
    stage: Stage
    actor: Actor = field(init=False)
    _operators: int = 0
    title: ClassVar[str] = ""
    changes: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """Begin."""
        self.actor = Actor(
            self.world.scheduler, f"story {self.title}", self._body, self._ended
        )

    def _body(self, _: Actor) -> None:
        try:
            self.tell()
        except CutShortError as error:
            self.world.counts["story cut short"] += 1
            self.say(f"is cut short: {error}")
        else:
            self.world.counts["story told"] += 1
        finally:
            self._put_right()
            self.world.over = True

    def _put_right(self) -> None:
        """End whatever the story began, so that all can settle."""
        world = self.world
        for where, name in sorted(world.guests.declared):
            world.guests.withdraw(world.hosts[where], name)
        for where in sorted(world.cut_hosts):
            world.cut(world.hosts[where], off=False)
        for host in self.hosts:
            if host.source is not None:
                host.source.fails = False
            if not host.up:
                world.scheduler.after(0.0, world.boot, host)
            agent = world.agents[host.name]
            agent.wanted = True
            if world.schemas[host.name] == 1:
                world.schemas[host.name] = 2
                world.scheduler.after(0.0, lambda one: one.kill(), agent)
            world.scheduler.after(0.5, agent.start)

    def _ended(self, error: BaseException | None) -> None:
        if error is not None:
            raise error

    @abstractmethod
    def tell(self) -> None:
        """Tell the story; ``CutShortError`` if the seed went elsewhere."""

    # What a director can do.

    def say(self, what: str) -> None:
        """Write a line of the trace."""
        self.world.scheduler.tell("story", what)

    def pause(self, low_s: float = 0.005, high_s: float = 0.5) -> None:
        """Wait some time that the seed decides."""
        self.actor.sleep(self.world.scheduler.stretch(low_s, high_s))

    def happens(self, within_s: float, so: Callable[[], object]) -> bool:
        """Wait until something is so; whether it was within the time."""
        until = self.world.scheduler.now + within_s
        while not so():
            if self.world.scheduler.now > until or self.world.calm:
                return False
            self.actor.sleep(POLL_S)
        return True

    def until(self, what: str, so: Callable[[], object], within_s: float = 6.0) -> None:
        """Wait until something is so, or cut the story short."""
        if not self.happens(within_s, so):
            raise CutShortError(what)

    def caught(self, hold: Hold, within_s: float = 6.0) -> None:
        """Wait until a process is held back, or cut the story short."""
        if not self.happens(within_s, lambda: hold.caught):
            hold.release()
            raise CutShortError(f"{hold.title} never came to {sorted(hold.calls)}")

    def chance(self, odds: float) -> bool:
        """Toss a coin."""
        return self.world.scheduler.chance(odds)

    # Who and what there is.

    @property
    def hosts(self) -> list[Host]:
        """The compute hosts."""
        return self.world.compute_hosts()

    def two_hosts(self) -> tuple[Host, Host]:
        """Choose two compute hosts, in an order that the seed decides."""
        first, second = self.world.scheduler.random.sample(self.hosts, 2)
        return first, second

    def agent(self, host: Host) -> str:
        """Return the title of a host's agent."""
        return f"agent@{host.name}"

    def made(self, host: Host, call: str) -> int:
        """Count a host's agent's calls of one name."""
        return self.stage.made[self.agent(host), call]

    def leader(self) -> str:
        """Wait for a cleaner in office; return its title."""
        found: list[str] = []

        def led() -> bool:
            found[:] = [
                title
                for title, process in self.world.cleaners.items()
                if process.running
                and process.session is not None
                and process.session.raw_session
                and title == self.world.oracle.in_office
            ]
            return bool(found)

        self.until("nobody leads", led)
        return found[0]

    def first_look_of_a_round(self, host: Host) -> Hold:
        """Hold a host's agent back before it reads a round that was just raised."""
        for _ in range(6):
            hold = self._look_before_a_raise(host, self.round())
            if hold is not None:
                return hold
        raise CutShortError("no round is raised")

    def _look_before_a_raise(self, host: Host, number: int) -> Hold | None:
        """Hold the next look back; return the hold if that round is over meanwhile."""
        title = self.agent(host)
        self.until("no look", lambda: self.report(host).get("round") == number)
        hold = self.stage.hold(
            title, "sync", when=lambda _: self.stage.last.get(title) not in LOOKING
        )
        self.caught(hold)
        if self.happens(0.8, lambda: self.round() > number):
            return hold
        hold.release()
        return None

    # What ZooKeeper and the storage say.

    def read(self, path: str) -> Any:
        """Read a record as it is in this very moment."""
        record = self.world.zookeeper.record(path)
        return msgpack.unpackb(record.data) if record and record.data else None

    def round(self) -> int:
        """Return the present round."""
        return int(self.read("round")["value"])

    def report(self, host: Host) -> Mapping[str, Any]:
        """Return what a live node says of itself; nothing if it is not live."""
        return self.read(f"groups/nodes/{host.name}") or {}

    def entries(self, name: str) -> list[Mapping[str, Any]]:
        """Return the manifest's entries of one cache name."""
        batches = self.world.zookeeper.children("manifest")
        records = [self.read(f"manifest/{batch}") for batch in batches]
        return [e for r in records if r for e in r["entries"] if e["name"] == name]

    def taken(self, name: str) -> bool:
        """Whether a file's quarantine is on record, with its round."""
        return any(entry["round"] for entry in self.entries(name))

    def covered(self, host: Host, name: str) -> bool:
        """Whether a node's window begins no earlier than an entry's round."""
        rounds = [entry["round"] for entry in self.entries(name)]
        report = self.report(host)
        sure = bool(report) and report["unbroken"] and all(rounds)
        return bool(rounds) and sure and report["since_round"] >= max(rounds)

    def confirmable(self, name: str) -> bool:
        """Whether all nodes' windows have one round after the entry's in common."""
        reports = [self.report(host) for host in self.hosts]
        rounds = [entry["round"] for entry in self.entries(name)]
        if not all(reports) or not rounds or not all(rounds):
            return False
        starts = [report["since_round"] for report in reports]
        ends = [report["round"] for report in reports]
        unbroken = all(report["unbroken"] for report in reports)
        return unbroken and max(starts) < min(ends) and max(rounds) <= min(starts)

    def authorised(self) -> int:
        """Count the authorisations so far."""
        return self.world.counts["authorised"]

    def named(self, name: str) -> Inode | None:
        """Return the file that bears a cache name now."""
        found = self.world.disk.base.names.get(name)
        return found if isinstance(found, Inode) else None

    # What the world may do.

    def image(self, number: int = 0) -> str:
        """Return one image's cache name."""
        return self.world.images[number]

    def fresh(self) -> str:
        """Return the cache name of an image that nobody has fetched yet."""
        return hashlib.sha1(b"a fresh image").hexdigest()  # noqa: S324 - Nova's naming

    def file(self, name: str) -> Inode:
        """Return the file of an image that is there."""
        found = self.named(name)
        if found is None:
            raise CutShortError(f"{name[:6]} is not there")
        return found

    def begin(self, host: Host, name: str, inode: Inode) -> Any:
        """Begin a guest on a file that its host can open, if it may have guests."""
        self.until("no guest may start", host.may_start_guests, 3.0)
        if not inode.links:
            raise CutShortError("the file is gone")
        return self.world.guests.begin(host, name, inode)

    def fetch(self, host: Host, name: str) -> None:
        """Let a Nova fetch what is not there, under its lock."""

        def fetched() -> bool:
            self.world.hunter.fetch((host, name))
            return name in self.world.disk.base.names

        self.until("the lock is busy", fetched, 3.0)

    def stray(self, host: Host, name: str) -> Any:
        """Wait for a file to be taken; begin a guest by the name of old.

        The name is fetched again, so that nobody gives the guest's file back.
        """
        inode = self.file(name)
        self.until("nothing is taken", lambda: self.named(name) is not inode, 8.0)
        self.pause(0.005, 0.2)
        guest = self.begin(host, name, inode)
        self.fetch(host, name)
        return guest

    def stray_guest(self) -> tuple[Host, Host, Any]:
        """Let a guest begin by the name of a file that was taken, and on record.

        Returns its host, the other one, and the guest.  Other files come and go.
        """
        here, there = self.two_hosts()
        name = self.image()
        self.feed(but=[name])
        guest = self.stray(here, name)
        self.until("it is not on record", lambda: self.taken(name))
        return here, there, guest

    def goes_behind(
        self, guest: Any, here: Host, there: Host, number: int | None = None
    ) -> Hold:
        """Move a guest behind the other host's look in a round, the present one.

        Returns what keeps that host from looking again.
        """
        number = self.round() if number is None else number
        self.until("no look", lambda: self.report(there).get("round") == number)
        late = self.stage.hold(self.agent(there), "look")
        self.move(guest, here, there)
        return late

    def lets_the_leader_act(self, late: Hold) -> None:
        """Put a host's next look off for a while."""
        self.pause(*LATE_S)
        late.release()

    def await_raises(self, count: int) -> None:
        """Wait until the round was raised so many times."""
        present = self.round()
        self.until("no raise", lambda: self.round() >= present + count)

    def source_fails(self, host: Host) -> Any:
        """Let a host's source fail until its node has said so; return it."""
        source = host.source
        if source is None:
            raise CutShortError("no agent has begun")
        source.fails = True
        self.until("no report fails", lambda: self.report(host).get("failures"))
        return source

    def move(self, guest: Any, source: Host, target: Host) -> None:
        """Move a guest with what it has open."""
        guest.moves += 1
        self.world.guests.bind(guest, target, guest.bound[source.name])
        self.world.guests.leave(guest, source.name)

    def unlink_of(self, leader: str, name: str) -> Hold:
        """Hold a leader back when it comes to unlink a file."""
        return self.stage.hold(
            leader, "purge", when=lambda args: args[1].startswith(name)
        )

    def slow_unlink(self, name: str) -> Hold:
        """Wait until a file is authorised, and hold its unlink back."""
        slow = self.unlink_of(self.leader(), name)
        self.caught(slow)
        return slow

    def is_used_and_taken(
        self, host: Host, name: str, inode: Inode, slow: Hold
    ) -> None:
        """Begin a guest by a name that was restored; let a foreign cleaner take it.

        Then what was held back goes on.
        """
        self.until("no restore", lambda: self.named(name) is inode, 3.0)
        self.begin(host, name, inode)
        self.foreign(name)
        slow.release()
        self.pause(0.2, 0.5)

    def wants(self, host: Host, name: str, inode: Inode, within_s: float = 3.0) -> Any:
        """Let a driver declare a name; once the file bears it, its guest begins."""
        self.world.guests.declare(host, name)
        self.until("no restore", lambda: self.named(name) is inode, within_s)
        guest = self.begin(host, name, inode)
        self.world.guests.withdraw(host, name)
        return guest

    def feed(self, *, but: Sequence[str]) -> None:
        """Fetch other images again and again, so that files go and rounds pass."""

        def once(_: object) -> None:
            if self.world.calm:
                return
            for name in self.world.images:
                if name not in but and name not in self.world.disk.base.names:
                    self.world.hunter.fetch((self.hosts[0], name))
            self.world.scheduler.after(0.1, once)

        once(None)

    def do(self, what: Callable[[Any], object], argument: object = None) -> None:
        """Let something happen that ends or begins actors, and so is the hub's."""
        self.world.scheduler.after(0.0, lambda one: (what(one), None)[1], argument)
        self.actor.sleep(0.001)

    def kill(self, host: Host) -> None:
        """Kill a host's agent; it is started again by and by."""
        self.do(lambda _: self.world.agents[host.name].kill())

    def shut_down(self, host: Host) -> None:
        """Stop a compute host in good order, and wait until its agent is gone."""
        self.do(self.world.shut_down, host)
        agent = self.world.agents[host.name]
        self.until("the agent does not stop", lambda: not agent.running, 4.0)
        self.do(self.world.switch_off, host)

    def depose(self, leader: str) -> None:
        """Let the servers end a leader's session."""
        session = self.world.cleaners[leader].session
        if session is not None:
            self.world.zookeeper.end_session(session.raw_session)

    def boot(self, host: Host) -> None:
        """Boot a host that is off."""
        host.boots += 1
        self.do(self.world.boot, host)

    def cut(self, host: Host, *, off: bool = True) -> None:
        """Cut a host off from ZooKeeper, or heal that."""
        self.world.cut(host, off=off)

    def operator(self, *words: Word, wait_s: float = 0.5) -> str:
        """Let an operator give commands one after the other; return who it is."""
        self._operators += 1
        title = f"teller-{self._operators}"
        self.do(lambda _: say(self.world, title, wait_s, *words))
        return title

    def foreign(self, name: str) -> None:
        """Let a foreign cleaner take a name whose file has another one.

        One that takes a file's only name is the loss itself, and nobody's to stop.
        """
        inode = self.named(name)
        if inode is None or inode.links < 2:
            raise CutShortError("a foreign cleaner would take the only name")
        self.world.acting = FOREIGN
        try:
            self.world.disk.unlink(self.world.disk.base, name)
        finally:
            self.world.acting = ""
