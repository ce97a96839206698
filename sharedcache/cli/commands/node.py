"""``sharedcache node``."""

from __future__ import annotations

import click

from sharedcache.cli import data, views
from sharedcache.cli.base import Given, common_options, connected, pass_given
from sharedcache.cli.failure import Failure
from sharedcache.core.planner import node_of


@click.group()
def node() -> None:
    """Look at the nodes that are expected to report."""


@node.command("list")
@common_options
@pass_given
def list_nodes(given: Given) -> None:
    """List the roster, a node a line.

    \b
      sharedcache node list
      sharedcache node list -f value | grep missing
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, _ = to.look(scan=False)
    rows = [data.node_row(view) for view in observed.seen.facts.nodes]
    given.emit(rows, lambda console: views.nodes(console, rows))


@node.command("show")
@click.argument("name")
@common_options
@pass_given
def show_node(given: Given, name: str) -> None:
    """Show all that one node's last report says.

    \b
      sharedcache node show compute-1
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, _ = to.look(scan=False)
    view = node_of(observed.seen, name)
    if view is None:
        raise Failure(
            f"{name} is not on the roster; `sharedcache node list` names the nodes "
            "that are"
        )
    said = data.node(view)
    given.emit(said, lambda console: views.pairs(console, said))
