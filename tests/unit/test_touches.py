"""From when a session's timeout surely counts: the arithmetic of the lease's proof."""

from __future__ import annotations

import pytest

from sharedcache.adapters.zookeeper.client import Grant
from sharedcache.adapters.zookeeper.election import Touches

TIMEOUT_S = 8.0
LAG_S = 2.0


@pytest.fixture
def created() -> Grant:
    """Give a session that was made at 100."""
    return Grant(session=1, timeout_s=TIMEOUT_S, sent=100.0)


def test_a_new_session_counts_from_its_making(created: Grant) -> None:
    """Making a session is agreed by a majority: its sending is the first time."""
    assert Touches().proved(created) == 100.0


def test_a_renewal_proves_an_older_one(created: Grant) -> None:
    """What is confirmed proves what was sent a quarter of the timeout before it."""
    touches = Touches()
    proved = []
    for sent in (101.0, 102.0, 103.0, 104.0, 105.5):
        touches.renewed(created, sent)
        proved.append(touches.proved(created))
    assert proved == [100.0, 100.0, 101.0, 102.0, 103.0]


def test_renewals_too_close_prove_nothing(created: Grant) -> None:
    """Many renewals at once do not stand in for the time between them."""
    touches = Touches()
    for number in range(100):
        touches.renewed(created, 101.0 + number / 100)
    assert touches.proved(created) == 100.0
    touches.renewed(created, 101.5 + LAG_S)
    assert touches.proved(created) == 101.5


def test_another_connection_counts_after_its_first_renewal(created: Grant) -> None:
    """What the old connection had not proved is lost; what it had proved stays.

    The leading server hears of the new connection at once, but that it leads is
    known only when it confirms a renewal.
    """
    touches = Touches()
    for sent in (101.0, 102.0, 103.0):
        touches.renewed(created, sent)
    moved = Grant(session=1, timeout_s=TIMEOUT_S, sent=110.0)
    assert touches.proved(moved) == 101.0
    touches.renewed(moved, 110.1)
    assert touches.proved(moved) == 110.0
    touches.renewed(moved, 112.2)
    assert touches.proved(moved) == 110.1


def test_another_session_starts_anew(created: Grant) -> None:
    """Nothing that was proved for one session counts for another."""
    touches = Touches()
    touches.renewed(created, 101.0)
    other = Grant(session=2, timeout_s=TIMEOUT_S, sent=50.0)
    assert touches.proved(other) == 50.0
