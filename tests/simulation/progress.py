"""How far many schedules are: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

EVERY_S = 120.0
"""How often a line is written where there is no terminal."""


class Bar:
    """A bar on a terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("schedules", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: object, ___: TracebackType | None
    ) -> None:
        self._bar.stop()

    def told(self, done: int, failed: int) -> None:
        """Show how many are done, and how many of them failed."""
        self._bar.update(
            self._task,
            completed=done,
            description="schedules" + (f", {failed} failed" if failed else ""),
        )


class Lines:
    """A line every ``EVERY_S`` seconds, by a clock in seconds.

    ``limit_s`` is when the work ends at the latest.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        total: int,
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._total = total
        self._limit_s = limit_s
        self._clock = clock
        self._began = self._latest = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def told(self, done: int, failed: int) -> None:
        """Write a line if it is time for one.  ``done`` is not 0."""
        now = self._clock()
        if now - self._latest < EVERY_S:
            return
        self._latest, spent_s = now, now - self._began
        left_s = min(
            (self._total - done) * spent_s / done, max(self._limit_s - spent_s, 0.0)
        )
        self._write(
            f"{done} of {self._total} schedules, {failed} failed; "
            f"{done / spent_s:.1f} a second, {math.ceil(left_s / 60)} min left"
        )
