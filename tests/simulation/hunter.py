"""A world that is out to get us: guests that begin and move just when it hurts.

Nothing here is more than a world may do.  A guest begins by a name that its
host still remembers, soon after the file lost that name; and it moves onto a
host right behind that host's look, taking along what it has open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.memory_disk import Removal

if TYPE_CHECKING:
    from tests.simulation.guests import Guest
    from tests.simulation.process import Host
    from tests.simulation.world import World

FED_S = 0.3
REMEMBERS = 0.7
BEGINS = 0.7
FETCHES = 0.8
FOLLOWS = 0.9
STRAYS = 0.1
ENDS = 0.05


class Hunter:
    """Follows looks and renames, if the profile has one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._scheduler = world.scheduler
        self._looks: dict[str, float] = {}
        self._raised = 0.0
        if world.profile.hunted:
            self._scheduler.after(1.0, self._feed)

    def _feed(self, _: object) -> None:
        """Fetch images ahead of any guest, as Nova can, so that files do go."""
        world = self._world
        if world.calm:
            return
        hosts = [host for host in world.compute_hosts() if host.may_start_guests()]
        absent = [name for name in world.images if name not in world.disk.base.names]
        if hosts and absent:
            host = self._scheduler.random.choice(hosts)
            self.fetch((host, self._scheduler.random.choice(absent)))
        self._scheduler.after(self._scheduler.random.expovariate(1 / FED_S), self._feed)

    def _active(self) -> bool:
        return self._world.profile.hunted and not self._world.calm

    # A name went.

    def taken(self, removal: Removal) -> None:
        """Begin a guest by the name that went, where it is remembered."""
        if not self._active():
            return
        for host in self._world.compute_hosts():
            if self._scheduler.chance(REMEMBERS):
                # Somebody on that host looked the name up just before it went.
                host.mount.remember(removal.name, removal.inode)
        if not self._scheduler.chance(BEGINS):
            return
        self._scheduler.after(
            self._scheduler.stretch(0.005, 1.5), self._begin, removal.name
        )

    def _begin(self, name: str) -> None:
        world = self._world
        hosts = [
            host
            for host in world.compute_hosts()
            if host.may_start_guests() and host.mount.remembered(name) is not None
        ]
        if not hosts or world.calm:
            return
        host = self._scheduler.random.choice(hosts)
        inode = host.mount.remembered(name)
        if inode is None:
            return
        world.guests.begin(host, name, inode)
        if self._scheduler.chance(FETCHES):
            # So that the guest's own file is not given back.
            self._scheduler.after(
                self._scheduler.stretch(0.0005, 0.1), self.fetch, (host, name)
            )

    def fetch(self, which: tuple[Host, str]) -> None:
        """Fetch an image that is not there, under its lock, as a Nova does."""
        host, name = which
        disk = self._world.disk
        holding = host.locks.hold(name)
        if holding is None:
            return
        if name not in disk.base.names and not disk.full:
            disk.create(disk.base, name, disk.new_file(name.encode()))
        host.locks.let_go(holding)

    # Rounds and looks.

    def raised(self) -> None:
        """Note when the round was raised."""
        self._raised = self._scheduler.now

    def looked(self, host: Host) -> None:
        """Move a guest onto a host right behind its look."""
        if not self._active():
            return
        before = self._looks.get(host.name, 0.0)
        self._looks[host.name] = self._scheduler.now
        first = before < self._raised
        events = self._world.profile.events
        for guest in list(self._world.guests.all):
            stray = self._is_stray(guest)
            if stray and guest.may_move(events=events) and host.name not in guest.bound:
                # Best behind the first look of a round, before the guest's own
                # host has looked in that round.
                ahead = first and all(
                    self._looks.get(name, 0.0) < self._raised for name in guest.bound
                )
                if self._scheduler.chance(FOLLOWS if ahead else STRAYS):
                    self._scheduler.after(
                        self._scheduler.stretch(0.0005, 0.05), self._move, (guest, host)
                    )
            elif stray and self._scheduler.chance(ENDS):
                self._scheduler.after(
                    self._scheduler.stretch(0.0005, 0.5), self._end, (guest, host)
                )

    def _is_stray(self, guest: Guest) -> bool:
        named = self._world.disk.base.names.get(guest.name)
        return any(inode is not named for inode in guest.bound.values())

    def _move(self, move: tuple[Guest, Host]) -> None:
        guest, host = move
        guests = self._world.guests
        sources = [name for name in guest.bound if name != host.name]
        if (
            guest not in guests.all
            or guest.moving
            or host.name in guest.bound
            or not sources
            or not host.may_start_guests()
        ):
            return
        guest.moves += 1
        guests.bind(guest, host, guest.bound[sources[0]])
        for name in sources:
            guests.leave(guest, name)

    def _end(self, which: tuple[Guest, Host]) -> None:
        guest, host = which
        if host.name in guest.bound and not guest.moving:
            self._world.guests.leave(guest, host.name)
