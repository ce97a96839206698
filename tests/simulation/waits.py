"""Whether files wait as long as they must: for their age, their grace, and holds.

Ages and graces are of the storage's clock, in its own grain: a leader reads it while
it looks, and what it does comes later.  A hold counts once it stood for all of
the look by which a leader acts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation.memory_disk import Removal

if TYPE_CHECKING:
    from tests.simulation.world import World

SECOND_NS = 1_000_000_000

_LEAF = re.compile(r"(.+)\.([0-9a-f]{16})\.[0-9.]+")


def cache_name(leaf: str) -> str:
    """Return the cache name of a quarantined file; itself for another one's."""
    found = _LEAF.fullmatch(leaf)
    return leaf if found is None else found[1]


def _entry(leaf: str) -> str:
    found = _LEAF.fullmatch(leaf)
    return "" if found is None else found[2]


class Waits:
    """Follows when each file was taken, and objects to what comes too early."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._taken_ns: dict[str, int] = {}

    def taken(self, who: str, removal: Removal) -> Iterator[str]:
        """Hear of a file that was taken from ``_base``; object if it was too early.

        A touch after the leader's look began may have come after its last look
        at the file.  What lands late is of an earlier look.
        """
        now_ns = self._world.disk.now_ns()
        self._taken_ns.setdefault(_entry(removal.new), now_ns)
        began = self._world.oracle.reasons.began_ns(who)
        if self._world.acting or began is None:
            return
        age_ns = now_ns - removal.inode.time_before(began)
        if age_ns < int(self._world.profile.min_age_s * SECOND_NS):
            yield (
                f"{who} took {removal.name[:6]} at an age of {age_ns / SECOND_NS:.3f} s"
            )
        if self._held(who, removal.name):
            yield f"{who} took {removal.name[:6]}, which is held"

    def authorised(self, who: str, leaf: str) -> Iterator[str]:
        """Hear of a file that was authorised; object if it was too early."""
        yield from self._within_grace(leaf, "authorised")
        if not self._world.acting and self._held(who, cache_name(leaf)):
            yield f"{cache_name(leaf)[:6]} was authorised, which is held"

    def unlinked(self, leaf: str) -> Iterator[str]:
        """Hear of a file that was unlinked; object if it was too early."""
        yield from self._within_grace(leaf, "unlinked")

    def _within_grace(self, leaf: str, what: str) -> Iterator[str]:
        taken_ns = self._taken_ns.get(_entry(leaf))
        if taken_ns is None:
            return
        passed_ns = self._world.disk.now_ns() - taken_ns
        if passed_ns < int(self._world.profile.grace_s * SECOND_NS):
            yield (
                f"{leaf[:6]} was {what} {passed_ns / SECOND_NS:.3f} s after its rename"
            )

    def _held(self, who: str, name: str) -> bool:
        return self._world.oracle.reasons.held(who, name)
