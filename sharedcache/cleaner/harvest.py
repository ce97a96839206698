"""What a cleaner has done so far, and how it tells of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sharedcache.cleaner.act import Purged, Taken
from sharedcache.cleaner.observe import Observed
from sharedcache.core.gate import Gate
from sharedcache.core.plan import Plan, Verdict
from sharedcache.core.ports import Journal


@dataclass(slots=True)
class Harvest:
    """What this cleaner has done so far, over all its passes.

    ``plan`` is the last whole pass's, ``latest`` the last one of all, which may
    have judged the quarantine alone.
    """

    epoch: int = 0
    gate: Gate | None = None
    plan: Plan | None = None
    latest: Plan | None = None
    observed: Observed | None = None
    taken: Taken = field(default_factory=Taken)
    purged: Purged = field(default_factory=Purged)
    passes: int = 0
    _told: frozenset[tuple[str, str]] | None = None
    _counts: tuple[int, ...] = (0, 0, 0, 0, 0)

    @property
    def done(self) -> int:
        """How many files this cleaner took and purged."""
        return len(self.taken.names) + len(self.purged.names)

    def begin(self, epoch: int) -> None:
        """Begin a leadership: its gate is told whatever the last one's was."""
        self.epoch = epoch
        self._told = None

    def remember(
        self, journal: Journal, observed: Observed, plan: Plan, *, whole: bool
    ) -> None:
        """Keep what was seen and planned; tell of the gate when it changed."""
        self.observed, self.latest, self.gate = observed, plan, plan.gate
        if whole:
            self.plan = plan
        reasons = frozenset((r.code.value, r.subject) for r in plan.gate.reasons)
        if reasons == self._told:
            return
        self._told = reasons
        for reason in plan.gate.reasons:
            journal.event(
                "gate-closed",
                code=reason.code.value,
                closes=reason.closes.value,
                subject=reason.subject,
                message=reason.message,
            )
        if not reasons:
            journal.event("gate-open")

    def tell_pass(self, journal: Journal, seconds: float) -> None:
        """Tell the whole story since the pass before, in one line."""
        plan, observed = self.plan, self.observed
        if plan is None or observed is None:
            return
        self.passes += 1
        before, self._counts = self._counts, self._count()
        done = [now - then for now, then in zip(self._counts, before, strict=True)]
        gate = "open" if plan.gate.purge_open else "purging closed"
        journal.event(
            "pass",
            epoch=self.epoch,
            gate=gate if plan.gate.open else "closed",
            reasons=len(plan.gate.reasons),
            files=len(observed.seen.files),
            kept=sum(1 for v in plan.verdicts if v == Verdict.KEEP) + done[4],
            quarantined=done[0],
            quarantined_bytes=done[1],
            purged=done[2],
            purged_bytes=done[3],
            waiting=len(plan.waiting),
            seconds=round(seconds, 3),
        )

    def _count(self) -> tuple[int, ...]:
        taken, purged = self.taken, self.purged
        return (
            len(taken.names),
            taken.size,
            len(purged.names),
            purged.size,
            len(taken.kept),
        )
