"""Ready-made fetches: from a file, from an HTTP(S) address, from a command."""

from __future__ import annotations

import http.client
import os
import re
import select
import stat
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path

from sharedcache.cache.errors import CacheError
from sharedcache.cache.partial import CHUNK, Fetch, Partial

TIMEOUT_S = 30.0
"""How long a server may be silent before the connection is made anew, in seconds."""

RESUMES = 5
"""How often in a row a transfer is resumed without getting a byte further."""

_PAUSE_S = 0.5
_POLL_S = 0.2
_OK = 200
_PARTIAL_CONTENT = 206
_NO_SUCH_RANGE = 416
_LENGTH = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(
    r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE
)
_CLIENT_ERRORS = range(400, 500)
_TRANSIENT = frozenset({408, 425, 429})

Watch = Callable[[int, int | None], None]
"""Is told the bytes that are there, and those that are awaited, if known."""


class FetchError(CacheError):
    """A source did not give the file; the message says what it said."""


def _nobody(_done: int, _total: int | None) -> None:
    """Tell nobody."""


def from_file(path: str | Path, watch: Watch = _nobody) -> Fetch:
    """Return a fetch that copies a local file, which must not change meanwhile."""

    def fetch(partial: Partial) -> None:
        try:
            with Path(path).open("rb", buffering=0) as source:
                before = os.fstat(source.fileno())
                total = before.st_size if stat.S_ISREG(before.st_mode) else None
                if total is not None:
                    partial.expect(total)
                begun = partial.size
                while data := source.read(CHUNK):
                    partial.write(data)
                    watch(partial.size, total)
                after = os.fstat(source.fileno())
        except FileNotFoundError as error:
            raise FetchError(f"{path} does not exist") from error
        moved = before.st_mtime_ns != after.st_mtime_ns
        if total is not None and (moved or partial.size - begun != total):
            # It is being written, or replaced in place: this may be half of it.
            raise FetchError(f"{path} changed while it was read: try again later")

    return fetch


def from_command(*command: str, watch: Watch = _nobody) -> Fetch:
    """Return a fetch of what a program prints, which must end with 0.

    One that prints nothing for longer than the stall limit is killed.
    """

    def fetch(partial: Partial) -> None:
        try:
            child = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise FetchError(f"{command[0]} cannot be run: {error.strerror}") from error
        with child:
            if child.stdout is None:
                raise FetchError(f"{command[0]} has no output")
            try:
                _copy(child.stdout.fileno(), partial, watch)
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0:
            raise FetchError(f"{command[0]} ended with {child.returncode}")

    return fetch


def _copy(source: int, partial: Partial, watch: Watch) -> None:
    """Copy what a program prints to its end; ``LostLockError`` if it hangs."""
    heard = time.monotonic()
    while True:
        # The watch is asked while nothing comes, too: it may end the fetch.
        watch(partial.size, None)
        if select.select([source], [], [], _POLL_S)[0]:
            data = os.read(source, CHUNK)
            if not data:
                return
            partial.write(data)
            heard = time.monotonic()
        elif time.monotonic() - heard > partial.stall_s:
            partial.lose()


