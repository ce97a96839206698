"""A service's story as lines of a log."""

from __future__ import annotations

import enum
import json
import logging
import re
from collections.abc import Mapping

_BARE = re.compile(r"[!#-<>-~]+\Z")
"""Printable ASCII without space, quote and equals sign: needs no quotes."""


class LogJournal:
    """The port of the journal over Python's logging, logger ``sharedcache``.

    One line an event: ``name key=value ...``, values quoted where they need
    it; with ``json_lines`` one JSON object with the key ``event``.
    """

    def __init__(
        self, logger: logging.Logger | None = None, *, json_lines: bool = False
    ) -> None:
        self._logger = logger or logging.getLogger("sharedcache")
        self._json_lines = json_lines

    def event(self, name: str, /, **fields: object) -> None:
        """Tell one thing that happened."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        if self._json_lines:
            line = json.dumps(_plain({"event": name} | fields | {"event": name}))
        else:
            line = " ".join([name, *(f"{key}={_text(fields[key])}" for key in fields)])
        # The line is an argument, since it may contain per cent signs.
        self._logger.info("%s", line)


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
