"""The parts' logs: bounded in size, followed for what is worth telling."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sharedcache.adapters.journal import line_of

LIMIT_BYTES = 8 * 1024 * 1024
"""A log that grows beyond this begins anew; one older piece is kept."""

_BLOCK_BYTES = 256 * 1024
"""What is followed at one look, and the most that is read of a log's end."""


@dataclass(slots=True)
class LogFile:
    """One part's log, which the part itself appends to.

    It is cut by copying and emptying it, as logrotate's ``copytruncate`` does:
    the part goes on writing to the same open file, at its new end.  Lines that
    are written between the two are lost.
    """

    path: Path
    limit_bytes: int = LIMIT_BYTES
    _seen: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Follow from here on; what an earlier run wrote was told then."""
        self._seen = self._size()

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def open(self) -> int:
        """Open it for a part to append to; return the descriptor."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self.path, flags, 0o600)

    def trim(self) -> None:
        """Begin the log anew if it has grown too large.

        Where there is no room for the copy it is left as it is until there is.
        """
        if self._size() <= self.limit_bytes:
            return
        older = self.path.with_name(f"{self.path.name}.1")
        try:
            shutil.copyfile(self.path, older)
            older.chmod(0o600)
        except OSError:
            return
        os.truncate(self.path, 0)
        self._seen = 0

    def follow(self) -> list[str]:
        """Return the whole lines that came since the last look.

        Of very many at once the oldest are left out.
        """
        size = self._size()
        if size < self._seen:
            self._seen = 0
        if size == self._seen:
            return []
        begin = max(self._seen, size - _BLOCK_BYTES)
        with self.path.open("rb") as log:
            log.seek(begin)
            block = log.read(size - begin)
        whole, newline, _ = block.rpartition(b"\n")
        if not newline and len(block) < _BLOCK_BYTES:
            return []
        self._seen = begin + (len(whole) + 1 if newline else len(block))
        return whole.decode("utf-8", "replace").splitlines()

    def tail(self, lines: int) -> str:
        """Return the last lines."""
        try:
            with self.path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(0, end - _BLOCK_BYTES))
                text = log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


_LINE = re.compile(
    r"\d{4}-\d\d-\d\d (?P<time>\d\d:\d\d:\d\d)\S* \d+ (?P<level>[A-Z]+) "
    r"(?P<logger>\S+) \[[^]]*\] (?P<text>.*)\Z"
)
"""A line as oslo.log writes it."""

_GRAVE = frozenset({"WARNING", "ERROR", "CRITICAL"})

_ACTS = frozenset(
    {
        "expunged-node-returned",
        "finalized-automatically",
        "gate-closed",
        "gate-open",
        "leading",
        "no-report-yet",
        "pass-failed",
        "plan-rejected",
        "purged",
        "quarantined",
        "restored",
        "sealed",
        "standing-down",
        "touch-failed",
        "used-name-lost",
    }
)
"""Events that an operator who watches wants to see (docs/reference.md)."""


@dataclass(frozen=True, slots=True)
class _Told:
    """One line of a log: the time of day, level, logger, and what it says."""

    time: str
    level: str
    logger: str
    text: str


def acts(lines: list[str]) -> Iterator[str]:
    """Pick from a daemon's lines what is worth telling, each with its time.

    The lines may be text or JSON, as ``[sharedcache] log_form`` has it.
    """
    for line in lines:
        told = _json(line) if line.startswith("{") else _text(line)
        if told is None:
            continue
        event = told.text.partition(" ")[0]
        # kazoo tells every attempt to connect; our own events say what it means.
        grave = told.level in _GRAVE and told.logger == "sharedcache"
        if grave or event in _ACTS:
            yield f"{told.time} {told.text}"


def _text(line: str) -> _Told | None:
    found = _LINE.match(line)
    return None if found is None else _Told(**found.groupdict())


def _json(line: str) -> _Told | None:
    """Read a line of JSON; its time is UTC, shown as this host's as text is."""
    try:
        said = json.loads(line)
        when = datetime.fromisoformat(said.pop("time")).astimezone()
        level, logger = str(said.pop("level")), str(said.pop("logger"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    event = said.pop("event", None)
    text = said.get("message") if event is None else line_of(str(event), said)
    return _Told(f"{when:%H:%M:%S}", level, logger, str(text))
