"""The command ``sharedcache``."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence

import click

from sharedcache import __version__
from sharedcache.cli.base import LazyGroup, common_options
from sharedcache.cli.failure import Failure, debugging

_COMMANDS = "sharedcache.cli.commands"

_LAZY = {
    "init": f"{_COMMANDS}.init:init",
    "status": f"{_COMMANDS}.status:status",
    "node": f"{_COMMANDS}.node:node",
    "plan": f"{_COMMANDS}.plan:plan",
    "explain": f"{_COMMANDS}.explain:explain",
    "clean": f"{_COMMANDS}.clean:clean",
    "quarantine": f"{_COMMANDS}.quarantine:quarantine",
    "rollout": f"{_COMMANDS}.rollout:rollout",
    "hold": f"{_COMMANDS}.operator:hold",
    "pause": f"{_COMMANDS}.operator:pause",
    "resume": f"{_COMMANDS}.operator:resume",
    "approve": f"{_COMMANDS}.operator:approve",
    "recover": f"{_COMMANDS}.recover:recover",
    "standalone": f"{_COMMANDS}.standalone:standalone",
    "doctor": "sharedcache.cli.doctor.command:doctor",
    "completion": f"{_COMMANDS}.completion:completion",
    "history": f"{_COMMANDS}.history:history",
    "fetch": f"{_COMMANDS}.fetch:fetch",
    "prefetch": f"{_COMMANDS}.fetch:prefetch",
    "verify": f"{_COMMANDS}.verify:verify",
    "demo": "sharedcache.cli.demo.command:demo",
}


@click.group(
    cls=LazyGroup,
    lazy=_LAZY,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 refused "
    "(gate closed, not the leader, not confirmed). SHAREDCACHE_DEBUG=1 shows "
    "tracebacks.",
)
@common_options
@click.version_option(__version__, prog_name="sharedcache")
def cli() -> None:
    """Clean an image cache directory that many compute nodes share.

    Every command needs the cache directory and ZooKeeper, from options, from the
    environment, or from a settings file:

    \b
      sharedcache --base /var/lib/nova/instances/_base --zookeeper zk1:2181 status
      sharedcache status --config-file /etc/sharedcache/sharedcache.conf -f json
      SHAREDCACHE_CONFIG=/etc/nova/nova.conf:/etc/cache.conf sharedcache plan
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    if debugging():
        logging.basicConfig(level=logging.DEBUG)
    else:
        # What libraries log of their own would hide the one line that counts.
        logging.getLogger().addHandler(logging.NullHandler())


def _open_output() -> None:
    """Make printing work whatever the streams are: closed, or not for Unicode.

    A file name that the terminal cannot show is shown with escapes.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - it stays
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - it stays
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    _open_output()
    try:
        cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="sharedcache",
        )
    except KeyboardInterrupt:
        sys.exit(1)
    except OSError as error:
        # Help and version are printed by click, outside of any command.
        Failure(f"cannot print: {error}").show()
        sys.exit(1)


if __name__ == "__main__":
    main()
