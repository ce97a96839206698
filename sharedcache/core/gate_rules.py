"""The gate's rules: which facts close it, and what ends that."""

from __future__ import annotations

from collections.abc import Iterator

from sharedcache.core.gate import Closes, Code, Gate, GateFacts, NodeView, Reason
from sharedcache.core.inventory import Inventory, appeared
from sharedcache.core.model import Cluster, NodeState, Report, Unreadable
from sharedcache.core.policy import MissingNodes

NAMED = 50
"""How many names that appeared have a reason of their own."""


def evaluate(facts: GateFacts) -> Gate:
    """Collect every reason; no reason at all means that the gate is open."""
    reasons = [
        *_cluster(facts),
        *_roster(facts),
        *_rollout(facts),
        *_old_names(facts),
    ]
    for view in facts.nodes:
        reasons.extend(_node(view, facts))
    reasons.extend(
        Reason(
            Code.NODE_SCHEMA_UNKNOWN,
            Closes.ALL,
            "cleaner",
            f"this cleaner cannot read the manifest's record {record}: upgrade it if "
            "the record is newer; else `sharedcache recover`",
        )
        for record in facts.unreadable
    )
    if facts.paused is not None:
        reasons.append(
            Reason(
                Code.PAUSED,
                Closes.ALL,
                "operator",
                f"paused: {facts.paused}; `sharedcache resume` opens the gate again",
            )
        )
    return Gate(tuple(reasons))


def _cluster(facts: GateFacts) -> Iterator[Reason]:
    disk, tree = facts.on_storage, facts.in_zookeeper
    if disk is None:
        yield Reason(
            Code.NO_CLUSTER_MARKER,
            Closes.ALL,
            "storage",
            "the base directory has no cluster marker: is it mounted? "
            "`sharedcache init` binds a new directory",
        )
    elif tree is None:
        yield Reason(
            Code.CLUSTER_MISMATCH,
            Closes.ALL,
            "zookeeper",
            f"the directory belongs to {_name(disk)}, and ZooKeeper has no such "
            "cluster: check zookeeper and cluster in the settings; if it lost its "
            "data, `sharedcache recover`",
        )
    elif isinstance(disk, Unreadable) or isinstance(tree, Unreadable) or disk != tree:
        advice = "check base, zookeeper and cluster in the settings"
        if isinstance(disk, Unreadable):
            advice = f"look at the storage; {way_out(disk)}"
        elif isinstance(tree, Unreadable):
            advice = way_out(tree)
        yield Reason(
            Code.CLUSTER_MISMATCH,
            Closes.ALL,
            "storage",
            f"the directory belongs to {_name(disk)}, ZooKeeper's tree to "
            f"{_name(tree)}: {advice}",
        )
    if facts.storage_epoch > facts.zookeeper_epoch:
        yield Reason(
            Code.EPOCH_BEHIND,
            Closes.ALL,
            "zookeeper",
            f"ZooKeeper knows epoch {facts.zookeeper_epoch}, the storage epoch "
            f"{facts.storage_epoch}: it was restored from an old copy, or another one "
            "acts on this directory; `sharedcache recover` shows what to do",
        )


def way_out(found: Unreadable, reader: str = "this cleaner") -> str:
    """Say what ends it that a record cannot be read by ``reader``."""
    if found.newer:
        return f"upgrade {reader}"
    return "`sharedcache recover` shows what to do"


def _name(cluster: Cluster | Unreadable) -> str:
    if isinstance(cluster, Unreadable):
        return f"a cluster that cannot be read ({cluster.why})"
    return f"cluster {cluster.name} ({cluster.identity})"


def _roster(facts: GateFacts) -> Iterator[Reason]:
    if not facts.nodes:
        yield Reason(
            Code.NO_NODES,
            Closes.ALL,
            "roster",
            "no node is rostered: start sharedcache-agent on every node",
        )
    for node in facts.strangers:
        yield Reason(
            Code.UNROSTERED_NODE,
            Closes.ALL,
            node,
            f"{node} left a trace on the storage or in the group but is not on "
            "the roster: start its agent, or expunge it",
        )


def _rollout(facts: GateFacts) -> Iterator[Reason]:
    yield from _storage_schema(facts)
    finalized = facts.finalized_schema
    if isinstance(finalized, Unreadable):
        yield Reason(
            Code.ROLLOUT_NOT_FINALIZED,
            Closes.ALL,
            "rollout",
            f"the rollout's record cannot be read ({finalized.why}): "
            f"{way_out(finalized)}",
        )
    elif facts.schemas.row(finalized) is None:
        yield Reason(
            Code.NODE_SCHEMA_UNKNOWN,
            Closes.ALL,
            "cleaner",
            f"the cluster finalized schema {finalized}, which this release does "
            "not know: upgrade this cleaner",
        )
    elif not facts.schemas.may_clean(finalized):
        due = facts.schemas.cleaning_from(finalized).version
        yield Reason(
            Code.ROLLOUT_NOT_FINALIZED,
            Closes.ALL,
            "rollout",
            f"schema {due} is not finalized (the cluster is at schema "
            f"{finalized}): `sharedcache rollout finalize` once every node supports "
            "it",
        )


