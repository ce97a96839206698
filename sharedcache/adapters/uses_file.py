"""The source ``uses-file``: a JSON file that any other tool may drop.

``{"images": [id], "kernels": [id], "ramdisks": [id], "names": [cache name]}``,
every key optional, ids being image ids.  Whoever writes it should write
another file and rename it to this name, so that no reader sees half of it.
"""

from __future__ import annotations

import json
import os
import stat

from sharedcache.core import names
from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError
from sharedcache.core.referrers import Referrer, Referrers

MAX_BYTES = 16 * 1024 * 1024
"""A larger file is refused: 400,000 ids fit."""

TRIES = 5
"""How often a file is read that changes while it is being read."""

_KEYS = frozenset({"images", "kernels", "ramdisks", "names"})
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK_BYTES = 1024 * 1024
_ATOMIC = "write another file and rename it to this name"


class UsesFileSource:
    """Reads one file at every look; doubt about any part of it is an error.

    With ``both_namings`` a kernel or ramdisk is used under both its names;
    without (a node of the old release) under its raw id only.
    """

    name = "uses-file"

    def __init__(self, path: str, *, both_namings: bool = True) -> None:
        self._path = path
        self._both_namings = both_namings
        self._told = Referrers()

    def look(self) -> Uses:
        """Return the uses that the file names.

        Raises ``SourceError``, naming the file, the problem and the remedy.
        """
        listed = self._parsed(self._content())
        images = frozenset(map(names.digest_of, self._ids(listed, "images")))
        kernels = self._ids(listed, "kernels")
        ramdisks = self._ids(listed, "ramdisks")
        raw_ids = Uses(names=frozenset(one.lower() for one in [*kernels, *ramdisks]))
        digests = Uses(images=images, families=images)
        if self._both_namings:
            digests |= Uses(
                kernels=frozenset(map(names.digest_of, kernels)),
                ramdisks=frozenset(map(names.digest_of, ramdisks)),
            )
        used = digests | raw_ids | Uses.of_names(self._names(listed))
        self._told = Referrers()
        this = Referrer("file", path=self._path)
        self._told.add(set(used.cache_names()), this)
        self._told.add((one.hex() for one in used.families), this, family=True)
        return used

    def referrers(self) -> Referrers:
        """Return the file itself, for all that it names."""
        return self._told

    def _error(self, problem: str, remedy: str) -> SourceError:
        """Make an error that names the file."""
        return SourceError(f"uses file {self._path}: {problem}; {remedy}")

    def _content(self) -> bytes:
        """Read the whole file, again if it changed meanwhile."""
        for _ in range(TRIES):
            content = self._read_once()
            if content is not None:
                return content
        raise self._error(f"it changed during each of {TRIES} reads", _ATOMIC)

    def _read_once(self) -> bytes | None:
        """Read the file through one descriptor; ``None`` if it changed."""
        try:
            fd = os.open(self._path, _OPEN)
            try:
                before = os.fstat(fd)
                self._check(before)
                content = _read_upto(fd, MAX_BYTES + 1)
                after = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._error(
                f"it cannot be read ({error.strerror or error})",
                "create it, let the agent read it, or switch this source off",
            ) from error
        self._check(after)
        if _looks(before) != _looks(after) or len(content) != after.st_size:
            return None
        return content

    def _check(self, status: os.stat_result) -> None:
        """Refuse what is not a regular file of a sensible size."""
        if not stat.S_ISREG(status.st_mode):
            raise self._error("it is not a regular file", "put a JSON file there")
        if status.st_size > MAX_BYTES:
            raise self._error(
                f"its {status.st_size} bytes are more than {MAX_BYTES}",
                "list each id once, or split the load over more nodes",
            )

    def _parsed(self, content: bytes) -> dict[str, list[str]]:
        """Read the JSON and check its shape."""
        try:
            parsed = json.loads(content.decode("utf-8"), object_pairs_hook=_object)
        except UnicodeDecodeError as error:
            raise self._error("it is not UTF-8", "write it as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise self._error(f"it is not whole, sound JSON ({error})", _ATOMIC) from (
                error
            )
        if not isinstance(parsed, dict):
            raise self._error("it is not a JSON object", f"use the keys {_known()}")
        unknown = sorted(parsed.keys() - _KEYS)
        if unknown:
            raise self._error(
                f"the key {unknown[0]!r} is not known", f"use the keys {_known()}"
            )
        for key, value in parsed.items():
            if not isinstance(value, list) or not all(
                isinstance(one, str) for one in value
            ):
                raise self._error(
                    f"{key!r} is not a list of strings", "correct its writer"
                )
        return parsed

    def _ids(self, listed: dict[str, list[str]], key: str) -> list[str]:
        """Return the ids under a key, each checked."""
        ids = listed.get(key, [])
        for one in ids:
            if not names.is_image_id(one):
                raise self._error(
                    f"{_short(one)} under {key!r} is not an image id",
                    "give image ids, and cache names under 'names'",
                )
        return ids

    def _names(self, listed: dict[str, list[str]]) -> list[str]:
        """Return the cache names, each checked."""
        found = listed.get("names", [])
        for one in found:
            if names.classify(one) is names.Kind.UNRECOGNISED:
                raise self._error(
                    f"{_short(one)} under 'names' is not a cache name",
                    "give names as they are in the cache directory",
                )
        return found


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object; of a key given twice, one list would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _read_upto(fd: int, limit: int) -> bytes:
    """Read to the end, or to the limit (bytes)."""
    parts: list[bytes] = []
    while limit > 0:
        part = os.read(fd, min(limit, _CHUNK_BYTES))
        if not part:
            break
        limit -= len(part)
        parts.append(part)
    return b"".join(parts)


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes when the content does."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _known() -> str:
    """List the keys for a message."""
    return ", ".join(sorted(_KEYS))


def _short(text: str) -> str:
    """Quote a value that may be of any length."""
    return repr(text if len(text) <= 80 else text[:80] + "...")  # noqa: PLR2004 - a line on a screen
