"""ZooKeeper that loses its data, or goes back to an old copy of it.

To a client both look as if its session had ended: the servers refuse whoever has
seen more than they know, and the shipped client then begins a new session.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharedcache.core.ports import Record
from tests.simulation.memory_zookeeper import MemoryZooKeeper, Node

LOST = 1_000_000
"""What a loss counts for in a watch: more changes than any node ever saw."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What the servers kept at an instant: records, counts of children, sessions."""

    nodes: dict[str, tuple[Record | None, int]]
    sessions: dict[int, frozenset[str]]


def copy_of(server: MemoryZooKeeper) -> Copy:
    """Copy all that the servers keep."""
    return Copy(
        {path: (node.record, node.created) for path, node in server.nodes.items()},
        {number: frozenset(owned) for number, owned in server.sessions.items()},
    )


def wipe(server: MemoryZooKeeper) -> None:
    """Lose everything."""
    server.sessions.clear()
    server.losses += LOST
    server.nodes.clear()
    server.begin()


def go_back(server: MemoryZooKeeper, copy: Copy) -> list[int]:
    """Know no more than a copy says; return the sessions that came back with it.

    Nobody uses those, but what they registered stays until they end.
    """
    wipe(server)
    number = server.last
    for path, (record, created) in copy.nodes.items():
        node = server.nodes.setdefault(path, Node())
        node.record, node.created = record, created
        node.history = [(number, record)]
        if record is not None and path:
            server.nodes[path.rpartition("/")[0]].children.add(path.rpartition("/")[2])
    for node in server.nodes.values():
        node.families = [(number, tuple(sorted(node.children)))]
    server.sessions.update({n: set(owned) for n, owned in copy.sessions.items()})
    server.ghosts.update(copy.sessions)
    return list(copy.sessions)
