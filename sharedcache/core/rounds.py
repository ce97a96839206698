"""Rounds: when one may be raised, and which entries one has confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sharedcache.core.model import (
    EntryState,
    ManifestEntry,
    Report,
    UseIndex,
)


@dataclass(frozen=True, slots=True)
class Voices:
    """The last reports that confirm or refuse, sorted by what they can do.

    ``speaking`` are the rostered nodes that must have looked, ``final`` the
    reports that stand without a further look (sealed nodes, and missing ones
    under an operator's waiver); ``silent`` names the nodes that should speak
    and cannot.
    """

    speaking: Sequence[Report]
    final: Sequence[Report]
    silent: Sequence[str]


def may_raise(present: int, voices: Voices) -> bool:
    """Whether every rostered node, final ones apart, reported the present round.

    A report of a later round than the present one is doubt: ZooKeeper went
    back, and the looks of that report came before those that are asked for.
    """
    return not voices.silent and all(r.upto == present for r in voices.speaking)


def lagging(present: int, voices: Voices) -> list[str]:
    """Name the nodes whose report of the present round is still awaited."""
    return sorted(
        [r.node for r in voices.speaking if r.upto < present] + list(voices.silent)
    )


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the last reports together prove.

    ``proven`` is the highest round of entries that one common instant
    confirms, 0 for none: an entry of round r is confirmed if one round R has
    r <= ``since_round`` < R <= ``upto`` at every node, which holds for some R
    exactly if r <= the least ``since_round`` and the greatest ``since_round``
    is below the least ``upto``.
    """

    proven: int
    used: UseIndex
    seen: frozenset[str]
    saw: frozenset[str]
    intended: frozenset[str]

    @staticmethod
    def of(voices: Voices) -> Confirmation:
        """Judge from the last reports alone, so a new leader needs no memory."""
        everybody = [*voices.speaking, *voices.final]
        used = UseIndex.over(uses for r in everybody for uses in (r.now, r.since))
        seen = frozenset().union(*(r.sees for r in everybody))
        saw = frozenset().union(*(r.saw for r in everybody))
        intended = frozenset().union(*(r.intents for r in everybody))
        proven = 0
        able = (
            not voices.silent
            and all(r.unbroken for r in voices.speaking)
            and all(r.complete for r in everybody)
        )
        if able and voices.speaking:
            starts = [r.since_round for r in voices.speaking]
            if max(starts) < min(r.upto for r in voices.speaking):
                proven = min(starts)
        return Confirmation(proven, used, seen, saw, intended)

    def confirms(self, entry: ManifestEntry) -> bool:
        """Whether nobody uses the entry, and nobody ever will."""
        return (
            entry.state is EntryState.TAKEN
            and not entry.restoring
            and not entry.asked
            and 0 < entry.round <= self.proven
            and not self.wanted(entry)
        )

    def wanted(self, entry: ManifestEntry) -> bool:
        """Whether some node uses, still sees or intends to restore the entry."""
        return (
            self.used.covers(entry.name)
            or entry.entry in self.seen
            or entry.entry in self.saw
            or entry.entry in self.intended
        )


def raise_helps(
    entries: Iterable[ManifestEntry], voices: Voices, confirmation: Confirmation
) -> bool:
    """Whether a higher round could confirm an entry that is not confirmed yet.

    An entry that some node names in its uses of *now*, or whose inode bears
    its name again, stays where it is however often the round is raised, so it
    does not keep every node writing.
    Nor does a raise help while there is nobody to look.
    """
    in_use = UseIndex.over(r.now for r in [*voices.speaking, *voices.final])
    final = UseIndex.over(r.since for r in voices.final)
    final_saw = frozenset().union(*(r.saw for r in voices.final))
    return bool(voices.speaking) and any(
        not confirmation.confirms(entry)
        and entry.state is EntryState.TAKEN
        and not entry.restoring
        and not entry.asked
        and not in_use.covers(entry.name)
        and not final.covers(entry.name)
        and entry.entry not in confirmation.intended
        and entry.entry not in confirmation.seen
        and entry.entry not in final_saw
        for entry in entries
    )
