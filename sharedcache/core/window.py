"""An agent's windows: which uses each report must carry, and since which round.

A report's window begins with this node's *first* look of the round before,
so that the windows of all nodes contain the instant when a round was raised.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharedcache.core.model import Uses


@dataclass(frozen=True, slots=True)
class Look:
    """One look at every source.

    ``upto`` is the round read before the looks, ``reread`` the round read
    after them; ``uses`` is what the sources said; ``unbroken`` is ``False``
    if anything may have been missed since the look before (events lost, a
    source failed, this is the first look of this agent).
    """

    upto: int
    reread: int
    uses: Uses
    unbroken: bool


@dataclass(frozen=True, slots=True)
class Window:
    """Everything used since the first look of one round, as far as was seen."""

    upto: int
    reread: int
    seen: Uses


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a report says of its window."""

    since_round: int
    since: Uses
    unbroken: bool


@dataclass(frozen=True, slots=True)
class Windows:
    """The window of the present round and the one of the round before."""

    before: Window | None = None
    present: Window | None = None

    def after(self, look: Look) -> Windows:
        """Take one more look into account."""
        fresh = Window(look.upto, look.reread, look.uses)
        if not look.unbroken or self.present is None or look.upto < self.present.upto:
            return Windows(None, fresh)
        seen = self.present.seen | look.uses
        present = Window(self.present.upto, self.present.reread, seen)
        if look.upto == self.present.upto:
            before = self.before
            if before is not None:
                before = Window(before.upto, before.reread, before.seen | look.uses)
            return Windows(before, present)
        return Windows(present, fresh)

    def coverage(self) -> Coverage:
        """Tell what the report after the latest look may claim.

        Without a window of the round before, the report is only a first look:
        its window begins and ends with it.
        """
        if self.present is None:
            raise ValueError("no look was taken yet")
        if self.before is None:
            return Coverage(self.present.reread, self.present.seen, unbroken=False)
        return Coverage(self.before.reread, self.before.seen, unbroken=True)
