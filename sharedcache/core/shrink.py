"""Sudden shrinks of the reported uses, judged by what the leader remembers.

An instances mount that vanished looks like a node without guests: its agent
reports, truthfully, that it sees no use.  So the leader keeps, durably, what
each node used at the last pass at which nothing was wrong.  A report that has
lost more than a share since, and with it names that nobody at all uses now,
is a brake until an operator approves it or it has lasted.

Names that moved to another node are still used and are not lost: a host that
is emptied by migration is no shrink.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sharedcache.core.model import NANOSECONDS, Report, Unreadable, Uses
from sharedcache.core.names import Kind, classify
from sharedcache.core.plan import Observation, Remembered, Shrink
from sharedcache.core.policy import CleanerPolicy

KEY_BYTES = 6
"""Length of a remembered name: two of a million names share a key once in 500
memories, and then a lost name counts as used."""

MEMORY_BYTES = 600_000
"""Room for the memory's nodes and keys, so that its record fits one znode."""

_NODE_BYTES = 32


def key_of(name: str) -> bytes:
    """Return the key under which a cache name is remembered."""
    if classify(name) is Kind.IMAGE:
        return bytes.fromhex(name)[:KEY_BYTES]
    return hashlib.sha256(name.encode()).digest()[:KEY_BYTES]


def _keys(uses: Uses) -> Iterator[bytes]:
    """Give the key of every cache name; a digest is short as it stands."""
    for digest in uses.images | uses.kernels | uses.ramdisks:
        yield digest[:KEY_BYTES]
    for name in uses.names:
        yield key_of(name)


def _readable(seen: Observation) -> list[Report]:
    return [v.report for v in seen.facts.nodes if isinstance(v.report, Report)]


def shrinks(policy: CleanerPolicy, seen: Observation) -> tuple[Shrink, ...]:
    """Name the nodes whose reports shrank suddenly, by node.

    Only uses of *now* count: a window forgets all at once what ended one by
    one.  A node that left the roster was expunged, which is an operator's word.
    """
    if not seen.remembered or isinstance(seen.remembered, Unreadable):
        return ()
    used: set[bytes] | None = None
    found: list[Shrink] = []
    for report in sorted(_readable(seen), key=lambda r: r.node):
        before = seen.remembered.get(report.node)
        if before is None or not _fell(policy, before.count, len(report.now)):
            continue
        if used is None:
            used = {key for one in _readable(seen) for key in _keys(one.now)}
        lost = frozenset(before.keys - used)
        if len(lost) <= policy.max_shrink_floor:
            continue
        count = len(report.now)
        since_ns = seen.storage_now_ns
        if before.shrunk_ns is not None and count >= before.least:
            since_ns = before.shrunk_ns
        lasted_ns = seen.storage_now_ns - since_ns
        if lasted_ns < int(policy.shrink_lasts_s * NANOSECONDS):
            found.append(Shrink(report.node, before.count, count, lost, since_ns))
    return tuple(found)


def _fell(policy: CleanerPolicy, before: int, now: int) -> bool:
    """Whether a count fell by more than the share."""
    return (before - now) * 100 > policy.max_shrink_percent * before


@dataclass(slots=True)
class _Pages:
    """A memory in the making."""

    nodes: dict[str, Remembered] = field(default_factory=dict)
    taken: set[bytes] = field(default_factory=set)

    def add(self, report: Report) -> None:
        """Remember a report; each name is kept with the first node that uses it."""
        keys = frozenset(_keys(report.now)) - self.taken
        self.taken |= keys
        self.nodes[report.node] = Remembered(len(report.now), keys)


def remember(seen: Observation, standing: Iterable[Shrink]) -> Mapping[str, Remembered]:
    """Return what is to be remembered of an observation, by node.

    ``standing`` are the shrinks that brake its plan: a node of theirs keeps its
    old memory, with when that was first seen.  So does a node whose report
    cannot be read.  What does not fit one record is thinned evenly over all
    nodes: a shrink then counts fewer names than were lost, never more.
    """
    old = {} if isinstance(seen.remembered, Unreadable) else seen.remembered
    shrunk = {shrink.node: shrink for shrink in standing}
    pages = _Pages()
    for view in sorted(seen.facts.nodes, key=lambda v: v.node):
        shrink = shrunk.get(view.node)
        if shrink is not None:
            pages.nodes[view.node] = replace(
                old[view.node], shrunk_ns=shrink.since_ns, least=shrink.now
            )
        elif isinstance(view.report, Report):
            pages.add(view.report)
        elif view.node in old:
            pages.nodes[view.node] = old[view.node]
    return _thinned(pages.nodes)


def _thinned(nodes: Mapping[str, Remembered]) -> Mapping[str, Remembered]:
    """Keep the smallest keys, as many as fit: keys are as good as random."""
    room = MEMORY_BYTES - sum(len(node) + _NODE_BYTES for node in nodes)
    most = max(0, room) // KEY_BYTES
    if sum(len(one.keys) for one in nodes.values()) <= most:
        return nodes
    ordered = sorted(key for one in nodes.values() for key in one.keys)
    bound = ordered[most] if most else b""
    return {
        node: replace(one, keys=frozenset(k for k in one.keys if k < bound))
        for node, one in nodes.items()
    }
