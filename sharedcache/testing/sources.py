"""The contract of a source of use, for pytest.

Make a test module of your own::

    from sharedcache.testing.sources import SourceContract

    class TestMySource(SourceContract):
        @pytest.fixture
        def world(self, tmp_path):
            return MyWorld(tmp_path)

A world has the source, and can do to it what happens to a host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sharedcache.core import names
from sharedcache.core.model import Uses
from sharedcache.core.ports import (
    Between,
    EventSource,
    Source,
    SourceError,
    TellingSource,
)
from sharedcache.core.referrers import Key

FIRST = "a" * 40
SECOND = "b" * 40
"""Cache names that the contract lets guests use."""


class SourceWorld(Protocol):
    """A host with one source, on which guests come and go."""

    @property
    def source(self) -> Source:
        """Return the source under test, the same one every time."""

    def use(self, name: str) -> None:
        """Let a guest begin to use a cache name."""

    def release(self, name: str) -> None:
        """Let that guest end, and its disks be deleted."""

    def fail(self) -> None:
        """Make it impossible to know what a guest that is there uses."""

    def mend(self) -> None:
        """Take ``fail`` back."""


class ContractBrokenError(AssertionError):
    """A source does what would make the cleaner take a file for unused."""


def _require(holds: object, rule: str) -> None:
    if not holds:
        raise ContractBrokenError(rule)


def _names(uses: Uses) -> set[str]:
    return set(uses.cache_names())


class SourceContract:
    """Rules that every source must keep; subclass it with a fixture ``world``."""

    def test_it_has_a_name(self, world: SourceWorld) -> None:
        """The name stands in reports and settings: short, printable, no blanks."""
        name = world.source.name
        _require(name, "a source has a name")
        _require(name.isascii() and name.isprintable(), f"the name {name!r} is odd")
        _require(not set(name) & set(" ,/"), f"the name {name!r} cannot be listed")

    def test_nothing_is_used_where_no_guest_is(self, world: SourceWorld) -> None:
        """A host without guests uses nothing, and that is no error."""
        _require(world.source.look() == Uses(), "something is used without guests")

    def test_uses_come_and_go(self, world: SourceWorld) -> None:
        """A look tells all that is used now, and nothing from before."""
        world.use(FIRST)
        _require(FIRST in _names(world.source.look()), "a use is not seen")
        world.use(SECOND)
        seen = _names(world.source.look())
        _require({FIRST, SECOND} <= seen, "a second use hides the first")
        world.release(FIRST)
        seen = _names(world.source.look())
        _require(SECOND in seen, "a use that goes on is not seen any more")
        _require(FIRST not in seen, "a use that has ended is still told")

    def test_two_looks_agree(self, world: SourceWorld) -> None:
        """Where nothing happens two looks say the same: looking changes nothing."""
        world.use(FIRST)
        _require(world.source.look() == world.source.look(), "two looks differ")

    def test_only_cache_names_are_told(self, world: SourceWorld) -> None:
        """A name that is no cache name protects nothing, and hides a mistake."""
        world.use(FIRST)
        odd = [
            name
            for name in _names(world.source.look())
            if names.classify(name) is names.Kind.UNRECOGNISED
        ]
        _require(not odd, f"{odd} are no cache names")

    def test_doubt_is_an_error(self, world: SourceWorld) -> None:
        """What cannot be known is an error that says what to do, never less uses."""
        world.use(FIRST)
        world.source.look()
        world.fail()
        try:
            seen = world.source.look()
        except SourceError as error:
            _require(str(error), "an error says nothing")
        else:
            raise ContractBrokenError(f"doubt was told as {_names(seen)}")
        world.mend()
        _require(FIRST in _names(world.source.look()), "it does not recover")

    def test_what_refers_is_told(self, world: SourceWorld) -> None:
        """What a source says of itself is of its last look, and of nothing before.

        A source that says nothing is not asked.
        """
        source = world.source
        if not isinstance(source, TellingSource):
            return
        world.use(FIRST)
        source.look()
        _require(_referring(source, FIRST), "nothing refers to what is used")
        _require(not _referring(source, SECOND), "a name is told that is not used")
        world.release(FIRST)
        source.look()
        _require(not _referring(source, FIRST), "what is gone is still told")

    def test_what_happens_between_looks(self, world: SourceWorld) -> None:
        """A source with events tells what came and went, or that it may have missed it.

        A source without is not asked.
        """
        between = _between(world.source)
        if between is None:
            return
        world.source.look()
        between()
        world.use(FIRST)
        world.release(FIRST)
        world.source.look()
        told = between()
        _require(
            FIRST in _names(told.uses) or not told.unbroken,
            "a use between two looks was missed, and coverage not broken",
        )

    def test_quiet_is_unbroken(self, world: SourceWorld) -> None:
        """Where nothing happens coverage stands; else nothing is ever purged."""
        between = _between(world.source)
        if between is None:
            return
        world.source.look()
        between()
        world.source.look()
        _require(between() == Between(Uses(), unbroken=True), "quiet is not quiet")


def _referring(source: TellingSource, name: str) -> int:
    told = source.referrers()
    return told.of(Key(name))[1] + told.of(Key(name, family=True))[1]


def _between(source: Source) -> Callable[[], Between] | None:
    return source.between if isinstance(source, EventSource) else None
