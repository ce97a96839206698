"""A count of changes goes up only when the watch is known to be set again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from kazoo.exceptions import ConnectionLoss
from kazoo.protocol.states import EventType

from sharedcache.adapters.zookeeper.link import Link
from sharedcache.adapters.zookeeper.watches import Watches
from sharedcache.core.ports import DisconnectedError


class _Answer:
    """An answer to a request, here at once."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def successful(self) -> bool:
        """Whether it is a good one."""
        return self._error is None

    def get(self) -> None:
        """Return it, or raise what went wrong."""
        if self._error is not None:
            raise self._error

    def rawlink(self, told: Callable[[Any], None]) -> None:
        """Tell of it."""
        told(self)


class _Event:
    """What a watch is told."""

    def __init__(self, kind: str) -> None:
        self.type = kind


class _Server:
    """A link whose watches a test fires, and whose requests it lets fail."""

    def __init__(self) -> None:
        self.raw = self
        self.error: Exception | None = None
        self.set: list[Callable[[Any], None]] = []

    def client(self) -> None:
        """Be connected."""

    def absolute(self, path: str) -> str:
        """Take the path as it is."""
        return path

    def exists_async(self, _path: str, watch: Callable[[Any], None]) -> _Answer:
        """Set a watch, or fail."""
        if self.error is None:
            self.set.append(watch)
        return _Answer(self.error)

    def fire(self, kind: str = EventType.CHANGED) -> None:
        """Tell every watch, each once, as the server does."""
        fired, self.set = self.set, []
        for watch in fired:
            watch(_Event(kind))


def _made() -> tuple[_Server, Link, Watches, list[str]]:
    woken: list[str] = []
    server = _Server()
    return server, cast("Link", server), Watches(lambda: woken.append("")), woken


def test_every_change_is_counted_and_wakes() -> None:
    """The watch is set again at once, so that the next change is seen too."""
    server, link, watches, woken = _made()
    assert [watches.count(link, "a"), watches.count(link, "a")] == [0, 0]
    server.fire()
    server.fire()
    assert watches.count(link, "a") == 2
    assert len(woken) == 2
    assert len(server.set) == 1


def test_a_watch_that_could_not_be_set_is_set_by_the_next_question() -> None:
    """Until then nothing counts as unchanged: whoever asks is told so."""
    server, link, watches, _ = _made()
    server.error = ConnectionLoss()
    for _ in range(2):
        with pytest.raises(DisconnectedError):
            watches.count(link, "a")
    server.error = None
    first = watches.count(link, "a")
    assert len(server.set) == 1
    server.fire()
    assert watches.count(link, "a") == first + 1


def test_a_watch_that_could_not_be_set_again_counts_all_the_same() -> None:
    """A change was told, and what came after it is not known: the next look counts."""
    server, link, watches, _ = _made()
    before = watches.count(link, "a")
    server.error = ConnectionLoss()
    server.fire()
    server.error = None
    assert watches.count(link, "a") > before
    assert len(server.set) == 1


def test_the_end_of_a_connection_is_one_change_of_everything() -> None:
    """No watch outlives it, and its own event says nothing of the node."""
    server, link, watches, woken = _made()
    before = watches.count(link, "a")
    watches.disturbed()
    server.fire(EventType.NONE)
    assert watches.count(link, "a") > before
    assert woken == []
    assert len(server.set) == 1
