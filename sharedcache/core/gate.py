"""The gate, its reasons, and the facts that it is judged from.

``gate_rules`` judges them.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from sharedcache.core.inventory import Inventory, OldName
from sharedcache.core.model import (
    Cluster,
    NodeState,
    Report,
    Unreadable,
    Witness,
)
from sharedcache.core.policy import MissingNodes
from sharedcache.core.schema import SCHEMAS, SchemaTable


class Closes(enum.Enum):
    """What a reason closes: everything, or only the unlink for good."""

    ALL = "all"
    PURGE = "purge"


class Code(enum.Enum):
    """The gate's reasons, one word each."""

    NO_CLUSTER_MARKER = "no-cluster-marker"
    CLUSTER_MISMATCH = "cluster-mismatch"
    EPOCH_BEHIND = "epoch-behind"
    NO_NODES = "no-nodes"
    UNROSTERED_NODE = "unrostered-node"
    NODE_UNREPORTED = "node-unreported"
    NODE_OLD_KERNEL_NAMING = "node-old-kernel-naming"
    NODE_SCHEMA_TOO_OLD = "node-schema-too-old"
    NODE_SCHEMA_UNKNOWN = "node-schema-unknown"
    ROLLOUT_NOT_FINALIZED = "rollout-not-finalized"
    OLD_NAME_APPEARED = "old-name-appeared"
    NODE_DEGRADED = "node-degraded"
    NODE_MISSING = "node-missing"
    PAUSED = "paused"
    BRAKE = "brake"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: what it closes, about whom, and what to do."""

    code: Code
    closes: Closes
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Gate:
    """All reasons of one instant."""

    reasons: tuple[Reason, ...] = ()

    @property
    def open(self) -> bool:
        """Whether files may be quarantined."""
        return all(reason.closes is not Closes.ALL for reason in self.reasons)

    @property
    def purge_open(self) -> bool:
        """Whether confirmed files may be unlinked for good."""
        return not self.reasons

    def with_reason(self, reason: Reason) -> Gate:
        """Return the same gate with one more reason."""
        return Gate((*self.reasons, reason))


@dataclass(frozen=True, slots=True)
class NodeView:
    """A rostered node as the leader sees it.

    ``report`` is the member's own for a registered node and the durable one
    for any other, ``None`` for a node that was never heard of.
    """

    node: str
    member: bool
    report: Report | Unreadable | None
    witness: Witness | None

    @property
    def witnessed(self) -> bool:
        """Whether the witness bears the incarnation of the report."""
        return (
            isinstance(self.report, Report)
            and self.witness is not None
            and self.witness.incarnation == self.report.incarnation
        )

    @property
    def state(self) -> NodeState:
        """Where the node stands."""
        if self.member:
            if isinstance(self.report, Report) and self.report.complete:
                return NodeState.LIVE
            return NodeState.DEGRADED
        if isinstance(self.report, Report) and self.report.sealed and self.witnessed:
            return NodeState.SEALED
        return NodeState.MISSING


@dataclass(frozen=True, slots=True)
class GateFacts:
    """What the gate is judged from.

    ``paused`` is the operator's word, ``None`` when not paused.  ``strangers``
    are nodes that left a trace (a witness, a registration) and are not
    rostered; ``unreadable`` are records of the manifest that cannot be read.
    ``schemas`` are the versions that the judge knows.
    ``inventory`` is ``None`` if none was taken; ``old_names`` are the files under
    raw image ids as the latest scan saw them.  ``storage_schema`` is the finalized
    schema as the storage tells it, read before ZooKeeper's; ``None`` where it tells
    none that can be relied on.
    """

    on_storage: Cluster | Unreadable | None
    in_zookeeper: Cluster | Unreadable | None
    storage_epoch: int
    zookeeper_epoch: int
    nodes: Sequence[NodeView]
    strangers: Sequence[str]
    finalized_schema: int | Unreadable
    paused: str | None = None
    missing_nodes: MissingNodes = MissingNodes.HOLD
    unreadable: Sequence[str] = ()
    schemas: SchemaTable = SCHEMAS
    inventory: Inventory | Unreadable | None = field(default_factory=Inventory)
    old_names: Sequence[OldName] = ()
    storage_schema: int | Unreadable | None = None
