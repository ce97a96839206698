"""``sharedcache history``."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from sharedcache import audit
from sharedcache.cli import amounts, output, views
from sharedcache.cli.base import Given, common_options, connected, pass_given
from sharedcache.core.acts import By, Deed, concerning, rows
from sharedcache.core.model import Unreadable

if TYPE_CHECKING:
    from sharedcache.cli.data import Data
    from sharedcache.core.ports import Coordination

_COLUMNS = (("when (UTC)", 19), ("act", 13), ("by", 28), ("size", 9), ("name", 40))

WIDE = 130
"""Columns of a terminal from which on a row of the table is one line."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows are asked for."""

    name: str | None
    acts: frozenset[str]
    since: float

    def __contains__(self, row: Data) -> bool:
        """Whether a row is asked for; damage is shown unless a name is asked for."""
        if self.name is not None and self.name not in (row["name"], row["entry"]):
            return False
        if self.acts and row["act"] not in self.acts:
            return False
        return row["when"] is None or bool(row["when"] >= self.since)


@click.command()
@click.argument("name", required=False)
@click.option(
    "--since",
    callback=amounts.seconds,
    metavar="TIME",
    help="Only of this last time: 90s, 30m, 2h, 7d, 4w.",
)
@click.option(
    "--act",
    "acts",
    multiple=True,
    type=click.Choice([str(deed) for deed in Deed]),
    metavar="ACT",
    help="Only these acts, repeatable: purged, restored, refused, ...",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the last N."
)
@common_options
@pass_given
def history(
    given: Given,
    name: str | None,
    since: float | None,
    acts: tuple[str, ...],
    limit: int | None,
) -> None:
    """Show what was removed, restored, refused and ordered, by whom, and why.

    The newest comes last. NAME is a cache name, an entry of the quarantine, or a
    node. ZooKeeper keeps about the last 10,000 acts, the logs of cleaners and
    agents have them all.

    \b
      sharedcache history --since 2h
      sharedcache history da39a3ee5e6b4b0d3255bfef95601890afd80709
      sharedcache history --act purged --act restored --limit 20
      sharedcache history --act purged -f json | jq 'map(.bytes) | add'
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    start = -math.inf if since is None else time.time() - since
    wanted = Wanted(name, frozenset(acts), start)
    with connected(given) as to:
        rows_wanted = _chosen(to.session, wanted, limit)
        if output.stdout().width < WIDE:
            given.stream(rows_wanted, narrow_head(), narrow_line)
        else:
            given.stream(rows_wanted, head(), line)


def _chosen(
    coordination: Coordination, wanted: Wanted, limit: int | None
) -> Iterator[Data]:
    """Give the rows that are wanted, the newest last, as they are read."""
    coordination.sync()
    mark = audit.read_mark(coordination)
    if limit is None:
        for told in audit.forward(coordination, mark.oldest, mark.seen):
            yield from (row for row in _rows(told, wanted.name) if row in wanted)
        return
    newest: deque[Data] = deque()
    backward = (
        row
        for told in audit.backward(coordination, mark)
        for row in reversed(_rows(told, wanted.name))
        if row in wanted
    )
    newest.extendleft(islice(backward, limit))
    yield from newest


def _rows(told: audit.Told, name: str | None = None) -> list[Data]:
    """Give an act's rows; one that cannot be read is a row that says so."""
    if isinstance(told.act, Unreadable):
        act = "newer" if told.act.newer else "unreadable"
        blank: Data = dict.fromkeys(_KEYS)
        return [blank | {"number": told.number, "act": act, "why": told.act.why}]
    about = told.act if name is None else concerning(told.act, name)
    return [{"number": told.number, **row} for row in rows(about)]


_KEYS = (
    *("number", "act", "when", "by", "who", "epoch", "name", "entry", "bytes"),
    *("last_use", "plan", "round", "asked", "why"),
)


def head() -> str:
    """Return the head of the table, two lines."""
    names = [f"{name:<{width}}" for name, width in _COLUMNS]
    rules = ["-" * width for _, width in _COLUMNS]
    return "  ".join([*names, "why"]) + "\n" + "  ".join([*rules, "-" * 20])


def line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of the table; wide cells push the others aside."""
    at, size, why = _told(row)
    cells = (at, row["act"], _who(row), f"{size:>9}", row["name"] or "")
    padded = [f"{c:<{w}}" for c, (_, w) in zip(cells, _COLUMNS, strict=True)]
    return output.printable("  ".join([*padded, why]).rstrip())


def narrow_head() -> str:
    """Return the head of the table on a narrow terminal, two lines."""
    (when, wide), (act, wider), (by, _), (size, _), (name, _) = _COLUMNS
    return (
        f"{when:<{wide}}  {act:<{wider}}  {size:>9}  {by}\n    {name} and why, if any"
    )


def narrow_line(row: Mapping[str, Any]) -> str:
    """Return a row in two lines: what, when and who; below it the name and why."""
    at, size, why = _told(row)
    first = f"{at:<19}  {row['act']:<13}  {size:>9}  {_who(row)}"
    second = "  ".join(part for part in (row["name"], why) if part)
    lines = [first, f"    {second}"] if second else [first]
    return "\n".join(output.printable(one) for one in lines)


def _told(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return when, how many bytes, and why, as a table tells them."""
    when, why = row["when"], row["why"]
    size = "" if row["bytes"] is None else output.size(row["bytes"])
    if row["asked"]:
        why = f"{row['asked']}: {why}"
    if row["plan"] and not why:
        why = f"plan {row['plan'][:12]}"
    return "-" if when is None else views.moment(when), size, why


def _who(row: Mapping[str, Any]) -> str:
    match row["by"]:
        case By.CLEANER:
            return f"epoch {row['epoch']} ({row['who']})"
        case By.NODE:
            return f"node {row['who']}"
        case _:
            return str(row["who"] or "-")
