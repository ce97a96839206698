"""What the operator sees: lines, and on a terminal a small table below them."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sharedcache.cli import views
from sharedcache.cli.standalone.supervisor import Standing
from sharedcache.cli.standalone.watch import Sight

_ACTS = 6
"""How many of the last acts the table shows."""

_AT_ONCE = 20
"""A pass may take thousands of files; so many are told one by one."""

_PER_SECOND = 2


class _Quiet(Console):
    """A console that falls silent when nobody reads any more.

    The work goes on, and is told in the logs.
    """

    def on_broken_pipe(self) -> None:
        """Print nothing from now on; rich would end the process."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(slots=True)
class Display:
    """Prints lines; between ``begin`` and ``end`` shows the table on a terminal."""

    title: str
    console: Console = field(default_factory=lambda: _Quiet(highlight=False))
    _live: Live | None = None
    _last: dict[str, str] = field(default_factory=dict)
    _acts: deque[str] = field(default_factory=lambda: deque(maxlen=_ACTS))

    @property
    def terminal(self) -> bool:
        """Whether somebody watches."""
        return self.console.is_terminal

    def say(self, text: str, style: str = "") -> None:
        """Print a line; without a terminal with its time, as a log has it."""
        if not self.terminal:
            line = Text(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
            self.console.print(line, soft_wrap=True)
            return
        # What is set off is there to be copied: no line ends in it.
        self.console.print(Text(text, style=style), soft_wrap=text.startswith(" "))

    def act(self, part: str, told: Sequence[str]) -> None:
        """Tell what a part did: in the table, or a line each.

        What is said again and again, while something is away, is said once.
        """
        acts = []
        for one in told:
            text = one.partition(" ")[2]
            if self._last.get(part) != text:
                self._last[part] = text
                acts.append(one)
        self._acts.extend(acts)
        if self.terminal:
            return
        for one in acts[:_AT_ONCE]:
            # The line has a time of its own, and begins with ours.
            self.say(f"{part}: {one.partition(' ')[2]}")
        if len(acts) > _AT_ONCE:
            self.say(f"{part}: and {len(acts) - _AT_ONCE} more, see its log")

    def begin(self) -> None:
        """Show the table from now on."""
        if self.terminal:
            self._live = Live(
                console=self.console, refresh_per_second=_PER_SECOND, transient=True
            )
            self._live.start()

    def show(self, sight: Sight, standing: Sequence[Standing]) -> None:
        """Bring the table up to date."""
        if self._live is not None:
            self._live.update(self.table(sight, standing))

    def end(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self, sight: Sight, standing: Sequence[Standing]) -> Group:
        """Make the table."""
        rows = Table(box=None, show_header=False, pad_edge=False)
        rows.add_column(style="bold", no_wrap=True)
        rows.add_column(overflow="fold")
        for name, value in _rows(sight):
            rows.add_row(name, value)
        for one in standing:
            rows.add_row(one.name, _standing(one))
        parts: list[RenderableType] = [
            Text(),
            Text(self.title, style="bold cyan"),
            rows,
        ]
        if self._acts:
            parts.append(Text("last acts", style="bold"))
            parts += [Text(f"  {one}", overflow="ellipsis") for one in self._acts]
        parts.append(Text("Ctrl-C stops it, in order.", style="dim"))
        return Group(*parts)


def _rows(sight: Sight) -> list[tuple[str, Text]]:
    status = sight.status
    rows: list[tuple[str, Text]] = []
    if status is not None:
        gate = views.gate_word(status["gate"])
        codes = [reason["code"] for reason in status["gate"]["reasons"]]
        if codes:
            gate = gate.append(f": {', '.join(dict.fromkeys(codes))}")
        rows = [
            ("gate", gate),
            ("files", Text(views.amount(status["cache"]))),
            ("reclaimable", Text(views.amount(status["reclaimable"]))),
            ("in quarantine", Text(views.amount(status["quarantine"]))),
        ]
    if sight.trouble:
        rows.append(("not seen", Text(sight.trouble, style="yellow")))
    return rows


def _standing(one: Standing) -> Text:
    if one.pid is None:
        return Text("down", style="red")
    times = "once" if one.restarts == 1 else f"{one.restarts} times"
    again = f", started again {times}" if one.restarts else ""
    return Text(f"process {one.pid}{again}")
