"""An agent's windows: which uses each report must carry, and since which round.

A report's window begins with this node's *first* look of the round before,
so that the windows of all nodes contain the instant when a round was raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sharedcache.core.model import Uses


@dataclass(frozen=True, slots=True)
class Look:
    """One look at every source.

    ``upto`` is the round read before the looks, ``reread`` the round read
    after them; ``uses`` is what the sources said; ``unbroken`` is ``False``
    if anything may have been missed since the look before (events lost, a
    source failed, this is the first look of this agent).  ``sees`` are the
    quarantined entries whose inode still bore its cache name here.
    ``between`` is what sources were told of the time since the look before;
    some of it may have come while this look was under way, so that it belongs
    to a window that begins with this look too.
    """

    upto: int
    reread: int
    uses: Uses
    unbroken: bool
    sees: frozenset[str] = frozenset()
    between: Uses = field(default_factory=Uses)

    @property
    def seen(self) -> Uses:
        """Everything that this look adds to a window."""
        return self.uses | self.between


@dataclass(frozen=True, slots=True)
class Window:
    """Everything used since the first look of one round, as far as was seen.

    ``saw`` are the entries that some look since then still saw by name.
    """

    upto: int
    reread: int
    seen: Uses
    saw: frozenset[str] = frozenset()

    def joined(self, look: Look) -> Window:
        """Return the window with one more look in it."""
        return Window(
            self.upto, self.reread, self.seen | look.seen, self.saw | look.sees
        )


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a report says of its window.

    A name that a look could still open may have been used between the looks,
    by a guest that moved on since: what was seen counts over the whole window,
    as uses do.
    """

    since_round: int
    since: Uses
    unbroken: bool
    saw: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Windows:
    """The window of the present round and the one of the round before."""

    before: Window | None = None
    present: Window | None = None

    def after(self, look: Look) -> Windows:
        """Take one more look into account."""
        fresh = Window(look.upto, look.reread, look.seen, look.sees)
        if not look.unbroken or self.present is None or look.upto < self.present.upto:
            return Windows(None, fresh)
        present = self.present.joined(look)
        if look.upto == self.present.upto:
            before = None if self.before is None else self.before.joined(look)
            return Windows(before, present)
        return Windows(present, fresh)

    def coverage(self) -> Coverage:
        """Tell what the report after the latest look may claim.

        Without a window of the round before, the report is only a first look:
        its window begins and ends with it.
        """
        if self.present is None:
            raise ValueError("no look was taken yet")
        window = self.present if self.before is None else self.before
        unbroken = self.before is not None
        return Coverage(window.reread, window.seen, unbroken, window.saw)
