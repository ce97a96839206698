"""What kazoo's and tooz's answers mean: done, not done, or nobody can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from kazoo import exceptions as kazoo
from kazoo.handlers.threading import KazooTimeoutError
from tooz import ToozError, coordination
from tooz import utils as tooz_utils

from sharedcache.adapters.zookeeper import reports
from sharedcache.adapters.zookeeper.errors import (
    check_results,
    committing,
    translate,
)
from sharedcache.core.ports import (
    ConflictError,
    CoordinationError,
    DisconnectedError,
    OutcomeUnknownError,
    SessionChangedError,
    UndecodableMember,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    "error",
    [
        KazooTimeoutError(),
        kazoo.ConnectionDropped(),
        kazoo.ConnectionLoss(),
        kazoo.OperationTimeoutError(),
        kazoo.RequestTimeoutError(),
        # kazoo's words for a number that it does not know.
        RuntimeError("unknown error code"),
    ],
)
def test_a_lost_answer_is_never_a_failure(error: Exception) -> None:
    """The transaction may have been done."""
    with pytest.raises(OutcomeUnknownError), committing("a change"):
        raise error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (kazoo.SessionExpiredError(), SessionChangedError, "expired"),
        (kazoo.NoAuthError(), CoordinationError, "does not permit"),
        (kazoo.AuthFailedError(), DisconnectedError, "AuthFailedError"),
        (kazoo.BadArgumentsError("why"), CoordinationError, "BadArgumentsError: why"),
        (
            ToozError("x", cause=kazoo.SessionExpiredError()),
            SessionChangedError,
            "expired",
        ),
        (ToozError("why"), CoordinationError, "ToozError: why"),
    ],
)
def test_errors_are_told_in_the_ports_words(
    error: Exception, kind: type[Exception], words: str
) -> None:
    """What tooz wraps counts as what it wraps."""
    told = translate(error, "asking")
    assert type(told) is kind
    assert str(told).startswith("asking: ")
    assert words in str(told)
    with pytest.raises(kind), committing("asking"):
        raise error


@pytest.mark.parametrize(
    ("results", "kind", "words"),
    [
        ([True], OutcomeUnknownError, "2 operations were sent, 1 answered"),
        (
            [kazoo.RolledBackError(), kazoo.RuntimeInconsistency()],
            CoordinationError,
            "rolled back",
        ),
        ([kazoo.RolledBackError(), kazoo.BadVersionError()], ConflictError, "b"),
        ([kazoo.NoNodeError(), kazoo.RuntimeInconsistency()], ConflictError, "a"),
        ([kazoo.RolledBackError(), kazoo.NoAuthError()], CoordinationError, "1 on b"),
        ([kazoo.SessionExpiredError(), True], SessionChangedError, "0 on a"),
    ],
)
def test_results_that_are_not_all_good(
    results: Sequence[object], kind: type[Exception], words: str
) -> None:
    """One result that is an error means that nothing was done; one too few, doubt."""
    with pytest.raises(kind, match=words) as caught:
        check_results(results, ["a", "b"])
    assert type(caught.value) is kind


class _Answer:
    """One member's report, on its way."""

    def __init__(self, said: object) -> None:
        self._said = said

    def get(self) -> Any:
        """Return it, or raise what went wrong."""
        if isinstance(self._said, Exception):
            raise self._said
        return self._said


@pytest.mark.parametrize(
    "said",
    [
        tooz_utils.SerializationError("x"),
        # tooz's decoder lets through what the handlers of its types raise.
        KeyError("netaddr"),
        OverflowError("date"),
        ["a", "list"],
        {1: "a key of another type"},
    ],
)
def test_a_report_that_is_none_hides_no_other(said: object) -> None:
    """It is told apart, and whose it is counts as one that uses everything."""
    assert isinstance(reports.take(_Answer(said), "n1"), UndecodableMember)


def test_a_report_that_is_not_there() -> None:
    """A member that went is none; a server that does not answer is no absence."""
    gone = coordination.MemberNotJoined(b"nodes", b"n1")
    assert reports.take(_Answer(gone), "n1") is None
    with pytest.raises(DisconnectedError, match="the report of n1"):
        reports.take(_Answer(kazoo.ConnectionLoss()), "n1")
    assert reports.take(_Answer({"a": 1}), "n1") == {"a": 1}


def test_a_report_that_cannot_be_packed() -> None:
    """It is refused before anything is sent."""
    with pytest.raises(CoordinationError, match="packing the report of n1"):
        reports.checked({"a": object()}, "n1")
    with pytest.raises(CoordinationError, match="packing the report of n1"):
        reports.checked({"a": 2**80}, "n1")
