"""Ready-made fetches: from a file, from an HTTP(S) address, from a command."""

from __future__ import annotations

import http.client
import os
import stat
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from sharedcache.cache.errors import CacheError
from sharedcache.cache.partial import CHUNK, Fetch, Partial

TIMEOUT_S = 30.0
"""How long a server may be silent before the connection is made anew, in seconds."""

RESUMES = 5
"""How often in a row a transfer is resumed without getting a byte further."""

_PAUSE_S = 0.5
_PARTIAL_CONTENT = 206
_CLIENT_ERRORS = range(400, 500)
_TRANSIENT = frozenset({408, 425, 429})

Watch = Callable[[int, int | None], None]
"""Is told the bytes that are there, and those that are awaited, if known."""


class FetchError(CacheError):
    """A source did not give the file; the message says what it said."""


def _nobody(_done: int, _total: int | None) -> None:
    """Tell nobody."""


def from_file(path: str | Path, watch: Watch = _nobody) -> Fetch:
    """Return a fetch that copies a local file."""

    def fetch(partial: Partial) -> None:
        try:
            with Path(path).open("rb", buffering=0) as source:
                status, total = os.fstat(source.fileno()), None
                if stat.S_ISREG(status.st_mode):
                    total = status.st_size
                    partial.expect(total)
                while data := source.read(CHUNK):
                    partial.write(data)
                    watch(partial.size, total)
        except FileNotFoundError as error:
            raise FetchError(f"{path} does not exist") from error

    return fetch


def from_command(*command: str, watch: Watch = _nobody) -> Fetch:
    """Return a fetch of what a program prints, which must end with 0."""

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
                while data := os.read(child.stdout.fileno(), CHUNK):
                    partial.write(data)
                    watch(partial.size, None)
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0:
            raise FetchError(f"{command[0]} ended with {child.returncode}")

    return fetch


def from_url(
    url: str, watch: Watch = _nobody, *, timeout_s: float = TIMEOUT_S
) -> Fetch:
    """Return a fetch from an HTTP(S) address.

    A transfer that breaks off is resumed where it was, if the server can and
    the file is the same still (``If-Range``); else it begins anew.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"{url} is not an HTTP address")
    return _Transfer(url, watch, timeout_s)


class _Transfer:
    """One download; ``validator`` is what tells that the file is the same."""

    def __init__(self, url: str, watch: Watch, timeout_s: float) -> None:
        self._url = url
        self._watch = watch
        self._timeout_s = timeout_s

    def __call__(self, partial: Partial) -> None:
        validator, in_vain, before = "", 0, -1
        while True:
            in_vain = in_vain + 1 if partial.size <= before else 0
            before = partial.size
            try:
                validator, total = self._receive(partial, validator)
            except (OSError, http.client.HTTPException) as error:
                why = f"{self._url}: {str(error) or type(error).__name__}"
                if in_vain >= RESUMES or _final(error):
                    raise FetchError(why) from error
            else:
                if total is None or partial.size == total:
                    return
                why = f"{self._url} ended at {partial.size} of {total} bytes"
                if in_vain >= RESUMES:
                    raise FetchError(why)
            time.sleep(_PAUSE_S)

    def _receive(self, partial: Partial, validator: str) -> tuple[str, int | None]:
        """Receive as much as comes; return the validator and the whole size."""
        headers = {"Accept-Encoding": "identity"}
        if partial.size and validator:
            headers["Range"] = f"bytes={partial.size}-"
            headers["If-Range"] = validator
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 - http(s) only, checked
        with _opener().open(request, timeout=self._timeout_s) as answer:
            resumed = answer.status == _PARTIAL_CONTENT
            if not resumed and partial.size:
                partial.restart()
            total = None if answer.length is None else answer.length + partial.size
            if total is not None:
                partial.expect(total)
            elif not (partial.checked or answer.chunked):
                # It could break off, and nobody would know.
                raise FetchError(
                    f"{self._url} does not say how long it is: give its digest"
                )
            found = _validator(answer.headers)
            while data := answer.read1(CHUNK):
                partial.write(data)
                self._watch(partial.size, total)
        return found or validator, total


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
    """Return what tells one state of the file from another; weak ones do not."""
    tag = str(headers.get("ETag", ""))
    if tag and not tag.startswith("W/"):
        return tag
    return str(headers.get("Last-Modified", ""))


def _final(error: Exception) -> bool:
    """Whether asking again would bring the same answer."""
    return (
        isinstance(error, urllib.error.HTTPError)
        and error.code in _CLIENT_ERRORS
        and error.code not in _TRANSIENT
    )
