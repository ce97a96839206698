"""Stories of nodes that come, go and start again: sessions, witnesses, seals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharedcache.cleaner import operator
from tests.simulation.desk import OPERATOR
from tests.simulation.stage import writes
from tests.simulation.story import CutShortError, Story, otherwise

if TYPE_CHECKING:
    from tests.simulation.process import Host

LEADER_S = (4.0, 7.0)
"""How long the leader has to fall into the trap."""


class NewSession(Story):
    """A node whose guest uses a quarantined file registers with a new session."""

    title = "new-session"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        self.feed(but=[name])
        self.stray(here, name)
        self.until("it is not on record", lambda: self.taken(name))
        present = self.round()
        self.until("no raise", lambda: self.round() > present + 1)
        process = self.world.agents[here.name]
        if process.session is None:
            return
        joins = self.made(here, "join")
        half = self.stage.hold(
            self.agent(here), "commit", when=lambda _: self.made(here, "join") > joins
        )
        self.world.zookeeper.end_session(process.session.raw_session)
        self.caught(half)
        self.pause(1.0, 3.0)
        half.release()


class SealedHost(Story):
    """A host that was stopped in good order boots, and ZooKeeper is out of reach.

    A guest begins on it, with a file that nobody else uses.
    """

    title = "sealed-host"

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.fresh()
        self.until("no report", lambda: self.report(here))
        self.leader()
        self.shut_down(here)
        self.cut(here)
        slow = self.stage.hold(self.agent(here), "witness_write")
        self.boot(here)
        self.caught(slow)
        if not here.may_start_guests():
            slow.release()
            self.until("no witness", here.may_start_guests)
        self.fetch(there, name)
        self.begin(here, name, self.file(name))
        self.pause(*LEADER_S)
        slow.release()
        self.cut(here, off=False)


class LateWitness(Story):
    """A host is reset while its agent writes its witness, and the write lands late.

    By then the agent of the next boot has reported, if the seed wants it so.
    """

    title = "late-witness"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        self.until("no report", lambda: self.report(here))
        self.do(self.world.switch_off, here)
        slow = self.stage.hold(self.agent(here), "witness_write")
        self.boot(here)
        self.caught(slow)
        self.do(self.world.switch_off, here)
        slow.release()
        self.boot(here)
        born = here.boot_id()
        self.until("no report", lambda: self.report(here).get("boot_id") == born)
        self.pause(*LEADER_S)


class Newcomer(Story):
    """A host that nobody expected starts, and ZooKeeper is out of its reach."""

    title = "newcomer"

    def tell(self) -> None:
        """See ``Story``."""
        name = self.fresh()
        self.leader()
        self.until("no report", lambda: all(self.report(host) for host in self.hosts))
        self.pause(0.01, 1.0)
        host = self.arrives()
        self.settles_in(host, name)
        self.pause(*LEADER_S)
        self.cut(host, off=False)

    def arrives(self) -> Host:
        """Let the new host boot, cut off as it is."""
        self.world.cut_hosts.add("n3")
        self.do(lambda _: self.world.add_node("n3"))
        return self.world.hosts["n3"]

    def settles_in(self, host: Host, name: str) -> None:
        """Begin a guest there."""
        self.until("no witness", host.may_start_guests)
        self.fetch(host, name)
        self.begin(host, name, self.file(name))


class UnseenNewcomer(Newcomer):
    """The same, and the leader has just listed the witnesses, or so it remembers.

    The guest begins right after the witness, with a file that is taken later; or by
    a name that its host remembers, as late as it may.
    """

    title = "unseen-newcomer"
    changes = otherwise(
        cache_s=2.0,
        kept_s=2.0,
        stale=1.0,
        lag_s=0.0,
        cleaners=1,
        round_interval_s=0.05,
        report_interval_s=0.2,
    )

    def settles_in(self, host: Host, name: str) -> None:
        """See ``Newcomer``."""
        world = self.world
        slow = self.stage.hold(self.agent(host), "witness_write")
        late = self.chance(0.5)
        if late:
            self.fetch(host, name)
            inode = self.file(name)
            self.until("it is not taken", lambda: self.named(name) is None)
            # The host's kernel looked the name up right before that.
            host.mount.remember(name, inode)
            self.pause(0.3, 1.8)
        self.caught(slow)
        leader = world.cleaners[self.leader()].host
        self.until("no look", lambda: self._just_listed(leader), 4.0)
        slow.release()
        self.until("no witness", host.may_start_guests)
        if not late:
            self.fetch(host, name)
            inode = self.file(name)
        if inode is not host.mount.lookup(world.disk.base, name, tempted=True):
            raise CutShortError("the host has forgotten the name")
        self.begin(host, name, inode)

    def _just_listed(self, leader: Host) -> bool:
        """Whether the leader's mount has listed the witnesses a moment ago."""
        nodes = self.world.disk.nodes
        kept = None if nodes is None else leader.mount._listings.get(nodes)
        return kept is not None and self.world.scheduler.now - kept[0] < 0.1


