"""Stories of sources that fail: a guest goes, or stays, where nobody looks."""

from __future__ import annotations

from tests.simulation.story import Story, otherwise

UNTIL_S = 0.7
"""How long a look waits for a raise to fall into it."""


class SlowFirstLook(Story):
    """A guest leaves a host whose first look after a failure takes long.

    The look read the round before another raise.  The guest goes to a host that
    has looked in the new round already.
    """

    title = "slow-first-look"
    changes = otherwise(events=False, round_interval_s=0.4, report_interval_s=0.2)

    def tell(self) -> None:
        """See ``Story``."""
        here, there, guest = self.stray_guest()
        source = self.source_fails(here)
        if self.chance(0.5):
            self.await_raises(1)
        begun = self.round()
        self.until("no report", lambda: self.report(here).get("round") == begun)
        slow = self.stage.hold(self.agent(here), "look")
        source.fails = False
        self.caught(slow)
        self.until("no raise", lambda: self.round() > begun)
        late = self.goes_behind(guest, here, there)
        slow.release()
        self.lets_the_leader_act(late)


class LaggingFirstLook(SlowFirstLook):
    """The same, with servers that lag behind by more than the look takes."""

    title = "lagging-first-look"
    changes = otherwise(**SlowFirstLook.changes, lag_s=3.0)


class LookAfterAFailure(Story):
    """A guest leaves while a host's source fails, behind the other host's look."""

    title = "look-after-a-failure"
    changes = otherwise(events=False, batch=10)

    def tell(self) -> None:
        """See ``Story``."""
        here, there, guest = self.stray_guest()
        source = self.source_fails(here)
        # All that is left to ask for is the other host's window.
        self.until("no wait", lambda: self.covered(there, guest.name))
        late = self.goes_behind(guest, here, there)
        source.fails = False
        self.lets_the_leader_act(late)


class BlindHost(Story):
    """A host's hypervisor does not answer for a while, or not since its agent began.

    A guest there uses an old file all the time.
    """

    title = "blind-host"
    changes = otherwise(session_timeout_s=2.0)

    def tell(self) -> None:
        """See ``Story``."""
        here, _ = self.two_hosts()
        name = self.image()
        self.begin(here, name, self.file(name))
        self.feed(but=[name])
        self.until("no report", lambda: self.report(here).get("images"))
        again = self.chance(0.5)
        if again:
            held = self.stage.hold(self.agent(here), "start")
            self.kill(here)
            self.caught(held)
            held.release()
        source = here.source
        if source is None:
            return
        source.fails = True
        before = self.authorised()
        self.happens(8.0, lambda: self.authorised() > before + 2)
        source.fails = False


ALL: tuple[type[Story], ...] = (
    SlowFirstLook,
    LaggingFirstLook,
    LookAfterAFailure,
    BlindHost,
)
