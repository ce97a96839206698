"""``sharedcache demo``: the command line of the demo."""

from __future__ import annotations

import signal
import sys

import click

from sharedcache.cli.demo.show import EndedError, Show, run_show

_ENSEMBLE = 3
_BY_SIGNAL = 128
"""Added to a signal's number, as shells show that it ended a program."""


@click.command()
@click.option(
    "--ensemble",
    is_flag=True,
    help=f"Run {_ENSEMBLE} ZooKeeper servers that elect a leader, instead of one.",
)
@click.option("--keep", is_flag=True, help="Keep the directory, and print where it is.")
@click.option("--pause", is_flag=True, help="Wait for Enter between the steps.")
def demo(*, ensemble: bool, keep: bool, pause: bool) -> None:
    """Show the coordinator at work: a small cluster on this machine.

    A private ZooKeeper, three agents and two cleaners, all of them real, go
    through a mixed-version rollout in a temporary directory: the gate is
    closed by a node with the old kernel naming, the node is upgraded, the
    rollout finalized, unused files are quarantined, confirmed and purged. Then
    things go wrong: a host is lost, the leader is killed, a quarantined file is
    wanted again, and an operator gives the lost host up.
    Every claim is checked on the files and on `sharedcache status`.

    Takes about a minute, needs Java, ZooKeeper and qemu-img, and leaves
    nothing behind.  The exit code is 0 if everything was observed, else 1.

    \b
      sharedcache demo
      sharedcache demo --ensemble --pause
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    show = Show(servers=_ENSEMBLE if ensemble else 1, keep=keep, pause=pause)
    try:
        code = run_show(show)
    except KeyboardInterrupt:
        click.echo("\nInterrupted; every process was ended.", err=True)
        code = _BY_SIGNAL + signal.SIGINT
    except EndedError as error:
        code = _BY_SIGNAL + error.number
    sys.exit(code)
