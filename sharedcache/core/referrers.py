"""What refers to cache files, source by source: told to people, never judged by.

A source may say, beside the names that are in use, which domain, disk or
process refers to each.  An agent remembers since when, within bounds, and says
it to whoever asks for one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sharedcache.core import names
from sharedcache.core.model import Uses

LIMIT = 20
"""Referrers that are remembered of one name and source; the rest is counted."""


class Referrer(NamedTuple):
    """One thing that refers to a cache file.

    ``kind`` is a word such as ``domain``, ``disk``, ``process`` or ``file``,
    ``name`` what the thing is called, ``path`` the file by which it refers.
    """

    kind: str
    name: str = ""
    path: str = ""


class Key(NamedTuple):
    """A cache name; or, with ``family``, an image's digest and all its copies."""

    name: str
    family: bool = False


@dataclass(slots=True)
class _Few:
    """The first referrers in alphabetical order, so that two looks agree."""

    count: int = 0
    kept: list[Referrer] = field(default_factory=list)

    def add(self, referrer: Referrer, weight: int = 1) -> None:
        self.count += weight
        self.kept.append(referrer)
        if len(self.kept) > 2 * LIMIT:
            self.kept = sorted(self.kept)[:LIMIT]

    def first(self) -> list[Referrer]:
        return sorted(set(self.kept))[:LIMIT]


class Referrers:
    """What one source saw in one look, or was told between two.

    ``caveats`` are what it noticed that weakens evidence: stable words without
    numbers of processes or times, since each change of them is reported.
    """

    def __init__(self) -> None:
        self.caveats: set[str] = set()
        self._few: dict[Key, _Few] = {}

    def add(
        self, cache_names: Iterable[str], referrer: Referrer, *, family: bool = False
    ) -> None:
        """Say that something refers to these names; each thing is said once."""
        referrer = Referrer(*(str(part) for part in referrer))
        for name in cache_names:
            self._few.setdefault(Key(name, family), _Few()).add(referrer)

    def update(self, other: Referrers) -> None:
        """Add all that another says."""
        for key, few in other._few.items():
            mine = self._few.setdefault(key, _Few())
            mine.count += few.count - len(few.kept)
            for referrer in few.kept:
                mine.add(referrer)

    def of(self, key: Key) -> tuple[list[Referrer], int]:
        """Return at most ``LIMIT`` referrers, and how many there are."""
        few = self._few.get(key)
        return ([], 0) if few is None else (few.first(), few.count)


@dataclass(frozen=True, slots=True)
class Span:
    """Since when something is seen, in seconds since 1970 on the agent's clock.

    With ``at_least`` it was there when the agent first looked.  ``until_s`` is
    the look at which it was gone, ``None`` while it is there.
    """

    since_s: float
    at_least: bool = False
    until_s: float | None = None

    def ended(self, now_s: float) -> Span:
        """Return the span with its end, unless it has one."""
        if self.until_s is not None:
            return self
        return Span(self.since_s, self.at_least, now_s)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one source says of one name.

    ``by_family`` tells that it knows the name only as a copy of an image.
    ``more`` counts the referrers beyond those that are named.
    """

    source: str
    span: Span
    by_family: bool = False
    referrers: tuple[tuple[Referrer, Span], ...] = ()
    more: int = 0


@dataclass(slots=True)
class _Use:
    span: Span
    referrers: dict[Referrer, Span] = field(default_factory=dict)
    count: int = 0

    def meet(self, found: Iterable[Referrer], now_s: float, *, at_least: bool) -> None:
        """Begin the spans of what is new, and end those of what is gone."""
        present = set(found)
        for referrer, span in self.referrers.items():
            if referrer not in present:
                self.referrers[referrer] = span.ended(now_s)
        for referrer in present:
            span_now = self.referrers.get(referrer)
            if span_now is None or span_now.until_s is not None:
                self.referrers[referrer] = Span(now_s, at_least)
        self.bound()

    def bound(self) -> None:
        """Forget the oldest of what is gone."""
        gone = [r for r, span in self.referrers.items() if span.until_s is not None]
        for referrer in gone[: max(0, len(gone) - LIMIT)]:
            del self.referrers[referrer]


@dataclass(slots=True)
class _Source:
    uses: Uses | None = None
    by_key: dict[Key, _Use] = field(default_factory=dict)

    def by_raw_id(self, name: str) -> _Use | None:
        """Find a kernel's use under its old name: reports bear both."""
        for key, use in self.by_key.items():
            if names.hashed_name(key.name) == name:
                return use
        return None


