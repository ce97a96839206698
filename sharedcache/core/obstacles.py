"""The rules that keep a file in ``_base``, each asked for itself, with the way out.

The planner stops at the first rule that keeps a file; here every rule is asked,
so that an operator who meets one demand is not surprised by the next.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sharedcache.core.gate import Closes, Code, Gate, NodeView, Reason
from sharedcache.core.model import (
    NANOSECONDS,
    EntryState,
    FileTable,
    NodeState,
    Report,
)
from sharedcache.core.names import Kind, lock_name
from sharedcache.core.plan import Observation, Plan
from sharedcache.core.planner import found_damaged
from sharedcache.core.policy import CleanerPolicy

SHOWN = 5
"""How many nodes a sentence names before it counts the rest."""


class Rule(enum.Enum):
    """A rule that can keep a file; files in ``_base`` meet those above the line."""

    UNRECOGNISED = "unrecognised"
    NOT_REGULAR = "not-regular"
    HELD = "held"
    USED = "used"
    GATE_CLOSED = "gate-closed"
    OUTCOME_OPEN = "outcome-open"
    LINKED = "linked"
    TOO_YOUNG = "too-young"
    REPORT_OLDER = "report-older"
    BRAKE = "brake"
    # The rules that a quarantined entry alone can meet.
    RESTORING = "restoring"
    NEW_NAME = "new-name"
    SEEN = "seen"
    ROUND = "round"
    GRACE = "grace"
    NAME_CACHES = "name-caches"
    TOUCHED = "touched"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One rule that keeps the file now.

    ``what`` is what is so, ``change`` what would have to change.  ``nodes`` are
    those it is about; ``left_ns`` is how long until it passes by itself if
    nothing else happens (nanoseconds), ``None`` if it does not.
    """

    rule: Rule
    what: str
    change: str
    nodes: tuple[str, ...] = ()
    left_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """What one rostered node's last report says of the name.

    ``family`` tells that a use is of the original with all its copies;
    ``lost`` that the node uses the name and finds it nowhere.
    """

    view: NodeView
    now: bool = False
    since: bool = False
    family: bool = False
    sees: bool = False
    saw: bool = False
    intends: bool = False
    lost: bool = False

    @property
    def bears(self) -> bool:
        """Whether this node has anything to do with the name."""
        return any((self.now, self.since, self.sees, self.saw, self.intends, self.lost))


@dataclass(frozen=True, slots=True)
class Court:
    """What every rule is asked about."""

    policy: CleanerPolicy
    seen: Observation
    plan: Plan
    words: tuple[Word, ...]

    def said(self, asks: Callable[[Word], bool]) -> tuple[Word, ...]:
        """Return the words of which something holds."""
        return tuple(word for word in self.words if asks(word))


