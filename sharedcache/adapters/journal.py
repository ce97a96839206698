"""A service's story as lines of a log."""

from __future__ import annotations

import enum
import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime

_BARE = re.compile(r"[!#-<>-~]+\Z")
"""Printable ASCII without space, quote and equals sign: needs no quotes."""

_FIELDS = "sharedcache_fields"

_ALARMS = frozenset({"expunged", "expunged-node-returned", "used-name-lost"})
"""What somebody should look at now, whatever else the log says: level WARNING."""


class LogJournal:
    """The port of the journal over Python's logging, logger ``sharedcache``.

    One line an event: ``name key=value ...``, values quoted where they need
    it; level INFO, alarms WARNING.  The record bears the event's fields too, for
    ``JsonLines``.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("sharedcache")

    def event(self, name: str, /, **fields: object) -> None:
        """Tell one thing that happened."""
        level = logging.WARNING if name in _ALARMS else logging.INFO
        if not self._logger.isEnabledFor(level):
            return
        line = line_of(name, fields)
        told = {"event": name} | fields | {"event": name}
        # The line is an argument, since it may contain per cent signs.
        self._logger.log(level, "%s", line, extra={_FIELDS: told})


def line_of(name: str, fields: Mapping[str, object]) -> str:
    """Return an event as its line of a text log has it."""
    return " ".join([name, *(f"{key}={_text(fields[key])}" for key in fields)])


class JsonLines(logging.Formatter):
    """Lines of a log as JSON: one object a line, whatever is told.

    An event has the key ``event`` and its fields, everything else ``message``.
    ``time`` is UTC as ISO 8601 has it, ``level`` and ``logger`` are Python's.
    A field of an event never hides one of these four.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Make one line."""
        when = datetime.fromtimestamp(record.created, UTC)
        fields = getattr(record, _FIELDS, None)
        head = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        told = {"message": record.getMessage()} if fields is None else fields
        if record.exc_info:
            told = {**told, "traceback": self.formatException(record.exc_info)}
        return json.dumps(_plain(head | told | head))


def _text(value: object) -> str:
    if isinstance(value, str) and _BARE.match(value):
        return value
    if isinstance(value, float):
        return f"{value:.3f}"
    # JSON quotes, escapes line ends, and leaves numbers as they are.
    return json.dumps(_plain(value), separators=(",", ":"))


def _plain(value: object) -> object:
    """Return a value as JSON has it; what JSON does not know becomes text."""
    match value:
        case enum.Enum():
            plain = _plain(value.value)
        case None | bool() | int() | float() | str():
            plain = value
        case Mapping():
            plain = {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            plain = [_plain(one) for one in value]
        case set() | frozenset():
            plain = sorted((_plain(one) for one in value), key=str)
        case bytes():
            plain = value.hex()
        case _:
            plain = str(value)
    return plain
