"""What commands say, as plain data: the JSON that scripts rely on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sharedcache.cleaner import brake
from sharedcache.cleaner.observe import Observed
from sharedcache.core import rollout
from sharedcache.core.gate import Gate, NodeView
from sharedcache.core.gate_rules import way_out
from sharedcache.core.holders import holders, users_of
from sharedcache.core.inventory import Inventory, appeared
from sharedcache.core.model import (
    ManifestEntry,
    NodeState,
    Report,
    Rollout,
    Unreadable,
)
from sharedcache.core.names import Kind, classify
from sharedcache.core.plan import Observation, Plan, Verdict, Why

_TIMED = ("grace", "name caches")

Data = dict[str, Any]


def gate(of: Gate) -> Data:
    """Tell the gate with its reasons."""
    return {
        "open": of.open,
        "purge_open": of.purge_open,
        "reasons": [
            {
                "code": reason.code.value,
                "closes": reason.closes.value,
                "subject": reason.subject,
                "message": reason.message,
            }
            for reason in of.reasons
        ],
    }


def rollout_state(observed: Observed) -> Data:
    """Tell where the rollout stands, and who stands in its way.

    Under a record that cannot be read nothing is ready.  ``groups`` sums up
    ``waiting_for`` and ``lagging`` by reason, most nodes first.
    """
    found = observed.rollout
    finalized = found.finalized_schema if isinstance(found, Rollout) else 0
    facts = observed.seen.facts
    status = rollout.status(finalized, facts.nodes, facts.schemas)
    readable = isinstance(found, Rollout)
    return {
        "state": (status.stage if readable else rollout.Stage.MIXED).value,
        "finalized_schema": finalized if readable else None,
        "newest_schema": facts.schemas.newest,
        "target_schema": status.target,
        "nodes": len(status.nodes),
        "waiting_for": [{"node": node, "why": why} for node, why in status.waiting_for],
        "lagging": [{"node": node, "why": why} for node, why in status.lagging],
        "groups": _grouped(status),
        "early_writers": list(status.early_writers),
        "unrostered": list(facts.strangers),
        "appeared": _appeared(observed, finalized),
        "held": observed.held,
        "advice": _advice(observed, status, _appeared(observed, finalized)),
    }


def _grouped(status: rollout.RolloutStatus) -> list[Data]:
    """Group nodes by why they are not ready, details in brackets left out."""
    by_why: dict[str, list[str]] = {}
    for one in status.nodes:
        why = one.waits or one.lags
        if why is not None:
            by_why.setdefault(why.partition(" (")[0], []).append(one.node)
    order = sorted(by_why.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [{"why": why, "count": len(n), "nodes": n} for why, n in order]


def _appeared(observed: Observed, finalized: int) -> list[str]:
    """Name the files that appeared under raw image ids after finalization."""
    facts = observed.seen.facts
    found = facts.inventory
    if not isinstance(found, Inventory) or not facts.schemas.may_clean(finalized):
        return []
    return [one.name for one in appeared(found, facts.old_names)]


def _advice(
    observed: Observed, status: rollout.RolloutStatus, appeared: list[str]
) -> str:
    """One sentence on what to do next: what is urgent goes first."""
    facts, found = observed.seen.facts, observed.rollout
    if isinstance(found, Unreadable):
        return f"The rollout's record cannot be read ({found.why}): {_here(found)}."
    if appeared:
        return (
            f"Find who wrote {appeared[0]}"
            + (f" and {len(appeared) - 1} more" if len(appeared) > 1 else "")
            + ": a host that is not known here; then `sharedcache rollout acknowledge`."
        )
    if status.stage is not rollout.Stage.MIXED and facts.strangers:
        return (
            f"{facts.strangers[0]} left a trace and is not on the roster: start its "
            "agent (if it refuses to, it says what to set), or `sharedcache node "
            "expunge` it"
            + (", then finalize." if status.stage is rollout.Stage.READY else ".")
        )
    if status.stage is rollout.Stage.READY and observed.held is not None:
        return (
            f"Every node is ready for schema {status.target}, and an operator holds "
            f"the rollout ({observed.held}): `sharedcache rollout release`, then "
            "`sharedcache rollout finalize`."
        )
    return _no_inventory(observed) or status.advice


def _no_inventory(observed: Observed) -> str | None:
    """Say what to do where the inventory of raw-id names is missing or unreadable."""
    facts = observed.seen.facts
    finalized, found = facts.finalized_schema, facts.inventory
    if not isinstance(finalized, int) or not facts.schemas.may_clean(finalized):
        return None
    if found is None:
        return (
            "There is no inventory of raw-id names: start a cleaner, which takes one "
            "at its next pass."
        )
    if isinstance(found, Unreadable):
        return (
            f"The inventory of raw-id names cannot be read ({found.why}): `sharedcache "
            "status` says what to do."
        )
    return None


def _here(found: Unreadable) -> str:
    return way_out(found, "sharedcache here")


def status(
    observed: Observed,
    plan: Plan,
    cluster: str,
    time_s: float,
    hindrance: str | None = None,
) -> Data:
    """Tell how the cluster is doing; ``time_s`` is the wall clock's.

    ``hindrance`` tells why no cleaner could take office.
    """
    seen = observed.seen
    state = rollout_state(observed)
    entries = list(seen.entries)
    return {
        "cluster": cluster,
        "leader": observed.leader,
        "no_leader_can": hindrance,
        "epoch": observed.epoch.value,
        "round": seen.round,
        "gate": gate(plan.gate),
        "rollout": {key: state[key] for key in ("state", "finalized_schema")},
        "nodes": _count_nodes(seen.facts.nodes),
        "nodes_not_live": [
            {"node": view.node, "state": view.state.value}
            for view in seen.facts.nodes
            if view.state is not NodeState.LIVE
        ],
        "cache": _cache(observed),
        "reclaimable": {
            "files": len(plan.take),
            "bytes": sum(taking.size for taking in plan.take),
        },
        "quarantine": {
            "files": len(entries),
            "bytes": sum(entry.size for entry in entries),
        },
        "held_back": held_back(entries, plan.waiting),
        "held_back_by_node": [
            {
                "node": one.node,
                "state": one.state.value,
                "why": list(one.whys),
                "files": one.files,
                "bytes": one.size,
            }
            for one in holders(seen, plan)
        ],
        "caveats": _caveats(seen.facts.nodes),
        "damaged": _damaged(seen),
        "space": _space(seen.space, plan),
        "brake": _brake(observed),
        "time": round(time_s, 3),
    }


def _caveats(nodes: Iterable[NodeView]) -> list[Data]:
    """Tell what weakens the nodes' evidence, and which nodes say so."""
    said: dict[str, list[str]] = {}
    for view in nodes:
        if isinstance(view.report, Report):
            for what in view.report.caveats:
                said.setdefault(what, []).append(view.node)
    return [{"what": what, "nodes": said[what]} for what in sorted(said)]


