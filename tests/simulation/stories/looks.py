"""Stories of looks, windows and rounds: a guest slips between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.stage import Hold, writes
from tests.simulation.story import LATE_S, LOOKING, CutShortError, Story, otherwise

if TYPE_CHECKING:
    from tests.simulation.memory_disk import Inode
    from tests.simulation.process import Host

UNTIL_S = 0.7
"""How long a look waits for a raise to fall into it."""


class LookAcrossARaise(Story):
    """A round is raised between a host's look and its second reading of the round.

    A guest comes to that host right behind the look, from one whose window begins
    only then.
    """

    title = "look-across-a-raise"
    changes = otherwise(events=False, report_interval_s=0.2)

    def tell(self) -> None:
        """See ``Story``."""
        here, there, guest = self.stray_guest()
        self.await_raises(2)
        # Here the first look of a round is put off ...
        waits = self.first_look_of_a_round(here)
        number = self.round()
        self.until("no look", lambda: self.report(there).get("round") == number)
        # ... while the other host looks a second time in it, slowly.
        looks = self.made(there, "look")
        slow = self.stage.hold(
            self.agent(there), "sync", when=lambda _: self.made(there, "look") > looks
        )
        self.caught(slow)
        self.move(guest, here, there)
        waits.release()
        self.until("no raise", lambda: self.round() > number)
        late = self.stage.hold(self.agent(there), "look")
        slow.release()
        self.lets_the_leader_act(late)


class BehindALook(Story):
    """A guest goes to a host that has looked in the new round already."""

    title = "behind-a-look"

    def tell(self) -> None:
        """See ``Story``."""
        here, there, guest = self.stray_guest()
        self.await_raises(2)
        waits = self.first_look_of_a_round(here)
        late = self.goes_behind(guest, here, there)
        waits.release()
        self.lets_the_leader_act(late)


class SlowLook(Story):
    """A round is raised while a host looks, and its guest goes behind the other's.

    An earlier look of that round has seen the guest.
    """

    title = "slow-look"
    changes = otherwise(events=False, round_interval_s=0.4, report_interval_s=0.2)

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        self.feed(but=[name])
        guest = self.stray(here, name)
        self.until("no window", lambda: self.covered(there, guest.name))
        number = self.round()
        self.until("no look", lambda: self.report(here).get("round") == number)
        slow = self.stage.hold(self.agent(here), "look")
        self.caught(slow)
        self.until("no raise", lambda: self.round() > number)
        late = self.goes_behind(guest, here, there)
        slow.release()
        self.lets_the_leader_act(late)


class Forgetting(Story):
    """A guest begins by a name that its host can open still, and then forgets."""

    changes = otherwise(events=False, stale=1.0)

    def comes_and_goes(self, file: Inode, waits: Hold, *hosts: Host) -> None:
        """Let a guest begin on the first host, and move behind the second's look.

        The first host is kept from looking until the name is forgotten.
        """
        here, there = hosts
        name = self.image()
        late = self.stage.hold(self.agent(there), "look")
        if here.mount.remembered(name) is not file:
            raise CutShortError("the name is forgotten")
        guest = self.begin(here, name, file)
        self.move(guest, here, there)
        here.mount.forget(self.world.disk.base, name)
        waits.release()
        self.lets_the_leader_act(late)


class NameForgotten(Forgetting):
    """A host can open a name that went; then it forgets it, between two looks.

    A guest begins there by that name in between, and moves behind the other's look.
    """

    title = "name-forgotten"

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.feed(but=[name])
        here.mount.remember(name, inode)
        self.until("it is not on record", lambda: self.taken(name))
        here.mount.remember(name, inode)
        self.until("no window", lambda: self.covered(here, name))
        waits = self.first_look_of_a_round(here)
        number = self.round()
        self.until("no look", lambda: self.report(there).get("round") == number)
        self.comes_and_goes(inode, waits, here, there)


class NewsBetweenReads(Forgetting):
    """A file is taken, and its round raised, between an agent's two first reads.

    Its host can open the name still.  A guest begins there by it, moves behind the
    other host's look, and the name is forgotten before the next look.
    """

    title = "news-between-reads"
    changes = otherwise(events=False, stale=1.0, lag_s=0.0)

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.leader()
        agent = self.agent(here)
        slow = self.stage.hold(
            agent,
            "get",
            when=lambda args: (
                args[0] in {"round", "manifest"}
                and self.stage.last.get(agent) != "sync"
                and not self.entries(name)
            ),
        )
        self.feed(but=[name])
        self.caught(slow)
        here.mount.remember(name, inode)
        self.until("it is not on record", lambda: self.taken(name))
        here.mount.remember(name, inode)
        number = self.entries(name)[0]["round"]
        self.until("no raise", lambda: self.round() >= number)
        slow.release()
        self.until("no report", lambda: self.report(here).get("round") == number)
        # Its next look comes a round later.
        waits = self.stage.hold(agent, "sync")
        self.until("no second raise", lambda: self.round() > number)
        self.until("no look", lambda: self.report(there).get("round") > number)
        self.comes_and_goes(inode, waits, here, there)


class BetweenLooks(Story):
    """A guest comes behind a host's look, which does not look again for a while."""

    title = "between-looks"
    changes = otherwise(events=False)

    def tell(self) -> None:
        """See ``Story``."""
        here, there, guest = self.stray_guest()
        self.until("no window", lambda: self.covered(there, guest.name))
        late = self.stage.hold(self.agent(there), "look")
        self.caught(late)
        self.move(guest, here, there)
        self.pause(*LATE_S)
        self.lets_the_leader_act(late)


