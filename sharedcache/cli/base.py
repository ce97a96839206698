"""What every command shares: its options, its settings, its connection."""

from __future__ import annotations

import enum
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sharedcache.adapters import settings as ini
from sharedcache.adapters.settings import Settings
from sharedcache.cli import output
from sharedcache.cli.failure import Failure, RefusedFailure, in_one_line

if TYPE_CHECKING:
    from sharedcache.adapters.storage import DirectoryStorage
    from sharedcache.adapters.zookeeper.session import ZooKeeperSession
    from sharedcache.cleaner.observe import Observed, Observer
    from sharedcache.core.plan import Plan

CONNECT_S = 8.0
"""How long a command waits for ZooKeeper, in seconds."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Given:
    """The options that were given, before the command or after it."""

    form: str = "table"
    columns: list[str] = field(default_factory=list)
    config_file: list[str] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)

    def settings(self) -> Settings:
        """Read the settings; raises ``SettingsError``."""
        return ini.read(ini.parser(), self.arguments(), os.environ)

    def arguments(self) -> list[str]:
        """Return the options that name settings, as a command line."""
        arguments = [f"--config-file={path}" for path in self.config_file]
        return arguments + [f"--{name}={value}" for name, value in self.words.items()]

    def emit(
        self,
        data: object,
        view: output.View,
        *,
        rows_in: str | None = None,
        line: bool = False,
    ) -> None:
        """Print a result in the format and with the columns that were asked for.

        ``rows_in`` is the key of the rows that a mapping is about; ``line`` asks
        for JSON on one line, for a result that is one of many.
        """
        output.emit(
            data, self.form, view, columns=self.columns, rows_in=rows_in, line=line
        )

    def stream(
        self, rows: Iterable[Mapping[str, object]], head: str, line: output.Line
    ) -> None:
        """Print rows one by one, as they come, in the format that was asked for."""
        output.stream(rows, self.form, head, line, columns=self.columns)


pass_given = click.make_pass_decorator(Given, ensure=True)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep an option's value; the one nearest to the command's end counts."""
    if value is None or value == ():
        return
    given = context.ensure_object(Given)
    if parameter.name == "form":
        given.form = value
    elif parameter.name == "config_file":
        given.config_file.extend(value)
    elif parameter.name == "columns":
        given.columns.extend(value)
    elif parameter.name is not None:
        given.words[parameter.name] = value


def common_options(command: F) -> F:
    """Give a command the options that all have, before and after its name."""
    texts = {
        "cluster": ("NAME", "Name of the cluster (SHAREDCACHE_CLUSTER)."),
        "zookeeper": (
            "SERVERS",
            "ZooKeeper, host:port,... or a URL (SHAREDCACHE_ZOOKEEPER).",
        ),
        "base": ("DIRECTORY", "The image cache directory (SHAREDCACHE_BASE)."),
    }
    for name, (metavar, text) in texts.items():
        command = click.option(
            f"--{name}",
            metavar=metavar,
            help=text,
            expose_value=False,
            callback=_remember,
        )(command)
    command = click.option(
        "--config-file",
        metavar="FILE",
        multiple=True,
        expose_value=False,
        callback=_remember,
        help="Settings, repeatable; nova.conf is welcome (SHAREDCACHE_CONFIG).",
    )(command)
    command = click.option(
        "-c",
        "--column",
        "columns",
        metavar="NAME",
        multiple=True,
        expose_value=False,
        callback=_remember,
        help="Show this key only, repeatable; gate.open goes one deeper.",
    )(command)
    return click.option(
        "-f",
        "--format",
        "form",
        type=click.Choice(output.FORMATS),
        expose_value=False,
        callback=_remember,
        help="How to print the result (default: table).",
    )(command)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands, in the order of the table."""
        del ctx
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; ``None`` if there is none, or it is not installed."""
        del ctx
        place = self._lazy.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            return None
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; every error becomes one line and an exit code."""
        with in_one_line():
            return super().invoke(ctx)


@dataclass(slots=True)
class Connection:
    """A command's way to the cluster; it is registered in no group."""

    settings: Settings
    storage: DirectoryStorage
    session: ZooKeeperSession
    _observer: Observer | None = None

    def observer(self) -> Observer:
        """Return what takes observations; it changes nothing."""
        from sharedcache.cleaner.observe import Observer  # noqa: PLC0415 - see wiring

        if self._observer is None:
            policy = self.settings.cleaner.policy()
            self._observer = Observer(self.session, self.storage, policy.missing_nodes)
        return self._observer

    def look(
        self, *, scan: bool = True, quietly: bool = False
    ) -> tuple[Observed, Plan]:
        """Observe, and plan what a pass would do; nothing is changed.

        If the leader is under a brake, the plan speaks of the leader's own.
        ``quietly`` leaves the terminal to somebody else.
        """
        from sharedcache.cleaner.brake import (  # noqa: PLC0415 - see wiring
            as_the_leader_tells,
        )
        from sharedcache.core.planner import make_plan  # noqa: PLC0415 - see wiring

        policy = self.settings.cleaner.policy()
        observer = self.observer()
        if quietly:
            observed = observer.observe(scan=scan)
        else:
            with output.progress("Looking at the cluster"):
                observed = observer.observe(scan=scan)
        plan = make_plan(policy, observed.seen)
        return observed, as_the_leader_tells(observed, plan)


