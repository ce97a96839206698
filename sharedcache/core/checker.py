"""The plan checker: says no to a plan that the rules do not allow.

It shares no code with the planner, the gate or the rounds: it asks the
invariants' questions again, from the observation, one step at a time, and
raises on the first answer that it does not like.  It is allowed to be slow
and must never be clever.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator

from sharedcache.core.gate import Closes, GateFacts, NodeView
from sharedcache.core.inventory import Inventory
from sharedcache.core.model import (
    Cluster,
    EntryState,
    KernelNaming,
    ManifestEntry,
    Report,
    Unreadable,
    Uses,
)
from sharedcache.core.plan import Observation, Plan, Purging, Renewing, Taking
from sharedcache.core.policy import CleanerPolicy, MissingNodes

_WHOLE = (
    r"([0-9a-f]{40}(_([1-9][0-9]{0,6}|sm))?"
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|swap_[0-9]{1,9}"
    r"|ephemeral_[0-9]{1,9}_[0-9A-Za-z]{1,40})"
)
_REMOVABLE = re.compile(
    rf"(?=.{{1,180}}\Z){_WHOLE}((\.[0-9A-Za-z]{{1,40}})?(\.part|\.converted)+)?"
)
_RAW_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PLAIN = re.compile(r"[0-9a-f]{40}")
_RESIZED = re.compile(r"([0-9a-f]{40})_([0-9]+|sm)")
_LEAST_CLEANING_SCHEMA = 2
"""Under an older one nothing is removed, whatever the table of versions says."""
_SECOND_NS = 1_000_000_000


class PlanRejectedError(Exception):
    """A step of a plan breaks a rule: nothing of the plan may be done."""


def check_plan(policy: CleanerPolicy, seen: Observation, plan: Plan) -> None:
    """Raise ``PlanRejectedError`` unless every step of the plan is allowed."""
    if not plan.take and not plan.purge and not plan.renew:
        return
    _check_own_gate(plan)
    _check_cluster(seen)
    _check_nodes(seen)
    _check_old_names(seen)
    _check_brakes(policy, seen, plan)
    scene = _Scene(seen)
    for taking in plan.take:
        _check_taking(scene, taking)
        _check_times(policy, scene, taking)
    if len({taking.name for taking in plan.take}) != len(plan.take):
        raise PlanRejectedError("the plan takes a name twice")
    for renewing in plan.renew:
        _check_renewing(scene, renewing)
    if plan.purge:
        _check_presence(policy, seen)
        _check_common_round(seen)
    for purging in plan.purge:
        _check_purging(scene, purging)
        _check_waits(policy, seen, purging.entry)
    if len({purging.entry.entry for purging in plan.purge}) != len(plan.purge):
        raise PlanRejectedError("the plan purges an entry twice")


def _check_own_gate(plan: Plan) -> None:
    """Hold the plan to the reasons that it gives itself, the brake among them."""
    for reason in plan.gate.reasons:
        if plan.purge or reason.closes is Closes.ALL:
            raise PlanRejectedError(f"the plan itself says {reason.code.value}")


def _sha1(image_id: str) -> str:
    return hashlib.sha1(image_id.encode()).hexdigest()  # noqa: S324 - Nova's naming


class _Scene:
    """The observation with its names, entries and looks spelled out, once."""

    def __init__(self, seen: Observation) -> None:
        self.seen = seen
        self.rows = {name: row for row, name in enumerate(seen.files.names)}
        self.manifest = {(b.batch, entry) for b in seen.manifest for entry in b.entries}
        self.own_links = Counter(e.baseline.inode for e in seen.entries if e.baseline)
        self.wanted = {
            entry for r in _reports(seen) for entry in (*r.sees, *r.saw, *r.intents)
        }
        restoring = {entry for r in _reports(seen) for entry in r.intents}
        self.busy = {
            e.name
            for e in seen.entries
            if e.state is not EntryState.TAKEN or e.restoring or e.entry in restoring
        }
        self._names: set[str] = set()
        self._originals: set[str] = set()
        for report in _reports(seen):
            for uses in (report.now, report.since):
                self._add(uses)

    def _add(self, uses: Uses) -> None:
        for digests in (uses.images, uses.kernels, uses.ramdisks):
            self._names.update(digest.hex() for digest in digests)
        self._names.update(uses.names)
        self._originals.update(digest.hex() for digest in uses.families)

    def mentions(self, name: str) -> bool:
        """Whether a report mentions the file: the name, the original, the new name."""
        if _RAW_ID.fullmatch(name) and _sha1(name) in self._names:
            return True
        copy = _RESIZED.fullmatch(name)
        if copy is not None and copy[1] in self._originals:
            return True
        return name in self._names

    def is_spoilt(self, name: str) -> bool:
        """Whether an order names this file, of this size, unused since."""
        if name not in self.seen.damaged:
            return False
        order, row, files = self.seen.damaged[name], self.rows[name], self.seen.files
        return (
            order.mtime_ns == files.mtimes_ns[row]
            and order.inode == files.inodes[row]
            and order.size == files.sizes[row]
        )

    def names_it_whole(self, row: int) -> bool:
        """Whether a partial file is the very file that bears its whole name."""
        files = self.seen.files
        parts = _REMOVABLE.fullmatch(files.names[row])
        if parts is None or parts[1] == files.names[row]:
            return False
        whole = self.rows.get(parts[1])
        return whole is not None and files.inodes[whole] == files.inodes[row]


def _reports(seen: Observation) -> Iterator[Report]:
    for view in seen.facts.nodes:
        if not isinstance(view.report, Report):
            raise PlanRejectedError(f"{view.node} has no readable report")
        yield view.report


def _check_cluster(seen: Observation) -> None:
    facts = seen.facts
    if not isinstance(facts.on_storage, Cluster) or (
        facts.on_storage != facts.in_zookeeper
    ):
        raise PlanRejectedError("storage and ZooKeeper name different clusters")
    if facts.storage_epoch > facts.zookeeper_epoch:
        raise PlanRejectedError("the storage knows a later epoch than ZooKeeper")
    if facts.unreadable:
        raise PlanRejectedError(f"{facts.unreadable[0]} cannot be read")
    _check_storage_schema(facts)
    if facts.paused is not None:
        raise PlanRejectedError("an operator paused the cluster")
    if not _cleans(seen):
        raise PlanRejectedError(
            f"schema {facts.finalized_schema} is not one to clean under"
        )


def _check_storage_schema(facts: GateFacts) -> None:
    """Check that the schema that writers go by is not ahead of the finalized one."""
    told, finalized = facts.storage_schema, facts.finalized_schema
    if isinstance(told, Unreadable) and told.newer:
        raise PlanRejectedError("the storage's schema is of a newer release")
    if isinstance(told, int) and isinstance(finalized, int) and told > finalized:
        raise PlanRejectedError(f"schema {told} is finalized on the storage")


def _cleans(seen: Observation) -> bool:
    """Whether the finalized schema is known, and one under which files may go."""
    finalized = seen.facts.finalized_schema
    return (
        isinstance(finalized, int)
        and finalized >= _LEAST_CLEANING_SCHEMA
        and any(r.version == finalized and r.cleaning for r in seen.facts.schemas.rows)
    )


def _check_nodes(seen: Observation) -> None:
    if not seen.facts.nodes:
        raise PlanRejectedError("no node is rostered")
    if seen.facts.strangers:
        raise PlanRejectedError(f"{seen.facts.strangers[0]} is not rostered")
    rows = {row.version: row for row in seen.facts.schemas.rows}
    finalized = seen.facts.finalized_schema
    for report in _reports(seen):
        # Judged first, so that no table can let the old naming pass.
        if report.kernel_naming in (KernelNaming.RAW_ID, KernelNaming.UNKNOWN):
            raise PlanRejectedError(f"{report.node} uses the old kernel naming")
        if not isinstance(finalized, int) or not (
            finalized <= report.schema_version <= max(rows)
        ):
            raise PlanRejectedError(f"{report.node} is at another schema")
        if report.kernel_naming is not rows[finalized].naming:
            raise PlanRejectedError(f"{report.node} uses another kernel naming")
    for view in seen.facts.nodes:
        if not _bears_witness(view):
            raise PlanRejectedError(f"{view.node} has not reported since its start")


def _check_old_names(seen: Observation) -> None:
    """Require that every file under a raw image id is accounted for."""
    inventory, files = seen.facts.inventory, seen.files
    if not isinstance(inventory, Inventory):
        raise PlanRejectedError("no inventory of raw-id names can be read")
    here = [(one.name, one.inode) for one in seen.facts.old_names]
    here += [
        (name, files.inodes[row])
        for row, name in enumerate(files.names)
        if files.regular[row] and _RAW_ID.fullmatch(name) is not None
    ]
    for name, inode in here:
        if name not in inventory.inodes:
            raise PlanRejectedError(f"{name} appeared after finalization")
        if inventory.inodes[name] not in {0, inode}:
            raise PlanRejectedError(f"{name} is another file than at finalization")


def _bears_witness(view: NodeView) -> bool:
    return (
        isinstance(view.report, Report)
        and view.witness is not None
        and view.witness.incarnation is not None
        and view.witness.incarnation.boot_id == view.report.incarnation.boot_id
        and view.witness.incarnation.start == view.report.incarnation.start
    )


def _check_brakes(policy: CleanerPolicy, seen: Observation, plan: Plan) -> None:
    """Hold a plan that some brake stops to the approval of its very digest."""
    lost = _lost_names(policy, seen)
    unknown = isinstance(seen.remembered, Unreadable)
    lines = [f"{name}\n" for name in sorted(t.name for t in plan.take)]
    lines += [f"{node} lost {key}\n" for node, key in sorted(lost)]
    lines += ["nothing is remembered\n"] if unknown else []
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    if seen.approved == digest:
        return
    if unknown:
        raise PlanRejectedError("what nodes used before cannot be read")
    if lost:
        raise PlanRejectedError(f"{min(lost)[0]}'s uses shrank, unapproved")
    if len(plan.take) > policy.max_share_floor:
        recognised = sum(1 for name in seen.files.names if _REMOVABLE.fullmatch(name))
        if len(plan.take) * 100 > policy.max_share_percent * recognised and (
            not all(taking.name in seen.begun for taking in plan.take)
        ):
            raise PlanRejectedError("the plan takes more than its share, unapproved")


def _lost_names(policy: CleanerPolicy, seen: Observation) -> set[tuple[str, str]]:
    """Find what was lost by reports that shrank, as node and hexadecimal key."""
    if isinstance(seen.remembered, Unreadable):
        return set()
    in_use = {_key(name) for report in _reports(seen) for name in _spelled(report.now)}
    found: set[tuple[str, str]] = set()
    for report in _reports(seen):
        if report.node not in seen.remembered:
            continue
        past, count = seen.remembered[report.node], len(_spelled(report.now))
        gone = past.count - count
        if gone <= 0 or gone * 100 <= policy.max_shrink_percent * past.count:
            continue
        lost = {(report.node, key.hex()) for key in past.keys}
        lost = {pair for pair in lost if pair[1] not in in_use}
        if len(lost) <= policy.max_shrink_floor:
            continue
        steady = past.shrunk_ns is not None and count >= past.least
        began_ns = past.shrunk_ns if steady else None
        lasting_ns = 0 if began_ns is None else seen.storage_now_ns - began_ns
        if lasting_ns < int(policy.shrink_lasts_s * _SECOND_NS):
            found |= lost
    return found


def _spelled(uses: Uses) -> list[str]:
    """List the cache names that are used, a digest in several roles once."""
    digests = {*uses.images, *uses.kernels, *uses.ramdisks}
    return [*uses.names, *(digest.hex() for digest in digests)]


def _key(name: str) -> str:
    """Return the key, in hexadecimal, under which leaders remember a cache name."""
    if _PLAIN.fullmatch(name):
        return name[:12]
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _check_taking(scene: _Scene, taking: Taking) -> None:
    name, files = taking.name, scene.seen.files
    row = scene.rows.get(name)
    if row is None or _REMOVABLE.fullmatch(name) is None:
        raise PlanRejectedError(f"{name} is not a cache file that was seen")
    if not files.regular[row]:
        raise PlanRejectedError(f"{name} is not a regular file")
    if (taking.inode, taking.mtime_ns) != (files.inodes[row], files.mtimes_ns[row]):
        raise PlanRejectedError(f"{name} is not the file that was seen")
    if scene.mentions(name):
        raise PlanRejectedError(f"{name} is used")
    if name in scene.seen.holds:
        raise PlanRejectedError(f"{name} is held")
    ours = 1 + scene.own_links[taking.inode] + scene.names_it_whole(row)
    if files.links[row] != ours:
        raise PlanRejectedError(f"{name} has links that are not ours")
    if name in scene.busy:
        raise PlanRejectedError(f"{name} is being taken or restored already")


def _check_times(policy: CleanerPolicy, scene: _Scene, taking: Taking) -> None:
    seen = scene.seen
    name, age_ns = taking.name, seen.storage_now_ns - taking.mtime_ns
    young = age_ns < int(_least_age_s(policy, name) * _SECOND_NS)
    if young and not scene.is_spoilt(name):
        raise PlanRejectedError(f"{name} is only {age_ns / _SECOND_NS:.0f} s old")
    for view in seen.facts.nodes:
        report = view.report
        if not isinstance(report, Report) or (report.sealed and not view.member):
            continue
        if taking.mtime_ns >= report.storage_time_ns:
            raise PlanRejectedError(f"{name} is younger than {view.node}'s report")


def _least_age_s(policy: CleanerPolicy, name: str) -> float:
    """Minimum age by the look of the name, found without the grammar's table."""
    by_label = {kind.label: age for kind, age in policy.min_age_s.items()}
    if name.endswith((".part", ".converted")):
        return by_label["partial"]
    if name.startswith("swap_"):
        return by_label["swap"]
    if name.startswith("ephemeral_"):
        return by_label["ephemeral"]
    if _PLAIN.fullmatch(name):
        return by_label["image"]
    return by_label["resized" if "_" in name else "kernel"]


