"""Guests, and a stand-in for Nova that starts them by Nova's own rules.

Nova takes the name's lock, fetches a base that is not there (to a partial name,
then a rename), touches it, and creates the overlay.  From that moment on the
guest uses the file that the name led to on that host, running or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.memory_disk import Inode
from tests.simulation.memory_locks import Holding

if TYPE_CHECKING:
    from tests.simulation.process import Host
    from tests.simulation.scheduler import Actor
    from tests.simulation.world import World


TEMPTED = 0.9
"""How often what a client remembers is made use of, where it leads astray."""


@dataclass(slots=True, eq=False)
class Guest:
    """One guest: its image's cache name, and on each host the file it is bound to.

    It has more than one host while it moves.
    """

    title: str
    name: str
    bound: dict[str, Inode] = field(default_factory=dict)
    running: bool = False
    moving: bool = False
    moves: int = 0

    def may_move(self, *, events: bool) -> bool:
        """Whether it may move: with scans only, two moves can be missed."""
        return events or self.moves == 0


class Guests:
    """Every guest there is.  The truth, which agents see through sources only."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.all: list[Guest] = []
        self.declared: set[tuple[str, str]] = set()
        self._born = 0

    def on(self, host: str) -> list[Guest]:
        """Return the guests that are defined on a host."""
        return [guest for guest in self.all if host in guest.bound]

    def running_on(self, host: str) -> list[Guest]:
        """Return the guests that run on a host."""
        return [guest for guest in self.on(host) if guest.running]

    def names_on(self, host: str) -> set[str]:
        """Return the cache names that a host uses."""
        bound = {guest.name for guest in self.all if host in guest.bound}
        return bound | {name for where, name in self.declared if where == host}

    def users(self, inode: Inode) -> list[Guest]:
        """Return the guests that are bound to a file."""
        return [g for g in self.all if any(one is inode for one in g.bound.values())]

    def names(self) -> set[str]:
        """Return every cache name that some guest uses."""
        return {guest.name for guest in self.all} | {n for _, n in self.declared}

    def declare(self, host: Host, name: str) -> None:
        """Let a driver say on its host that it is about to use a name.

        It asks its agent for a restore by that, as `SharedCache` does.
        """
        self.declared.add((host.name, name))
        self._world.scheduler.tell(f"driver@{host.name}", f"declares {name[:6]}")

    def withdraw(self, host: Host, name: str) -> None:
        """Let a driver take back what it declared, once its guest is there or not."""
        if (host.name, name) in self.declared:
            self.declared.remove((host.name, name))
            if host.source is not None:
                host.source.ended((name,))
            self._world.scheduler.tell(f"driver@{host.name}", f"is done {name[:6]}")

    def begin(self, host: Host, name: str, inode: Inode) -> Guest:
        """Create an overlay on a file."""
        self._born += 1
        guest = Guest(f"guest-{self._born}", name)
        self.all.append(guest)
        self.bind(guest, host, inode)
        return guest

    def bind(self, guest: Guest, host: Host, inode: Inode) -> None:
        """Let a guest use a file on a host."""
        before = guest.bound.get(host.name)
        if before is not None and guest.running:
            self._lock(before, -1)
        guest.bound[host.name] = inode
        if self._world.disk.base.names.get(guest.name) is not inode:
            self._world.counts["used by an old name"] += 1
        if guest.running:
            self._lock(inode, 1)
        self._tell(guest, f"uses {guest.name[:6]} inode {inode.number} on {host.name}")

    def leave(self, guest: Guest, host: str) -> None:
        """Let a guest go from a host; from its last one it is gone."""
        inode = guest.bound.pop(host)
        if guest.running:
            self._lock(inode, -1)
        source = self._world.hosts[host].source
        if source is not None:
            source.ended((guest.name,))
        if not guest.bound:
            self.all.remove(guest)
        self._tell(guest, f"leaves {host}")

    def run(self, guest: Guest, *, running: bool) -> None:
        """Start or stop a guest; qemu locks its files while it runs."""
        if guest.running != running:
            guest.running = running
            for inode in guest.bound.values():
                self._lock(inode, 1 if running else -1)
            self._tell(guest, "runs" if running else "stops")

    def _lock(self, inode: Inode, change: int) -> None:
        """Let qemu lock its files, on a storage that keeps locks."""
        if self._world.profile.qemu_locks:
            inode.locks += change

    def _tell(self, guest: Guest, what: str) -> None:
        self._world.scheduler.tell(guest.title, what)