LONGEST_WHY = 500
"""Characters of a reason that the audit keeps whole."""


def why_option(shown: str) -> Callable[[F], F]:
    """Add ``--why``, an operator's reason; ``shown`` says where it can be read."""
    return click.option("--why", default="by hand", callback=_one_line, help=shown)


def _one_line(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse a reason that a record could not give back, or a table not show."""
    del context, parameter
    if len(value) <= LONGEST_WHY and value.isprintable():
        return value
    raise click.BadParameter(
        f"give one line of printable text, {LONGEST_WHY} characters at most"
    )


def own_name(settings: Settings, name: str) -> str:
    """Return the file's name that an order is about, given bare or as a path.

    Raises ``RefusedFailure`` for a path out of this cache: an order about a
    file elsewhere must not become one about a file here with the same name.
    """
    if "/" not in name:
        return name
    directory, _, last = name.rstrip("/").rpartition("/")
    there = Path(os.path.realpath(directory or "/"))
    # What is in quarantine lies deeper in the same directory.
    if Path(os.path.realpath(settings.base)) in (there, *there.parents):
        return last
    raise RefusedFailure(
        f"{name} is not in {settings.base}: give the file's name alone, or a path "
        "to it in there"
    )


class Needs(enum.Enum):
    """What must be so before a command asks anything of the cluster."""

    NOTHING = enum.auto()
    """It tells what is wrong itself, or mends it."""
    CLUSTER = enum.auto()
    """ZooKeeper has the cluster: none is not one without nodes, files, holds."""
    ORDER = enum.auto()
    """It is the directory's cluster too: an order must not reach another one."""


@contextmanager
def connected(given: Given, needs: Needs = Needs.CLUSTER) -> Iterator[Connection]:
    """Open the directory and a session with ZooKeeper for one command.

    Raises ``SettingsError``, ``StorageError``, ``DisconnectedError`` after
    ``CONNECT_S`` seconds without an answer, and what ``belonging`` raises for
    a cluster that is not there or not the directory's.
    """
    from sharedcache.cleaner import belonging  # noqa: PLC0415 - see wiring
    from sharedcache.cli import wiring  # noqa: PLC0415 - costs half a second

    settings = given.settings()
    session = wiring.open_session(
        settings,
        wiring.cleaner_name("-cli"),
        session_timeout_s=settings.cleaner.session_timeout_s,
        # A mistyped cluster name must leave no trace in ZooKeeper.
        creates=False,
    )
    with wiring.open_storage(settings) as storage:
        try:
            with output.progress("Connecting to ZooKeeper"):
                session.start(CONNECT_S)
            if needs is Needs.CLUSTER:
                belonging.check_cluster(session, storage, settings.cluster)
            elif needs is Needs.ORDER:
                belonging.check_order(session, storage, settings.cluster)
            yield Connection(settings, storage, session)
        except KeyboardInterrupt as error:
            if needs is not Needs.ORDER:
                raise
            raise Failure(
                "interrupted: `sharedcache history --limit 5` tells whether the order "
                "took effect"
            ) from error
        finally:
            session.stop()
