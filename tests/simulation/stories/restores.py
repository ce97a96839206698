"""Stories of restores that race a purge.

A file that is restored has two names, so the unlink of the quarantined one costs
nothing until somebody takes the other: a foreign cleaner, who goes by its own
rules.  It does so in all of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sharedcache.cleaner.restore import OperatorRestore
from tests.simulation.desk import OPERATOR, Desk
from tests.simulation.stage import Hold, writes
from tests.simulation.story import Story, otherwise

if TYPE_CHECKING:
    from tests.simulation.memory_disk import Inode
    from tests.simulation.process import Host


class WantedTooLate(Story):
    """A file is wanted again when it is authorised, and its unlink takes long."""

    title = "wanted-too-late"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        slow = self.slow_unlink(name)
        if self.chance(0.5):
            self.world.guests.declare(here, name)
        else:
            self.asks(name)
        self.is_used_and_taken(here, name, inode, slow)

    def asks(self, name: str) -> str:
        """Let an operator restore a file; return who it is."""

        def word(at: Desk) -> object:
            return OperatorRestore(
                at.zookeeper, at.storage, at.locks, at.clock, at.tokens, OPERATOR.who
            ).run(name)

        return self.operator(word)


class WantedJustBefore(WantedTooLate):
    """A file is wanted again when the leader has read all and not yet authorised.

    The intent is published then; the rest of the restore comes after the
    authorisation, if there is one.
    """

    title = "wanted-just-before"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        leader = self.leader()
        by_hand = self.chance(0.4)
        before = self.stage.hold(
            leader, "leader", when=lambda _: self.confirmable(name)
        )
        self.caught(before)
        rest = self.intends(here, name, by_hand=by_hand)
        self.caught(rest)
        slow = self.unlink_of(leader, name)
        before.release()
        self.happens(1.0, lambda: slow.caught)
        rest.release()
        self.is_used_and_taken(here, name, inode, slow)

    def intends(self, here: Host, name: str, *, by_hand: bool) -> Hold:
        """Let a file be wanted; hold the restore back once the intent is known."""
        if by_hand:
            return self.stage.hold(self.asks(name), "take")
        rest = self.stage.hold(self.agent(here), "commit", when=writes("manifest/"))
        self.world.guests.declare(here, name)
        return rest


class AskedJustBefore(WantedJustBefore):
    """The same, and the record is marked too: the restore waits with its link."""

    title = "asked-just-before"

    def intends(self, here: Host, name: str, *, by_hand: bool) -> Hold:
        """Let a file be wanted; hold its link back."""
        if by_hand:
            return self.stage.hold(self.asks(name), "restore")
        rest = self.stage.hold(self.agent(here), "restore")
        self.world.guests.declare(here, name)
        return rest


class HalfPublished(WantedTooLate):
    """An agent publishes the second half of its intent long after the first.

    In between the leader reads all, and authorises what it may.
    """

    title = "half-published"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        leader = self.leader()
        ready = self.stage.hold(leader, "sync", when=lambda _: self.confirmable(name))
        self.caught(ready)
        slow = self.unlink_of(leader, name)
        half = self.stage.hold(
            self.agent(here), "commit" if self.chance(0.3) else "update_capabilities"
        )
        self.world.guests.declare(here, name)
        self.caught(half)
        ready.release()
        self.happens(3.0, lambda: slow.caught)
        half.release()
        self.is_used_and_taken(here, name, inode, slow)


class MarkedEntry(WantedTooLate):
    """An operator's restore is under way, for so long that leaders look again."""

    title = "marked-entry"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.until("it is not on record", lambda: self.taken(name))
        rest = self.stage.hold(self.asks(name), "restore")
        leader = self.leader()
        slow = self.unlink_of(leader, name)
        self.caught(rest)
        self.happens(3.0, lambda: slow.caught)
        rest.release()
        self.is_used_and_taken(here, name, inode, slow)


class LateUnlink(Story):
    """The answer to an unlink is lost, and it lands seconds later.

    Until then the file is wanted, and whatever else is to be purged is purged.
    """

    title = "late-unlink"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.feed(but=[name])
        leader = self.leader()
        slow = self.slow_unlink(name)
        again = self.stage.hold(leader, "sync")
        slow.fails = "late"
        slow.release()
        # The leader looks again when the node has said that it uses the name, and
        # in half of the schedules when it has restored the file, if it may.
        self.world.guests.declare(here, name)
        self.until("no report", lambda: self.report(here).get("images"))
        if self.chance(0.5):
            self.happens(2.0, lambda: self.named(name) is inode)
        # A restored file would get a new name, by which the unlink finds nothing.
        renews = self.stage.hold(leader, "epoch_move")
        again.release()
        self.wants(here, name, inode)
        self.foreign(name)
        again = self.stage.hold(self.agent(here), "restore")
        self.happens(9.0, lambda: not inode.links)
        again.release()
        renews.release()