class Nova:
    """The compute service of one host, as one actor."""

    def __init__(self, world: World, host: Host) -> None:
        self._world = world
        self._host = host
        self._random = world.scheduler.random
        self._actor: Actor | None = None
        self._held: Holding | None = None

    @property
    def _actor_now(self) -> Actor:
        if self._actor is None:
            raise RuntimeError("nobody works")
        return self._actor

    def body(self, actor: Actor) -> None:
        """Work for as long as the world is not calm."""
        self._actor = actor
        profile = self._world.profile
        while not self._host.may_start_guests():
            actor.sleep(0.2)
        while not self._world.calm and not self._host.shutting_down:
            actor.sleep(self._random.expovariate(1 / profile.guest_interval_s))
            if self._world.calm or self._host.shutting_down:
                return
            self._one_thing()

    def end(self) -> None:
        """Let go of what it held: it is gone."""
        if self._held is not None:
            self._host.locks.let_go(self._held)
            self._held = None

    def _one_thing(self) -> None:
        guests = self._world.guests
        mine = [g for g in guests.on(self._host.name) if not g.moving]
        running = [g for g in mine if g.running]
        stopped = [g for g in mine if not g.running]
        events = self._world.profile.events
        movable = [g for g in mine if g.may_move(events=events)]
        choice = self._random.random()
        if choice < 0.4 and len(mine) < self._world.profile.guests:
            self._create(self._pick())
        elif choice < 0.45 and running:
            guests.run(self._random.choice(running), running=False)
        elif choice < 0.5 and stopped:
            self._start(self._random.choice(stopped))
        elif choice < 0.7 and movable:
            guest = self._random.choice(movable)
            self._move(guest, (0.01, 3.0) if guest.running else (0.1, 6.0))
        elif mine:
            guest = self._random.choice(mine)
            named = self._world.disk.base.names.get(guest.name)
            if guest.bound[self._host.name] is named or self._random.random() < 0.3:
                guests.leave(guest, self._host.name)

    def _pick(self) -> str:
        """Choose an image, rather one whose name only this host still remembers."""
        images, mount = self._world.images, self._host.mount
        tempting = [name for name in images if mount.remembered(name) is not None]
        if tempting and self._random.random() < TEMPTED:
            return self._random.choice(tempting)
        return self._random.choice(images)

    def _pause(self) -> None:
        self._actor_now.sleep(self._world.scheduler.stretch(0.002, 0.3))

    def _open(self, host: Host, name: str) -> Inode | None:
        """Open a name on a host, perhaps through what it has cached.

        That a host may take a name for missing that is there makes Nova download
        over it: a hazard of Nova's own, which is left out.
        """
        base = self._world.disk.base
        tempted = self._random.random() < TEMPTED
        found = host.mount.lookup(base, name, tempted=tempted) or base.names.get(name)
        return found if isinstance(found, Inode) else None

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Hold Nova's lock for a name, waiting as long as it takes."""
        while True:
            self._held = self._host.locks.hold(name)
            if self._held is not None:
                break
            self._actor_now.sleep(0.1)
        try:
            yield
        finally:
            self.end()

    def _create(self, name: str) -> None:
        with self._lock(name):
            if self._open(self._host, name) is None:
                self._fetch(name)
            self._pause()
            self._touch(name)
            self._pause()
            inode = self._open(self._host, name)
            if inode is None:
                # The file went meanwhile: qemu-img says so, and Nova gives up.
                return
            guest = self._world.guests.begin(self._host, name, inode)
            self._pause()
            if guest in self._world.guests.all:
                self._world.guests.run(guest, running=True)

    def _touch(self, name: str) -> None:
        """Touch a base before its overlay is made; a refusal is ignored."""
        found = self._open(self._host, name)
        if found is not None and self._world.profile.touches and found.links:
            self._world.disk.touch(found)

    def _fetch(self, name: str) -> None:
        """Download to a partial name, then rename."""
        disk = self._world.disk
        partial = f"{name}.{self._host.name}.part"
        try:
            inode = disk.new_file(name.encode())
            old = disk.base.names.get(partial)
            if isinstance(old, Inode):
                inode = old
            else:
                disk.create(disk.base, partial, inode)
            self._actor_now.sleep(self._world.scheduler.stretch(0.02, 1.5))
            if disk.base.names.get(partial) is not inode:
                return
            disk.touch(inode)
            if not self._world.profile.shared_locks and name in disk.base.names:
                # Novas that share no locks overwrite each other's downloads: a
                # hazard of their own, which is left out.
                disk.unlink(disk.base, partial)
                return
            disk.rename(disk.base, partial, disk.base, name)
        except OSError:
            return
        self._host.mount.forget(disk.base, name)
        self._world.scheduler.tell(f"nova@{self._host.name}", f"fetched {name[:6]}")

    def _start(self, guest: Guest) -> None:
        """Start a guest that was stopped: the hypervisor opens its files by name."""
        inode = self._open(self._host, guest.name)
        if inode is None or self._host.name not in guest.bound:
            return
        self._world.guests.bind(guest, self._host, inode)
        self._world.guests.run(guest, running=True)

    def _elsewhere(self, name: str) -> Host | None:
        """Choose another host, rather one that remembers the name of old."""
        others = [
            host
            for host in self._world.compute_hosts()
            if host is not self._host and host.may_start_guests()
        ]
        tempting = [h for h in others if h.mount.remembered(name) is not None]
        if tempting and self._random.random() < TEMPTED:
            others = tempting
        return self._random.choice(others) if others else None

    def _move(self, guest: Guest, within_s: tuple[float, float]) -> None:
        """Migrate a running guest, or resize a stopped one onto another host.

        For a while both hosts use its files; then one of them lets go.
        """
        target = self._elsewhere(guest.name)
        if target is None or target.name in guest.bound:
            return
        inode = self._open(target, guest.name)
        if inode is None:
            return
        guest.moving = True
        guest.moves += 1
        self._world.guests.bind(guest, target, inode)
        self._actor_now.sleep(self._world.scheduler.stretch(*within_s))
        self._arrive(guest, target)

    def _arrive(self, guest: Guest, target: Host) -> None:
        guest.moving = False
        here = self._host.name
        if here not in guest.bound or target.name not in guest.bound:
            return
        goes = self._random.random() < 0.8 and target.up
        self._world.guests.leave(guest, here if goes else target.name)