def _check_presence(policy: CleanerPolicy, seen: Observation) -> None:
    for view, report in zip(seen.facts.nodes, _reports(seen), strict=True):
        if report.failures:
            raise PlanRejectedError(f"{view.node} is degraded")
        gone = not view.member and not report.sealed
        if gone and policy.missing_nodes is MissingNodes.HOLD:
            raise PlanRejectedError(f"{view.node} is missing")


def _check_renewing(scene: _Scene, renewing: Renewing) -> None:
    entry, seen = renewing.entry, scene.seen
    if (renewing.batch, entry) not in scene.manifest:
        raise PlanRejectedError(f"{entry.leaf} is not in the manifest as planned")
    if entry.state is not EntryState.TAKEN or not entry.asked:
        raise PlanRejectedError(f"{entry.leaf} needs no new name")
    if entry.restoring or any(entry.entry in r.intents for r in _reports(seen)):
        raise PlanRejectedError(f"{entry.leaf} is being restored")


def _check_purging(scene: _Scene, purging: Purging) -> None:
    entry, seen = purging.entry, scene.seen
    if (purging.batch, entry) not in scene.manifest:
        raise PlanRejectedError(f"{entry.leaf} is not in the manifest as planned")
    if entry.state is not EntryState.TAKEN or entry.baseline is None:
        raise PlanRejectedError(f"{entry.leaf} was not taken")
    if entry.restoring:
        raise PlanRejectedError(f"{entry.leaf} is being restored")
    if entry.asked:
        raise PlanRejectedError(f"a link of {entry.leaf} may land yet")
    if scene.mentions(entry.name) or entry.name in seen.holds:
        raise PlanRejectedError(f"{entry.name} is used or held")
    if entry.entry in scene.wanted:
        raise PlanRejectedError(f"some node sees or wants {entry.leaf}")
    for report in _looked(seen):
        if not 1 <= entry.round <= report.since_round:
            raise PlanRejectedError(f"{report.node} began before {entry.leaf}'s round")


