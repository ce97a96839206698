"""The cleaner: stands for election, and while it leads observes, plans and acts."""

from __future__ import annotations

from dataclasses import dataclass, field

from sharedcache.cleaner.act import Actor, Purged, Taken
from sharedcache.cleaner.finalize import finalize, publish_schema
from sharedcache.cleaner.lead import take_office
from sharedcache.cleaner.observe import Observed, Observer
from sharedcache.cleaner.settle import Settler
from sharedcache.cleaner.world import (
    CleanerWorld,
    DeposedError,
    InterruptedPassError,
    Leadership,
)
from sharedcache.core import codec, rollout
from sharedcache.core.checker import PlanRejectedError, check_plan
from sharedcache.core.gate import Gate
from sharedcache.core.model import EntryState, Rollout
from sharedcache.core.plan import Plan, Verdict
from sharedcache.core.planner import make_plan, voices
from sharedcache.core.ports import (
    CoordinationError,
    FencedError,
    OutcomeUnknownError,
    StorageError,
)
from sharedcache.core.rounds import Confirmation, may_raise, raise_helps

STANDING_SHARE = 0.1
"""How often a cleaner stands for election, as a share of the session timeout."""


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


@dataclass(slots=True)
class CleanerService:
    """One cleaner.  ``step`` stands for election, or tends what it leads."""

    world: CleanerWorld
    harvest: Harvest = field(default_factory=Harvest)
    leadership: Leadership | None = None
    observer: Observer = field(init=False)
    _next_pass: float = 0.0
    _next_raise: float = 0.0
    _standing: bool = False
    _told: frozenset[tuple[str, str]] | None = None

    def __post_init__(self) -> None:
        """Put the parts together."""
        self.observer = Observer(
            self.world.coordination,
            self.world.storage,
            self.world.policy.missing_nodes,
        )

    def step(self) -> float:
        """Do what is due; return how long to wait at most, in seconds.

        Everything that goes wrong is told and met by looking again; doubt
        about the office is met by standing down.
        """
        policy = self.world.policy
        standing_s = policy.session_timeout_s * STANDING_SHARE
        # A takeover uses up an epoch, so one that failed is not tried again
        # at once.
        soon_s = min(standing_s, policy.round_interval_s)
        try:
            if self.leadership is None:
                soon_s = policy.session_timeout_s
                self.leadership = take_office(self.world)
                if self.leadership is None:
                    self._tell_standing()
                    return standing_s
                self._begin(self.leadership)
            self.leadership.check()
            return self.tend(self.leadership)
        except (DeposedError, FencedError) as error:
            self.world.journal.event("standing-down", why=error)
            self.stand_down()
            return policy.session_timeout_s
        except InterruptedPassError as error:
            self.world.journal.event("pass-interrupted", why=error)
        except PlanRejectedError as error:
            # The planner and the checker disagree: a defect, and no licence.
            self.world.journal.event("plan-rejected", why=error)
            return policy.pass_interval_s
        except (
            CoordinationError,
            OutcomeUnknownError,
            StorageError,
            codec.RecordError,
        ) as error:
            self.world.journal.event(
                "pass-failed", error=error, kind=type(error).__name__
            )
        return soon_s

    def _tell_standing(self) -> None:
        """Tell once that this cleaner stands by, whoever leads."""
        if not self._standing:
            self._standing = True
            self.world.journal.event("standing-for-election", cleaner=self.world.name)

    def stand_down(self) -> None:
        """Give the office back; another cleaner, or this one, can win it anew."""
        self.leadership = None
        self.world.coordination.resign()

    def _begin(self, leadership: Leadership) -> None:
        """Begin a leadership: a whole pass at once, a raise after its distance."""
        self.harvest.epoch = leadership.epoch
        self._standing = False
        now = self.world.clock.boottime()
        self._next_pass = now
        self._next_raise = now
        self._told = None

    def tend(self, leadership: Leadership) -> float:
        """Make a pass if one is due, else tend rounds and purges only."""
        clock, policy = self.world.clock, self.world.policy
        began = clock.boottime()
        scan = began >= self._next_pass
        observed = self.observer.observe(scan=scan, epoch=leadership.epoch)
        plan = make_plan(policy, observed.seen)
        check_plan(policy, observed.seen, plan)
        self._remember(observed, plan, scan=scan)
        actor = Actor(leadership, observed)
        if self._finish_open_matters(leadership, actor, plan, scan=scan):
            return 0.0
        # Each act looks at the lease and the roster again before each step.
        purged = actor.purge(plan.purge)
        self._add_purged(purged)
        taken = actor.quarantine(plan.take)
        self._add_taken(taken)
        if plan.gate.open:
            self._raise_if_it_helps(actor, observed, plan)
        if scan:
            self._next_pass = clock.boottime() + policy.pass_interval_s
            self.harvest.passes += 1
            self._tell_pass(observed, plan, taken, purged, clock.boottime() - began)
        again = purged.again or len(plan.purge) > policy.batch
        wait = 0.0 if again else policy.round_interval_s
        return max(0.0, min(wait, self._next_pass - clock.boottime()))

    def pass_now(self) -> None:
        """Make the next step a whole pass."""
        self._next_pass = self.world.clock.boottime()

    def _finish_open_matters(
        self, leadership: Leadership, actor: Actor, plan: Plan, *, scan: bool
    ) -> bool:
        """Finish what an earlier pass left open; tell whether to look again."""
        observed = actor.observed
        self._keep_rollout(observed, scan=scan)
        if plan.gate.purge_open and actor.resume(self.harvest.purged):
            return True
        entries = list(observed.seen.entries)
        unsettled = any(
            e.state is EntryState.INTENDED or e.epoch != leadership.epoch
            for e in entries
        )
        if not unsettled and not scan:
            return False
        leadership.check()
        return Settler(leadership).settle_open(observed.seen.manifest)

    def _keep_rollout(self, observed: Observed, *, scan: bool) -> None:
        """Keep the storage's copy of the finalized schema, and finalize if told to."""
        found = observed.rollout
        if not isinstance(found, Rollout):
            return
        if scan:
            publish_schema(self.world.storage, found)
        if not self.world.policy.auto_finalize:
            return
        status = rollout.status(found.finalized_schema, observed.seen.facts.nodes)
        if status.stage is rollout.Stage.READY:
            finalize(
                self.world.coordination,
                self.world.storage,
                observed,
                self.world.name,
                self.world.clock.wall(),
            )
            self.world.journal.event("finalized-automatically")

    def _raise_if_it_helps(self, actor: Actor, observed: Observed, plan: Plan) -> None:
        """Raise the round when all have reported it and a higher one is of use."""
        clock = self.world.clock
        heard = voices(observed.seen.facts)
        if clock.boottime() < self._next_raise:
            return
        if not may_raise(observed.seen.round, heard):
            return
        proof = Confirmation.of(heard)
        if plan.fresh_reports or raise_helps(observed.seen.entries, heard, proof):
            number = actor.raise_round()
            self._next_raise = clock.boottime() + self.world.policy.round_interval_s
            self.world.journal.event("round-raised", round=number)
            if plan.fresh_reports:
                # The files that waited for younger reports are judged again
                # as soon as those are in.
                self._next_pass = min(self._next_pass, self._next_raise)

    def _remember(self, observed: Observed, plan: Plan, *, scan: bool) -> None:
        self.harvest.observed = observed
        self.harvest.gate = plan.gate
        self.harvest.latest = plan
        if scan:
            self.harvest.plan = plan
        reasons = frozenset((r.code.value, r.subject) for r in plan.gate.reasons)
        if reasons == self._told:
            return
        self._told = reasons
        for reason in plan.gate.reasons:
            self.world.journal.event(
                "gate-closed",
                code=reason.code.value,
                closes=reason.closes.value,
                subject=reason.subject,
                message=reason.message,
            )
        if not reasons:
            self.world.journal.event("gate-open")

    def _add_purged(self, purged: Purged) -> None:
        self.harvest.purged.names.extend(purged.names)
        self.harvest.purged.size += purged.size
        for name in purged.names:
            self.world.journal.event("purged", file=name, epoch=self.harvest.epoch)

    def _add_taken(self, taken: Taken) -> None:
        self.harvest.taken.names.extend(taken.names)
        self.harvest.taken.size += taken.size
        self.harvest.taken.kept.update(taken.kept)
        for name in taken.names:
            self.world.journal.event("quarantined", file=name, epoch=self.harvest.epoch)

    def _tell_pass(
        self,
        observed: Observed,
        plan: Plan,
        taken: Taken,
        purged: Purged,
        seconds: float,
    ) -> None:
        """Tell the whole story of a pass in one line."""
        gate = "open" if plan.gate.purge_open else "purging closed"
        if not plan.gate.open:
            gate = "closed"
        self.world.journal.event(
            "pass",
            epoch=self.harvest.epoch,
            gate=gate,
            reasons=len(plan.gate.reasons),
            files=len(observed.seen.files),
            kept=sum(1 for v in plan.verdicts if v == Verdict.KEEP) + len(taken.kept),
            quarantined=len(taken.names),
            quarantined_bytes=taken.size,
            purged=len(purged.names),
            purged_bytes=purged.size,
            waiting=len(plan.waiting),
            seconds=round(seconds, 3),
        )
