"""An election is believed only as far as the servers say so."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.core.ports import Candidacy
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sharedcache.adapters.zookeeper.election import Election
    from sharedcache.adapters.zookeeper_server import PrivateServer

    Make = Callable[[str], ZooKeeperSession]

pytestmark = pytest.mark.timeout(60)

SOON_S = 10.0


@pytest.fixture
def make(zookeeper: PrivateServer, zk_cluster_name: str) -> Iterator[Make]:
    """Give a maker of started sessions of one cluster."""
    sessions: list[ZooKeeperSession] = []

    def build(member: str) -> ZooKeeperSession:
        session = ZooKeeperSession(
            zookeeper.address, zk_cluster_name, member, session_timeout_s=4.0
        )
        sessions.append(session)
        session.start()
        return session

    yield build
    for session in sessions:
        session.stop()


def _election(session: ZooKeeperSession) -> Election:
    assert session._election is not None
    return session._election


def _elected(session: ZooKeeperSession) -> Candidacy:
    won = eventually(session.campaign, SOON_S, "the election is won")
    assert won is not None
    return won


@contextmanager
def _tooz_says(
    monkeypatch: pytest.MonkeyPatch, election: Election, node: str | None
) -> Iterator[None]:
    """Have tooz name this node as the one that won."""
    with monkeypatch.context() as patch:
        patch.setattr(election._driver, "leader_node", lambda _: node)
        yield


def test_tooz_alone_elects_nobody(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its word is read back: a node that is there, and of this very session."""
    session, other = make("c1"), make("c2")
    election = _election(session)
    link = election._link
    link.raw.create(link.absolute("stranger"))
    theirs = link.absolute("theirs")
    _election(other)._link.raw.create(theirs, ephemeral=True)
    for node in (None, f"{theirs}-not", link.absolute("stranger"), theirs):
        with _tooz_says(monkeypatch, election, node):
            assert session.campaign() is None
    won = _elected(session)
    assert won.path not in {"stranger", "theirs"}
    assert [one.path for one in election.contenders()] == [won.path]
    assert other.leader() == "c1"


def test_a_candidacy_of_an_earlier_session_is_none(make: Make) -> None:
    """A node that is still the first one proves nothing of a session that went."""
    session = make("c1")
    won = _elected(session)
    election = _election(session)
    stale = replace(won, session=won.session + 1)
    election._candidacy = stale
    assert election.lease_sent(stale) is None
    again = _elected(session)
    assert again.session == won.session
    assert again.path != won.path
    assert [one.path for one in election.contenders()] == [again.path]
