"""Holding files: what keeps a cleaner from a file for as long as it is used."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from sharedcache.adapters.storage import WriterDirectory
from sharedcache.adapters.uses_socket import AgentLink
from sharedcache.cache.errors import StorageFailedError
from sharedcache.core.ports import OutcomeUnknownError, StorageError

LOGGER = logging.getLogger("sharedcache.cache")

LINK_S = 5.0
"""How often the connection with the agent is looked at, in seconds."""


@dataclass(slots=True, eq=False)
class Hold:
    """One use of one file.

    ``touched`` and ``locked`` tell what protects it: its time of last use, and
    a lock like a running guest's.  ``descriptor`` carries that lock.
    """

    name: str
    descriptor: int
    touched: bool
    locked: bool
    complained: bool = field(default=False)


class Keeper:
    """Touches what is held, in a thread of its own, until nothing is held."""

    def __init__(
        self, storage: WriterDirectory, agent: AgentLink, touch_s: float
    ) -> None:
        self._storage = storage
        self._agent = agent
        self._touch_s = touch_s
        self._wanted = threading.Condition()
        self._holds: set[Hold] = set()
        self._thread: threading.Thread | None = None
        self._next_touch = 0.0
        self._stopped = False

    def add(self, hold: Hold) -> None:
        """Keep a file from now on; ``StorageFailedError`` once this is stopped."""
        with self._wanted:
            if self._stopped:
                os.close(hold.descriptor)
                raise StorageFailedError("the cache was closed")
            if not self._holds:
                self._next_touch = time.monotonic() + self._touch_s
            self._holds.add(hold)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="sharedcache-keeper", daemon=True
                )
                self._thread.start()

    def drop(self, hold: Hold) -> None:
        """Keep a file no longer."""
        with self._wanted:
            if hold not in self._holds:
                # All was let go: its descriptor's number may mean another file.
                return
            self._holds.discard(hold)
            # Under the same lock as the touching, so that no number of a
            # closed descriptor is touched after it means another file.
            os.close(hold.descriptor)
        self._agent.release(hold.name)

    def held(self) -> int:
        """Count the files that are held."""
        with self._wanted:
            return len(self._holds)

    def stop(self) -> None:
        """End the thread; what is still held is kept no longer."""
        with self._wanted:
            self._stopped = True
            holds, self._holds = self._holds, set()
            for hold in holds:
                os.close(hold.descriptor)
            self._wanted.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(LINK_S)

    def _run(self) -> None:
        while True:
            with self._wanted:
                # Looked at before waiting too: a word that came before this
                # thread waited would wake nobody.
                if not self._stopped:
                    self._wanted.wait(min(self._touch_s, LINK_S))
                if self._stopped or not self._holds:
                    self._thread = None
                    return
                due = time.monotonic() >= self._next_touch
            self._agent.refresh()
            if due:
                self._touch_all()

    def _touch_all(self) -> None:
        self._next_touch = time.monotonic() + self._touch_s
        with self._wanted:
            holds = list(self._holds)
        for hold in holds:
            # A descriptor of its own, so that a storage that hangs keeps
            # nobody from letting go.
            with self._wanted:
                if hold not in self._holds:
                    continue
                descriptor = os.dup(hold.descriptor)
            try:
                self._touch(hold, descriptor)
            finally:
                with suppress(OSError):
                    os.close(descriptor)

    def _touch(self, hold: Hold, descriptor: int) -> None:
        try:
            if hold.touched:
                self._storage.touch_open(descriptor, hold.name)
            if not hold.complained and not self._storage.bears(hold.name, descriptor):
                hold.complained = True
                LOGGER.error(
                    "%s was taken out of the cache while it is used here; the agent "
                    "restores it, if one runs",
                    hold.name,
                )
        except (StorageError, OutcomeUnknownError) as error:
            LOGGER.warning("%s is held and could not be touched: %s", hold.name, error)
