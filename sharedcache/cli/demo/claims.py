"""What the demo claims, and what of it was observed."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field


class Claim(enum.Enum):
    """Everything that the demo says about the program, in the order of the story."""

    ELECTED = "one of two cleaners was elected, and the other stands by"
    CLOSED = "compute-3's old kernel naming closed the gate, by name"
    STAGES = "`rollout status` named who is not ready, and who writes early"
    REFUSED = "`rollout finalize` was refused and named compute-3"
    UNTOUCHED = "the leader passed over a closed gate and took nothing"
    READY = "once compute-3 was upgraded the rollout was ready"
    NOT_YET = "the gate stayed closed until an operator finalized"
    OPENED = "finalizing opened the gate"
    QUARANTINED = "exactly the unused files were quarantined, whole"
    CONFIRMED = "every node looked twice after the rename before any unlink"
    PURGED = "all of them were purged after that"
    OLD_KEPT = "a file in use was kept although nobody touched it for years"
    YOUNG_KEPT = "an unused file below its minimum age was kept"
    UNKNOWN_KEPT = "a file whose name is not a cache name was left alone"
    USED_KEPT = "every other file in use was kept, under both kernel namings"
    DOWNGRADE = "an agent told to write raw ids refused to start, and closed the gate"
    LOST = "a host that is lost closes purging, by name, and nothing else"
    PROTECTED = "what a lost host uses is kept"
    TAKEN_OVER = "the leader was killed, and the other cleaner went on"
    SEALED = "the successor sealed its predecessor on the storage itself"
    RESTORED = "a quarantined file that was wanted again got its name back, unchanged"
    LIVE_STAYS = "`node expunge` was refused for a live node"
    EXPUNGED = "an expunged host holds nothing back, and what it alone used goes"
    DISKS_OPEN = "every remaining guest disk opens, on the same bytes as at the start"
    FREED = "the file system gave back the bytes of the purged files, and no more"
    STOPPED = "agents and cleaners stopped when asked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one claim: whether it was observed, and by what."""

    observed: bool
    evidence: str


@dataclass(slots=True)
class Claims:
    """Keeps the findings; a claim that was never looked at was not observed."""

    _findings: dict[Claim, Finding] = field(default_factory=dict)

    def check(self, claim: Claim, observed: bool, evidence: str) -> None:  # noqa: FBT001 - the value is the point
        """Record a look at a claim; one look that fails is not mended by another."""
        before = self._findings.get(claim)
        if before is not None and not before.observed:
            return
        if before is not None and observed:
            evidence = f"{before.evidence}; {evidence}"
        self._findings[claim] = Finding(observed, evidence)

    def __iter__(self) -> Iterator[tuple[Claim, Finding]]:
        """Every claim with its finding, in the order of the story."""
        for claim in Claim:
            yield (
                claim,
                self._findings.get(claim, Finding(False, "the demo did not get there")),
            )

    @property
    def failed(self) -> list[Claim]:
        """The claims that were not observed."""
        return [claim for claim, finding in self if not finding.observed]
