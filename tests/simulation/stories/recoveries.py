"""Stories of a ZooKeeper that goes back to a copy, and of an operator's recovery."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sharedcache.cleaner import operator
from tests.simulation.desk import OPERATOR
from tests.simulation.memory_copies import Copy, copy_of, go_back
from tests.simulation.recovery import recovery
from tests.simulation.stories.nodes import Newcomer
from tests.simulation.story import LOOKING, Story, otherwise

if TYPE_CHECKING:
    from tests.simulation.process import Host
    from tests.simulation.stage import Hold

LASTS_S = 10.0
"""How long a session that came back with a copy may be there, in seconds."""

LEADER_S = (5.0, 8.0)
"""How long the leader has to fall into the trap, once it is in office again."""


class WentBack(Story):
    """What all of them do: a copy is kept, put back, and recovered from."""

    def keep(self, at_once: Callable[[], object] = lambda: None) -> Copy:
        """Copy ZooKeeper; then another cleaner takes office, so that it shows.

        ``at_once`` is done in the very instant of the copy.
        """
        self.world.oracle.may_lose_zookeeper = True
        leader = self.leader()
        epoch = int(self.read("epoch")["value"])
        copy = copy_of(self.world.zookeeper)
        at_once()
        self.depose(leader)
        self.until("nobody else leads", lambda: max(self._epochs()) > epoch)
        return copy

    def _epochs(self) -> list[int]:
        folder = self.world.disk.epochs
        return [0] if folder is None else [0, *map(int, folder.names)]

    def goes_back(self, copy: Copy, *lasting: Host) -> None:
        """Let ZooKeeper go back; the sessions that come with the copy soon end.

        Those of some hosts may last as long as a session's timeout.
        """
        world = self.world
        ghosts = go_back(world.zookeeper, copy)
        last = {self._owner(host) for host in lasting}
        for number in ghosts:
            soon = LASTS_S if number in last else 0.5
            world.scheduler.after(soon, world.zookeeper.end_session, number)
        self.pause(0.6, 1.5)

    def _before_a_look(self, host: Host) -> Hold:
        """Hold an agent back before it reads the round for its next look."""
        title = self.agent(host)
        return self.stage.hold(
            title, "sync", when=lambda _: self.stage.last.get(title) not in LOOKING
        )

    def _owner(self, host: Host) -> int | None:
        record = self.world.zookeeper.record(f"groups/nodes/{host.name}")
        return None if record is None else record.owner

    def recovers(self) -> None:
        """Let an operator recover, and wait until somebody leads again."""
        self.pause(0.05, 1.0)
        done = int(self.read("epoch")["value"])
        self.operator(recovery)
        self.until(
            "nobody takes office",
            lambda: int(self.read("epoch")["value"]) > done + 1,
            8.0,
        )


class ForgottenNode(WentBack, Newcomer):
    """A host arrives after the copy was made, and is out of reach when it is put back.

    A guest uses a file there that nobody else does.
    """

    title = "forgotten-node"
    changes = otherwise(session_timeout_s=2.0)

    def tell(self) -> None:
        """See ``Story``."""
        name = self.fresh()
        self.leader()
        self.until("no report", lambda: all(self.report(host) for host in self.hosts))
        copy = self.keep()
        self.pause(0.01, 0.5)
        self.do(lambda _: self.world.add_node("n3"))
        host = self.world.hosts["n3"]
        self.settles_in(host, name)
        self.until("no report", lambda: self.report(host).get("images"))
        self.cut(host)
        self.goes_back(copy)
        self.recovers()
        self.pause(*LEADER_S)
        self.cut(host, off=False)


class RoundsOfOld(WentBack):
    """Agents read a round before ZooKeeper went back, and report it after that.

    No guest of theirs used the file then; one begins before they look again.  An
    operator's word to keep the file is among what is lost.
    """

    title = "rounds-of-old"
    changes = otherwise(session_timeout_s=2.0)

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        guest = self.begin(there, name, inode)
        self.until("no report", lambda: self.report(there).get("images"))
        copy = self.keep()
        self.operator(
            lambda at: operator.hold(at.zookeeper, name, "to be kept", OPERATOR)
        )
        self.until("no hold", lambda: self.world.zookeeper.children("holds"), 3.0)
        self.feed(but=[name])
        self.world.guests.leave(guest, there.name)
        for _ in range(3):
            self.await_raises(1)
        number = self.round()
        looks = [self._late_look(host, number) for host in (here, there)]
        self.goes_back(copy)
        for host in (here, there):
            self._client_notices(host)
        self.recovers()
        nexts = [self._report_of_old(host, look) for host, look in looks]
        self.begin(here, name, inode)
        self.pause(*LEADER_S)
        for one in nexts:
            one.release()

    def _late_look(self, host: Host, number: int) -> tuple[Host, Hold]:
        """Hold a host back in its look, once it has read a round."""
        self.until("no look", lambda: self.report(host).get("round", 0) >= number)
        look = self.stage.hold(self.agent(host), "look")
        self.caught(look)
        return host, look

    def _client_notices(self, host: Host) -> None:
        """Let the client's own thread begin a new session while the agent looks."""
        session = self.world.agents[host.name].session
        if session is not None:
            session.notice()

    def _report_of_old(self, host: Host, look: Hold) -> Hold:
        """Let a look end and be reported; hold the next one back."""
        look.release()
        late = self._before_a_look(host)
        self.until("no report", lambda: self.report(host), 3.0)
        return late


class WordsOfOld(WentBack):
    """A quarantined file is confirmed as the copy is made, and restored after that.

    A guest uses it, a foreign cleaner takes the name, and that is fetched again.
    When ZooKeeper goes back, the agents are slow to notice: they are registered
    there by their sessions of old, with what they said before.
    """

    title = "words-of-old"
    changes = otherwise(session_timeout_s=2.0)

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.feed(but=[name])
        leader = self.leader()
        # It has read all that it must, and has not authorised anything yet.
        before = self.stage.hold(
            leader, "leader", when=lambda _: self.confirmable(name)
        )
        self.caught(before, 10.0)
        copy = self.keep()
        before.release()
        self.wants(here, name, inode)
        self.until("no record", lambda: not self.report(here).get("intents"))
        self.foreign(name)
        self.fetch(there, name)
        self.until("no report", lambda: self.report(here).get("images"))
        waits = [self._before_a_look(host) for host in (here, there)]
        for one in waits:
            self.caught(one)
        self.goes_back(copy, here, there)
        self.recovers()
        self.pause(*LEADER_S)
        for one in waits:
            one.release()


ALL: tuple[type[Story], ...] = (ForgottenNode, RoundsOfOld, WordsOfOld)
