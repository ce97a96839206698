"""Signals that ask for the end, told instead of raised in the middle of something."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def heard(numbers: tuple[int, ...], tell: Callable[[int], None]) -> Iterator[None]:
    """Have ``tell`` called with a signal's number, in the main thread.

    It is called once that thread runs again: whoever waits there waits for a
    bounded time.  What was started to ignore a signal, with nohup for one, goes on
    ignoring it.  Only the main thread may ask for this (``ValueError``).
    """

    def told(number: int, _frame: FrameType | None) -> None:
        tell(number)

    wanted = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, told) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
