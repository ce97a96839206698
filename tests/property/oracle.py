"""The oracle: what may be removed, in brute force, from the text of the design.

It imports data types only, so that it can be wrong in no way in which the
planner is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sharedcache.core.gate import NodeView
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
from sharedcache.core.names import Kind
from sharedcache.core.plan import Observation
from sharedcache.core.policy import CleanerPolicy, MissingNodes
from tests.property.strategies import (
    FAMILY,
    H1,
    K1,
    KEYS,
    RECOGNISED,
    SECOND,
    WHOLE,
    World,
)


@dataclass(frozen=True)
class Answer:
    """What the rules allow.

    ``braked`` is what could be taken if only the brake were not on; ``stopped``
    tells that it is.
    """

    take: frozenset[str]
    purge: frozenset[tuple[str, str]]
    renew: frozenset[tuple[str, str]]
    braked: frozenset[str]
    stopped: bool


def mentions(uses: Uses, name: str) -> bool:
    """Whether these uses name the file by any name, or its original with all copies."""
    for digest in [*uses.images, *uses.kernels, *uses.ramdisks]:
        if digest.hex() == name:
            return True
    if name in uses.names:
        return True
    if name == K1 and mentions(uses, H1):
        return True
    return any(FAMILY.get(name) == digest.hex() for digest in uses.families)


def reports(seen: Observation) -> list[Report]:
    """Every report that can be read."""
    return [v.report for v in seen.facts.nodes if isinstance(v.report, Report)]


def used_by_anybody(seen: Observation, name: str) -> bool:
    """Whether any report at all names the file."""
    return any(mentions(r.now, name) or mentions(r.since, name) for r in reports(seen))


def _gone(node: NodeView) -> bool:
    """Missing: not registered, and not sealed."""
    return (
        not node.member and isinstance(node.report, Report) and not node.report.sealed
    )


def _spoken(node: NodeView) -> bool:
    """Whether the node has a report of its witness's incarnation."""
    if not isinstance(node.report, Report) or node.witness is None:
        return False
    return node.witness.incarnation == node.report.incarnation


def _final(seen: Observation) -> int | None:
    """Return the finalized schema, if it is a known one from 2 on."""
    finalized, known = seen.facts.finalized_schema, len(seen.facts.schemas.rows)
    good = isinstance(finalized, int) and 2 <= finalized <= known
    return finalized if good else None


def _not_behind_storage(seen: Observation) -> bool:
    """Whether the storage names no schema above the finalized one, as far as read."""
    told, finalized = seen.facts.storage_schema, seen.facts.finalized_schema
    if told is None or isinstance(told, Unreadable):
        return told is None or not told.newer
    return not isinstance(finalized, int) or told <= finalized


def everything_closed(seen: Observation) -> bool:
    """Rows of the gate's table that close all, the brake apart."""
    known = seen.facts
    disk, tree = known.on_storage, known.in_zookeeper
    one_cluster = (
        isinstance(disk, Cluster)
        and isinstance(tree, Cluster)
        and disk.identity == tree.identity
    )
    good = [
        one_cluster,
        known.storage_epoch <= known.zookeeper_epoch,
        known.paused is None,
        len(known.unreadable) == 0,
        _not_behind_storage(seen),
        len(known.nodes) > 0,
        len(known.strangers) == 0,
        _final(seen) is not None,
        isinstance(known.inventory, Inventory),
    ]
    if isinstance(known.inventory, Inventory):
        at_finalization = known.inventory.inodes
        rows = [
            (seen.files.names[row], seen.files.inodes[row])
            for row in range(len(seen.files))
            if seen.files.regular[row]
            and RECOGNISED.get(seen.files.names[row]) is Kind.KERNEL
        ]
        rows += [(one.name, one.inode) for one in known.old_names]
        good.extend(
            any(pair in {(name, inode), (name, 0)} for pair in at_finalization.items())
            for name, inode in rows
        )
    for node in known.nodes:
        good.append(_spoken(node))
        if isinstance(node.report, Report):
            good.append(node.report.kernel_naming is KernelNaming.SHA1)
            # Not below what is finalized, and known to the judge.
            version = node.report.schema_version
            good.append(version <= len(known.schemas.rows))
            good.append(version >= (_final(seen) or 2))
    return not all(good)


def purging_closed(policy: CleanerPolicy, seen: Observation) -> bool:
    """Rows of the gate's table that close purging only."""
    for node in seen.facts.nodes:
        if isinstance(node.report, Report) and node.report.failures:
            return True
        if _gone(node) and policy.missing_nodes is MissingNodes.HOLD:
            return True
    return False


def published(seen: Observation, row: int) -> int:
    """Count the whole names that a partial file bears: none, or one."""
    files = seen.files
    return sum(
        files.names[other] == WHOLE.get(files.names[row])
        and files.inodes[other] == files.inodes[row]
        for other in range(len(files))
    )


def spoilt(seen: Observation, row: int) -> bool:
    """Whether somebody ordered this file, as it is now, to go for its damage."""
    files = seen.files
    now = (files.inodes[row], files.sizes[row], files.mtimes_ns[row])
    return any(
        (one.inode, one.size, one.mtime_ns) == now and one.name == files.names[row]
        for one in seen.damaged.values()
    )


