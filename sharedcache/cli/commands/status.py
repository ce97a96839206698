"""``sharedcache status``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from sharedcache.cli import data, output, views
from sharedcache.cli.base import (
    Connection,
    Given,
    Needs,
    common_options,
    connected,
    pass_given,
)
from sharedcache.core.ports import (
    CoordinationError,
    OutcomeUnknownError,
    StorageError,
)

WATCH_S = 2.0
"""How often ``--watch`` looks if nothing is said, in seconds."""


@click.command()
@click.option(
    "--watch",
    "watch_s",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=WATCH_S,
    metavar="[SECONDS]",
    help=f"Look again and again, every {WATCH_S:g} seconds or as given, until Ctrl-C.",
)
@common_options
@pass_given
def status(given: Given, watch_s: float | None) -> None:
    """Show how the cluster is doing, and why nothing is removed if so.

    Exits with 0 whether the gate is open or not. With --watch it goes on until
    Ctrl-C: in place on a terminal, one look after the other in a pipe, where
    -f json gives a line for each.

    \b
      sharedcache status
      sharedcache status --watch 10
      sharedcache status -f json | jq '.gate.reasons[].code'
      sharedcache status -f value -c gate.purge_open -c quarantine.bytes
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.NOTHING) as to:
        if watch_s is None:
            said = _look(to)
            given.emit(said, lambda console: views.status(console, said))
            return
        try:
            _watch(given, to, watch_s)
        except KeyboardInterrupt:
            # The way out that the help names: nothing has failed.
            return


def _look(to: Connection, *, quietly: bool = False) -> data.Data:
    from sharedcache.cleaner.lead import hindrance  # noqa: PLC0415 - see wiring

    observed, plan = to.look(quietly=quietly)
    # Whoever leads could stand: what hinders others then is no concern.
    why = None if observed.leader else hindrance(to.session, to.storage)
    return data.status(observed, plan, to.settings.cluster, time.time(), why)


def _watch(given: Given, to: Connection, every_s: float) -> None:
    """Look again and again; once it has begun, trouble is shown and waited out."""
    said = _look(to)
    with _showing(given) as show:
        show(said, "")
        while True:
            time.sleep(every_s)
            trouble = ""
            try:
                said = _look(to, quietly=True)
            except (CoordinationError, StorageError, OutcomeUnknownError) as error:
                trouble = f"{error}; this is how it was before, trying again"
            show(said, trouble)


@contextmanager
def _showing(given: Given) -> Iterator[Callable[[data.Data, str], None]]:
    """Show each look in the place of the last one, or below it in a pipe."""
    if given.form == "table" and not given.columns and sys.stdout.isatty():
        with Live(console=output.stdout(), auto_refresh=False) as live:
            yield lambda said, trouble: live.update(_page(said, trouble), refresh=True)
        return
    yield lambda said, trouble: _print(given, said, trouble)


def _page(said: data.Data, trouble: str) -> Group:
    parts = list(views.status_parts(said))
    if trouble:
        parts.append(Text(trouble, style="red"))
    return Group(*parts)


def _print(given: Given, said: data.Data, trouble: str) -> None:
    if trouble:
        output.note(f"sharedcache: {trouble}")
        return
    given.emit(said, lambda console: views.status(console, said), line=True)
    sys.stdout.flush()