@dataclass(slots=True)
class Sightings:
    """Remembers since when each source says that each name is in use.

    At most ``2 * LIMIT`` referrers are kept of a name and source, and nothing
    of a name that the node's report does not bear any more.
    """

    _sources: dict[str, _Source] = field(default_factory=dict)
    _ended: bool = False

    def looked(
        self, source: str, uses: Uses, told: Referrers | None, now_s: float
    ) -> None:
        """Take in what a source saw in a look."""
        one = self._sources.setdefault(source, _Source())
        first = one.uses is None
        if uses != one.uses:
            self._change(one, uses, now_s, at_least=first)
        if told is None:
            return
        for key in set(_keys(uses)):
            found, count = told.of(key)
            use = one.by_key[key]
            use.count = count
            use.meet(found, now_s, at_least=first)

    def heard(
        self, source: str, uses: Uses, told: Referrers | None, now_s: float
    ) -> None:
        """Take in what a source was told of the time between two looks."""
        one = self._sources.setdefault(source, _Source())
        for key in set(_keys(uses)):
            use = one.by_key.get(key)
            if use is None:
                use = one.by_key[key] = _Use(Span(now_s, until_s=now_s))
                self._ended = True
            found = [] if told is None else told.of(key)[0]
            for referrer in found:
                use.referrers.setdefault(referrer, Span(now_s, until_s=now_s))
            use.bound()

    def forget(self, borne: Uses) -> None:
        """Drop what is gone and is not in the node's report either."""
        if not self._ended:
            return
        kept = set(_keys(borne))
        self._ended = False
        for one in self._sources.values():
            gone = [k for k, use in one.by_key.items() if use.span.until_s is not None]
            for key in gone:
                if key in kept:
                    self._ended = True
                else:
                    del one.by_key[key]

    def of(self, name: str) -> tuple[Sighting, ...]:
        """Return what every source says of a name, those who see it now first."""
        found: list[Sighting] = []
        family = names.family_of(name)
        for source, one in self._sources.items():
            use, by_family = one.by_key.get(Key(name)) or one.by_raw_id(name), False
            if use is None and family is not None:
                use, by_family = one.by_key.get(Key(family, family=True)), True
            if use is not None:
                found.append(_sighting(source, use, by_family=by_family))
        return tuple(
            sorted(found, key=lambda s: (s.span.until_s is not None, s.source))
        )

    def _change(
        self, one: _Source, uses: Uses, now_s: float, *, at_least: bool
    ) -> None:
        present = set(_keys(uses))
        for key, use in one.by_key.items():
            if key not in present and use.span.until_s is None:
                use.span = use.span.ended(now_s)
                use.meet((), now_s, at_least=False)
                use.count = 0
                self._ended = True
        for key in present:
            known = one.by_key.get(key)
            if known is None:
                one.by_key[key] = _Use(Span(now_s, at_least))
            elif known.span.until_s is not None:
                known.span = Span(now_s, at_least)
        one.uses = uses


def _keys(uses: Uses) -> Iterator[Key]:
    for name in uses.cache_names():
        yield Key(name)
    for digest in uses.families:
        yield Key(digest.hex(), family=True)


def _sighting(source: str, use: _Use, *, by_family: bool) -> Sighting:
    order = sorted(
        use.referrers.items(), key=lambda item: (item[1].until_s is not None, item[0])
    )
    shown = tuple(order[:LIMIT])
    present = sum(span.until_s is None for _, span in shown)
    return Sighting(source, use.span, by_family, shown, max(0, use.count - present))