class LateLink(Story):
    """The link of a restore lands seconds later, when all else is settled.

    Somebody begins a guest by the name as soon as it is there.
    """

    title = "late-link"

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        leader = self.leader()
        record = self.waits_for(leader, name)
        self.sends_a_late_link(here, name, inode)
        if record is not None:
            record.release()
        self.world.guests.withdraw(here, name)
        self.foreign(name)
        slow = self.slow(leader, name)
        self.caught(slow)
        look = self.stage.hold(self.agent(here), "look")
        self.until("no late link", lambda: self.named(name) is inode, 9.0)
        self.begin(here, name, inode)
        self.foreign(name)
        slow.release()
        self.pause(0.5, 1.0)
        look.release()

    def sends_a_late_link(self, here: Host, name: str, inode: Inode) -> None:
        """Let a file be wanted, and restored by another link than the first one."""
        link = self.stage.hold(self.agent(here), "restore")
        link.fails = "late"
        self.world.guests.declare(here, name)
        self.caught(link)
        link.release()
        self.until("no restore", lambda: self.named(name) is inode, 3.0)
        self.until("no record", lambda: not self.report(here).get("intents"))

    def waits_for(self, leader: str, name: str) -> Hold | None:
        """Wait until the file is taken; return what then holds the leader back."""
        del leader
        self.until("it is not on record", lambda: self.taken(name))
        return None

    def slow(self, leader: str, name: str) -> Hold:
        """Hold the leader back when the file is authorised."""
        return self.unlink_of(leader, name)


class EarlierLateLink(LateLink):
    """The same, and it lands right before the leader compares the file's state."""

    title = "earlier-late-link"

    def slow(self, leader: str, name: str) -> Hold:
        """Hold the leader back before it looks at the file for the last time."""
        return self.stage.hold(leader, "leader", when=lambda _: self.confirmable(name))


class LinkBeforeTheRecord(LateLink):
    """The same, and the restore is asked for before the rename is on record."""

    title = "link-before-the-record"
    changes = otherwise(batch=1)

    def waits_for(self, leader: str, name: str) -> Hold | None:
        """Hold the record of the rename back."""
        self.until("not taken", lambda: self.named(name) is None)
        record = self.stage.hold(leader, "commit", when=writes("manifest/"))
        self.caught(record)
        return record


class LateLinkInATakeover(LateLink):
    """The same, and a successor takes over once it has landed.

    The requests to give the file a new name are lost, one after the other, while
    the nodes' reports cover its wait.
    """

    title = "late-link-in-a-takeover"

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.feed(but=[name])
        leader = self.leader()
        self.waits_for(leader, name)
        self.sends_a_late_link(here, name, inode)
        self.world.guests.withdraw(here, name)
        self.foreign(name)
        self.renews_in_vain(leader, lambda: self.confirmable(name))
        looks = [self.stage.hold(self.agent(host), "look") for host in (here, there)]
        self.renews_in_vain(leader, lambda: self.named(name) is inode)
        self.begin(here, name, inode)
        self.foreign(name)
        self.depose(leader)
        self.until("nobody else leads", lambda: self.leader() != leader)
        self.pause(1.0, 2.0)
        for look in looks:
            look.release()

    def renews_in_vain(self, leader: str, so: Callable[[], object]) -> None:
        """Lose a leader's every renewal until something is so."""
        while not so():
            move = self.stage.hold(leader, "epoch_move")
            move.fails = "lost"
            self.until("no end of it", lambda move=move: bool(move.caught) or so(), 9.0)
            move.release()


class UnlinkOfAnotherTime(Story):
    """An unlink lands seconds later, when its name was fetched and taken again."""

    title = "unlink-of-another-time"

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        first = self.file(name)
        slow = self.slow_unlink(name)
        slow.fails = "late"
        slow.release()
        self.until("not purged", lambda: not first.links)
        self.fetch(there, name)
        second = self.file(name)
        self.until("not taken", lambda: self.named(name) is None)
        self.begin(here, name, second)
        self.fetch(there, name)
        self.pause(7.0, 9.0)


class RestoreBesideAFetch(Story):
    """A file is to be restored while another node's Nova fetches its name anew."""

    title = "restore-beside-a-fetch"

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.until("not taken", lambda: self.named(name) is None)
        holding = None
        while holding is None:
            self.pause(0.005, 0.05)
            holding = there.locks.hold(name)
        self.begin(here, name, inode)
        self.pause(0.8, 3.0)
        if self.named(name) is inode and here.locks is there.locks:
            self.world.oracle.say(
                f"{self.agent(here)} gave a name while another held its lock"
            )
        there.locks.let_go(holding)


ALL: tuple[type[Story], ...] = (
    WantedTooLate,
    WantedJustBefore,
    AskedJustBefore,
    HalfPublished,
    MarkedEntry,
    LateUnlink,
    LateLink,
    EarlierLateLink,
    LinkBeforeTheRecord,
    LateLinkInATakeover,
    UnlinkOfAnotherTime,
    RestoreBesideAFetch,
)