def from_url(
    url: str, watch: Watch = _nobody, *, timeout_s: float = TIMEOUT_S
) -> Fetch:
    """Return a fetch from an HTTP(S) address.

    A transfer that breaks off is resumed where it was, if the server can and
    the file is the same still (``If-Range``); else it begins anew.  A part that
    is not the one that was asked for is thrown away, with all before it.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"{url} is not an HTTP address")
    return _Transfer(url, watch, timeout_s)


@dataclass
class _Held:
    """What a partial file holds: the state of the file that it is a part of.

    ``validator`` tells that state from another, ``total`` is its length in bytes;
    ``ranges`` is false once a server gave a part that does not fit.
    """

    validator: str = ""
    total: int | None = None
    ranges: bool = True


class _WrongPartError(http.client.HTTPException):
    """A server answered with a part that is not the one that was asked for."""


class _Transfer:
    """One download."""

    def __init__(self, url: str, watch: Watch, timeout_s: float) -> None:
        self._url = url
        self._watch = watch
        self._timeout_s = timeout_s

    def __call__(self, partial: Partial) -> None:
        held, in_vain, farthest = _Held(), 0, -1
        while True:
            # Beyond what was ever reached: beginning anew is no progress.
            in_vain = in_vain + 1 if partial.size <= farthest else 0
            farthest = max(farthest, partial.size)
            try:
                self._receive(partial, held)
            except (OSError, http.client.HTTPException) as error:
                why = f"{self._url}: {str(error) or type(error).__name__}"
                if partial.size and _status(error) == _NO_SUCH_RANGE:
                    # The file is another one by now, and the server heeds no tag.
                    partial.restart()
                    held.ranges = False
                elif in_vain >= RESUMES or _final(error):
                    raise FetchError(why) from error
            else:
                if held.total is None or partial.size == held.total:
                    return
                why = f"{self._url} ended at {partial.size} of {held.total} bytes"
                if in_vain >= RESUMES:
                    raise FetchError(why)
            self._watch(partial.size, held.total)
            time.sleep(_PAUSE_S)

    def _receive(self, partial: Partial, held: _Held) -> None:
        """Receive as much as comes; ``held`` says of what."""
        headers = {"Accept-Encoding": "identity"}
        if partial.size and held.validator and held.ranges:
            headers["Range"] = f"bytes={partial.size}-"
            headers["If-Range"] = held.validator
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 - http(s) only, checked
        with _opener().open(request, timeout=self._timeout_s) as answer:
            length = self._length(answer, partial)
            if answer.status == _PARTIAL_CONTENT:
                end = _continued(answer.headers, length, partial.size, held)
                if end is None:
                    partial.restart()
                    held.ranges = False
                    raise _WrongPartError("the server gave another part than was asked")
            else:
                if partial.size:
                    partial.restart()
                # Said before anything is read: it may break off at any byte.
                held.validator, held.total = _validator(answer.headers), length
                end = length
            if held.total is not None:
                partial.expect(held.total)
            elif not (partial.checked or answer.chunked):
                # It could break off, and nobody would know.
                raise FetchError(
                    f"{self._url} does not say how long it is: give its digest"
                )
            while data := answer.read1(CHUNK):
                if end is not None and partial.size + len(data) > end:
                    raise FetchError(f"{self._url} gave more than it said")
                partial.write(data)
                self._watch(partial.size, held.total)

    def _length(self, answer: http.client.HTTPResponse, partial: Partial) -> int | None:
        """Return how many bytes come, if that is told.

        ``FetchError`` if what comes is not the file as it is.
        """
        if answer.status not in (_OK, _PARTIAL_CONTENT):
            raise FetchError(
                f"{self._url} answered {answer.status} {answer.reason}: not the file"
            )
        encoding = str(answer.headers.get("Content-Encoding", "identity"))
        if encoding.lower() != "identity" and not partial.checked:
            raise FetchError(
                f"{self._url} is sent as {encoding}, though it was asked for as it is: "
                "give the digest of what is to be cached"
            )
        told = set(answer.headers.get_all("Content-Length", ()))
        if answer.chunked or not told:
            return None
        if len(told) > 1 or not _LENGTH.fullmatch(length := told.pop()):
            raise FetchError(f"{self._url} contradicts itself about its length")
        return int(length)


def _continued(
    headers: http.client.HTTPMessage, length: int | None, at: int, held: _Held
) -> int | None:
    """Return where a part ends that continues what is held, None if it does not.

    RFC 9110, 15.3.7: one part tells its range, and the tag that the whole has.
    """
    told = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if told is None or not at:
        return None
    first, last = int(told[1]), int(told[2])
    total = held.total if told[3] == "*" else int(told[3])
    fits = (
        first == at
        and total is not None
        and first <= last < total
        and length in (None, last - first + 1)
        and held.total in (None, total)
    )
    if held.validator.startswith('"'):
        same = headers.get("ETag") == held.validator
    else:
        # A part need not repeat its time.
        same = headers.get("Last-Modified", held.validator) == held.validator
    if not (fits and same):
        return None
    held.total = total
    return last + 1


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens HTTP(S) alone, wherever a server redirects to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _validator(headers: http.client.HTTPMessage) -> str:
    """Return what tells one state of the file from another; weak ones do not.

    A time does if it had passed when it was sent (RFC 9110, 8.8.2.2).
    """
    tag = headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    changed = headers.get("Last-Modified", "")
    times = [parsedate_tz(text) for text in (changed, headers.get("Date", ""))]
    then, now = (0 if parsed is None else mktime_tz(parsed) for parsed in times)
    return changed if then and now - then >= 1 else ""


def _status(error: Exception) -> int | None:
    return error.code if isinstance(error, urllib.error.HTTPError) else None


def _final(error: Exception) -> bool:
    """Whether asking again would bring the same answer."""
    status = _status(error)
    return status in _CLIENT_ERRORS and status not in _TRANSIENT
