"""The planner: (policy, observation) to an immutable plan, without any IO.

Every file gets one verdict with one reason.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sharedcache.core.brake import brakes
from sharedcache.core.gate import Gate, GateFacts, NodeView
from sharedcache.core.gate_rules import evaluate as evaluate_gate
from sharedcache.core.model import (
    NANOSECONDS,
    EntryState,
    FileTable,
    ManifestEntry,
    NodeState,
    Report,
    UseIndex,
)
from sharedcache.core.names import Kind, lock_name
from sharedcache.core.plan import (
    Observation,
    Plan,
    Purging,
    Renewing,
    Taking,
    Verdict,
    Why,
)
from sharedcache.core.policy import CleanerPolicy, MissingNodes
from sharedcache.core.rounds import Confirmation, Voices, lagging

END_OF_TIME_NS = 2**63 - 1
"""Later than any time that a storage gives, in nanoseconds."""


def voices(facts: GateFacts) -> Voices:
    """Sort the rostered nodes' last reports by what they can confirm."""
    speaking: list[Report] = []
    final: list[Report] = []
    silent: list[str] = []
    for view in facts.nodes:
        report = view.report
        if not isinstance(report, Report) or not view.witnessed:
            silent.append(view.node)
        elif view.member:
            speaking.append(report)
        elif view.state is NodeState.SEALED or (
            facts.missing_nodes is MissingNodes.LAST_REPORT
        ):
            final.append(report)
        else:
            silent.append(view.node)
    return Voices(tuple(speaking), tuple(final), tuple(silent))


def make_plan(policy: CleanerPolicy, seen: Observation) -> Plan:
    """Judge every file and every entry of one observation."""
    gate = evaluate_gate(seen.facts)
    verdicts, whys = _judge_files(policy, seen, gate)
    take = tuple(
        sorted(
            (
                Taking(
                    seen.files.names[row],
                    seen.files.inodes[row],
                    seen.files.mtimes_ns[row],
                    seen.files.sizes[row],
                )
                for row, verdict in enumerate(verdicts)
                if verdict == Verdict.QUARANTINE
            ),
            key=_least_recent,
        )
    )
    on = brakes(policy, seen, take)
    if on.reasons:
        gate = replace(gate, reasons=(*gate.reasons, *on.reasons))
        for row, verdict in enumerate(verdicts):
            if verdict == Verdict.QUARANTINE:
                verdicts[row], whys[row] = Verdict.KEEP, Why.BRAKE
        take = ()
    waiting, purge = _judge_entries(policy, seen, gate)
    return Plan(
        gate=gate,
        digest=on.digest,
        verdicts=verdicts,
        whys=whys,
        take=take,
        purge=purge,
        renew=tuple(_renewals(seen)) if gate.open else (),
        waiting=waiting,
        fresh_reports=_wants_fresh_reports(policy, seen, whys),
        shrunk=on.shrunk,
        low_on_space=policy.low_on_space(seen.space),
    )


def _least_recent(taking: Taking) -> tuple[int, str]:
    """Order what is taken by last use, oldest first, and equals by name."""
    return taking.mtime_ns, taking.name


@dataclass(frozen=True, slots=True)
class _Ground:
    """What every file is judged against, computed once a pass."""

    used: UseIndex
    links: Counter[int]
    twins: frozenset[str]
    open_names: frozenset[str]
    oldest_ns: int
    youngest_ns: dict[int, int]

    @staticmethod
    def of(policy: CleanerPolicy, seen: Observation) -> _Ground:
        reports = [v.report for v in seen.facts.nodes if isinstance(v.report, Report)]
        intended = _intended(seen)
        entries = list(seen.entries)
        return _Ground(
            used=UseIndex.over(uses for r in reports for uses in (r.now, r.since)),
            links=Counter(e.baseline.inode for e in entries if e.baseline is not None),
            twins=_twins(seen.files),
            open_names=frozenset(
                e.name
                for e in entries
                if e.state is EntryState.INTENDED or e.restoring or e.entry in intended
            ),
            oldest_ns=_oldest_report_ns(seen.facts, _must_be_younger),
            youngest_ns=_youngest_ns(policy, seen),
        )


def _intended(seen: Observation) -> frozenset[str]:
    """Collect the entries that any rostered node's last report intends to restore."""
    reports = [v.report for v in seen.facts.nodes if isinstance(v.report, Report)]
    return frozenset().union(*(r.intents for r in reports))


def _renewals(seen: Observation) -> Iterator[Renewing]:
    """Find the entries that a restore was asked of, and that nobody restores now.

    Whoever still restores would only find the name gone and begin anew.
    """
    intended = _intended(seen)
    for batch in seen.manifest:
        for entry in batch.entries:
            over = not entry.restoring and entry.entry not in intended
            if entry.asked and over and entry.state is EntryState.TAKEN:
                yield Renewing(batch.batch, entry)


