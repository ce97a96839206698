"""kazoo's and tooz's errors in the words of the port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from kazoo import exceptions as kazoo
from kazoo.handlers.threading import KazooTimeoutError
from tooz import ToozError
from tooz.coordination import OperationTimedOut, ToozConnectionError

from sharedcache.core.ports import (
    ConflictError,
    CoordinationError,
    DisconnectedError,
    OutcomeUnknownError,
    SessionChangedError,
)

FAILURES: Final = (kazoo.KazooException, KazooTimeoutError, ToozError)
"""What a call to kazoo or tooz may raise when ZooKeeper fails us."""

_NO_ANSWER: Final = (
    KazooTimeoutError,
    OperationTimedOut,
    ToozConnectionError,
    kazoo.AuthFailedError,
    kazoo.ConnectionClosedError,
    kazoo.ConnectionDropped,
    kazoo.ConnectionLoss,
    kazoo.NotReadOnlyCallError,
    kazoo.OperationTimeoutError,
    kazoo.SessionMovedError,
)

_ANSWER_LOST: Final = (
    KazooTimeoutError,
    kazoo.ConnectionDropped,
    kazoo.ConnectionLoss,
    kazoo.OperationTimeoutError,
    kazoo.RequestTimeoutError,
)

_CONDITIONS: Final[dict[type[BaseException], str]] = {
    kazoo.BadVersionError: "version",
    kazoo.NoNodeError: "missing",
    kazoo.NodeExistsError: "exists",
    kazoo.NotEmptyError: "not-empty",
}

# What the servers answer for the operations that did not fail themselves.
_COMPANIONS: Final = (kazoo.RolledBackError, kazoo.RuntimeInconsistency)


def translate(error: BaseException, what: str) -> CoordinationError:
    """Return the port's error for one of kazoo's or tooz's while doing ``what``."""
    cause = getattr(error, "cause", None)
    if isinstance(error, ToozError) and isinstance(cause, Exception):
        # tooz wraps what kazoo said in its own general error.
        return translate(cause, what)
    if isinstance(error, _NO_ANSWER):
        return DisconnectedError(
            f"{what}: no answer from ZooKeeper ({_shown(error)}): check that it runs, "
            "and how busy it is"
        )
    if isinstance(error, kazoo.SessionExpiredError):
        return SessionChangedError(f"{what}: the session has expired")
    if isinstance(error, kazoo.NoAuthError):
        return CoordinationError(
            f"{what}: ZooKeeper does not permit it with these credentials"
        )
    return CoordinationError(f"{what}: {_shown(error)}")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn kazoo's and tooz's errors within into the port's."""
    try:
        yield
    except FAILURES as error:
        raise translate(error, what) from error


@contextmanager
def committing(what: str) -> Iterator[None]:
    """As ``translated``, for what must not be taken as failed when in doubt."""
    try:
        yield
    except _ANSWER_LOST as error:
        raise OutcomeUnknownError(f"{what}: the answer was lost") from error
    except RuntimeError as error:
        # kazoo's answer to an error number that it does not know.
        raise OutcomeUnknownError(f"{what}: the answer is not understood") from error
    except FAILURES as error:
        raise translate(error, what) from error


def check_results(results: Sequence[object], paths: Sequence[str]) -> None:
    """Raise what a transaction's results say, if they say that it failed.

    kazoo returns the errors in the list, one for each operation, and raises
    nothing; all but one are companions of the operation that really failed.
    """
    failed = False
    for index, result in enumerate(results):
        if not isinstance(result, Exception):
            continue
        failed = True
        if isinstance(result, _COMPANIONS):
            continue
        path = paths[index]
        for kind, why in _CONDITIONS.items():
            if isinstance(result, kind):
                raise ConflictError(index, why, path)
        raise translate(result, f"operation {index} on {path}")
    if failed:
        raise CoordinationError(
            "the transaction was rolled back without a reason given"
        )
    if len(results) != len(paths):
        raise OutcomeUnknownError(
            f"{len(paths)} operations were sent, {len(results)} answered"
        )


def _shown(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