def _damaged(seen: Observation) -> list[Data]:
    """Tell of the files that were found damaged, with their users."""
    here = set(zip(seen.files.names, seen.files.inodes, strict=True))
    users = users_of(seen, seen.damaged)
    return [
        {
            "name": one.name,
            "bytes": one.size,
            "where": "cache" if (name, one.inode) in here else "quarantine",
            "users": list(users[name]),
            "found_by": one.by,
            "found_at": round(one.at, 3),
            "what": one.what,
        }
        for name, one in sorted(seen.damaged.items())
    ]


def _space(space: tuple[int, int] | None, made: Plan) -> Data:
    """Tell how much space there is, ``None`` where the storage did not say."""
    size, free = (None, None) if space is None else space
    return {"bytes": size, "free_bytes": free, "low": made.low_on_space}


def _brake(observed: Observed) -> Data | None:
    """Tell of the brake that the leader is under, by its own settings."""
    note = brake.standing(observed)
    if note is None:
        return None
    return {
        "digest": note.digest,
        "epoch": note.epoch,
        "files": note.files,
        "subjects": [reason.subject for reason in note.reasons],
        "since": round(note.at, 3),
    }


def _count_nodes(nodes: Iterable[NodeView]) -> Data:
    states = [view.state for view in nodes]
    counted = (
        NodeState.LIVE,
        NodeState.SEALED,
        NodeState.MISSING,
        NodeState.DEGRADED,
    )
    return {
        "total": len(states),
        **{state.value: states.count(state) for state in counted},
    }


def _cache(observed: Observed) -> Data:
    files = observed.seen.files
    strange = [kind == Kind.UNRECOGNISED for kind in files.kinds]
    sizes = zip(files.sizes, strange, strict=True)
    return {
        "files": len(files) - sum(strange),
        "bytes": sum(count for count, unknown in sizes if not unknown),
        "unrecognised_files": sum(strange),
    }