class LongerMemory(Newcomer):
    """A newcomer's host remembers a name longer than the cleaners' hosts would.

    Its guest begins by that name, as late as it may: right before the unlink.
    """

    title = "longer-memory"
    changes = otherwise(**{**UnseenNewcomer.changes, "cleaner_cache_s": 0.0})

    def arrives(self) -> Host:
        """See ``Newcomer``; the leader has made a pass before."""
        self.until("no pass", lambda: self.world.counts["pass"], 14.0)
        return super().arrives()

    def settles_in(self, host: Host, name: str) -> None:
        """See ``Newcomer``."""
        slow = self.stage.hold(self.agent(host), "witness_write")
        self.fetch(host, name)
        inode = self.file(name)
        unlink = self.unlink_of(self.leader(), name)
        self.until("it is not taken", lambda: self.named(name) is None)
        host.mount.remember(name, inode)
        self.caught(slow)
        self.happens(1.8, lambda: unlink.caught)
        slow.release()
        self.until("no witness", host.may_start_guests)
        if host.mount.remembered(name) is not inode:
            raise CutShortError("the host has forgotten the name")
        self.begin(host, name, inode)
        unlink.release()


class AgentStops(Story):
    """An agent is stopped while its host goes on, and guests begin there later."""

    title = "agent-stops"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.fresh()
        self.until("no report", lambda: self.report(here))
        agent = self.world.agents[here.name]
        agent.wanted = False
        agent.stop.asked = True
        self.until("the agent does not stop", lambda: not agent.running)
        self.fetch(here, name)
        self.begin(here, name, self.file(name))
        self.pause(*LEADER_S)
        agent.wanted = True
        self.do(agent.start)


class NodeMissing(Story):
    """A host is out of ZooKeeper's reach; a guest began there before that, or after."""

    title = "node-missing"
    changes = otherwise(session_timeout_s=1.5)

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        first = self.begin(there, name, inode)
        self.until("no report", lambda: self.report(there).get("images"))
        before = self.chance(0.5)
        if before:
            self.begin(here, name, inode)
            self.until("no report", lambda: self.report(here).get("images"))
        self.feed(but=[name])
        self.until(
            "no later report",
            lambda: self.report(here).get("storage_time_ns", 0) > inode.mtime_ns,
        )
        self.cut(here)
        self.until("it is still registered", lambda: not self.report(here))
        if not before:
            self.begin(here, name, inode)
        self.world.guests.leave(first, there.name)
        self.pause(*LEADER_S)
        self.cut(here, off=False)


class ExpungedAlive(Story):
    """An operator expunges a node that lives, and ZooKeeper goes out of its reach."""

    title = "expunged-alive"
    changes = otherwise(session_timeout_s=2.0)

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.begin(here, name, inode)
        self.until("no report", lambda: self.report(here).get("images"))
        slow = self.stage.hold(self.agent(here), "sync")
        self.caught(slow)
        self.operator(
            lambda at: operator.expunge(at.zookeeper, at.storage, here.name, OPERATOR)
        )
        self.pause(0.5, 1.0)
        self.cut(here)
        slow.release()
        self.pause(*LEADER_S)
        self.pause(*LEADER_S)
        self.cut(here, off=False)


class ExpungedReturns(Newcomer):
    """A host that was off, and expunged, boots after all, out of ZooKeeper's reach.

    A guest begins there.  Then the agent joins anew, perhaps slowly.
    """

    title = "expunged-returns"
    changes = otherwise(session_timeout_s=2.0)

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.fresh()
        self.until("no report", lambda: self.report(here))
        self.do(self.world.switch_off, here)
        self.until("it is still registered", lambda: not self.report(here))
        self.operator(
            lambda at: operator.expunge(at.zookeeper, at.storage, here.name, OPERATOR)
        )
        self.until("it is not expunged", lambda: self._expunged(here))
        self.pause()
        self.cut(here)
        self.boot(here)
        self.settles_in(here, name)
        self.pause(*LEADER_S)
        self.pause(*LEADER_S)
        half = self.stage.hold(self.agent(here), "commit", when=writes("roster"))
        if self.chance(0.5):
            half.release()
        self.cut(here, off=False)
        self.happens(3.0, lambda: half.caught)
        self.pause(1.0, 3.0)
        half.release()

    def _expunged(self, host: Host) -> bool:
        """Whether a host's tombstone stands."""
        record = self.read(f"roster/{host.name}")
        return record is not None and record["expunged_at"] is not None


ALL: tuple[type[Story], ...] = (
    NewSession,
    NodeMissing,
    SealedHost,
    LateWitness,
    Newcomer,
    UnseenNewcomer,
    LongerMemory,
    ExpungedAlive,
    ExpungedReturns,
    AgentStops,
)