def _check_waits(
    policy: CleanerPolicy, seen: Observation, entry: ManifestEntry
) -> None:
    grace_s = policy.grace_s
    if seen.space is not None:
        size, free = seen.space
        if free * 100 < policy.low_water_percent * size:
            grace_s = min(grace_s, policy.low_water_grace_s)
    if seen.storage_now_ns - entry.since_ns < int(grace_s * _SECOND_NS):
        raise PlanRejectedError(f"{entry.leaf} is within its grace")
    slowest = max(seen.name_cache_s, *(r.name_cache_s for r in _reports(seen)))
    if seen.storage_now_ns - entry.moved_ns < int(2 * slowest * _SECOND_NS):
        raise PlanRejectedError(f"{entry.leaf} may still be in a name cache")
    for view in seen.facts.nodes:
        report = view.report
        if view.member or not isinstance(report, Report) or report.sealed:
            continue
        if entry.baseline is None or entry.baseline.mtime_ns >= report.storage_time_ns:
            raise PlanRejectedError(f"{entry.leaf} changed after {view.node} left")


def _looked(seen: Observation) -> list[Report]:
    views = seen.facts.nodes
    return [v.report for v in views if v.member and isinstance(v.report, Report)]


def _check_common_round(seen: Observation) -> None:
    """Require one round whose raise every node's window contains.

    If one lies in all windows, so does the least of those that they end with, and
    no other is tried: after a recovery rounds count on from the time, and to try
    each would take days.
    """
    looked = _looked(seen)
    if not looked or not all(report.unbroken for report in looked):
        raise PlanRejectedError("somebody has taken no two looks")
    for report in looked:
        if report.upto > seen.round:
            raise PlanRejectedError(
                f"{report.node} reports round {report.upto}, which was never raised"
            )
    for common in {report.upto for report in looked}:
        if all(report.since_round < common <= report.upto for report in looked):
            return
    raise PlanRejectedError("no round was raised within every node's window")
