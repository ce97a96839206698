"""The lease: until when a leader may believe that it leads."""

from __future__ import annotations

import pytest

from sharedcache.core.lease import Lease

LEASE = Lease(sent_at=100.0, session_timeout_s=10.0)


def test_the_lease_ends_before_the_session_can() -> None:
    """The deadline counts from the sending, a quarter of the timeout early."""
    assert LEASE.deadline == 107.5
    assert LEASE.deadline < LEASE.sent_at + LEASE.session_timeout_s


@pytest.mark.parametrize(
    ("now", "good"),
    [(99.9, False), (100.0, True), (107.4, True), (107.5, False), (1e9, False)],
)
def test_doubt_is_no_lease(now: float, *, good: bool) -> None:
    """At the deadline it is over, and a clock that went backwards is doubt."""
    assert LEASE.good(now) is good
    assert (LEASE.left_s(now) > 0) is good


def test_nan_is_no_lease() -> None:
    """A time that is no number gives no lease."""
    assert not LEASE.good(float("nan"))
    assert LEASE.left_s(float("nan")) == 0.0


def test_what_is_left() -> None:
    """The seconds left are those until the deadline."""
    assert LEASE.left_s(105.0) == 2.5
