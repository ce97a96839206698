"""The cleaner: stands for election, and while it leads observes, plans and acts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from sharedcache import ledger
from sharedcache.cleaner.act import Actor, Pacer
from sharedcache.cleaner.brake import BrakeKeeper
from sharedcache.cleaner.damage import DamageKeeper
from sharedcache.cleaner.finalize import (
    RefusedError,
    finalize,
    finalized_act,
    publish_schema,
)
from sharedcache.cleaner.harvest import Harvest
from sharedcache.cleaner.inventory import InventoryKeeper
from sharedcache.cleaner.lead import take_office
from sharedcache.cleaner.observe import Observed, Observer
from sharedcache.cleaner.purge import Purger
from sharedcache.cleaner.renew import Renewer
from sharedcache.cleaner.settle import Settler
from sharedcache.cleaner.take import Taker
from sharedcache.cleaner.trail import Trail, tell
from sharedcache.cleaner.world import (
    CannotStandError,
    CleanerWorld,
    DeposedError,
    InterruptedPassError,
    Leadership,
    NotAuthorisedError,
    SpentEpochError,
)
from sharedcache.core import codec, rollout
from sharedcache.core.acts import subjects_of
from sharedcache.core.checker import PlanRejectedError, check_plan
from sharedcache.core.model import EntryState, Rollout
from sharedcache.core.plan import Plan, Purging, Renewing
from sharedcache.core.planner import make_plan, voices
from sharedcache.core.ports import (
    ConflictError,
    CoordinationError,
    FencedError,
    OutcomeUnknownError,
    StorageError,
)
from sharedcache.core.rate import Pace
from sharedcache.core.rounds import Confirmation, may_raise, raise_helps

Step = TypeVar("Step", Purging, Renewing)

MOST_DOUBLINGS = 20

STANDING_SHARE = 0.1
"""How often a cleaner stands for election, as a share of the session timeout."""


@dataclass(slots=True)
class CleanerService:
    """One cleaner.  ``step`` stands for election, or tends what it leads."""

    world: CleanerWorld
    harvest: Harvest = field(default_factory=Harvest)
    leadership: Leadership | None = None
    brakes: BrakeKeeper = field(default_factory=BrakeKeeper)
    inventory: InventoryKeeper = field(default_factory=InventoryKeeper)
    observer: Observer = field(init=False)
    pacer: Pacer = field(init=False)
    trail: Trail = field(init=False)
    damage: DamageKeeper = field(init=False)
    _next_pass: float = 0.0
    _next_raise: float = 0.0
    _standing: str = ""
    _spent: int = 0
    _not_before: float = 0.0
    _refused: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Put the parts together."""
        self.observer = Observer(
            self.world.coordination,
            self.world.storage,
            self.world.policy.missing_nodes,
            self.world.policy.schemas,
        )
        self.pacer = Pacer(Pace(self.world.policy.rate_per_s))
        self.trail = Trail(self.world)
        self.damage = DamageKeeper(self.world)

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
        if self.leadership is None:
            soon_s = policy.session_timeout_s
        try:
            leadership = self.leadership or self._stand()
            if leadership is None:
                return max(standing_s, self._not_before - self.world.clock.boottime())
            leadership.check()
            return self.tend(leadership)
        except (DeposedError, FencedError, ConflictError) as error:
            if _deposed(error):
                self.world.journal.event("standing-down", why=error)
                self.stand_down()
                return policy.session_timeout_s
            self._tell_failed(error)
        except CannotStandError as error:
            self._tell_standing(str(error))
            return standing_s
        except NotAuthorisedError as error:
            self.world.journal.event("pass-interrupted", why=error)
            self._refuse("authorise", error)
        except InterruptedPassError as error:
            self.world.journal.event("pass-interrupted", why=error)
        except PlanRejectedError as error:
            # The planner and the checker disagree: a defect, and no licence.
            self.world.journal.event("plan-rejected", why=error)
            self._refuse("plan", error)
            return policy.pass_interval_s
        except (
            CoordinationError,
            OutcomeUnknownError,
            StorageError,
            codec.RecordError,
        ) as error:
            self._tell_failed(error)
        return soon_s

    def _stand(self) -> Leadership | None:
        """Try once to take office, unless it is too early after a vain try."""
        if self.world.clock.boottime() < self._not_before:
            return None
        try:
            self.leadership = take_office(self.world)
        except SpentEpochError as error:
            self._tell_failed(error)
            self._wait_longer()
            return None
        if self.leadership is None:
            self._tell_standing("another leads")
        else:
            self._begin(self.leadership)
        return self.leadership

    def _wait_longer(self) -> None:
        """Stand again later, and later each time: every try uses up an epoch.

        A full disk may stay full for days, and each number leaves a file.
        """
        policy = self.world.policy
        wait_s = policy.session_timeout_s * 2.0 ** min(self._spent, MOST_DOUBLINGS)
        wait_s = min(wait_s, policy.pass_interval_s)
        self._spent += 1
        self._not_before = self.world.clock.boottime() + wait_s

    def _tell_failed(self, error: Exception) -> None:
        self.world.journal.event("pass-failed", error=error, kind=type(error).__name__)

    def _refuse(self, asked: str, why: Exception) -> None:
        """Have on record that this leader was refused something."""
        if self.leadership is not None:
            self.trail.refuse(self.leadership, asked, str(why))

    def _tell_standing(self, why: str) -> None:
        """Tell once why this cleaner does not lead."""
        if why != self._standing:
            self._standing = why
            self.world.journal.event(
                "standing-for-election", cleaner=self.world.name, why=why
            )

    def stand_down(self) -> None:
        """Give the office back; another cleaner, or this one, can win it anew."""
        self.leadership = None
        self.world.coordination.resign()

    def _begin(self, leadership: Leadership) -> None:
        """Begin a leadership: a whole pass at once, a raise after its distance."""
        self.harvest.begin(leadership.epoch)
        self.trail.begin()
        self._standing = ""
        self._spent = 0
        self.brakes.begin()
        self.inventory.begin()
        now = self.world.clock.boottime()
        self._next_pass = now
        self._next_raise = now

    def tend(self, leadership: Leadership) -> float:
        """Make a pass if one is due, else tend rounds and purges only."""
        clock, policy = self.world.clock, self.world.policy
        began = clock.boottime()
        scan = began >= self._next_pass
        observed = self.observer.observe(scan=scan, epoch=leadership.epoch)
        if observed.epoch.value > leadership.epoch:
            raise DeposedError(f"ZooKeeper is at epoch {observed.epoch.value}")
        observed = self.brakes.recall(observed)
        plan = self._plan(observed, scan=scan)
        self.harvest.remember(self.world.journal, observed, plan, whole=scan)
        if scan:
            # A pass that fails half-way is not repeated more often than this.
            self._next_pass = began + min(
                policy.pass_interval_s, policy.session_timeout_s
            )
            # What nodes used is remembered before anything is done about it.
            self.brakes.settle(leadership, observed, plan, clock.wall())
        actor = Actor(leadership, observed, self.pacer, plan.digest)
        purger = Purger(actor, self.harvest.purged)
        if self._finish_open_matters(leadership, purger, plan, scan=scan) or (
            Renewer(actor, self.harvest.purged).renew(
                self._not_refused(plan.renew, began)
            )
        ):
            if scan:
                self._next_pass = began
            return 0.0
        # Each act looks at the lease and the roster again before each step.
        again = purger.purge(self._not_refused(plan.purge, began))
        self._note_refusals(leadership, plan, began)
        Taker(actor, self.harvest.taken).quarantine(plan.take)
        if scan:
            self._next_pass = clock.boottime() + policy.pass_interval_s
        if plan.gate.open:
            self._raise_if_it_helps(actor, observed, plan)
        if scan:
            self.harvest.tell_pass(self.world.journal, clock.boottime() - began)
            self.trail.tend(leadership, self.harvest.done)
            self.damage.tend(leadership, observed)
        wait = 0.0 if again else policy.round_interval_s
        return max(0.0, min(wait, self._next_pass - clock.boottime()))

    def _plan(self, observed: Observed, *, scan: bool) -> Plan:
        """Plan and check; a brake of the last whole pass stands until the next."""
        policy, seen = self.world.policy, observed.seen
        plan = make_plan(policy, seen)
        check_plan(policy, seen, plan)
        if not scan:
            plan, due = self.brakes.between(observed, plan)
            if due:
                self.pass_now()
        return plan

    def _not_refused(self, steps: Iterable[Step], now: float) -> list[Step]:
        """Leave out what the storage refused to do a short while ago."""
        return [s for s in steps if self._refused.get(s.entry.entry, 0.0) <= now]

    def _note_refusals(self, leadership: Leadership, plan: Plan, now: float) -> None:
        """Try what was refused again after a whole pass's time, not before."""
        refused = self.harvest.purged.refused
        entries = [p.entry for p in plan.purge if p.entry.entry in refused]
        if entries:
            why = refused[entries[0].entry]
            self.trail.refuse(leadership, "purge", why, subjects_of(entries))
        retry_at = now + self.world.policy.pass_interval_s
        self._refused.update(dict.fromkeys(refused, retry_at))
        refused.clear()

    def pass_now(self) -> None:
        """Make the next step a whole pass."""
        self._next_pass = self.world.clock.boottime()

    def _finish_open_matters(
        self, leadership: Leadership, purger: Purger, plan: Plan, *, scan: bool
    ) -> bool:
        """Finish what an earlier pass left open; tell whether to look again."""
        observed = purger.actor.observed
        self._keep_rollout(leadership, observed, scan=scan)
        if scan and self.inventory.tend(leadership, observed):
            return True
        if plan.gate.purge_open and purger.resume():
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

    def _keep_rollout(
        self, leadership: Leadership, observed: Observed, *, scan: bool
    ) -> None:
        """Keep the storage's copy of the finalized schema, and finalize if told to."""
        found = observed.rollout
        if not isinstance(found, Rollout):
            return
        if scan:
            publish_schema(self.world.storage, found)
        if not self.world.policy.auto_finalize:
            return
        facts = observed.seen.facts
        status = rollout.status(found.finalized_schema, facts.nodes, facts.schemas)
        if status.stage is not rollout.Stage.READY or observed.held is not None:
            return
        try:
            done = finalize(
                self.world.coordination,
                self.world.storage,
                observed,
                self.world.name,
                self.world.clock.wall(),
                epoch=leadership.epoch,
            )
        except RefusedError as error:
            self.world.journal.event("not-finalized", why=error)
            self.trail.refuse(leadership, "finalize", str(error))
            return
        self.world.journal.event("finalized-automatically")
        tell(self.world.journal, [finalized_act(done, leadership.epoch)])

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


def _deposed(error: Exception) -> bool:
    """Whether the office is lost.

    Every transaction of a leader checks the epoch's record, so one that somebody
    else wrote would let none of them through again.
    """
    return not isinstance(error, ConflictError) or error.path == ledger.EPOCH