def spell(nanoseconds: int) -> str:
    """Spell a length of time as people say it, in its two greatest units."""
    seconds = max(0, -(-nanoseconds // NANOSECONDS))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def listed(nodes: Iterable[str]) -> str:
    """Name the first few nodes and count the rest."""
    every = sorted(nodes)
    more = len(every) - SHOWN
    return ", ".join(every[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def file_obstacles(court: Court, row: int) -> Iterator[Obstacle]:
    """Ask every rule of quarantine, in the order in which the planner asks."""
    files, seen = court.seen.files, court.seen
    name = files.names[row]
    if files.kinds[row] == Kind.UNRECOGNISED:
        yield Obstacle(
            Rule.UNRECOGNISED,
            "it is no cache name, so no cleaner ever touches it",
            "if it is rubbish, remove it by hand; if it should be cleaned, it needs "
            "the name that Nova gives such a file",
        )
        return
    if not files.regular[row]:
        yield Obstacle(
            Rule.NOT_REGULAR,
            "it is no regular file (a link, a directory, a device)",
            "look who made it, and remove it by hand",
        )
    if name in seen.holds:
        yield held(name)
    yield from used(court.said(lambda w: w.now or w.since))
    yield from _closed(court.plan.gate)
    yield from _open(court, name)
    yield from _linked(court, row)
    yield from _young(court, row)
    yield from _report_older(court, row)
    yield from _brake(court.plan)


def held(name: str) -> Obstacle:
    """Tell of an operator's hold."""
    return Obstacle(
        Rule.HELD,
        "an operator's hold keeps it",
        f"`sharedcache hold remove {name}`",
    )


_ENDS = {
    NodeState.LIVE: "no guest there may refer to it any more, running or stopped",
    NodeState.DEGRADED: "no guest there may refer to it any more, and the source that "
    "fails must answer again",
    NodeState.SEALED: "its last report is final while the host is off: start it, or "
    "expunge it",
    NodeState.MISSING: "its last report stands: start its agent, or expunge it if the "
    "host is off for good",
}


def used(words: tuple[Word, ...]) -> Iterator[Obstacle]:
    """Tell of uses, the present ones apart from those that are over."""
    for state, ends in _ENDS.items():
        there = [w for w in words if w.view.state is state]
        now = tuple(w.view.node for w in there if w.now)
        if now:
            yield Obstacle(
                Rule.USED, f"used by {listed(now)} ({state.value})", ends, now
            )
        over = tuple(w.view.node for w in there if not w.now)
        if over:
            live = state is NodeState.LIVE
            yield Obstacle(
                Rule.USED,
                f"used a while ago by {listed(over)} ({state.value})",
                "two rounds without a use: the leader raises them by itself"
                if live
                else ends,
                over,
            )


def _closed(gate: Gate) -> Iterator[Obstacle]:
    every = [r for r in gate.reasons if r.closes is Closes.ALL]
    for one in gate_obstacles(every, "the gate is closed"):
        if one.rule is not Rule.BRAKE:
            yield one


def gate_obstacles(reasons: Iterable[Reason], what: str) -> Iterator[Obstacle]:
    """Tell of the gate's reasons, those of one code together."""
    by_code: dict[Code, list[Reason]] = {}
    for reason in reasons:
        by_code.setdefault(reason.code, []).append(reason)
    for code, alike in by_code.items():
        more = f" (and {len(alike) - 1} more like it)" if len(alike) > 1 else ""
        subjects = tuple(reason.subject for reason in alike)
        yield Obstacle(
            Rule.BRAKE if code is Code.BRAKE else Rule.GATE_CLOSED,
            f"{what}: {code.value} ({listed(subjects)})",
            alike[0].message + more,
            subjects,
        )


def _open(court: Court, name: str) -> Iterator[Obstacle]:
    intended = {w.view.node for w in court.words if w.intends}
    mine = [e for e in court.seen.entries if e.name == name]
    if any(e.state is EntryState.INTENDED for e in mine):
        yield Obstacle(
            Rule.OUTCOME_OPEN,
            "a rename of this name is under way, or its outcome is unknown",
            "the leader settles it in its next pass",
        )
    if intended or any(e.restoring for e in mine):
        yield restoring(Rule.OUTCOME_OPEN, name, intended)


def restoring(rule: Rule, name: str, nodes: Iterable[str]) -> Obstacle:
    """Tell of a restore under way, by nodes or by an operator."""
    who = tuple(sorted(nodes))
    if who:
        return Obstacle(
            rule,
            f"{listed(who)} is restoring it",
            "that agent finishes it at its next look; see its log if it does not",
            who,
        )
    return Obstacle(
        rule,
        "an operator's restore is under way, or was cut short",
        f"`sharedcache quarantine restore {name}` finishes it",
    )


def _linked(court: Court, row: int) -> Iterator[Obstacle]:
    files = court.seen.files
    own = own_links(court.seen, files.inodes[row]) + _published(files, row)
    links = files.links[row]
    if links != 1 + own:
        yield Obstacle(
            Rule.LINKED,
            f"its inode has {links} names, of which {1 + own} are known",
            "remove the other names (`find -inum` on the storage), or let the leader "
            "finish with those in quarantine",
        )


def _published(files: FileTable, row: int) -> bool:
    """Whether a partial file is the very file that bears its whole name."""
    if files.kinds[row] != Kind.PARTIAL:
        return False
    whole, inode = lock_name(files.names[row]), files.inodes[row]
    return any(
        name == whole and other == inode
        for name, other in zip(files.names, files.inodes, strict=True)
    )


def _young(court: Court, row: int) -> Iterator[Obstacle]:
    files, seen = court.seen.files, court.seen
    if found_damaged(seen, row):
        return
    least_ns = court.policy.min_age_ns(Kind(files.kinds[row]))
    left_ns = least_ns - (seen.storage_now_ns - files.mtimes_ns[row])
    if left_ns > 0:
        yield Obstacle(
            Rule.TOO_YOUNG,
            f"it was touched within its minimum age of {spell(least_ns)}",
            f"nobody may touch it for another {spell(left_ns)}",
            left_ns=left_ns,
        )


def _report_older(court: Court, row: int) -> Iterator[Obstacle]:
    mtime_ns = court.seen.files.mtimes_ns[row]
    older = [
        view
        for view in court.seen.facts.nodes
        if isinstance(view.report, Report)
        and view.state is not NodeState.SEALED
        and mtime_ns >= view.report.storage_time_ns
    ]
    speaking = tuple(v.node for v in older if v.state is NodeState.LIVE)
    silent = tuple(v.node for v in older if v.state is not NodeState.LIVE)
    if speaking:
        yield Obstacle(
            Rule.REPORT_OLDER,
            f"it was touched after the last report of {listed(speaking)}",
            "these nodes must report once more: the leader asks for it by itself",
            speaking,
        )
    if silent:
        yield Obstacle(
            Rule.REPORT_OLDER,
            f"it was touched after the last report of {listed(silent)}",
            "these nodes must report in full once more, or be expunged if they are "
            "gone for good",
            silent,
        )


def _brake(plan: Plan) -> Iterator[Obstacle]:
    for reason in plan.gate.reasons:
        if reason.code is Code.BRAKE:
            yield Obstacle(
                Rule.BRAKE, "the brake holds the whole plan back", reason.message
            )


def own_links(seen: Observation, inode: int) -> int:
    """Count the names that an inode has in quarantine."""
    return sum(
        1 for e in seen.entries if e.baseline is not None and e.baseline.inode == inode
    )
