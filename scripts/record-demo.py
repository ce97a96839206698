#!/usr/bin/env python3
"""Record `sharedcache demo` on a terminal, and draw it as one moving picture.

    scripts/record-demo.py docs/demo.svg

The demo runs on a pseudo-terminal of its own.  What it prints is put through a
small terminal, which knows what the demo uses: colours, and lines that are written
again.  The picture scrolls as the run did, long waits cut short.  The grace is longer
than the demo's own, so that the quarantine is seen on a busy machine too.
"""

from __future__ import annotations

import argparse
import codecs
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

DEMO = """\
import sys
from sharedcache.cli.demo.pace import Pace
from sharedcache.cli.demo.show import Show, run_show
sys.exit(run_show(Show(pace=Pace(grace_s=30.0, patience_s=180.0))))
"""
COLUMNS, ROWS = 104, 32
LONGEST_WAIT_S = 0.9
"""What took longer is shown as if it had taken this long, in seconds."""

READING_S = 0.055
"""How long a line takes to read at least, in seconds."""

END_S = 6.0
"""How long the end stands before the picture begins again, in seconds."""

CELL, LINE, MARGIN, BAR = 7.22, 15.6, 14, 30
_DIM = 2
_WORDS = re.compile(r"\S+(?: \S+)*")
"""Words with one space between them: not every viewer keeps more."""
_CONTROL = re.compile(r"\x1b\[(?P<given>[0-9;?]*)(?P<what>[A-Za-z])")
_COLOURS = {31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 36: "#79c0ff"}


@dataclass(frozen=True)
class Style:
    """How a piece of text looks."""

    colour: int = 0
    bold: bool = False
    dim: bool = False

    def after(self, codes: list[int]) -> Style:
        """Return the style that follows these codes."""
        style = self
        for code in codes:
            if code == 0:
                style = Style()
            elif code == 1:
                style = replace(style, bold=True)
            elif code == _DIM:
                style = replace(style, dim=True)
            elif code in _COLOURS:
                style = replace(style, colour=code)
        return style

    @property
    def attributes(self) -> str:
        """Return it as attributes of SVG."""
        said = f' fill="{_COLOURS[self.colour]}"' if self.colour else ""
        said += ' font-weight="bold"' if self.bold else ""
        return said + (' opacity=".65"' if self.dim else "")


@dataclass
class Terminal:
    """Lines without an end; the cursor is on one of them, mostly the last."""

    lines: list[list[tuple[str, Style]]] = field(default_factory=lambda: [[]])
    times: list[float] = field(default_factory=lambda: [0.0])
    row: int = 0
    column: int = 0
    style: Style = field(default_factory=Style)

    def feed(self, text: str, now: float) -> None:
        """Take what a program printed at a time."""
        at = 0
        while at < len(text):
            control = _CONTROL.match(text, at)
            if control is not None:
                self._control(control["given"], control["what"])
                at = control.end()
                continue
            self._sign(text[at], now)
            at += 1

    def _control(self, given: str, what: str) -> None:
        numbers = [int(n) for n in given.split(";") if n.isdigit()]
        if what == "m":
            self.style = self.style.after(numbers or [0])
        elif what == "K":
            # The demo erases whole lines only.
            self.lines[self.row] = []
        elif what == "A":
            self.row = max(0, self.row - (numbers or [1])[0])

    def _sign(self, sign: str, now: float) -> None:
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self.row, self.column = self.row + 1, 0
            while len(self.lines) <= self.row:
                self.lines.append([])
                self.times.append(now)
        else:
            if self.column == COLUMNS:
                self._sign("\n", now)
            line = self.lines[self.row]
            line += [(" ", Style())] * (self.column + 1 - len(line))
            line[self.column] = (sign, self.style)
            self.column += 1
            self.times[self.row] = now