class TwoMoves(Story):
    """A guest migrates twice, each time in step with the looks of both hosts."""

    title = "two-moves"
    changes = otherwise(events=True, report_interval_s=0.4)

    def tell(self) -> None:
        """See ``Story``."""
        here, there, guest = self.stray_guest()
        self.await_raises(1)
        # There the first look of a round is made; here it is put off.
        waits = self.first_look_of_a_round(here)
        number = self.round()
        self.until("no look", lambda: self.report(there).get("round") == number)
        first = self.stage.hold(self.agent(there), "look")
        self.move(guest, here, there)
        waits.release()
        self.until("no raise", lambda: self.round() > number)
        number = self.round()
        self.until("no look", lambda: self.report(here).get("round") == number)
        second = self.stage.hold(self.agent(here), "look")
        self.move(guest, there, here)
        first.release()
        self.pause(*LATE_S)
        second.release()


class BehindARename(Story):
    """A guest begins by the name of old, right behind the rename.

    Its host does not look again for a while.
    """

    title = "behind-a-rename"

    def tell(self) -> None:
        """See ``Story``."""
        here, there = self.two_hosts()
        name = self.fresh()
        self.feed(but=[])
        self.until("no raise", lambda: self.round() > 2)
        self.fetch(there, name)
        inode = self.file(name)
        self.until("not taken", lambda: self.named(name) is None)
        late = self.stage.hold(self.agent(here), "look")
        self.begin(here, name, inode)
        self.lets_the_leader_act(late)


class RememberedName(Story):
    """A host's client goes on opening a name that went, and a guest begins by it.

    That is when both hosts have looked twice, and seen no use.
    """

    title = "remembered-name"
    changes = otherwise(stale=1.0)

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        inode = self.file(name)
        self.feed(but=[name])
        leader = self.leader()

        def taken() -> bool:
            if self.named(name) is inode:
                here.mount.remember(name, inode)
                return False
            return True

        self.until("not taken", taken, 8.0)
        sure = self.stage.hold(leader, "leader", when=lambda _: self.confirmable(name))
        self.caught(sure)
        late = self.stage.hold(self.agent(here), "look")
        if here.mount.remembered(name) is not inode:
            raise CutShortError("the name is forgotten")
        self.begin(here, name, inode)
        sure.release()
        self.lets_the_leader_act(late)


class RoundsInLooks(Story):
    """Every raise of the round falls into a look of one host, to the very end."""

    title = "rounds-in-looks"

    def tell(self) -> None:
        """See ``Story``."""
        host, _ = self.two_hosts()
        leader, agent = self.leader(), self.agent(host)
        self.feed(but=[])

        def lie_in_wait(_: object) -> None:
            """Hold the next raise, and the host's next second reading of the round."""
            raises = self.stage.hold(leader, "commit", when=writes("round"))
            reads = self.stage.hold(
                agent, "sync", when=lambda _: self.stage.last.get(agent) in LOOKING
            )
            raises.lasting = reads.lasting = True
            watch((raises, reads, self.round(), self.world.scheduler.now))

        def watch(ambush: tuple[Hold, Hold, int, float]) -> None:
            """Let the raise come about within the look, then the look go on."""
            raises, reads, number, since = ambush
            scheduler = self.world.scheduler
            if raises.caught and reads.caught:
                raises.release()
            if not reads.caught:
                ambush = (raises, reads, number, scheduler.now)
            if self.round() > number or scheduler.now - since > UNTIL_S:
                reads.release()
                raises.release()
                scheduler.after(0.0, lie_in_wait)
            else:
                scheduler.after(0.005, watch, ambush)

        self.world.scheduler.after(0.0, lie_in_wait)
        self.pause(2.0, 4.0)


ALL: tuple[type[Story], ...] = (
    LookAcrossARaise,
    BehindALook,
    SlowLook,
    NameForgotten,
    NewsBetweenReads,
    BetweenLooks,
    TwoMoves,
    BehindARename,
    RememberedName,
    RoundsInLooks,
)
