"""``sharedcache standalone``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from sharedcache.adapters.settings import SettingsError
from sharedcache.cli.base import Given, pass_given


@click.command()
@click.option(
    "--instances",
    metavar="DIRECTORY",
    default="",
    help="Nova's instances_path: the guests' disks say what is in use, and the cache "
    "is _base in it.",
)
@click.option("--base", metavar="DIRECTORY", default="", help="The cache directory.")
@click.option(
    "--uses-file",
    metavar="FILE",
    default="",
    help="JSON file that says what is in use; together with --instances both count.",
)
@click.option(
    "--data",
    metavar="DIRECTORY",
    default="",
    help="Where ZooKeeper, logs and settings are kept. Default: /var/lib/sharedcache "
    "for root, else sharedcache below XDG_STATE_HOME or ~/.local/state.",
)
@click.option(
    "--config-file",
    metavar="FILE",
    multiple=True,
    help="Settings of [agent] and [cleaner], repeatable; nova.conf is welcome.",
)
@click.option(
    "--set",
    "changes",
    metavar="SECTION.NAME=VALUE",
    multiple=True,
    help="One setting, for this start, repeatable: cleaner.min_age_image_s=600.",
)
@click.option(
    "--only-host",
    is_flag=True,
    help="No other host uses the directory, though it looks like shared storage.",
)
@click.option("--verbose", is_flag=True, help="Show what the parts log.")
@pass_given
def standalone(
    given: Given,
    *,
    instances: str,
    base: str,
    uses_file: str,
    data: str,
    config_file: tuple[str, ...],
    changes: tuple[str, ...],
    only_host: bool,
    verbose: bool,
) -> None:
    """Look after one host's cache: a private ZooKeeper, an agent, a cleaner.

    Starts all three, binds the directory to them the first time, starts again
    what ends, and stops in order on Ctrl-C or SIGTERM. What it knows is kept in
    the data directory: the next start goes on, and needs no options but --data.
    For a directory that several hosts use, run the daemons.

    Ages and grace are those of production. To see something happen soon:

    \b
      sharedcache standalone --instances /var/lib/nova/instances \\
          --set cleaner.min_age_image_s=60 --set cleaner.grace_s=60
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    from sharedcache.cli.standalone import choice, place, run  # noqa: PLC0415 - costs half a second

    for name in ("zookeeper", "cluster"):
        if name in given.words:
            raise SettingsError(
                f"--{name}: standalone has a private ZooKeeper; for a cluster use "
                "sharedcache-agent and sharedcache-cleaner"
            )
    directory = data or place.default_directory(os.environ, root=os.geteuid() == 0)
    chosen = choice.Choice(
        base=base or given.words.get("base", ""),
        instances=instances,
        uses_file=uses_file,
        config_files=(*given.config_file, *config_file),
        changes=choice.parse_changes(changes),
    )
    one = run.Standalone(
        place.Place(Path(directory).absolute()),
        chosen,
        only_host=only_host,
        verbose=verbose,
    )
    sys.exit(one.run())
