"""Requests that are sent together are answered one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sharedcache.core.ports import Create, Set
from tests.simulation.memory_zookeeper import NODES, MemorySession, MemoryZooKeeper

Torn = tuple[MemorySession, MemoryZooKeeper, list[Callable[[], None]]]


@pytest.fixture
def torn() -> Torn:
    """Give a session, its servers, and what happens between two answers, in turn."""
    server = MemoryZooKeeper(lambda: 0.0)
    session = MemorySession(server, "reader", lambda: 0.0)
    session.start()
    turns: list[Callable[[], None]] = []

    def between() -> bool:
        if turns:
            turns.pop(0)()
        return True

    session.between = between
    return session, server, turns


def test_a_later_answer_may_be_of_a_later_tree(torn: Torn) -> None:
    """What changes between two answers shows in the second, not in the first."""
    session, server, turns = torn
    server.commit([Create("a", b"1"), Create("b", b"1")], 0)
    turns.append(lambda: server.commit([Set("a", b"2", None), Set("b", b"2", None)], 0))
    first, second = session.get_many(["a", "b"])
    assert first is not None
    assert second is not None
    assert (first.data, second.data) == (b"1", b"2")


def test_a_member_that_goes_between_the_answers_is_none(torn: Torn) -> None:
    """A node that was listed and ended is left out; one that came later too."""
    session, server, turns = torn
    owner = server.open_session()
    server.commit([Create(f"{NODES}/n1", b"\x80")], owner, ephemeral=True)
    server.commit([Create(f"{NODES}/n2", b"\x80")], 0)

    def change() -> None:
        server.end_session(owner)
        server.commit([Create(f"{NODES}/n3", b"\x80")], 0)

    turns.append(change)
    assert list(session.members()) == ["n2"]
