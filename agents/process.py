"""What both daemons do as processes: settings, log, signals, connecting."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from oslo_config import cfg
from oslo_log import log
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.wait import wait_exponential

from sharedcache import __version__
from sharedcache.adapters import settings as ini
from sharedcache.adapters.clock import SystemClock
from sharedcache.adapters.journal import JsonLines, LogJournal
from sharedcache.adapters.settings import Settings, SettingsError
from sharedcache.adapters.settings.reading import is_ours, on_command_line
from sharedcache.adapters.systemd import notify
from sharedcache.core.policy import PolicyError
from sharedcache.core.ports import CoordinationError

if TYPE_CHECKING:
    from sharedcache.adapters.zookeeper.session import ZooKeeperSession

DONE, FAILED, USAGE = 0, 1, 2

LOGGER = logging.getLogger("sharedcache")

_LEVELS = ("kazoo=WARNING", "sharedcache.zookeeper.kazoo=WARNING", "tooz=WARNING")
_CONNECT_S = 3.0
_LONGEST_PAUSE_S = 5.0


class ProcessFailedError(Exception):
    """The daemon cannot go on; the message says what to do."""


class Stop:
    """The stop flag: set by SIGTERM and SIGINT, which also wake the clock."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._wanted = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def wanted(self) -> bool:
        """Whether the process was asked to stop."""
        return self._wanted

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._wanted = True
        self._clock.wake()


def run(
    section: str,
    body: Callable[[Settings, SystemClock, Stop, LogJournal], None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the settings, set the log up, and run a daemon's body.

    Returns the exit status: 0 done, 1 failed, 2 wrong settings.
    """
    try:
        settings = _settings(section, arguments, os.environ)
        with SystemClock() as clock:
            body(settings, clock, Stop(clock), LogJournal())
    except (SettingsError, PolicyError) as error:
        # One line that says it all, also where the log goes elsewhere.
        sys.stderr.write(f"sharedcache-{section}: {error}\n")
        return USAGE
    except ProcessFailedError as error:
        why = str(error)
    else:
        return DONE
    # Told outside of the handler: oslo.log would add the error a second time.
    LOGGER.error("%s", why)
    return FAILED


def _settings(
    section: str, arguments: Sequence[str] | None, environ: Mapping[str, str]
) -> Settings:
    command_line = ini.parser(section)
    ours = set(command_line)
    log.set_defaults(default_log_levels=list(_LEVELS))
    log.register_options(command_line)
    settings = ini.read(
        command_line,
        sys.argv[1:] if arguments is None else arguments,
        environ,
        prog=f"sharedcache-{section}",
        version=__version__,
    )
    how = _log_settings(command_line, set(command_line) - ours, settings.files)
    log.setup(how, "sharedcache", __version__)
    if settings.log_form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
    return settings


def _log_settings(
    command_line: cfg.ConfigOpts, names: set[str], files: Sequence[str]
) -> cfg.ConfigOpts:
    """Read how to log, from files of ours and from the command line.

    A nova.conf is read for what it says of instances and ages; our log has no
    place among Nova's, so a file without a section of ours says nothing of it.
    """
    how = cfg.ConfigOpts()
    log.register_options(how)
    own = [path for path in files if is_ours(path)]
    how([], default_config_files=own, default_config_dirs=[], use_env=False)
    for name in names:
        if on_command_line(command_line, name):
            how.set_override(name, command_line[name])
    if not (how.log_file or how.log_dir or how.use_journal):
        how.set_default("use_stderr", True)
    return how


def connect(session: ZooKeeperSession, clock: SystemClock, stop: Stop) -> bool:
    """Connect to ZooKeeper, trying for ever; ``False`` if told to stop instead."""
    told: list[str] = []

    def tell(state: RetryCallState) -> None:
        error = str(state.outcome.exception()) if state.outcome else ""
        if told[-1:] != [error]:
            told.append(error)
            LOGGER.warning("%s; trying on", error)
            notify("STATUS=Waiting for ZooKeeper")

    for attempt in Retrying(
        retry=retry_if_exception_type(CoordinationError),
        wait=wait_exponential(multiplier=0.25, max=_LONGEST_PAUSE_S),
        sleep=clock.wait,
        before_sleep=tell,
        reraise=True,
    ):
        if stop.wanted():
            return False
        with attempt:
            session.start(_CONNECT_S)
    return not stop.wanted()
