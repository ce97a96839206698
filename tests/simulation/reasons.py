"""Whether the gate's reasons are true, both ways, judged from the records themselves.

A leader looks for a while, and cannot know what changes meanwhile.  So there are two
questions about the time since its look began.  A reason that it tells must have
been true at some moment of it.  And no removal may be announced or authorised
while a reason was true at every moment of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from tests.simulation.world import World

NEWEST = 2
EVERYTHING = 100.0
OF_A_LOSS = frozenset({"cluster-mismatch", "no-cluster-marker"})


@dataclass(frozen=True, slots=True)
class Said:
    """All that was on record of one node during a leader's look.

    ``registered`` are the reports of its registration, ``durable`` its records on
    the roster, ``witnesses`` what its witness bore; each with ``None`` for when
    there was none.
    """

    registered: list[Any]
    durable: list[Any]
    witnesses: list[tuple[str, int] | None]

    @property
    def rostered(self) -> list[bool]:
        """Whether it was expected, at each moment."""
        return [d is not None and d["expunged_at"] is None for d in self.durable]

    @property
    def returned(self) -> bool:
        """Whether it was expunged, and registered as its witness has it.

        It is judged by that registration as any node is, before its durable report.
        """
        heard = [_incarnation(one) for one in self.registered if one is not None]
        expunged = any(map(_is_expunged, self.durable))
        return expunged and any(one in self.witnesses for one in heard)

    @property
    def stranger(self) -> bool:
        """Whether its witness is the trace of a node that is not expected."""
        if any(self.rostered) or self.returned or None in self.witnesses:
            return False
        return not any(_buries(d, w) for d in self.durable for w in self.witnesses)

    @property
    def voices(self) -> list[Any]:
        """Every report that a leader may have gone by; ``None`` for a missing one."""
        heard = [one for one in self.registered if one is not None]
        kept = [d for d in self.durable if d is not None and not _is_expunged(d)]
        return heard + [d["report"] for d in kept]

    def matches(self) -> Iterator[bool]:
        """Tell for each report and each witness whether they are of one run."""
        for voice in self.voices:
            for witness in self.witnesses:
                yield voice is not None and witness == _incarnation(voice)

    def stopped(self) -> Iterator[bool]:
        """Tell for each durable report and witness whether the node is sealed."""
        for record in self.durable:
            report = None if record is None else record["report"]
            for witness in self.witnesses:
                sealed = report is not None and report["sealed"]
                yield sealed and witness == _incarnation(report)


def _incarnation(report: Any) -> tuple[str, int]:
    return (report["boot_id"], report["start"])


def _is_expunged(record: Any) -> bool:
    return record is not None and record["expunged_at"] is not None


def _buries(tombstone: Any, witness: tuple[str, int] | None) -> bool:
    """Whether a tombstone is of the run that wrote a witness."""
    bears = _is_expunged(tombstone) and "boot_id" in tombstone
    return bears and _incarnation(tombstone) == witness


def _unpacked(record: Any) -> Any:
    return None if record is None or not record.data else msgpack.unpackb(record.data)


def _is_old(voice: Any) -> bool:
    return voice is None or voice["kernel_naming"] != "sha1"


def _is_behind(voice: Any) -> bool:
    return voice is not None and voice["schema_version"] < NEWEST


def _is_degraded(voice: Any) -> bool:
    return voice is not None and bool(voice["failures"])


class Reasons:
    """Follows leaders' looks, and what they say of the gate."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looks: dict[str, tuple[float, int, int]] = {}
        self._seen: set[str] = set()
        self._told: dict[str, tuple[float, set[str]]] = {}
        self._witnesses: dict[str, list[tuple[float, tuple[str, int]]]] = {}
        world.disk.on_witness = self._witness

    def _witness(self, node: str, data: bytes) -> None:
        record = json.loads(data)
        born = (record["boot_id"], record["start"])
        now = self._world.scheduler.now
        self._witnesses.setdefault(node, []).append((now, born))

    def looking(self, who: str) -> Iterator[str]:
        """Note that a leader begins to look; judge what stood after its last look.

        A leader tells of its gate when it changes.  What it does not take back
        must have been so again.
        """
        for reason in self._told.get(who, (0.0, set()))[1] if who in self._seen else ():
            code, _, subject = reason.partition(" ")
            if not self._possible(who, code, subject):
                yield f"{who} still says {code} of {subject}, which was not so"
        self._seen.discard(who)
        self._looks[who] = (
            self._world.scheduler.now,
            self._world.zookeeper.last,
            self._world.disk.now_ns(),
        )

    def looked(self, who: str) -> None:
        """Note that a leader has seen all that it looked for."""
        self._seen.add(who)

    def began_ns(self, who: str) -> int | None:
        """Return when a leader's look began, by the storage's clock."""
        return self._looks[who][2] if who in self._looks else None

    def held(self, who: str, name: str) -> bool:
        """Whether a name was held for as long as a leader has looked."""
        return who in self._looks and None not in self._raw(who, f"holds/{name}")

    # What a leader says.

    def told(self, who: str, code: str, subject: str) -> Iterator[str]:
        """Hear a reason, or with no code that there is none; object to a false one."""
        began = self._looks[who][0]
        if who not in self._told or self._told[who][0] != began:
            self._told[who] = (began, set())
        if not code:
            return
        self._told[who][1].add(f"{code} {subject}")
        if not self._possible(who, code, subject):
            yield f"{who} says {code} of {subject}, which was not so"

    def standing(self) -> str:
        """Return what the leader of this moment says that shuts its gate.

        That nobody leads, or said anything yet, counts too.
        """
        leader = self._world.zookeeper.leader()
        if leader not in self._told:
            return "nobody leads"
        return ", ".join(self.reasons())

    def reasons(self) -> list[str]:
        """List what the leader of this moment says, each as code and subject."""
        leader = self._world.zookeeper.leader()
        return sorted(self._told[leader][1]) if leader in self._told else []

    def _possible(self, who: str, code: str, subject: str) -> bool:
        judge = getattr(self, f"_{code.replace('-', '_')}", None)
        if judge is not None:
            return bool(judge(who))
        if code in OF_A_LOSS:
            return self._world.oracle.may_lose_zookeeper
        return self._possible_of(self._said(who, subject), code)

    def _paused(self, who: str) -> bool:
        return any(self._records(who, "pause"))

    def _brake(self, _: str) -> bool:
        """Only where a share is set may there be a brake at all."""
        return self._world.profile.share_percent < EVERYTHING

    def _rollout_not_finalized(self, who: str) -> bool:
        return any(not _finalized(r) for r in self._records(who, "rollout"))

    def _old_name_appeared(self, who: str) -> bool:
        """No file here bears a raw id, so it is the inventory that is missing."""
        return not all(r and r.data for r in self._raw(who, "inventory"))

    def _epoch_behind(self, who: str) -> bool:
        if self._world.oracle.may_lose_zookeeper:
            return True
        known = min(map(_number, self._raw(who, "epoch")))
        return any(int(f.title) > known for f in self._world.epoch_folders())

    def _no_nodes(self, who: str) -> bool:
        nodes = self._world.zookeeper.children("roster")
        return not any(all(self._said(who, node).rostered) for node in nodes)

    @staticmethod
    def _possible_of(said: Said, code: str) -> bool:
        if code == "unrostered-node":
            traces = [*said.witnesses, *said.registered]
            return not all(said.rostered) and any(t is not None for t in traces)
        rostered = any(said.rostered)
        if code == "node-missing":
            return rostered and None in said.registered and not all(said.stopped())
        if code == "node-unreported":
            return rostered and not all(said.matches())
        judged = {
            "node-degraded": _is_degraded,
            "node-old-kernel-naming": _is_old,
            "node-schema-too-old": _is_behind,
        }
        if code not in judged or not (rostered or said.returned):
            return False
        return any(map(judged[code], said.voices))

    # What a leader must have seen.

    def due(self, who: str, *, purging: bool) -> Iterator[str]:
        """Name every reason that stood for as long as a leader has looked."""
        if who not in self._looks:
            return
        if all(self._records(who, "pause")):
            yield "it is paused"
        if not any(map(_finalized, self._records(who, "rollout"))):
            yield "the rollout is not finalized"
        nodes = {*self._world.zookeeper.children("roster"), *self._witnesses}
        for node in sorted(nodes):
            for why in self._due_of(self._said(who, node), purging=purging):
                yield f"{node} {why}"

    @staticmethod
    def _due_of(said: Said, *, purging: bool) -> Iterator[str]:
        if said.stranger:
            yield "left a witness and is not expected"
        if not all(said.rostered):
            return
        if all(map(_is_old, said.voices)):
            yield "is of the old naming"
        if not any(said.matches()):
            yield "has not reported since its agent started"
        if purging and all(map(_is_degraded, said.voices)):
            yield "is degraded"
        missing = not any(one is not None for one in said.registered)
        if purging and missing and not any(said.stopped()):
            yield "is missing"

    # Records of a time.

    def _raw(self, who: str, path: str) -> list[Any]:
        return self._world.zookeeper.records_since(path, self._looks[who][1])

    def _records(self, who: str, path: str) -> list[Any]:
        return [_unpacked(record) for record in self._raw(who, path)]

    def _said(self, who: str, node: str) -> Said:
        # A client may have kept for a while that there is no witness.
        since = self._looks[who][0] - self._world.hosts[who].mount.cache_s
        written = self._witnesses.get(node, [])
        later = [born for when, born in written if when > since]
        before = [born for when, born in written if when <= since]
        return Said(
            self._records(who, f"groups/nodes/{node}"),
            self._records(who, f"roster/{node}"),
            [before[-1] if before else None, *later],
        )


def _finalized(record: Any) -> bool:
    return record is not None and record["finalized_schema"] == NEWEST


def _number(record: Any) -> int:
    return 0 if record is None or not record.data else int(record.data)
