"""Output: tables for people, JSON, YAML and bare values for scripts."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from sharedcache.cli.failure import Failure, SettingsFailure

FORMATS = ("table", "json", "yaml", "value")

_PIPED_COLUMNS = 100_000
_KIB = 1024
_LAST_COLUMNS = 24

PATIENCE_S = 1.0
"""What takes longer than this is shown as being under way, in seconds."""

View = Callable[[Console], None]
"""Prints data as a person wants to see it."""

Line = Callable[[Mapping[str, Any]], str]
"""Makes a line of a table from a row."""


def emit(
    data: object,
    how: str,
    view: View,
    *,
    columns: Sequence[str] = (),
    rows_in: str | None = None,
    line: bool = False,
) -> None:
    """Print a command's result on standard output.

    ``columns`` are the keys to show, in this order; ``rows_in`` is the key of the
    rows that a mapping is about, which is what ``value`` and columns show of it.
    ``line`` puts JSON on one line, for a result that is one of many.
    """
    if columns or how == "value":
        data = _rows_of(data, rows_in, columns)
    if columns:
        data, view = _chosen(data, columns)
    with _printing():
        _emit(data, how, view, line=line)


@contextmanager
def _printing() -> Iterator[None]:
    """Tell a result that cannot be printed from a command that failed."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(
            f"the result cannot be printed ({error.strerror}); what was asked for was "
            "done"
        ) from error


def _emit(data: object, how: str, view: View, *, line: bool) -> None:
    if how == "json":
        click.echo(json.dumps(data, indent=None if line else 2))
    elif how == "yaml":
        click.echo(_yaml(data), nl=False)
    elif how == "value":
        for row in _values(data):
            click.echo(row)
    else:
        view(stdout())


def _rows_of(data: object, rows_in: str | None, columns: Sequence[str]) -> object:
    """Take the rows out of the mapping around them, unless its own keys are asked."""
    if rows_in is None or not isinstance(data, Mapping):
        return data
    if columns and all(column.partition(".")[0] in data for column in columns):
        # Also if there are no rows: an empty plan has a digest and a gate.
        return data
    found: object = data[rows_in]
    return found


def _chosen(data: object, columns: Sequence[str]) -> tuple[object, View]:
    """Keep only these columns, and show them as a plain table."""
    if isinstance(data, Mapping):
        one = {column: _at(data, column) for column in columns}
        return one, lambda console: fields(console, list(one.items()))
    if isinstance(data, list):
        known = [
            {column: _at(row, column) for column in columns}
            for row in data
            if isinstance(row, Mapping)
        ]
        cells = [[_cell(row[column]) for column in columns] for row in known]
        return known, lambda console: rows(console, columns, cells)
    raise SettingsFailure("this command's result has no columns")


def _cell(value: object) -> object:
    """Return a value as a plain table shows it."""
    return _value(value) if isinstance(value, Mapping | list) else value


def _at(row: Mapping[str, object], column: str) -> object:
    """Look a column up; ``gate.open`` is the key ``open`` of the key ``gate``."""
    found: object = row
    within = ""
    for key in column.split("."):
        if not isinstance(found, Mapping):
            raise SettingsFailure(f"there is no column {column}: {within} has no keys")
        if key not in found:
            where = f" in {within}" if within else ""
            raise SettingsFailure(
                f"there is no column {column}; there are{where}: {', '.join(found)}"
            )
        found, within = found[key], key
    return found


def printable(text: str) -> str:
    """Return a text that stays on its line and does nothing to the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _joined(row: Mapping[str, object]) -> str:
    return printable("  ".join(_value(cell) for cell in row.values()))


def stream(
    rows: Iterable[Mapping[str, object]],
    how: str,
    head: str,
    line: Line,
    *,
    columns: Sequence[str] = (),
) -> None:
    """Print rows as they come, so that none waits for the last.

    The result is that of ``emit`` with a list of them, but for white space; a
    table of ``columns`` has its values one after the other.
    """
    if columns:
        head = "  ".join(columns)
        line = _joined
    empty = True
    for whole in rows:
        row = {c: _at(whole, c) for c in columns} if columns else whole
        if how == "json":
            click.echo(("[\n" if empty else ",\n") + json.dumps(row), nl=False)
        elif how == "yaml":
            click.echo(_yaml([row]), nl=False)
        elif how == "value":
            click.echo(next(_values([row])))
        else:
            click.echo(f"{head}\n{line(row)}" if empty else line(row))
        empty = False
    if how == "json":
        click.echo("[]" if empty else "\n]")
    elif empty and how != "value":
        click.echo("[]" if how == "yaml" else "none")


def note(text: str) -> None:
    """Print a message for people, apart from the result."""
    click.echo(text, err=True)


def on_terminal() -> bool:
    """Whether messages go to a terminal."""
    return sys.stderr.isatty()


def stdout() -> Console:
    """Return a console that never cuts anything off when its output is piped."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(
        highlight=False, width=_PIPED_COLUMNS, color_system=None, force_terminal=False
    )


def stderr() -> Console:
    """Return a console for what a question is about, apart from the result."""
    return Console(stderr=True, highlight=False)


