"""``sharedcache init``."""

from __future__ import annotations

import uuid

import click
from rich.console import Console

from sharedcache.cleaner.finalize import found
from sharedcache.cli import output, views
from sharedcache.cli.base import Given, Needs, common_options, connected, pass_given
from sharedcache.cli.signing import signature
from sharedcache.core.schema import SCHEMAS


@click.command()
@click.option(
    "--schema",
    type=click.IntRange(1, SCHEMAS.newest),
    help="Schema to start finalized at. Default: the newest one, or 1 if the "
    "directory holds kernels under their raw ids.",
)
@common_options
@pass_given
def init(given: Given, schema: int | None) -> None:
    """Bind a directory and a ZooKeeper tree to one new cluster.

    Run it once, on any host that mounts the directory. Nothing in the directory
    is touched; doing it again changes nothing. A directory or a tree that belongs
    to another cluster is refused.

    \b
      sharedcache init --base /var/lib/nova/instances/_base --zookeeper zk1:2181
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.NOTHING) as to:
        done = found(
            to.session,
            to.storage,
            to.settings.cluster,
            uuid.uuid4().hex,
            schema,
            by=signature(),
        )
        data = {
            "cluster": done.cluster.name,
            "identity": done.cluster.identity,
            "created": done.created,
            "finalized_schema": done.finalized_schema,
            "base": to.settings.base,
        }
    if not done.created:
        output.note("It was initialised before; nothing was changed.")

    def view(console: Console) -> None:
        views.pairs(console, data)
        console.print(_next_step(done.finalized_schema))

    given.emit(data, view)


def _next_step(finalized: int) -> str:
    if finalized >= SCHEMAS.newest:
        return "Next: start sharedcache-agent on every node, then sharedcache-cleaner."
    return (
        "Next: start sharedcache-agent on every node; when `sharedcache rollout "
        "status` says ready, `sharedcache rollout finalize`."
    )