def may_take(policy: CleanerPolicy, seen: Observation, row: int) -> bool:
    """Whether the rules of "Quarantine X" allow this file, the brake apart."""
    files = seen.files
    name, mtime_ns = files.names[row], files.mtimes_ns[row]
    if name not in RECOGNISED:
        return False
    entries = [e for batch in seen.manifest for e in batch.entries]
    intended = [token for r in reports(seen) for token in r.intents]
    under_way = [
        e.name
        for e in entries
        if e.state is EntryState.INTENDED or e.restoring or e.entry in intended
    ]
    own = [e for e in entries if e.baseline and e.baseline.inode == files.inodes[row]]
    age_ns = seen.storage_now_ns - mtime_ns
    must_be_younger = [
        v.report
        for v in seen.facts.nodes
        if isinstance(v.report, Report) and (v.member or not v.report.sealed)
    ]
    good = [
        not everything_closed(seen),
        bool(files.regular[row]),
        name not in seen.holds,
        not used_by_anybody(seen, name),
        name not in under_way,
        files.links[row] == 1 + len(own) + published(seen, row),
        age_ns >= policy.min_age_s[RECOGNISED[name]] * SECOND or spoilt(seen, row),
        all(mtime_ns < r.storage_time_ns for r in must_be_younger),
    ]
    return all(good)


def _confirmed(seen: Observation, one: ManifestEntry) -> bool:
    """Try every round as the common instant."""
    looking = [
        v.report for v in seen.facts.nodes if v.member and isinstance(v.report, Report)
    ]
    if not looking:
        return False  # Stricter than the text: somebody has to look.
    for instant in range(1, seen.round + 1):
        if all(
            r.unbroken and one.round <= r.since_round and r.since_round < instant
            for r in looking
        ) and all(instant <= r.upto <= seen.round for r in looking):
            return True
    return False


def _grace_s(policy: CleanerPolicy, seen: Observation) -> float:
    """Return the shorter grace, if it is known that less than the mark is free."""
    if seen.space is None:
        return policy.grace_s
    size, free = seen.space
    low = free < size * policy.low_water_percent / 100
    return policy.low_water_grace_s if low else policy.grace_s


def may_purge(policy: CleanerPolicy, seen: Observation, one: ManifestEntry) -> bool:
    """Whether the rules of "Purge a batch" allow this entry, the brake apart."""
    base = one.baseline
    if base is None:
        return False
    caches_s = [r.name_cache_s for r in reports(seen)] + [seen.name_cache_s]
    gone = [v.report for v in seen.facts.nodes if _gone(v)]
    good = [
        not everything_closed(seen),
        not purging_closed(policy, seen),
        one.state is EntryState.TAKEN,
        one.round >= 1,
        not one.restoring,
        not one.asked,
        one.name not in seen.holds,
        not used_by_anybody(seen, one.name),
        not any(one.entry in {*r.sees, *r.saw, *r.intents} for r in reports(seen)),
        seen.storage_now_ns - one.since_ns >= _grace_s(policy, seen) * SECOND,
        seen.storage_now_ns - one.moved_ns >= 2 * max(caches_s) * SECOND,
        all(base.mtime_ns < r.storage_time_ns for r in gone if isinstance(r, Report)),
        _confirmed(seen, one),
    ]
    return all(good)


def _count(uses: Uses) -> int:
    """How many cache names are used."""
    digests = {*uses.images, *uses.kernels, *uses.ramdisks}
    return len(digests) + len(uses.names)


def shrunken(policy: CleanerPolicy, seen: Observation) -> bool:
    """Whether some node lost more than its share, for nobody, and of late."""
    if isinstance(seen.remembered, Unreadable):
        return True
    exact = [replace(r.now, families=frozenset()) for r in reports(seen)]
    for node in reports(seen):
        past = seen.remembered.get(node.node)
        if past is None:
            continue
        kept = _count(node.now)
        names = [KEYS[key] for key in past.keys]
        lost = [n for n in names if not any(mentions(uses, n) for uses in exact)]
        began = seen.storage_now_ns
        if past.shrunk_ns is not None and not kept < past.least:
            began = past.shrunk_ns
        good = [
            past.count - kept > policy.max_shrink_percent / 100 * past.count,
            len(lost) > policy.max_shrink_floor,
            began > seen.storage_now_ns - policy.shrink_lasts_s * SECOND,
        ]
        if all(good):
            return True
    return False


def may_renew(seen: Observation, one: ManifestEntry) -> bool:
    """Whether the entry waits for a new name, and nobody restores it now."""
    good = [
        not everything_closed(seen),
        one.asked,
        one.state is EntryState.TAKEN,
        not one.restoring,
        not any(one.entry in r.intents for r in reports(seen)),
    ]
    return all(good)


def answer(world: World) -> Answer:
    """Judge the whole world."""
    policy, seen = world.policy, world.seen
    count = len(seen.files)
    take = {seen.files.names[r] for r in range(count) if may_take(policy, seen, r)}
    purge = {
        (batch.batch, one.entry)
        for batch in seen.manifest
        for one in batch.entries
        if may_purge(policy, seen, one)
    }
    renew = {
        (batch.batch, one.entry)
        for batch in seen.manifest
        for one in batch.entries
        if may_renew(seen, one)
    }
    recognised = sum(1 for name in seen.files.names if name in RECOGNISED)
    share = len(take) * 100 > policy.max_share_percent * recognised
    too_much = share and len(take) > policy.max_share_floor
    nothing: frozenset[Any] = frozenset()
    if (too_much or shrunken(policy, seen)) and seen.approved is None:
        return Answer(nothing, nothing, nothing, frozenset(take), stopped=True)
    return Answer(
        frozenset(take), frozenset(purge), frozenset(renew), nothing, stopped=False
    )
