"""Waiting for something that another thread, process or server does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_POLL_S = 0.02


def eventually(predicate: Callable[[], T], deadline_s: float, what: str) -> T:
    """Wait until `predicate()` is true, and give the value that it returned.

    It is called at least once, and once more after the deadline, so that a
    machine that stood still in between does not fail a test.  An AssertionError
    or OSError from it counts as "not yet".  Fails after `deadline_s` seconds
    with a message that names `what` was awaited and what was seen last.
    """
    start = time.monotonic()
    calls = 0
    while True:
        late = time.monotonic() - start >= deadline_s
        calls += 1
        try:
            value = predicate()
        except (AssertionError, OSError) as error:
            seen = f"raised {error!r}"
        else:
            if value:
                return value
            seen = f"returned {value!r}"
        if late:
            raise AssertionError(
                f"waited {deadline_s:g} s for: {what}; the last of {calls} looks {seen}"
            )
        time.sleep(_POLL_S)
