"""Stories of files that have to wait: for their age, their grace, a hold, a refusal."""

from __future__ import annotations

from sharedcache.cleaner import operator
from tests.simulation.desk import OPERATOR
from tests.simulation.stage import When
from tests.simulation.story import Story, otherwise


class YoungFile(Story):
    """Files come and are not used, in a cluster that lets them wait for seconds."""

    title = "young-file"
    changes = otherwise(min_age_s=2.0, grace_s=3.0)

    def tell(self) -> None:
        """See ``Story``."""
        self.feed(but=[])
        self.pause(6.0, 9.0)


class Held(Story):
    """An operator holds a name, whose file is there, in quarantine, or both."""

    title = "held"

    def tell(self) -> None:
        """See ``Story``."""
        name = self.image()
        self.feed(but=[name])
        if self.chance(0.5):
            self.until("nothing is taken", lambda: self.taken(name), 8.0)
        self.operator(
            lambda at: operator.hold(at.zookeeper, name, "simulated", OPERATOR),
            lambda at: operator.release(at.zookeeper, name, OPERATOR),
            wait_s=self.world.scheduler.stretch(2.0, 4.0),
        )
        held = f"holds/{name}"
        self.until("no hold", lambda: self.world.zookeeper.record(held))
        if self.chance(0.5) and self.named(name) is None:
            self.fetch(self.hosts[0], name)
        self.until("it is never released", lambda: self.read(held) is None, 8.0)
        self.pause(0.1, 1.0)


class Refused(Story):
    """The storage refuses the new name of what was restored, and an unlink."""

    title = "refused"

    def tell(self) -> None:
        """See ``Story``."""
        name = self.image()
        self.feed(but=[name])
        self.taken_and_wanted(name)
        self.refuse("purge", lambda args: not args[1].startswith(name))
        self.pause(0.3, 2.0)

    def refuse(self, call: str, when: When) -> None:
        """Let the storage refuse one step of the leader's."""
        step = self.stage.hold(self.leader(), call, when=when)
        step.fails = "refused"
        self.caught(step, 8.0)
        step.release()

    def taken_and_wanted(self, name: str) -> None:
        """Let a file be restored; its entry then has to get a new name."""
        here, _ = self.two_hosts()
        inode = self.file(name)
        self.until("nothing is taken", lambda: self.taken(name), 8.0)
        guest = self.wants(here, name, inode)
        self.world.guests.leave(guest, here.name)
        self.refuse("epoch_move", lambda args: args[0] == args[2])


ALL: tuple[type[Story], ...] = (YoungFile, Held, Refused)