def _twins(files: FileTable) -> frozenset[str]:
    """Name the partial files that are, under another name, whole ones.

    A writer that died after it had given its file the cache name, and before it
    took the partial name back, leaves such a one.  Taking it takes no file.
    """
    rows = [row for row, kind in enumerate(files.kinds) if kind == Kind.PARTIAL]
    if not rows:
        return frozenset()
    inode_of = dict(zip(files.names, files.inodes, strict=True))
    return frozenset(
        files.names[row]
        for row in rows
        if inode_of.get(lock_name(files.names[row])) == files.inodes[row]
    )


def _youngest_ns(policy: CleanerPolicy, seen: Observation) -> dict[int, int]:
    """Latest mtime of each kind that is old enough."""
    return {
        int(kind): seen.storage_now_ns - policy.min_age_ns(kind)
        for kind in Kind
        if kind is not Kind.UNRECOGNISED
    }


def _must_be_younger(view: NodeView) -> bool:
    """Whether a file must be older than this node's report.

    A sealed node starts nothing until its witness changes, so a file that was
    touched after its final report was touched by somebody else.
    """
    return view.state is not NodeState.SEALED


def _cannot_report(view: NodeView) -> bool:
    """Whether a new round would not bring this node's report up to date."""
    complete = isinstance(view.report, Report) and view.report.complete
    return _must_be_younger(view) and not (view.member and complete)


def _oldest_report_ns(facts: GateFacts, counts: Callable[[NodeView], bool]) -> int:
    """Storage time of the oldest report among the nodes that count."""
    return min(
        (
            view.report.storage_time_ns
            for view in facts.nodes
            if isinstance(view.report, Report) and counts(view)
        ),
        default=END_OF_TIME_NS,
    )


_TAKEN = frozenset({Why.UNUSED, Why.DAMAGED})


def _judge_files(
    policy: CleanerPolicy, seen: Observation, gate: Gate
) -> tuple[array[int], array[int]]:
    """Give every file of ``_base`` its verdict; columns beside the files."""
    count = len(seen.files)
    verdicts = array("B", bytes(count))
    whys = array("B", bytes(count))
    ground = _Ground.of(policy, seen)
    for row in range(count):
        why = _judge_file(seen, ground, gate, row)
        whys[row] = why
        if why in _TAKEN:
            verdicts[row] = Verdict.QUARANTINE
    return verdicts, whys


def _judge_file(  # noqa: PLR0911 - the table of rules, one return a rule
    seen: Observation, ground: _Ground, gate: Gate, row: int
) -> Why:
    files = seen.files
    name, kind, mtime_ns = files.names[row], files.kinds[row], files.mtimes_ns[row]
    if kind == Kind.UNRECOGNISED:
        return Why.UNRECOGNISED
    if not files.regular[row]:
        return Why.NOT_REGULAR
    if name in seen.holds:
        return Why.HELD
    if ground.used.covers(name):
        return Why.USED
    if not gate.open:
        return Why.GATE_CLOSED
    if name in ground.open_names:
        return Why.OUTCOME_OPEN
    own = 1 + ground.links[files.inodes[row]] + (name in ground.twins)
    if files.links[row] != own:
        return Why.LINKED
    damaged = found_damaged(seen, row)
    if mtime_ns > ground.youngest_ns[kind] and not damaged:
        return Why.TOO_YOUNG
    if mtime_ns >= ground.oldest_ns:
        return Why.REPORT_OLDER
    return Why.DAMAGED if damaged else Why.UNUSED


def found_damaged(seen: Observation, row: int) -> bool:
    """Whether this very state of a file was found damaged.

    One that was touched or written to since was used or mended: the order is not
    about it any more.
    """
    files = seen.files
    order = seen.damaged.get(files.names[row])
    return order is not None and order.is_of(
        files.inodes[row], files.sizes[row], files.mtimes_ns[row]
    )


def _wants_fresh_reports(
    policy: CleanerPolicy, seen: Observation, whys: array[int]
) -> bool:
    """Whether some file waits only for reports that a new round would bring.

    A window begins with the round before, so without new rounds a use that is
    over would be reported for ever.
    """
    stuck_ns = _oldest_report_ns(seen.facts, _cannot_report)
    lasting = _lasting_uses(seen.facts)
    youngest_ns = _youngest_ns(policy, seen)
    files = seen.files
    return any(
        files.mtimes_ns[row] < stuck_ns
        and (
            why == Why.REPORT_OLDER
            or (
                why == Why.USED
                and (
                    files.mtimes_ns[row] <= youngest_ns[files.kinds[row]]
                    or found_damaged(seen, row)
                )
                and not lasting.covers(files.names[row])
            )
        )
        for row, why in enumerate(whys)
    )


def _lasting_uses(facts: GateFacts) -> UseIndex:
    """Collect uses that no new round ends: of now, or of who does not look again."""
    reports = [(v, v.report) for v in facts.nodes if isinstance(v.report, Report)]
    return UseIndex.over(
        uses
        for view, report in reports
        for uses in (report.now, *(() if view.member else (report.since,)))
    )


