"""``sharedcache quarantine``."""

from __future__ import annotations

import click

from sharedcache.cli import data, views
from sharedcache.cli.base import Given, common_options, connected, pass_given


@click.group()
def quarantine() -> None:
    """Look at files that are on their way to be purged."""


@quarantine.command("list")
@common_options
@pass_given
def list_quarantine(given: Given) -> None:
    """List quarantined files, and what each waits for.

    \b
      sharedcache quarantine list
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, made = to.look(scan=False)
    said = data.quarantine(observed, made)
    given.emit(said, lambda console: views.quarantine(console, said))
