"""What every part of the session needs: one tree, read without blocking for ever."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from kazoo.exceptions import NoNodeError

from sharedcache.adapters.zookeeper.errors import translated
from sharedcache.core.ports import CoordinationError, DisconnectedError, Record

if TYPE_CHECKING:
    from sharedcache.adapters.zookeeper.client import Client

MAX_REQUEST_BYTES: Final = 1_000_000
"""A larger packet drops the connection for all that share it (jute.maxbuffer)."""

# kazoo wakes its thread through a pair of sockets that holds 278 wake-ups on
# Linux; one more would block the caller without limit while no server answers.
_IN_FLIGHT: Final = 128

_COMPONENT: Final = re.compile(
    r"(?!\.{1,2}\Z)[^/\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff]+\Z"
)


class Pending(Protocol):
    """An answer under way, kazoo's or tooz's."""

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait for the answer."""


T = TypeVar("T")
P = TypeVar("P", bound=Pending)


def pipelined(items: Iterable[T], send: Callable[[T], P]) -> Iterator[tuple[T, P]]:
    """Send a request for each item without waiting for the answers in between.

    Gives the items with their answers in the order given; a bounded number is
    under way at any moment.
    """
    flying: deque[tuple[T, P]] = deque()
    for item in items:
        if len(flying) == _IN_FLIGHT:
            yield flying.popleft()
        flying.append((item, send(item)))
    yield from flying


def check_size(size: int, what: str) -> None:
    """Refuse what the servers would refuse by dropping the connection."""
    if size > MAX_REQUEST_BYTES:
        raise CoordinationError(
            f"{what} has {size} bytes, more than the {MAX_REQUEST_BYTES} that"
            " ZooKeeper takes at once"
        )


class Link:
    """A client and the root of one cluster's tree.

    Paths are relative to the root.  Every method raises ``DisconnectedError``
    at once while there is no connection.
    """

    def __init__(self, client: Client, root: str, servers: str) -> None:
        self.raw = client
        self.root = root
        self.servers = servers

    def client(self) -> Client:
        """Return the client if it is connected."""
        if not self.raw.usable:
            failure = self.raw.last_failure
            raise DisconnectedError(
                f"no connection to ZooKeeper at {self.servers}"
                + (f" (last: {failure})" if failure else "")
                + ": check that it runs and that this host reaches it"
            )
        return self.raw

    def session_id(self) -> int:
        """Return the id of the live session."""
        identity = self.client().client_id
        if identity is None or not identity[0]:
            raise DisconnectedError(f"no session at ZooKeeper {self.servers}")
        return identity[0]

    def absolute(self, path: str) -> str:
        """Return the absolute path of one relative to the root; "" is the root.

        Raises ``ValueError`` for a path that ZooKeeper would not take.
        """
        if not path:
            return self.root
        for component in path.split("/"):
            if _COMPONENT.match(component) is None:
                raise ValueError(f"{path!r} is no path of ZooKeeper")
        return f"{self.root}/{path}"

    def relative(self, path: str) -> str:
        """Undo ``absolute``."""
        return path.removeprefix(self.root + "/")

    def sync(self) -> None:
        """Make later reads see all that was written before."""
        client = self.client()
        with translated("sync"):
            client.sync(self.root)

    def get(self, path: str) -> Record | None:
        """Read one node."""
        return self.get_many([path])[0]

    def get_many(self, paths: Sequence[str]) -> list[Record | None]:
        """Read many nodes, all requests sent together."""
        client = self.client()
        absolute = [self.absolute(path) for path in paths]
        records: list[Record | None] = []
        for path, answer in pipelined(absolute, client.get_async):
            with translated(f"reading {path}"):
                try:
                    data, stat = answer.get()
                except NoNodeError:
                    records.append(None)
                else:
                    records.append(
                        Record(bytes(data), stat.version, stat.ephemeralOwner)
                    )
        return records

    def children(self, path: str) -> list[str]:
        """List children's names, sorted."""
        client = self.client()
        absolute = self.absolute(path)
        with translated(f"listing {absolute}"):
            try:
                return sorted(client.get_children_async(absolute).get())
            except NoNodeError:
                return []

    def delete(self, path: str) -> None:
        """Delete one node; harmless if there is none."""
        client = self.client()
        absolute = self.absolute(path)
        with translated(f"deleting {absolute}"):
            try:
                client.delete_async(absolute).get()
            except NoNodeError:
                return
