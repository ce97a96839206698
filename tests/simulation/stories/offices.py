"""Stories of offices: leaders that are deposed in the middle of a step."""

from __future__ import annotations

from tests.simulation.story import Story

STEPS = ("quarantine", "purge")
LOOKS = ("facts", "locked", "quarantined_facts", "quarantined_locked")


class Deposed(Story):
    """A leader's step takes so long that another takes office meanwhile."""

    title = "deposed"

    def tell(self) -> None:
        """See ``Story``."""
        self.feed(but=[])
        self.pause(0.5, 3.0)
        leader = self.leader()
        slow = self.stage.hold(leader, *(STEPS if self.chance(0.5) else LOOKS))
        self.caught(slow)
        self.depose(leader)
        self.until("nobody else leads", lambda: self.leader() != leader)
        self.pause(0.01, 1.0)
        slow.release()
        self.pause(0.5, 2.0)


class RestoreInATakeover(Deposed):
    """A leader's unlink takes long; its successor has yet to seal its epoch.

    Meanwhile the file is wanted, and a foreign cleaner takes its name again.
    """

    title = "restore-in-a-takeover"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        slow = self.slow_unlink(name)
        leader = slow.title
        other = next(title for title in self.world.cleaners if title != leader)
        seals = self.stage.hold(other, "epoch_move", "epoch_remove")
        self.depose(leader)
        self.caught(seals)
        self.wants(here, name, inode)
        self.foreign(name)
        slow.release()
        self.pause(0.1, 0.5)
        seals.release()


class LateRename(Story):
    """The answer to a rename is lost, and it lands seconds later.

    By then its record may say that nothing was taken.
    """

    title = "late-rename"

    def tell(self) -> None:
        """See ``Story``."""
        slow = self.stage.hold(self.leader(), "quarantine")
        slow.fails = "late"
        self.caught(slow)
        name = next((n for n in self.world.images if slow.args[0] == n), "")
        inode = self.file(name)
        slow.release()
        if self.chance(0.8):
            self.begin(self.two_hosts()[0], name, inode)
        self.pause(6.0, 9.0)


ALL: tuple[type[Story], ...] = (Deposed, RestoreInATakeover, LateRename)
