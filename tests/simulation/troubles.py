"""Troubles of the cluster: what befalls processes, hosts, networks, the storage."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from sharedcache.cleaner import operator
from sharedcache.cleaner.restore import OperatorRestore
from tests.simulation.desk import OPERATOR, Word, say
from tests.simulation.process import Host, Process

if TYPE_CHECKING:
    from tests.simulation.world import World

LONGEST_S = 15.0
SHORT_S = 3.0


class Troubles:
    """Makes trouble until an end, in seconds of simulated time."""

    def __init__(self, world: World, until: float) -> None:
        self._world = world
        self._until = until
        self._scheduler = world.scheduler
        self._random = world.scheduler.random
        self._operators = 0
        self._old: set[str] = set()
        if world.profile.troubles:
            self._next()

    def _next(self) -> None:
        mean_s = self._world.profile.trouble_interval_s
        when = self._scheduler.now + self._random.expovariate(1 / mean_s)
        if when < self._until:
            self._scheduler.at(when, self._strike)

    def _strike(self, _: object) -> None:
        name = self._random.choice(self._world.profile.troubles)
        self._world.counts[f"trouble-{name}"] += 1
        getattr(self, name.replace("-", "_"))()
        self._next()

    def _for_a_while(self, least_s: float = 0.3) -> float:
        """Draw how long a trouble lasts; all of it ends with the troubles."""
        longest_s = SHORT_S if self._world.profile.hunted else LONGEST_S
        drawn = self._scheduler.stretch(least_s, longest_s)
        return min(drawn, max(least_s, self._until - self._scheduler.now))

    def _some(self) -> Process | None:
        running = [p for p in self._world.processes() if p.running]
        return self._random.choice(running) if running else None

    def _some_node(self) -> Host | None:
        up = [host for host in self._world.compute_hosts() if host.up]
        return self._random.choice(up) if up else None

    # Processes.

    def kill(self) -> None:
        """Kill a daemon."""
        process = self._some()
        if process is not None:
            process.kill()

    def stall(self) -> None:
        """Let a daemon stand still."""
        process = self._some()
        if process is not None:
            process.pause(self._for_a_while())

    def expire(self) -> None:
        """Let the servers end a session."""
        process = self._some()
        if process is not None and process.session is not None:
            self._scheduler.tell(process.title, "session is ended by the servers")
            self._world.zookeeper.end_session(process.session.raw_session)

    # Hosts.

    def crash(self) -> None:
        """Let a compute host lose its power, and come back later."""
        host = self._some_node()
        if host is None:
            return
        self._scheduler.tell(host.name, "loses its power")
        self._off(host)

    def _off(self, host: Host) -> None:
        """Switch a host off, whether its agent has finished or not; boot it later."""
        self._world.switch_off(host)
        self._scheduler.after(self._for_a_while(0.5), self._boot, host)

    def _boot(self, host: Host) -> None:
        if not host.up:
            self._scheduler.tell(host.name, "boots")
            host.boots += 1
            self._world.boot(host)

    def reboot(self) -> None:
        """Stop a compute host in good order, and start it later."""
        host = self._some_node()
        if host is None or host.shutting_down:
            return
        self._world.shut_down(host)
        self._scheduler.after(self._for_a_while(1.0), self._off, host)

    def cut(self) -> None:
        """Cut a host off from ZooKeeper."""
        host = self._random.choice(list(self._world.hosts.values()))
        if host.name in self._world.cut_hosts:
            return
        self._world.cut(host, off=True)
        self._scheduler.after(
            self._for_a_while(), lambda _: self._world.cut(host, off=False)
        )

    def hang(self) -> None:
        """Let the storage hang, for one host or for all."""
        hosts = list(self._world.hosts.values())
        chosen = hosts if self._random.random() < 0.3 else [self._random.choice(hosts)]
        until = self._scheduler.now + self._for_a_while()
        for host in chosen:
            host.hung_until = max(host.hung_until, until)
        self._scheduler.tell("storage", f"hangs for {[host.name for host in chosen]}")

    def full(self) -> None:
        """Let the storage have no space left for anything new."""
        disk = self._world.disk
        disk.full = True
        self._scheduler.tell("storage", "is full")
        self._scheduler.after(
            self._for_a_while(), lambda _: setattr(disk, "full", False)
        )

    def broken(self) -> None:
        """Let a host's mount answer everything with an error."""
        host = self._random.choice(list(self._world.hosts.values()))
        host.broken = self._random.choice((errno.EIO, errno.ESTALE))
        self._scheduler.tell(host.name, f"has a mount that says {host.broken}")
        self._scheduler.after(self._for_a_while(), lambda _: setattr(host, "broken", 0))

    def source(self) -> None:
        """Let a host's hypervisor not answer for a while."""
        host = self._some_node()
        if host is None or host.source is None:
            return
        source = host.source
        source.fails = True
        self._scheduler.after(
            self._for_a_while(), lambda _: setattr(source, "fails", False)
        )

    # Operators and newcomers.

    def newcomer(self) -> None:
        """Let a compute node that nobody expected start."""
        if len(self._world.agents) < 4:
            self._world.add_node(f"n{len(self._world.agents) + 1}")

    def old_node(self) -> None:
        """Let a compute node of the old release join, and be upgraded later."""
        if self._old or len(self._world.agents) > 3:
            return
        name = f"n{len(self._world.agents) + 1}"
        self._old.add(name)
        self._world.add_node(name, schema=1)
        self._scheduler.after(self._for_a_while(2.0), self._upgrade, name)

    def _upgrade(self, name: str) -> None:
        self._world.schemas[name] = 2
        self._world.agents[name].kill()

    def operator(self) -> None:
        """Let an operator say something, and take it back later."""
        word = self._random.choice(("pause", "hold", "expect", "restore"))
        name = self._random.choice(self._world.images)
        if word == "pause":
            self._say(
                lambda at: operator.pause(at.zookeeper, "simulated", OPERATOR),
                lambda at: operator.resume(at.zookeeper, OPERATOR),
            )
        elif word == "hold":
            self._say(
                lambda at: operator.hold(at.zookeeper, name, "simulated", OPERATOR),
                lambda at: operator.release(at.zookeeper, name, OPERATOR),
            )
        elif word == "restore":
            self._say(
                lambda at: OperatorRestore(
                    at.zookeeper,
                    at.storage,
                    at.locks,
                    at.clock,
                    at.tokens,
                    OPERATOR.who,
                ).run(name)
            )
        else:
            self._say(
                lambda at: operator.expect(at.zookeeper, "n9", OPERATOR),
                lambda at: operator.expunge(at.zookeeper, at.storage, "n9", OPERATOR),
            )

    def _say(self, *words: Word) -> None:
        """Let an operator give a command, wait, and take it back."""
        self._operators += 1
        title = f"operator-{self._operators}"
        say(self._world, title, self._for_a_while(), *words)
