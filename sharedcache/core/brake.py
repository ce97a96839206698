"""The brakes: what stops a pass until an operator has looked at it.

A pass that would take more than its share of the files, and one that follows
a sudden shrink of the reported uses, does nothing.  An approval lets exactly
that plan pass: it names the digest of the files and of the shrinks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sharedcache.core.gate import Closes, Code, Reason
from sharedcache.core.model import FileTable, Unreadable
from sharedcache.core.names import Kind
from sharedcache.core.plan import Observation, Shrink, Taking
from sharedcache.core.policy import CleanerPolicy
from sharedcache.core.shrink import shrinks


@dataclass(frozen=True, slots=True)
class Brakes:
    """The brakes of one plan: none if ``reasons`` is empty."""

    digest: str
    reasons: tuple[Reason, ...] = ()
    shrunk: tuple[Shrink, ...] = ()


def brakes(policy: CleanerPolicy, seen: Observation, take: Sequence[Taking]) -> Brakes:
    """Judge what a pass would take, and the reports on whose strength."""
    shrunk = shrinks(policy, seen)
    digest = plan_digest(take, shrunk, seen.remembered)
    if seen.approved == digest:
        return Brakes(digest)
    reasons: list[Reason] = []
    advice = f"`sharedcache approve {digest[:12]}`"
    left = all(taking.name in seen.begun for taking in take)
    if braked(policy, seen.files, take) and not left:
        what = f"a pass would take {len(take)} of {len(seen.files)} files, more than "
        reasons.append(
            _brake(
                "plan",
                f"{what}its share: look at `sharedcache plan --all`, then {advice}",
            )
        )
    reasons.extend(_brake(shrink.node, f"{_told(shrink)}{advice}") for shrink in shrunk)
    if isinstance(seen.remembered, Unreadable):
        why = f"what nodes used before cannot be read ({seen.remembered.why}): "
        reasons.append(
            _brake("memory", f"{why}look at `sharedcache node list`, then {advice}")
        )
    return Brakes(digest, tuple(reasons), shrunk)


def _brake(subject: str, message: str) -> Reason:
    return Reason(Code.BRAKE, Closes.ALL, subject, message)


def _told(shrink: Shrink) -> str:
    return (
        f"{shrink.node} reports {shrink.now} used files, {shrink.was} before, and "
        f"nobody uses {len(shrink.lost)} of them now: look at that host (are its "
        "instances mounted? Was a driver started again, and has yet to declare its "
        "uses?); if they are gone for good, "
    )


def braked(policy: CleanerPolicy, files: FileTable, take: Sequence[Taking]) -> bool:
    """Whether a pass would take more than its share, above the floor."""
    recognised = len(files) - files.kinds.count(Kind.UNRECOGNISED)
    share = len(take) * 100 > policy.max_share_percent * recognised
    return share and len(take) > policy.max_share_floor


def plan_digest(
    take: Sequence[Taking],
    shrunk: Sequence[Shrink] = (),
    remembered: object = None,
) -> str:
    """Digest to which an approval binds.

    It covers the names that a pass would take and, if there are shrinks, whose
    reports they are and what was lost with them.
    """
    state = hashlib.sha256()
    for name in sorted(taking.name for taking in take):
        state.update(name.encode() + b"\n")
    for shrink in sorted(shrunk, key=lambda s: s.node):
        for key in sorted(shrink.lost):
            state.update(f"{shrink.node} lost {key.hex()}\n".encode())
    if isinstance(remembered, Unreadable):
        state.update(b"nothing is remembered\n")
    return state.hexdigest()