def run(command: list[str]) -> tuple[Terminal, int]:
    """Run a program on a terminal to its end; return what is on it, and its code."""
    child, master = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)  # noqa: S606 - the caller's own program
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    terminal, began = Terminal(), time.monotonic()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    kept = ""
    while True:
        select.select([master], [], [])
        try:
            data = os.read(master, 65536)
        except OSError:
            # The other side is closed: Linux says EIO.
            break
        if not data:
            break
        kept += decoder.decode(data)
        # A control sequence may be cut in two.
        cut = kept.rfind("\x1b")
        whole = len(kept) if cut < 0 or _CONTROL.match(kept, cut) else cut
        terminal.feed(kept[:whole], time.monotonic() - began)
        kept = kept[whole:]
    _, status = os.waitpid(child, 0)
    return terminal, os.waitstatus_to_exitcode(status)


def moments(times: list[float]) -> list[float]:
    """Return when each line is shown: in order, not too fast, no long waits."""
    shown, now, before = [], 0.0, 0.0
    for when in times:
        now += min(max(when - before, READING_S), LONGEST_WAIT_S)
        before = max(before, when)
        shown.append(now)
    return shown


def pieces(line: list[tuple[str, Style]]) -> Iterator[str]:
    """Draw a line: a piece of text for each run of one style, put at its column."""
    start = 0
    while start < len(line):
        style, end = line[start][1], start
        while end < len(line) and line[end][1] == style:
            end += 1
        text = "".join(sign for sign, _ in line[start:end])
        for word in _WORDS.finditer(text):
            # The length is fixed, so that any monospaced font keeps the columns.
            x, length = (start + word.start()) * CELL, len(word[0]) * CELL
            yield (
                f'<tspan x="{x:.1f}" textLength="{length:.1f}"{style.attributes}>'
                f"{escape(word[0])}</tspan>"
            )
        start = end


def draw(terminal: Terminal, command: str) -> str:
    """Draw the whole run as one picture that scrolls."""
    prompt = [(sign, Style(bold=True)) for sign in f"$ {command}"]
    lines = [prompt, *terminal.lines]
    while lines and not lines[-1]:
        lines.pop()
    times = [0.0, *(when + 0.5 for when in moments(terminal.times))][: len(lines)]
    whole_s = times[-1] + END_S
    frames = []
    for number, when in enumerate(times):
        if number < ROWS:
            continue
        up = (number + 1 - ROWS) * LINE
        frames.append(
            f"{100 * when / whole_s:.3f}%{{transform:translateY(-{up:.1f}px)}}"
        )
    last = f"100%{{transform:translateY(-{max(0, len(lines) - ROWS) * LINE:.1f}px)}}"
    width, height = COLUMNS * CELL + 2 * MARGIN, ROWS * LINE + BAR + MARGIN
    body = "".join(
        f'<text y="{(number + 1) * LINE - 4:.1f}">{"".join(pieces(line))}</text>\n'
        for number, line in enumerate(lines)
        if line
    )
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 18 * n}" cy="15" r="5.5" fill="{colour}"/>'
        for n, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" \
width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(command)}">
<style>
text{{white-space:pre;fill:#e6edf3}}
text{{font:12px "DejaVu Sans Mono",Menlo,Consolas,monospace}}
#s{{animation:s {whole_s:.1f}s step-end infinite}}
@keyframes s{{0%{{transform:none}}{"".join(frames)}{last}}}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>{dots}
<clipPath id="c"><rect width="{width:.0f}" height="{ROWS * LINE:.1f}"/></clipPath>
<g transform="translate({MARGIN} {BAR})" clip-path="url(#c)"><g id="s">
{body}</g></g>
</svg>
"""


def main() -> int:
    """Record, and write the picture unless the demo failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    terminal, code = run([sys.executable, "-c", DEMO])
    if code:
        sys.stderr.write(f"the demo ended with exit code {code}: nothing was drawn\n")
        return code
    given.picture.write_text(draw(terminal, "sharedcache demo"), "utf-8")
    size = given.picture.stat().st_size
    sys.stdout.write(f"{given.picture}: {len(terminal.lines)} lines, {size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
