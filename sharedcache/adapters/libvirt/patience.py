"""Waiting for what may never answer, without hanging with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sharedcache.core.ports import SourceError

T = TypeVar("T")


@dataclass(slots=True)
class _Call:
    """One call on a thread of its own."""

    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Patience:
    """Makes calls that are given up when their time is over.

    The outcome of one that was given up is unknown: it stays outstanding, and
    no other is begun before it has come back.  ``whom`` is named in errors.
    For one thread.
    """

    def __init__(self, whom: str) -> None:
        self._whom = whom
        self._outstanding: _Call | None = None

    def within(self, seconds: float, what: Callable[[], T]) -> T:
        """Return what a call returns, or raise what it raises.

        Raises ``SourceError`` if it takes longer, or an earlier one still does.
        """
        earlier = self._outstanding
        if earlier is not None and not earlier.done.is_set():
            raise SourceError(
                f"{self._whom} still owes an answer; see what it waits for, or"
                " restart it"
            )
        call, answers = _Call(), list[T]()
        self._outstanding = call

        def work() -> None:
            try:
                answers.append(what())
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits
                call.error = error
            finally:
                call.done.set()

        threading.Thread(target=work, name="libvirt-look", daemon=True).start()
        if not call.done.wait(seconds):
            raise SourceError(
                f"{self._whom} did not answer within {seconds:g} seconds; see what"
                " it waits for, or restart it"
            )
        if call.error is not None:
            raise call.error
        return answers[0]
