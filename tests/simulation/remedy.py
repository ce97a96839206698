"""What an operator does in the end, where docs/operations.md says that one must.

One state of the gate does not end by itself: a host was reset while its agent's
witness was being written, or that agent gave up on it, and the write lands after
the next one has reported.  The witness then names an earlier boot of the same
host, or an earlier start, and the gate names the node.  An operator reads both, and
restarts the agent.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgpack

from sharedcache.adapters.storage.control import unpack_witness
from tests.simulation.memory_disk import Inode

if TYPE_CHECKING:
    from tests.simulation.process import Host
    from tests.simulation.world import World

PATIENCE_S = 5.0
"""For how long a reason must have stood before an operator looks into it."""

LOOK_S = 1.0
RESTARTED = "agents restarted by an operator"


class Remedy:
    """An operator who looks at the gate once all is calm.

    ``since_s`` is when the last deed was, at first the beginning of the calm.
    """

    def __init__(self, world: World) -> None:
        self.since_s = world.scheduler.now
        self._world = world
        self._since: dict[str, float] = {}
        world.scheduler.after(LOOK_S, self._look)

    def _look(self, _: object) -> None:
        now = self._world.scheduler.now
        named = {
            host.name
            for host in self._world.compute_hosts()
            if f"node-unreported {host.name}" in self._world.oracle.reasons.reasons()
        }
        self._since = {name: self._since.get(name, now) for name in sorted(named)}
        for name, since in self._since.items():
            if now - since >= PATIENCE_S and self._is_of_an_earlier_start(name):
                self._restart(name)
                break
        self._world.scheduler.after(LOOK_S, self._look)

    def _restart(self, name: str) -> None:
        self.since_s = self._world.scheduler.now
        del self._since[name]
        self._world.counts[RESTARTED] += 1
        self._world.scheduler.tell("an operator", f"restarts the agent of {name}")
        self._world.agents[name].kill()

    def _is_of_an_earlier_start(self, name: str) -> bool:
        """Whether the witness on the storage bears one of this very host's."""
        host: Host = self._world.hosts[name]
        nodes = self._world.disk.nodes
        found = None if nodes is None else nodes.names.get(name)
        if not host.up or not isinstance(found, Inode):
            return False
        witness = json.loads(unpack_witness(found.data))
        title, _, number = witness["boot_id"].rpartition("-boot-")
        if title != name or int(number) > host.boots:
            return False
        said = self._world.zookeeper.record(f"groups/nodes/{name}")
        if int(number) < host.boots:
            return True
        return (
            said is not None and witness["start"] < msgpack.unpackb(said.data)["start"]
        )