@dataclass(frozen=True, slots=True)
class _Court:
    """What every entry is judged against, computed once a pass."""

    policy: CleanerPolicy
    seen: Observation
    gate: Gate
    heard: Voices
    proof: Confirmation
    cache_s: float

    def waits(self, entry: ManifestEntry) -> Iterator[str]:
        """Tell what an entry waits for; nothing means that it may be purged."""
        if entry.state is not EntryState.TAKEN or entry.baseline is None:
            yield "outcome of the rename"
            return
        for reason in self.gate.reasons:
            yield f"gate: {reason.code.value} {reason.subject}"
        if entry.restoring or entry.entry in self.proof.intended:
            yield "restore under way"
        elif entry.asked:
            yield "new name after a restore"
        if entry.name in self.seen.holds:
            yield "hold"
        if self.proof.wanted(entry):
            yield from self._users(entry)
        elif not self.proof.confirms(entry):
            yield from _round_waits(self.seen, self.heard, self.proof, entry)
        yield from _time_waits(self.policy, self.seen, self.heard, self.cache_s, entry)

    def _users(self, entry: ManifestEntry) -> Iterator[str]:
        for report in [*self.heard.speaking, *self.heard.final]:
            if UseIndex.over((report.now, report.since)).covers(entry.name):
                yield f"used by {report.node}"
            elif entry.entry in report.sees:
                yield f"still seen by {report.node}"
            elif entry.entry in report.saw:
                yield f"seen a while ago by {report.node}"


def _judge_entries(
    policy: CleanerPolicy, seen: Observation, gate: Gate
) -> tuple[dict[str, tuple[str, ...]], tuple[Purging, ...]]:
    """Tell for every entry what it waits for; nothing means that it is purged."""
    heard = voices(seen.facts)
    cache_s, proof = name_cache_s(seen, heard), proof_of(seen, heard)
    court = _Court(policy, seen, gate, heard, proof, cache_s)
    waiting: dict[str, tuple[str, ...]] = {}
    purge: list[Purging] = []
    for batch in seen.manifest:
        for entry in batch.entries:
            reasons = tuple(court.waits(entry))
            if reasons:
                waiting[entry.entry] = reasons
            else:
                purge.append(Purging(batch.batch, entry))
    return waiting, tuple(sorted(purge, key=_least_recent_entry))


def _least_recent_entry(purging: Purging) -> tuple[int, str]:
    """Order what is purged by last use, oldest first, and equals by entry."""
    baseline = purging.entry.baseline
    return 0 if baseline is None else baseline.mtime_ns, purging.entry.entry


def name_cache_s(seen: Observation, heard: Voices) -> float:
    """Longest time that anybody who is relied on keeps a name cached, in seconds."""
    return max(
        seen.name_cache_s,
        *(r.name_cache_s for r in [*heard.speaking, *heard.final]),
        0.0,
    )


def proof_of(seen: Observation, heard: Voices) -> Confirmation:
    """Judge what the last reports prove in this observation.

    A report of a round that was not raised yet is doubt: ZooKeeper went back,
    and the looks may have come before the renames whose rounds they cover.
    """
    proof = Confirmation.of(heard)
    if any(r.upto > seen.round for r in heard.speaking):
        return replace(proof, proven=0)
    return proof


def _round_waits(
    seen: Observation, heard: Voices, proof: Confirmation, entry: ManifestEntry
) -> Iterator[str]:
    late = lagging(max(seen.round, entry.round), heard)
    if late and proof.proven < entry.round:
        shown = ", ".join(late[:5]) + (" ..." if len(late) > 5 else "")  # noqa: PLR2004
        yield f"round {entry.round + 1}: report of {shown}"
    else:
        yield f"round {entry.round + 1}"


def _time_waits(
    policy: CleanerPolicy,
    seen: Observation,
    heard: Voices,
    cache_s: float,
    entry: ManifestEntry,
) -> Iterator[str]:
    grace_ns = int(policy.grace_now_s(seen.space) * NANOSECONDS)
    left = entry.since_ns + grace_ns - seen.storage_now_ns
    if left > 0:
        yield f"grace: {left / NANOSECONDS:.0f} s"
    floor = entry.moved_ns + int(2 * cache_s * NANOSECONDS) - seen.storage_now_ns
    if floor > 0:
        yield f"name caches: {floor / NANOSECONDS:.0f} s"
    touched = 0 if entry.baseline is None else entry.baseline.mtime_ns
    for report in heard.final:
        if touched >= report.storage_time_ns and not report.sealed:
            yield f"touched after the last report of missing {report.node}"


def node_of(seen: Observation, node: str) -> NodeView | None:
    """Find a rostered node."""
    return next((view for view in seen.facts.nodes if view.node == node), None)
