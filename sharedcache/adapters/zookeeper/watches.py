"""Counting changes of nodes through ZooKeeper's watches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kazoo.protocol.states import EventType

from sharedcache.adapters.zookeeper.errors import translated

if TYPE_CHECKING:
    from kazoo.handlers.threading import AsyncResult

    from sharedcache.adapters.zookeeper.link import Link


class Watches:
    """A count for every watched node.

    The one rule that makes the counts sound: the count goes up only when the
    watch is known to be set again.  So every change after a count was returned
    is counted, and whoever reads because the count went up misses none.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._set: set[str] = set()

    def count(self, link: Link, path: str) -> int:
        """Return how often a node is known to have changed; set the watch if need be.

        Raises ``DisconnectedError`` while there is no connection.
        """
        link.client()
        absolute = link.absolute(path)
        with self._lock:
            known = self._counts.get(absolute)
            if known is not None and absolute in self._set:
                return known
        with translated(f"watching {absolute}"):
            # Waited for, so that whatever happens after this call is counted.
            self._arm(link, absolute).get()
        # What happened while no watch was set is not known: count it.
        return self._count_one(absolute)

    def disturbed(self) -> None:
        """Count one for every node, because no watch outlives its connection.

        Called on kazoo's thread: waits for nothing and sends nothing.
        """
        with self._lock:
            self._set.clear()
            for path in self._counts:
                self._counts[path] += 1

    def _count_one(self, absolute: str) -> int:
        with self._lock:
            self._counts[absolute] = self._counts.get(absolute, -1) + 1
            return self._counts[absolute]

    def _arm(self, link: Link, absolute: str) -> AsyncResult:
        with self._lock:
            self._set.add(absolute)

        def changed(event: Any) -> None:
            if event.type == EventType.NONE:
                return  # The connection's end, which `disturbed` has counted.
            self._arm(link, absolute).rawlink(set_again)

        def set_again(_: Any) -> None:
            self._count_one(absolute)
            self._wake()

        def answered(answer: Any) -> None:
            if not answer.successful():
                with self._lock:
                    self._set.discard(absolute)

        answer = link.raw.exists_async(absolute, watch=changed)
        answer.rawlink(answered)
        return answer
