"""``sharedcache plan``."""

from __future__ import annotations

import click

from sharedcache.cli import data, views
from sharedcache.cli.base import Given, Needs, common_options, connected, pass_given


@click.command()
@click.option("--all", "everything", is_flag=True, help="Show also what is kept.")
@common_options
@pass_given
def plan(given: Given, *, everything: bool) -> None:
    """Show what a pass would do now, and why. Nothing is changed.

    Ages are judged by the settings at hand: give the cleaner's own.

    \b
      sharedcache plan
      sharedcache plan --all -f json | jq '.files[] | select(.reason == "used")'
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.NOTHING) as to:
        observed, made = to.look()
    said = data.plan(observed, made, everything=everything)
    given.emit(said, lambda console: views.plan(console, said), rows_in="files")