def held_back(
    entries: Iterable[ManifestEntry], waiting: Mapping[str, tuple[str, ...]]
) -> list[Data]:
    """Tell who and what holds back how much of the quarantine, most bytes first.

    An entry that waits for several things counts with each of them.
    """
    files: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for entry in entries:
        for why in {shortened(text) for text in waiting.get(entry.entry, ())}:
            files[why] = files.get(why, 0) + 1
            sizes[why] = sizes.get(why, 0) + entry.size
    order = sorted(files, key=lambda why: (-sizes[why], why))
    return [{"by": why, "files": files[why], "bytes": sizes[why]} for why in order]


def shortened(why: str) -> str:
    """Leave the seconds out, which differ from entry to entry."""
    head = why.partition(":")[0]
    return head if head in _TIMED else why


def node_row(view: NodeView) -> Data:
    """Tell of one node; what only a readable report says is ``None`` without one."""
    report = view.report if isinstance(view.report, Report) else None
    row: Data = {
        "node": view.node,
        "state": view.state.value,
        "schema_version": None,
        "kernel_naming": None,
        "uses": None,
        "round": None,
        "complete": None,
    }
    if report is not None:
        row |= {
            "schema_version": report.schema_version,
            "kernel_naming": report.kernel_naming.value,
            "uses": len(report.now),
            "round": report.upto,
            "complete": report.complete,
        }
    return row


def node(view: NodeView) -> Data:
    """Tell everything that is known of one node."""
    row = node_row(view) | {"registered": view.member, "witness": None}
    row["witnessed"] = view.witnessed
    witness = view.witness
    row["witness"] = (
        None if witness is None else str(witness.incarnation or "unreadable")
    )
    if view.report is None:
        return row | {"problem": "it never reported"}
    if not isinstance(view.report, Report):
        return row | {"problem": f"its report cannot be read: {view.report.why}"}
    report = view.report
    return row | {
        "incarnation": str(report.incarnation),
        "since_round": report.since_round,
        "unbroken": report.unbroken,
        "sealed": report.sealed,
        "release": report.release,
        "storage_time_ns": report.storage_time_ns,
        "name_cache_s": report.name_cache_s,
        "uses_now": sorted(report.now.cache_names()),
        "uses_since": sorted(report.since.cache_names()),
        "sees": sorted(report.sees),
        "saw": sorted(report.saw),
        "intents": sorted(report.intents),
        "failures": [
            {"source": one.source, "message": one.message} for one in report.failures
        ],
        "lost": list(report.lost),
    }


def plan(observed: Observed, made: Plan, *, everything: bool) -> Data:
    """Tell what a pass would do now; with ``everything`` also what it keeps."""
    files = [*_plan_files(observed, made), *_plan_entries(observed, made)]
    kept = Verdict.KEEP.label
    return {
        "gate": gate(made.gate),
        "digest": made.digest,
        "files": [f for f in files if everything or f["verdict"] != kept],
    }


def _plan_files(observed: Observed, made: Plan) -> Iterator[Data]:
    files = observed.seen.files
    for row, name in enumerate(files.names):
        yield {
            "name": name,
            "kind": Kind(files.kinds[row]).label,
            "bytes": files.sizes[row],
            "verdict": Verdict(made.verdicts[row]).label,
            "reason": Why(made.whys[row]).label,
        }


def _plan_entries(observed: Observed, made: Plan) -> Iterator[Data]:
    for entry in observed.seen.entries:
        waits = list(made.waiting.get(entry.entry, ()))
        verdict, why = Verdict.PURGE, Why.CONFIRMED
        if waits:
            verdict, why = Verdict.KEEP, Why.WAITING
        yield {
            "name": entry.name,
            "kind": classify(entry.name).label,
            "bytes": entry.size,
            "verdict": verdict.label,
            "reason": why.label,
            "entry": entry.entry,
            "waiting_for": waits,
        }


def quarantine(observed: Observed, made: Plan) -> list[Data]:
    """List the quarantine, and what each entry waits for."""
    return [
        {
            "name": entry.name,
            "entry": entry.entry,
            "epoch": entry.epoch,
            "round": entry.round,
            "bytes": entry.size,
            "restoring": entry.restoring,
            "waiting_for": list(made.waiting.get(entry.entry, ())),
        }
        for entry in observed.seen.entries
    ]
