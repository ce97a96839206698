"""One simulated cluster: hosts, daemons, guests, one storage and one ZooKeeper."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import agents.node
from agents.process import ProcessFailedError
from sharedcache.cleaner.finalize import found
from sharedcache.core.ports import StorageError
from sharedcache.node.world import AgentRefusedError, SupersededError
from tests.simulation import daemons
from tests.simulation.desk import OPERATOR
from tests.simulation.guests import Guests, Nova
from tests.simulation.hunter import Hunter
from tests.simulation.memory_disk import Folder, Inode, MemoryDisk
from tests.simulation.memory_locks import LockTable
from tests.simulation.memory_storage import MemoryStorage, Mount
from tests.simulation.memory_zookeeper import MemorySession, MemoryZooKeeper
from tests.simulation.oracle import Oracle
from tests.simulation.process import (
    EPOCH_OF_TIME_S,
    EventSource,
    Host,
    Process,
)
from tests.simulation.profile import Profile, draw, told
from tests.simulation.scheduler import Actor, Scheduler
from tests.simulation.stage import Stage
from tests.simulation.stories import STORIES
from tests.simulation.waits import cache_name

CLUSTER = "simulated"
OLD_S = 10_000.0
CHECK_S = 0.5

Strike = Callable[["Process", str], str]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run."""

    seed: int | str
    violations: tuple[str, ...]
    counts: dict[str, int]
    steps: int
    settled_s: float
    rounds: int = 0
    trace: tuple[str, ...] = ()


def _no_strike(_: Process, __: str) -> str:
    return ""


