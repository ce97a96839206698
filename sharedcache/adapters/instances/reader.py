"""Backing chains for other sources, which know their disks by other means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sharedcache.adapters.instances import paths
from sharedcache.adapters.instances.base import opened
from sharedcache.adapters.instances.chain import Chains
from sharedcache.adapters.instances.headers import Headers


class ChainReader:
    """Reads chains with what earlier looks remember of headers.

    ``monotonic`` and ``pause`` are in seconds.  Not for several threads.
    """

    def __init__(
        self,
        base: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base = paths.absolute(base)
        self._headers = Headers(monotonic=monotonic, pause=pause)

    @contextmanager
    def __call__(self) -> Iterator[Chains]:
        """Hold the cache directory open for one look; raises ``SourceError``."""
        complete = False
        self._headers.begin()
        try:
            with opened(self._base) as base:
                yield Chains(base, self._headers)
            complete = True
        finally:
            self._headers.finish(complete=complete)
