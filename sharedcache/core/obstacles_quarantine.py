"""The rules that keep a quarantined entry from being purged, with the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sharedcache.core.model import NANOSECONDS, EntryState, ManifestEntry, Report
from sharedcache.core.obstacles import (
    Court,
    Obstacle,
    Rule,
    gate_obstacles,
    held,
    listed,
    restoring,
    spell,
    used,
)
from sharedcache.core.planner import name_cache_s, proof_of, voices
from sharedcache.core.rounds import lagging


def entry_obstacles(court: Court, entry: ManifestEntry) -> Iterator[Obstacle]:
    """Ask every rule of a purge."""
    if entry.state is not EntryState.TAKEN or entry.baseline is None:
        yield Obstacle(
            Rule.OUTCOME_OPEN,
            "the outcome of its rename is not recorded yet",
            "the leader settles it in its next pass",
        )
        return
    reasons = court.plan.gate.reasons
    yield from gate_obstacles(reasons, "the gate is closed for purging")
    yield from _entry_evidence(court, entry)
    yield from _entry_times(court, entry)


def _entry_evidence(court: Court, entry: ManifestEntry) -> Iterator[Obstacle]:
    seen = court.seen
    heard = voices(seen.facts)
    proof = proof_of(seen, heard)
    counted = {r.node for r in (*heard.speaking, *heard.final)}
    intending = [
        r.node for r in (*heard.speaking, *heard.final) if entry.entry in r.intents
    ]
    if entry.restoring or intending:
        yield restoring(Rule.RESTORING, entry.name, intending)
    elif entry.asked:
        yield Obstacle(
            Rule.NEW_NAME,
            "it was restored, and a link of its quarantined name may land yet",
            "the leader renames it in its next pass, unless the node of that restore "
            "is away, or the gate is closed",
        )
    if entry.name in seen.holds:
        yield held(entry.name)
    if proof.wanted(entry):
        users = court.said(lambda w: (w.now or w.since) and w.view.node in counted)
        yield from used(users)
        yield from _sight(
            court,
            entry,
            {w.view.node for w in users}
            | ({w.view.node for w in court.words} - counted),
        )
    elif not proof.confirms(entry):
        late = lagging(max(seen.round, entry.round), heard)
        shown = tuple(late) if proof.proven < entry.round else ()
        what = f"not every node has looked twice since its round {entry.round}"
        yield Obstacle(
            Rule.ROUND,
            what + (f"; awaited: {listed(shown)}" if shown else ""),
            "every node must report two rounds from then on: by itself, once the "
            "nodes that are awaited report",
            shown,
        )


def _sight(court: Court, entry: ManifestEntry, apart: set[str]) -> Iterator[Obstacle]:
    """Tell who still finds the inode under its name, or did in this window."""

    def who(seen_by: Callable[[Report], frozenset[str]]) -> tuple[str, ...]:
        return tuple(
            view.node
            for view in court.seen.facts.nodes
            if isinstance(view.report, Report)
            and view.node not in apart
            and entry.entry in seen_by(view.report)
        )

    sees = who(lambda report: report.sees)
    saw = tuple(n for n in who(lambda report: report.saw) if n not in sees)
    if sees:
        yield Obstacle(
            Rule.SEEN,
            f"its file bears its name, as {listed(sees)} sees it",
            "a restored file is in use again, or a client's name cache is old: the "
            "entry goes when the name is taken from that inode again",
            sees,
        )
    if saw:
        yield Obstacle(
            Rule.SEEN,
            f"its file bore its name a while ago, as {listed(saw)} saw it",
            "two rounds without it: the leader raises them by itself",
            saw,
        )


def _entry_times(court: Court, entry: ManifestEntry) -> Iterator[Obstacle]:
    policy, seen = court.policy, court.seen
    heard = voices(seen.facts)
    grace_ns = int(policy.grace_now_s(seen.space) * NANOSECONDS)
    left_ns = entry.since_ns + grace_ns - seen.storage_now_ns
    if left_ns > 0:
        yield Obstacle(
            Rule.GRACE,
            f"it lies in quarantine for less than the grace of {spell(grace_ns)}",
            f"another {spell(left_ns)}",
            left_ns=left_ns,
        )
    floor_ns = int(2 * name_cache_s(seen, heard) * NANOSECONDS)
    left_ns = entry.moved_ns + floor_ns - seen.storage_now_ns
    if left_ns > 0:
        yield Obstacle(
            Rule.NAME_CACHES,
            f"a client may keep its name cached for {spell(floor_ns)}",
            f"another {spell(left_ns)}",
            left_ns=left_ns,
        )
    touched_ns = 0 if entry.baseline is None else entry.baseline.mtime_ns
    late = tuple(
        r.node for r in heard.final if touched_ns >= r.storage_time_ns and not r.sealed
    )
    if late:
        yield Obstacle(
            Rule.TOUCHED,
            f"it was touched after the last report of missing {listed(late)}",
            "these nodes must report again, or be expunged",
            late,
        )