def _storage_schema(facts: GateFacts) -> Iterator[Reason]:
    """Name a finalized schema on the storage that is ahead of this cleaner's.

    Writers go by the storage's word.  A damaged one is the leader's to write anew.
    """
    told, finalized = facts.storage_schema, facts.finalized_schema
    by_hand = "if no newer release was here, remove .sharedcache/schema"
    if isinstance(told, Unreadable):
        if told.newer:
            yield Reason(
                Code.NODE_SCHEMA_UNKNOWN,
                Closes.ALL,
                "storage",
                "the storage's finalized schema was written by a newer release "
                f"({told.why}): upgrade this cleaner; {by_hand}",
            )
    elif told is not None and told > facts.schemas.newest:
        yield Reason(
            Code.NODE_SCHEMA_UNKNOWN,
            Closes.ALL,
            "storage",
            f"the storage knows schema {told} as finalized, which this release does "
            f"not know: upgrade this cleaner; {by_hand}",
        )
    elif told is not None and isinstance(finalized, int) and told > finalized:
        yield Reason(
            Code.EPOCH_BEHIND,
            Closes.ALL,
            "zookeeper",
            f"ZooKeeper knows schema {finalized} as finalized, the storage schema "
            f"{told}: it was restored from an old copy; `sharedcache recover` shows "
            "what to do",
        )


def _old_names(facts: GateFacts) -> Iterator[Reason]:
    """Name what appeared under a raw image id after such names were given up."""
    finalized, inventory = facts.finalized_schema, facts.inventory
    if not isinstance(finalized, int) or not facts.schemas.may_clean(finalized):
        return
    if not isinstance(inventory, Inventory):
        yield Reason(
            Code.OLD_NAME_APPEARED,
            Closes.ALL,
            "inventory",
            "no inventory of raw-id names was taken at finalization (an earlier "
            "release did it, or ZooKeeper was recovered): the leader takes one at its "
            "next pass"
            if inventory is None
            else f"the inventory of raw-id names cannot be read ({inventory.why}): "
            + (
                "upgrade this cleaner"
                if inventory.newer
                else "`sharedcache rollout acknowledge --all` takes it anew"
            ),
        )
        return
    strange = appeared(inventory, facts.old_names)
    for one in strange[:NAMED]:
        yield Reason(
            Code.OLD_NAME_APPEARED,
            Closes.ALL,
            one.name,
            f"{one.name} appeared after finalization: some host writes raw-id names "
            "and is not known here; find it, then `sharedcache rollout acknowledge "
            f"{one.name}`",
        )
    if len(strange) > NAMED:
        yield Reason(
            Code.OLD_NAME_APPEARED,
            Closes.ALL,
            f"{len(strange) - NAMED} more",
            "more raw-id names appeared than are named here: find who writes them, "
            "then `sharedcache rollout acknowledge --all`",
        )


def _node(view: NodeView, facts: GateFacts) -> Iterator[Reason]:
    report, node = view.report, view.node
    if isinstance(report, Report):
        yield from _report(view, report, facts)
        return
    if isinstance(report, Unreadable) and report.newer:
        yield Reason(
            Code.NODE_SCHEMA_UNKNOWN,
            Closes.ALL,
            node,
            f"{node} writes records that this release cannot read ({report.why}): "
            "upgrade the cleaners",
        )
        return
    why = "it never reported" if report is None else report.why
    yield Reason(
        Code.NODE_UNREPORTED,
        Closes.ALL,
        node,
        f"{node} has no report that can be relied on ({why}): check its "
        "sharedcache-agent",
    )
    yield Reason(
        Code.NODE_OLD_KERNEL_NAMING,
        Closes.ALL,
        node,
        f"how {node} names kernels cannot be told without a report",
    )


def _report(view: NodeView, report: Report, facts: GateFacts) -> Iterator[Reason]:
    node, schemas = view.node, facts.schemas
    finalized = facts.finalized_schema
    if not view.witnessed:
        has = "no witness"
        if view.witness is not None:
            has = f"a witness of incarnation {view.witness.incarnation or 'unreadable'}"
        yield Reason(
            Code.NODE_UNREPORTED,
            Closes.ALL,
            node,
            f"{node} reported as {report.incarnation} but has {has} on the storage: "
            "its agent restarted and has not reported since, another agent has the "
            "same [agent] node, or a write of before a reset landed late (restart the "
            "agent)",
        )
    if schemas.row(report.schema_version) is None:
        yield Reason(
            Code.NODE_SCHEMA_UNKNOWN,
            Closes.ALL,
            node,
            f"{node} is at schema {report.schema_version}, which this release does "
            "not know: upgrade the cleaners",
        )
    elif isinstance(finalized, int) and report.schema_version < finalized:
        yield Reason(
            Code.NODE_SCHEMA_TOO_OLD,
            Closes.ALL,
            node,
            f"{node} is at schema {report.schema_version}, below the finalized "
            f"schema {finalized}: upgrade it",
        )
    due = schemas.cleaning_from(finalized if isinstance(finalized, int) else 0).naming
    if report.kernel_naming is not due:
        yield Reason(
            Code.NODE_OLD_KERNEL_NAMING,
            Closes.ALL,
            node,
            f"{node} stores kernels under their {report.kernel_naming.value} name: "
            f"upgrade it to the {due.value} naming",
        )
    yield from _presence(view, report, facts)


def _presence(view: NodeView, report: Report, facts: GateFacts) -> Iterator[Reason]:
    if view.state is NodeState.MISSING and (
        facts.missing_nodes is not MissingNodes.LAST_REPORT
    ):
        yield Reason(
            Code.NODE_MISSING,
            Closes.PURGE,
            view.node,
            f"{view.node} is gone and was not stopped in order: purging waits "
            "until it is back or expunged",
        )
    elif not report.complete:
        # A waiver lets a last report stand; it does not complete one.
        failed = ", ".join(f"{f.source}: {f.message}" for f in report.failures)
        yield Reason(
            Code.NODE_DEGRADED,
            Closes.PURGE,
            view.node,
            f"{view.node} cannot see all that it uses ({failed})",
        )