@dataclass(eq=False)
class World:
    """Everything, from one seed.

    ``strike`` may single out one change: ``before`` and ``after`` it the process
    dies, ``unknown`` and ``lost`` its answer is lost (and it with it), ``late`` it
    lands after its caller gave up, ``refused`` it is refused by the storage.
    """

    seed: int | str
    profile: Profile = field(default_factory=Profile)
    tracing: bool = False
    strike: Strike = _no_strike
    founding_schema: int | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    agents: dict[str, Process] = field(default_factory=dict)
    cleaners: dict[str, Process] = field(default_factory=dict)
    novas: dict[str, tuple[Actor, Nova]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    schemas: dict[str, int] = field(default_factory=dict)
    cut_hosts: set[str] = field(default_factory=set)
    calm: bool = False
    acting: str = ""
    over: bool = False

    def __post_init__(self) -> None:
        """Make the servers, the files, and the cluster's identity."""
        self.scheduler = Scheduler(self.seed)
        if self.tracing:
            self.scheduler.trace = []
        self.zookeeper = MemoryZooKeeper(lambda: self.scheduler.now)
        self.zookeeper.on_change = self._wake_watchers
        self.disk = MemoryDisk(self.storage_time)
        self.guests = Guests(self)
        self.shared_locks = LockTable(lambda: self.scheduler.now)
        self.images = images_of(self.profile.images)
        self._found()
        self.hunter = Hunter(self)
        self.oracle = Oracle(self)
        for name in self.images:
            self.put(name)
        self.stage: Stage | None = None
        if self.profile.story:
            self.stage = Stage(self)
            STORIES[self.profile.story](self, self.stage)

    def storage_time(self) -> float:
        """Read the storage's clock, in seconds."""
        return EPOCH_OF_TIME_S + self.scheduler.now

    def put(self, name: str, age_s: float = OLD_S) -> Inode:
        """Make a file in ``_base`` of an age."""
        inode = self.disk.new_file(name.encode())
        inode.mtime_ns -= int(age_s * 1e9)
        self.disk.create(self.disk.base, name, inode)
        return inode

    def _found(self) -> None:
        session = MemorySession(
            self.zookeeper, "founder", lambda: self.scheduler.now, 4.0
        )
        session.start()
        storage = MemoryStorage(Mount(self.disk, lambda: self.scheduler.now))
        found(
            session,
            storage,
            CLUSTER,
            "identity-of-this-cluster",
            self.founding_schema or self.profile.founding_schema,
            by=OPERATOR,
        )
        session.stop()

    def token(self) -> str:
        """Return a token that the seed decides."""
        return f"{self.scheduler.random.getrandbits(64):016x}"

    def lag_s(self) -> float:
        """Draw how far behind the server of a new session is."""
        return self.profile.lag_s * self.scheduler.random.random()

    # Hosts and daemons.

    def add_host(self, name: str, cache_s: float | None = None) -> Host:
        """Add a host, with a mount and a clock of its own.

        Its mount keeps names for ``cache_s`` seconds, or as the profile says.
        """
        rng = self.scheduler.random
        cache_s = self.profile.cache_s if cache_s is None else cache_s
        mount = Mount(
            self.disk,
            lambda: self.scheduler.now,
            cache_s,
            lambda: self.scheduler.chance(self.profile.stale),
            max(cache_s, self.profile.kept_s),
        )
        locks = self.shared_locks
        if not self.profile.shared_locks:
            locks = LockTable(lambda: self.scheduler.now)
        host = Host(self, name, mount, locks, offset=1000 * rng.random())
        if self.profile.drift:
            host.rate = rng.choice((0.5, 0.8, 1.0, 1.3, 2.0))
        if self.profile.uneven:
            host.slowness = rng.choice((0.3, 1.0, 4.0))
        self.hosts[name] = host
        return host

    def add_node(self, name: str, schema: int = 2) -> None:
        """Add a compute node: a host with an agent and a Nova."""
        host = self.add_host(name)
        self.schemas[name] = schema
        self.agents[name] = Process(self, host, f"agent@{name}", daemons.agent)
        self.boot(host)

    def add_cleaner(self, name: str) -> None:
        """Add a cleaner on a host of its own."""
        host = self.add_host(name, self.profile.cleaner_cache_s)
        process = Process(self, host, name, daemons.cleaner)
        self.cleaners[name] = process
        process.start()

    def boot(self, host: Host) -> None:
        """Start a compute host: the agent first, then what starts guests."""
        host.up, host.witnessed, host.shutting_down = True, False, False
        agent = self.agents[host.name]
        agent.wanted = True
        agent.start()
        nova = Nova(self, host)
        title = f"nova@{host.name}"
        self.novas[host.name] = (
            Actor(self.scheduler, title, nova.body, self._nova_ended),
            nova,
        )

    def shut_down(self, host: Host) -> None:
        """Begin to stop a compute host in good order."""
        self.scheduler.tell(host.name, "is shut down")
        host.shutting_down = True
        self._end_nova(host)
        agent = self.agents[host.name]
        agent.wanted = False
        agent.stop.asked = True

    def switch_off(self, host: Host) -> None:
        """End all that runs on a compute host, whether it has finished or not."""
        host.up, host.witnessed = False, False
        agent = self.agents[host.name]
        agent.wanted = False
        agent.kill()
        self._end_nova(host)
        host.mount.reset()

    def _end_nova(self, host: Host) -> None:
        actor, nova = self.novas[host.name]
        actor.kill()
        nova.end()
        for guest in self.guests.on(host.name):
            guest.moving = False
            self.guests.run(guest, running=False)

    def cut(self, host: Host, *, off: bool) -> None:
        """Cut a host off from ZooKeeper, or let it reach ZooKeeper again."""
        if off:
            self.scheduler.tell(host.name, "is cut off from ZooKeeper")
            self.cut_hosts.add(host.name)
        else:
            self.cut_hosts.discard(host.name)
            self.scheduler.tell(host.name, "reaches ZooKeeper again")
        for process in self.processes():
            if process.host is host and process.contact is not None:
                process.contact.change(cut=off)

    def _nova_ended(self, error: BaseException | None) -> None:
        if error is not None:
            raise error

    def processes(self) -> list[Process]:
        """Return every daemon."""
        return [*self.agents.values(), *self.cleaners.values()]

    def compute_hosts(self) -> list[Host]:
        """Return every host that can have guests."""
        return [self.hosts[name] for name in self.agents]

    def is_cut(self, host: Host) -> bool:
        """Whether a host is cut off from ZooKeeper."""
        return host.name in self.cut_hosts

    def new_source(self, host: Host) -> EventSource:
        """Make the source of a new run of an agent: what it saw before is lost."""
        host.source = EventSource(host, events=self.profile.events)
        return host.source

    def doer(self) -> str:
        """Name whoever is doing something at this moment."""
        current = self.scheduler.current
        return self.acting or ("nobody" if current is None else current.name)

    def _wake_watchers(self, path: str) -> None:
        for process in self.processes():
            session = process.session
            if session is None or not process.running or path not in session.watched:
                continue
            self.scheduler.after(session.lag_s + 0.005, process.actor.wake)

    # What daemons say.

    def told(self, who: str, name: str, fields: dict[str, object]) -> None:
        """Hear a line of a daemon's journal."""
        self.counts[name] += 1
        if self.scheduler.trace is not None:
            rest = " ".join(f"{key}={value}" for key, value in fields.items())
            self.scheduler.tell(who, f"says {name} {rest}")
        if name == "leading":
            self.oracle.took_office(int(str(fields["epoch"])), who)
        if name in ("gate-closed", "gate-open"):
            code, subject = str(fields.get("code", "")), str(fields.get("subject", ""))
            self.oracle.told_of_gate(who, code, subject)
        if name == "plan-rejected":
            self.oracle.say(f"{who}: planner and checker disagree: {fields['why']}")

    def process_ended(self, process: Process, error: BaseException | None) -> None:
        """Judge how a daemon ended by itself."""
        self.scheduler.tell(process.title, f"ends {error!r}")
        expected = (
            ProcessFailedError,
            AgentRefusedError,
            SupersededError,
            StorageError,
        )
        if error is not None and not isinstance(error, expected):
            self.oracle.say(f"{process.title} died of {error!r}")

    def notified(self, text: str) -> None:
        """Hear what a daemon tells systemd."""
        if not text.startswith("READY=1"):
            return
        for process in self.agents.values():
            if process.actor is self.scheduler.current:
                process.host.witnessed = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what daemons tell systemd, for the length of a run."""
        before = vars(agents.node)["notify"]
        vars(agents.node)["notify"] = self.notified
        try:
            yield
        finally:
            vars(agents.node)["notify"] = before

    # The end.

    def settled(self) -> bool:
        """Whether all is as it must be.

        That is: all that nobody uses or holds is gone, all that is used there, the
        gate open.
        """
        if self.oracle.reasons.standing():
            return False
        used = self.guests.names()
        if any(name not in self.disk.base.names for name in used):
            return False
        return not self._left(used)

    def _left(self, used: set[str]) -> list[str]:
        """List what is left of names that nobody uses, nor holds."""
        kept = used | set(self.zookeeper.children("holds"))
        return [
            f"{folder.title}/{name[:12]}"
            for folder, name, _ in self.disk.everything()
            if (name if folder is self.disk.base else cache_name(name)) not in kept
        ]

    def unsettled(self) -> str:
        """Say what is not as it must be in the end."""
        used = self.guests.names()
        gone = [name[:6] for name in used if name not in self.disk.base.names]
        return (
            f"used and gone: {gone or 'none'}; "
            f"unused and left: {self._left(used) or 'none'}; "
            f"gate: {self.oracle.reasons.standing() or 'open'}"
        )

    def epoch_folders(self) -> list[Folder]:
        """Return the epochs that may act, as the storage has them."""
        found = [] if self.disk.epochs is None else self.disk.epochs.names.values()
        return [folder for folder in found if isinstance(folder, Folder)]

    def result(self, settled_s: float, rounds: int = 0) -> Result:
        """Sum up."""
        return Result(
            self.seed,
            tuple(self.oracle.violations),
            dict(self.counts),
            self.scheduler.steps,
            settled_s,
            rounds,
            tuple(self.scheduler.trace or ()),
        )

    def end(self) -> None:
        """End every actor, so that nothing of this world is left."""
        self.calm = True
        for process in self.processes():
            process.wanted = False
        for actor in self.scheduler.actors:
            actor.kill()


def images_of(count: int) -> list[str]:
    """Return the cache names of this many images."""
    return [
        hashlib.sha1(b"image-%d" % number).hexdigest()  # noqa: S324 - Nova's naming
        for number in range(count)
    ]


def profile_of(seed: int | str) -> Profile:
    """Draw the profile that a seed decides; ``story:n`` tells that story."""
    rng = random.Random(f"profile of {seed}")  # noqa: S311 - a schedule
    story, colon, _ = str(seed).rpartition(":")
    found = told(story, rng) if colon else draw(rng, tuple(STORIES))
    return replace(found, **STORIES[found.story].changes) if found.story else found
