"""``sharedcache status``."""

from __future__ import annotations

import time

import click

from sharedcache.cli import data, views
from sharedcache.cli.base import Given, common_options, connected, pass_given


@click.command()
@common_options
@pass_given
def status(given: Given) -> None:
    """Show how the cluster is doing, and why nothing is removed if so.

    Exits with 0 whether the gate is open or not.

    \b
      sharedcache status
      sharedcache status -f json | jq '.gate.reasons[].code'
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, plan = to.look()
        said = data.status(observed, plan, to.settings.cluster, time.time())
    given.emit(said, lambda console: views.status(console, said))
