"""What the viewer sees: headings, tables, and what is waited for.

A line for each thing that changed, so that a log of the demo reads well; on a
terminal also colours, and a sign that something moves.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 132
"""Width of tables where there is no terminal, in characters."""

_SHORT_WIDTH = 14
"""Width of a long column on a narrow terminal, in characters."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    ``long`` ones are shortened to fit a terminal, ``whole`` ones never broken.
    """

    title: str
    right: bool = False
    long: bool = False
    whole: bool = False


class Waiting:
    """Something that is waited for, and the latest that is known of it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.last = ""

    def tell(self, text: str) -> None:
        """Show what is seen now; said once as long as it does not change."""
        if text != self.last:
            self.last = text
            self._console.print(Text(f"    ... {text}"), soft_wrap=True)


class Screen:
    """Where the demo tells its story; with ``pause`` a step waits for Enter."""

    def __init__(self, *, pause: bool = False) -> None:
        for stream in (sys.stdout, sys.stderr):
            # A mark that the viewer's locale lacks must not end the demo.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        self._console = Console(highlight=False)
        if not self._console.is_terminal and "COLUMNS" not in os.environ:
            self._console = Console(highlight=False, width=PLAIN_WIDTH)
        self._errors = Console(stderr=True, highlight=False)
        self._pause = pause

    def step(self, number: int, title: str) -> None:
        """Begin a step of the story."""
        if self._pause and number > 1:
            # Without anybody at the keyboard there is no Enter to wait for.
            with suppress(EOFError):
                self._console.input("\nPress Enter to go on. ")
        self._console.print()
        self._console.print(Text(f"{number}. {title}", style="bold cyan"))
        self._console.print()

    def say(self, text: str, style: str = "") -> None:
        """Print a paragraph."""
        self._console.print(Text(text, style=style))

    def complain(self, text: str) -> None:
        """Print what went wrong, on standard error."""
        self._errors.print(Text(text, style="bold red"), soft_wrap=True)

    def lines(self, text: str) -> None:
        """Print somebody else's output as it is, indented."""
        for line in text.splitlines():
            self._console.print(Text(f"    {line}", style="dim"), soft_wrap=True)

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[str]], title: str = ""
    ) -> None:
        """Print a table."""
        plain = not self._console.is_terminal
        table = Table(
            box=box.ASCII_DOUBLE_HEAD if plain else box.SIMPLE_HEAD,
            title=title or None,
            title_justify="left",
            title_style="bold",
        )
        narrow = self._console.width < PLAIN_WIDTH
        for column in columns:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                no_wrap=column.right or column.long or column.whole,
                overflow="ellipsis" if column.long else "fold",
                max_width=_SHORT_WIDTH if column.long and narrow else None,
            )
        for row in rows:
            table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
        self._console.print(table)

    @contextmanager
    def waiting(self, what: str) -> Iterator[Waiting]:
        """Show what is waited for, as long as the block takes."""
        self._console.print(Text(f"  {what}"))
        if self._console.is_terminal:
            with self._console.status(Text(what)):
                yield Waiting(self._console)
        else:
            yield Waiting(self._console)


def _style(cell: str) -> str:
    return {"yes": "green", "NO": "bold red"}.get(cell, "")


def in_bytes(count: int) -> str:
    """Return a number of bytes with its thousands apart."""
    return f"{count:,}"
