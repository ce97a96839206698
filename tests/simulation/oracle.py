"""The oracle: what must never be seen, judged from the world's own truth.

It shares no code with the core: it knows where guests are, which file each is
bound to, and every name that went.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgpack

from sharedcache.core.ports import Create, Operation, Set
from tests.simulation.memory_disk import Folder, Inode, Removal
from tests.simulation.reasons import Reasons
from tests.simulation.waits import Waits, cache_name

if TYPE_CHECKING:
    from tests.simulation.world import World


NEWEST = 2
"""The schema of the new naming."""

FOREIGN = "foreign cleaner"
"""Whoever takes names in `_base` by other rules than ours, and leaves each file one."""


class Oracle:
    """Watches every name that goes and every word that lets one go.

    ``violations`` are sentences; the first one ends a run.  Only where
    ``may_lose_zookeeper`` is set may the gate tell of a ZooKeeper that went back.
    """

    def __init__(self, world: World) -> None:
        self.violations: list[str] = []
        self.may_lose_zookeeper = False
        self._world = world
        self.reasons = Reasons(world)
        self.waits = Waits(world)
        self._owners: dict[int, str] = {}
        self._highest = 0
        self.in_office = ""
        world.disk.on_removal = self.removed
        world.zookeeper.on_commit = self.committed

    def say(self, what: str) -> None:
        """Note a violation."""
        self._world.scheduler.tell("ORACLE", what)
        self.violations.append(f"{self._world.scheduler.now:.3f} s: {what}")

    def _say_all(self, violations: Iterable[str]) -> None:
        for what in violations:
            self.say(what)

    def took_office(self, epoch: int, who: str) -> None:
        """Note that a leader has done all that it must before it acts."""
        self._highest = max(self._highest, epoch)
        self.in_office = who

    def told_of_gate(self, who: str, code: str, subject: str) -> None:
        """Judge what a leader says of the gate."""
        for why in self.reasons.told(who, code, subject):
            self.say(why)

    # The storage.

    def removed(self, removal: Removal) -> None:
        """Judge a name that has just gone."""
        who, folder, inode = self._world.doer(), removal.folder, removal.inode
        self._world.scheduler.tell(
            who,
            f"took {removal.name[:12]} (inode {inode.number}, {inode.links} links left)"
            f" from {folder.title}"
            + ("" if removal.to is None else f" to {removal.to.title}"),
        )
        if folder.title.isdigit():
            self._from_epoch(who, removal)
        elif folder is self._world.disk.base:
            self._from_base(who, removal)
        if inode.links == 0:
            self._nameless(who, inode)

    def _nameless(self, who: str, inode: Inode) -> None:
        for guest in self._world.guests.users(inode):
            self.say(
                f"{who} took the last name of inode {inode.number} "
                f"({guest.name[:6]}), which {guest.title} uses"
            )

    def _from_base(self, who: str, removal: Removal) -> None:
        if removal.replaced:
            if not who.startswith("nova"):
                self.say(f"{who} replaced {removal.name}")
        elif removal.to is self._world.disk.base:
            if not removal.name.endswith(".part"):
                self.say(f"{who} renamed {removal.name} within _base")
        elif removal.to is not None and removal.to.title.isdigit():
            self._acts(who, int(removal.to.title))
            self._world.counts["renamed"] += 1
            self._say_all(self.waits.taken(who, removal))
            self._world.hunter.taken(removal)
        elif who != FOREIGN and not (
            who.startswith("nova") and removal.name.endswith(".part")
        ):
            self.say(f"{who} unlinked {removal.name} in _base")

    def _from_epoch(self, who: str, removal: Removal) -> None:
        if removal.to is None:
            self._acts(who, int(removal.folder.title))
            self._world.counts["unlinked"] += 1
            self._say_all(self.waits.unlinked(removal.name))
        elif removal.to.title.isdigit():
            if removal.to is removal.folder:
                # An entry gets a new name after a restore: a leader's act.
                self._acts(who, int(removal.to.title))
                return
            self._owned(who, int(removal.to.title))
            if int(removal.to.title) < int(removal.folder.title):
                self.say(f"{who} moved {removal.name} back to epoch {removal.to.title}")
        else:
            self.say(f"{who} renamed {removal.name} out of quarantine")

    def _acts(self, who: str, epoch: int) -> None:
        if epoch < self._highest:
            self.say(
                f"{who} acted in epoch {epoch} after epoch {self._highest} had begun"
            )
        self._highest = max(self._highest, epoch)
        self._owned(who, epoch)

    def _owned(self, who: str, epoch: int) -> None:
        """Require that one cleaner alone acts in an epoch."""
        owner = self._owners.setdefault(epoch, who)
        if owner != who or who not in self._world.cleaners:
            self.say(f"{who} acted in epoch {epoch}, which is {owner}'s")

    # ZooKeeper.

    def committed(self, operations: Sequence[Operation], _: int) -> None:
        """Judge a transaction that was just applied, at this very instant."""
        for operation in operations:
            if isinstance(operation, Set) and operation.path == "authorisation":
                self._authorised(operation.data)
            elif isinstance(operation, Create) and operation.path.startswith(
                "manifest/"
            ):
                self._listed(operation.data)
            elif operation.path == "rollout" and isinstance(operation, Set):
                self._finalized()
            elif operation.path == "round" and isinstance(operation, Set):
                self._world.counts["rounds"] += 1
                self._world.hunter.raised()

    def _authorised(self, data: bytes) -> None:
        record = msgpack.unpackb(data)
        if not record["token"]:
            return
        self._world.counts["authorised"] += 1
        epochs = self._world.disk.epochs
        folder = None if epochs is None else epochs.names.get(str(record["epoch"]))
        for leaf in record["leaves"].values():
            self._say_all(self.waits.authorised(self._world.doer(), leaf))
            inode = folder.names.get(leaf) if isinstance(folder, Folder) else None
            if not isinstance(inode, Inode):
                continue
            in_base = self._world.disk.base.names.get(cache_name(leaf)) is inode
            for guest in self._world.guests.users(inode):
                if not in_base:
                    self.say(
                        f"inode {inode.number} ({guest.name[:6]}) was authorised, and "
                        f"{guest.title} uses it"
                    )
        self._require_gate("authorised", purging=True)

    def _listed(self, data: bytes) -> None:
        entries = msgpack.unpackb(data)["entries"]
        if any(entry["state"] == "intended" for entry in entries):
            self._require_gate("announced", purging=False)

    def _finalized(self) -> None:
        """Require that every rostered node supports what was just finalized.

        What the storage says already was finalized before ZooKeeper went back.
        """
        control = self._world.disk.control
        told = None if control is None else control.names.get("schema")
        if (
            self.may_lose_zookeeper
            and isinstance(told, Inode)
            and json.loads(told.data)["finalized_schema"] == NEWEST
        ):
            return
        for node in self._world.zookeeper.children("roster"):
            record = self._read(f"roster/{node}")
            # As in `_require_gate`: a live node is judged by its registration, which
            # is there before the durable report of the same start.
            voices = (record["report"], self._read(f"groups/nodes/{node}"))
            able = any(v and v["schema_version"] == NEWEST for v in voices)
            if record["expunged_at"] is None and not able:
                self.say(f"the rollout was finalized while {node} does not support it")

    def _read(self, path: str) -> Any:
        record = self._world.zookeeper.record(path)
        return (
            None if record is None or not record.data else msgpack.unpackb(record.data)
        )

    def _require_gate(self, what: str, *, purging: bool) -> None:
        """Require that at this instant no reason stands that shuts the gate.

        Nor may one have stood for as long as the leader has looked.  What lands
        late is of an earlier look.
        """
        if not self._world.acting:
            for why in self.reasons.due(self._world.doer(), purging=purging):
                self.say(f"a removal was {what} while {why}")
        if self._read("pause") is not None:
            self.say(f"a removal was {what} while paused")
        if self._read("rollout")["finalized_schema"] != 2:
            self.say(f"a removal was {what} before the rollout was finalized")
        for node in self._world.zookeeper.children("roster"):
            record = self._read(f"roster/{node}")
            if record["expunged_at"] is not None:
                continue
            voices = [record["report"], self._registered(node, record["report"])]
            for why in _reasons(voices, purging=purging):
                self.say(f"a removal was {what} while {node} {why}")

    def _registered(self, node: str, durable: Any) -> Any:
        """Return what a node's registration says, or said last.

        It is written before the durable report, so a leader goes by it where there
        is one; a reason stands if both say so.  One that ended with its session
        is still the node's last word if that run has not written another.
        """
        registered = self._read(f"groups/nodes/{node}")
        if registered is not None:
            return registered
        ended = self._world.zookeeper.records_since(f"groups/nodes/{node}", 0)
        said = [
            msgpack.unpackb(record.data) for record in ended if record and record.data
        ]
        if not said or durable is None or said[-1]["start"] <= durable["start"]:
            return None
        return said[-1]


def _reasons(voices: list[Any], *, purging: bool) -> Iterator[str]:
    """Tell what shuts the gate by all that a node says of itself."""
    said = [voice for voice in voices if voice is not None]
    if not said:
        yield "never reported"
    elif all(v["kernel_naming"] != "sha1" or v["schema_version"] != 2 for v in said):
        yield "is of the old naming"
    elif purging and all(voice["failures"] for voice in said):
        yield "is degraded"