def byte_columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of a bar that counts bytes."""
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show on a terminal how many of a known number are done.

    Gives what to call for each one, with its name.
    """
    if not sys.stderr.isatty() or not total:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task(what, total=total)

        def count(name: str) -> None:
            bar.update(task, advance=1, description=f"{what}: {name}")

        yield count


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something takes long; gives how to say what."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    status = Console(stderr=True).status(what)
    # What is done within a second needs no word.
    late = threading.Timer(PATIENCE_S, status.start)
    late.daemon = True
    late.start()
    try:
        yield status.update
    finally:
        late.cancel()
        late.join()
        status.stop()


@dataclass(slots=True)
class Bar:
    """A text, and how much of a number that may still grow is done.

    Without a terminal nothing is shown.
    """

    _shown: Progress | None = None
    _task: TaskID | None = None

    def text(self, text: str) -> None:
        """Say what is under way."""
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, description=escape(text))

    def reach(self, done: int, total: int) -> None:
        """Say how much is done, and of how much; of nothing there is no bar."""
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, completed=done, total=total or None)


@contextmanager
def bar(what: str) -> Iterator[Bar]:
    """Show on a terminal how far a long run is, once it takes long."""
    if not sys.stderr.isatty():
        yield Bar()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    shown = Progress(*columns, console=stderr(), transient=True)
    task = shown.add_task(what, total=None)
    late = threading.Timer(PATIENCE_S, shown.start)
    late.daemon = True
    late.start()
    try:
        yield Bar(shown, task)
    finally:
        late.cancel()
        late.join()
        shown.stop()


def _yaml(data: object) -> str:
    try:
        import yaml  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise Failure(
            "YAML needs the package PyYAML: pip install 'sharedcache[yaml]', or "
            "use -f json"
        ) from error
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return text


def _values(data: object) -> Iterator[str]:
    """Give bare values: a row a line for a list, a value a line for a mapping."""
    if isinstance(data, Mapping):
        yield from (_value(one) for one in data.values())
    elif isinstance(data, Sequence) and not isinstance(data, str):
        for row in data:
            cells = row.values() if isinstance(row, Mapping) else [row]
            yield " ".join(_value(cell) for cell in cells)
    else:
        yield _value(data)


def _value(cell: object) -> str:
    if isinstance(cell, str):
        # A file's name may hold anything, and one value never makes two lines.
        return printable(cell)
    if cell is None:
        return "-"
    return json.dumps(cell, separators=(",", ":"))


def table(*columns: str) -> Table:
    """Make a table; on a narrow terminal cells are folded, never cut."""
    made = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        number = column in ("bytes", "size", "files", "uses", "round", "epoch")
        made.add_column(column, overflow="fold", justify="right" if number else "left")
    return made


def table_of(columns: Sequence[str], data: Sequence[Sequence[object]]) -> Table | Text:
    """Make a table of rows, or say that there are none."""
    if not data:
        return Text("none")
    made = table(*columns)
    for row in data:
        made.add_row(*(cell_of(cell) for cell in row))
    return made


def fields_of(data: Sequence[tuple[str, object]]) -> Table:
    """Make a table of names and values, one below the other."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in data:
        made.add_row(Text(name), cell_of(value))
    return made


def rows(
    console: Console, columns: Sequence[str], data: Sequence[Sequence[object]]
) -> None:
    """Print a table of rows, or say that there are none."""
    console.print(table_of(columns, data))


def records(
    console: Console, columns: Sequence[str], data: Sequence[Sequence[object]]
) -> None:
    """Print a table whose first column is long, if need be below one another.

    Where the rows do not fit the terminal, each is its first cell, whole, to be
    copied, and the others below it; cells that are not known are left out.
    """
    cells = [[cell_of(cell) for cell in row] for row in data]
    widths = [
        max(len(name), *(row[at].cell_len for row in cells)) if cells else 0
        for at, name in enumerate(columns)
    ]
    # The last column may fold, if there is some room for it.
    widths[-1] = min(widths[-1], _LAST_COLUMNS)
    if sum(widths) + 2 * len(widths) <= console.width:
        made = table_of(columns, data)
        if isinstance(made, Table):
            # Rich folds the widest columns first, and the names are wide.
            made.columns[0].no_wrap = True
        console.print(made)
        return
    for row in cells:
        console.print(row[0], soft_wrap=True)
        told = [
            f"{name} {cell.plain}"
            for name, cell in zip(columns[1:], row[1:], strict=True)
            if cell.plain != "-"
        ]
        console.print(Padding(Text(", ".join(told)), (0, 0, 0, 4), expand=False))


def fields(console: Console, data: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one below the other."""
    console.print(fields_of(data))


def cell_of(value: object) -> Text:
    """Return a value as a table shows it; what is not known is a dash."""
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list | tuple):
        return Text(_lines(", ".join(str(one) for one in value)) or "-")
    return Text(_lines(str(value)))


def _lines(text: str) -> str:
    """Return a cell's text, line by line, without what acts on a terminal."""
    return "\n".join(printable(line) for line in text.split("\n"))


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < _KIB:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _KIB
    return f"{amount:.1f} TiB"
