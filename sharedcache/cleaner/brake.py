"""The leader under its brakes: what it keeps of them, and what it tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sharedcache import audit, ledger
from sharedcache.cleaner import trail
from sharedcache.cleaner.observe import Observed
from sharedcache.cleaner.world import DeposedError, Leadership
from sharedcache.core import brakecodec, codec
from sharedcache.core.acts import Act, Deed, Subject
from sharedcache.core.brakecodec import BrakeNote
from sharedcache.core.gate import Code, Gate
from sharedcache.core.model import Unreadable
from sharedcache.core.plan import Plan, Remembered, Verdict, Why
from sharedcache.core.ports import ConflictError, Operation, Set
from sharedcache.core.shrink import remember

MOST_TOLD = 50
"""How many reasons of one brake are written down, so that the record fits."""


@dataclass(slots=True)
class BrakeKeeper:
    """Keeps the brake of the last whole pass, and the memory of uses."""

    _standing: BrakeNote | None = None
    _begun: tuple[str, frozenset[str]] | None = None
    _ready: bool = False

    def begin(self) -> None:
        """Begin a leadership: nothing was judged yet."""
        self._standing = self._begun = None
        self._ready = False

    def recall(self, observed: Observed) -> Observed:
        """Add what is left of an approved plan that was interrupted.

        Without that an approved plan that is stopped half-way, by a node that
        joins or by its rate, would need a new approval for what is left of it.
        """
        seen = observed.seen
        if self._begun is None or seen.approved != self._begun[0]:
            return observed
        return replace(observed, seen=replace(seen, begun=self._begun[1]))

    def between(self, observed: Observed, plan: Plan) -> tuple[Plan, bool]:
        """Judge a plan that was made between whole passes.

        Returns the plan, and whether a whole pass is due at once.  No file was
        looked at, so the brake of the last whole pass stands until the next.
        A shrink is seen between passes too; its digest needs a whole pass.
        """
        if self._standing is None:
            return plan, _brakes(plan.gate)
        others = [r for r in plan.gate.reasons if r.code is not Code.BRAKE]
        gate = Gate((*others, *self._standing.reasons))
        approved = observed.seen.approved == self._standing.digest
        return replace(plan, gate=gate, take=(), purge=(), renew=()), approved

    def settle(
        self, leadership: Leadership, observed: Observed, plan: Plan, now: float
    ) -> None:
        """Write down, after a whole look and before any step, what must be known.

        Memory and brake are written only if they changed, in one transaction
        that checks the epoch.  ``now`` is for people to read.
        """
        self._standing = _note(leadership.epoch, plan, now)
        if plan.take and observed.seen.approved == plan.digest:
            self._begun = plan.digest, frozenset(taking.name for taking in plan.take)
        writes: list[Operation] = []
        acts: list[Act] = []
        memory = _memory(observed, plan)
        if memory is not None:
            before = leadership.world.coordination.get(ledger.MEMORY)
            data = ledger.renewed_data(
                b"" if before is None else before.data,
                brakecodec.memory_to_record(memory),
            )
            writes.append(Set(ledger.MEMORY, data, None))
        if not _same(self._standing, observed.brake):
            told = self._standing
            data = b"" if told is None else codec.pack(brakecodec.brake_to_record(told))
            writes.append(Set(ledger.BRAKE, data, None))
            acts = _acts(leadership, told, observed.brake, now)
        if writes:
            self._write(leadership, audit.riding(writes, acts))
            trail.tell(leadership.world.journal, acts)

    def _write(self, leadership: Leadership, writes: list[Operation]) -> None:
        coordination = leadership.world.coordination
        if not self._ready:
            # A tree that an earlier release founded has no such records.
            for path in (ledger.MEMORY, ledger.BRAKE):
                coordination.ensure(path)
            self._ready = True
        try:
            coordination.commit([*leadership.conditions(), *writes])
        except ConflictError as error:
            raise DeposedError(f"a successor leads: {error}") from error


def as_the_leader_tells(observed: Observed, plan: Plan) -> Plan:
    """Let an onlooker's plan speak of the brake that the leader itself is under.

    An onlooker plans by its own settings and may come to another brake, or to
    none; what counts, and what can be approved, is the leader's.
    """
    note = standing(observed)
    if note is None or observed.seen.approved == note.digest:
        return plan
    others = [r for r in plan.gate.reasons if r.code is not Code.BRAKE]
    verdicts, whys = plan.verdicts[:], plan.whys[:]
    for row, verdict in enumerate(verdicts):
        if verdict == Verdict.QUARANTINE:
            verdicts[row], whys[row] = Verdict.KEEP, Why.BRAKE
    subjects = tuple(f"gate: brake {reason.subject}" for reason in note.reasons)
    held = {purging.entry.entry: subjects for purging in plan.purge}
    return replace(
        plan,
        gate=Gate((*others, *note.reasons)),
        digest=note.digest,
        verdicts=verdicts,
        whys=whys,
        take=(),
        purge=(),
        renew=(),
        waiting=plan.waiting | held,
    )


def standing(observed: Observed) -> BrakeNote | None:
    """Return the brake that the present leader is under, as it told of it."""
    note = observed.brake
    if note is None or observed.leader is None or note.epoch != observed.epoch.value:
        return None
    return note


def _brakes(gate: Gate) -> bool:
    return any(reason.code is Code.BRAKE for reason in gate.reasons)


def _note(epoch: int, plan: Plan, now: float) -> BrakeNote | None:
    """Return what to tell of a plan's brake; ``None`` if there is none."""
    reasons = tuple(r for r in plan.gate.reasons if r.code is Code.BRAKE)
    if not reasons:
        return None
    files = sum(1 for why in plan.whys if why == Why.BRAKE)
    return BrakeNote(epoch, plan.digest, files, reasons[:MOST_TOLD], now)


def _same(one: BrakeNote | None, other: BrakeNote | None) -> bool:
    """Whether two notes tell the same, whenever that was."""
    if one is None or other is None:
        return one is other
    return one == replace(other, at=one.at)


def _acts(
    leadership: Leadership, told: BrakeNote | None, before: BrakeNote | None, now: float
) -> list[Act]:
    """Tell of a brake that came, that is another one than before, or that ended.

    While the same nodes or the plan brake, the plan's digest may change with
    every pass; that alone is not told again.
    """
    was = set() if before is None else {r.subject for r in before.reasons}
    here = set() if told is None else {r.subject for r in told.reasons}
    if was == here:
        return []
    deed = Deed.BRAKED if told is not None else Deed.BRAKE_ENDED
    why = "" if told is None else "; ".join(r.message for r in told.reasons)
    subjects = tuple(Subject(name) for name in sorted(here or was))
    by = trail.doer(leadership.world, leadership.epoch)
    digest = None if told is None else told.digest
    return [Act(deed, by, now, why, subjects, plan=digest)]


def _memory(observed: Observed, plan: Plan) -> Mapping[str, Remembered] | None:
    """Return what is to be remembered, ``None`` if that is known already.

    A memory that cannot be read stays until an operator has approved that it
    is begun anew.  While the storage gives no time, or is another cluster's,
    nothing is remembered.
    """
    seen = observed.seen
    if seen.facts.on_storage != seen.facts.in_zookeeper or not seen.storage_now_ns:
        return None
    if isinstance(seen.remembered, Unreadable) and _brakes(plan.gate):
        return None
    memory = remember(seen, plan.shrunk)
    return None if memory == seen.remembered else memory
