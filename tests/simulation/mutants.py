"""Protections of the shipped code, each switched off in turn.

A simulation that cannot fail shows nothing.  Every mutant replaces a function
of a shipped module for the length of a run; nothing in the shipped code knows
of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sharedcache import ledger
from sharedcache.cleaner import (
    act,
    lead,
    observe,
    operator,
    purge,
    service,
    settle,
    take,
)
from sharedcache.cleaner import restore as operator_restore
from sharedcache.core import gate, names, planner, rounds, window
from sharedcache.core.model import Uses
from sharedcache.core.policy import MissingNodes
from sharedcache.core.ports import (
    Check,
    Create,
    NameExistsError,
    OutcomeUnknownError,
    StorageError,
)
from sharedcache.node import look, restore
from sharedcache.node import publish as node_publish
from sharedcache.node import service as node_service
from tests.simulation import daemons, process
from tests.simulation.memory_storage import MemoryStorage
from tests.simulation.memory_zookeeper import MemorySession


COUNTERS = (ledger.ROSTER_COUNTER, ledger.VETO_COUNTER)


class Patch:
    """Replacements that are taken back together."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def set(self, where: Any, name: str, value: object) -> Any:
        """Replace an attribute; return what it was."""
        before = vars(where)[name]
        self._before.append((where, name, before))
        setattr(where, name, value)
        return before

    def undo(self) -> None:
        """Put everything back."""
        for where, name, value in reversed(self._before):
            setattr(where, name, value)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule taken out: what it is, what it serves, how."""

    name: str
    rule: str
    serves: str
    apply: Callable[[Patch], None]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Take the rule out for the length of a block."""
        patch = Patch()
        try:
            self.apply(patch)
            yield
        finally:
            patch.undo()


MUTANTS: dict[str, Mutant] = {}


def _mutant(
    rule: str, serves: str = "I1"
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
        name = apply.__name__.replace("_", "-")
        MUTANTS[name] = Mutant(name, rule, serves, apply)
        return apply

    return register


def _no_checker(patch: Patch) -> None:
    """Let plans go unchecked, where the checker knows the same rule."""
    patch.set(service, "check_plan", lambda *_: None)


# Rounds and windows.


@_mutant("no `since` in reports")
def no_since(patch: Patch) -> None:
    """Say only what is used now."""
    real = window.Windows.coverage

    def coverage(self: window.Windows) -> window.Coverage:
        return replace(real(self), since=Uses())

    patch.set(window.Windows, "coverage", coverage)


@_mutant("the window's round is read before the looks")
def round_before(patch: Patch) -> None:
    """Claim that a window began before it did."""
    real = look.Looker._take

    def take_(self: look.Looker, one: window.Look) -> None:
        real(self, replace(one, reread=one.upto))

    patch.set(look.Looker, "_take", take_)


@_mutant("the report's round is read after the looks")
def round_after(patch: Patch) -> None:
    """Claim that the looks came after a round that was raised during them."""
    real, take_in = look.Looker.look, look.Looker._take
    reread: list[int] = []

    def take_(self: look.Looker, one: window.Look) -> None:
        reread[:] = [one.reread]
        take_in(self, one)

    def look_(self: look.Looker, ground: look.Ground) -> look.Sight:
        sight = real(self, ground)
        object.__setattr__(ground, "round", max(ground.round, *reread))
        return sight

    patch.set(look.Looker, "_take", take_)
    patch.set(look.Looker, "look", look_)


@_mutant("two clean looks, no common round")
def no_common(patch: Patch) -> None:
    """Confirm what every node has looked for after the rename, each in its time."""
    _no_checker(patch)
    real = rounds.Confirmation.of

    def of(voices: rounds.Voices) -> rounds.Confirmation:
        proof = real(voices)
        speaking = voices.speaking
        if proof.proven or voices.silent or not speaking:
            return proof
        if not all(r.complete and r.unbroken for r in speaking):
            return proof
        return replace(proof, proven=min(r.since_round for r in speaking))

    patch.set(rounds.Confirmation, "of", staticmethod(of))
    patch.set(service, "may_raise", lambda *_: True)


@_mutant("broken coverage counts")
def broken_coverage(patch: Patch) -> None:
    """Take a first look for a whole window."""
    real = window.Windows.coverage

    def coverage(self: window.Windows) -> window.Coverage:
        found = real(self)
        if found.unbroken or self.present is None:
            return found
        return replace(found, unbroken=True, since_round=self.present.upto - 1)

    patch.set(window.Windows, "coverage", coverage)


@_mutant("looks count from before the rename")
def old_look(patch: Patch) -> None:
    """Give every entry a round that was over before it."""
    real = settle.taken

    def taken(*args: Any) -> Any:
        return replace(real(*args), round=1)

    patch.set(settle, "taken", taken)
    patch.set(take, "taken", taken)
    rewrite = act.Actor.rewrite

    def rewrite_(self: act.Actor, name: str, change: act.Change, *rest: Any) -> None:
        rewrite(self, name, lambda entry, _: change(entry, 1), *rest)

    patch.set(act.Actor, "rewrite", rewrite_)


@_mutant("no look whether the name is gone")
def no_gone_check(patch: Patch) -> None:
    """Say that no quarantined name is seen."""
    patch.set(look.Looker, "_sees", lambda *_: frozenset())


@_mutant("the present round, not the next one")
def present_round(patch: Patch) -> None:
    """Give a batch the round in which it was renamed."""

    def record(self: take.Taker, batch: Any, outcome: Any) -> None:
        def change(entry: Any, next_round: int) -> Any:
            found = outcome.get(entry.entry, entry)
            if found is None or found.baseline is None:
                return found and entry
            marks = {"asked": entry.asked, "restoring": entry.restoring}
            return replace(found, round=next_round - 1, **marks)

        self.actor.rewrite(batch.batch, change)

    patch.set(take.Taker, "_record", record)


@_mutant("a restore's mark is lost as the rename is recorded")
def mark_lost(patch: Patch) -> None:
    """Record a rename as if nobody could have asked for the file meanwhile."""

    def record(self: take.Taker, batch: Any, outcome: Any) -> None:
        def change(entry: Any, next_round: int) -> Any:
            found = outcome.get(entry.entry, entry)
            if found is None or found.baseline is None:
                return found
            return replace(found, round=next_round)

        self.actor.rewrite(batch.batch, change)

    patch.set(take.Taker, "_record", record)


@_mutant("`since` only from the latest look of the round before")
def since_latest(patch: Patch) -> None:
    """Begin a window with what the last look of the round before saw."""
    real = window.Windows.after

    def after(self: window.Windows, one: window.Look) -> window.Windows:
        found = real(self, one)
        if found.present is None:
            return found
        only = replace(found.present, seen=one.seen, saw=one.sees)
        return window.Windows(found.before, only)

    patch.set(window.Windows, "after", after)


@_mutant("a name that was seen counts as of the latest look")
def saw_latest(patch: Patch) -> None:
    """Forget that a name could still be opened earlier in the window."""
    real = window.Windows.coverage

    def coverage(self: window.Windows) -> window.Coverage:
        return replace(real(self), saw=frozenset())

    patch.set(window.Windows, "coverage", coverage)


@_mutant("scans only, no events")
def no_events(patch: Patch) -> None:
    """See only what is there at the moment of a look."""
    patch.set(process.EventSource, "ended", lambda *_: None)


@_mutant("a source that fails says that nothing is used")
def silent_source(patch: Patch) -> None:
    """Take a source that does not answer for one that sees nothing."""
    real = process.EventSource.look

    def look_(self: process.EventSource) -> Uses:
        return Uses() if self.fails else real(self)

    patch.set(process.EventSource, "look", look_)


@_mutant("a report of a node whose sources failed counts")
def degraded_counts(patch: Patch) -> None:
    """Report without the failed source, as if all had answered."""
    real = node_service.NodeService._report

    def report(self: Any, *args: Any, **kw: Any) -> Any:
        return replace(real(self, *args, **kw), failures=())

    def sources(self: look.Looker, _: list[Any]) -> Uses:
        union = Uses()
        for source in self.world.sources:
            try:
                union |= source.look()
            except Exception:  # noqa: BLE001, S112 - that is the mutation
                continue
        return union

    patch.set(node_service.NodeService, "_report", report)
    patch.set(look.Looker, "_sources", sources)
    patch.set(look.Looker, "blind", property(lambda _: False))


# Restoring.


@_mutant("restore by rename", "I2")
def restore_by_rename(patch: Patch) -> None:
    """Take the quarantined name away when giving the cache name back."""

    def restore_(self: MemoryStorage, epoch: int, leaf: str, name: str) -> None:
        with self._acting(epoch, "restore") as there:
            self._regular(there, leaf)
            self.disk.rename(there, leaf, self.disk.base, name)

    patch.set(MemoryStorage, "restore", restore_)


@_mutant("no restore of what is used")
def no_restore(patch: Patch) -> None:
    """Leave used names in quarantine."""
    patch.set(restore.Restorer, "missing_entries", lambda *_: ())


@_mutant("a restore asks no authorisation")
def restore_unasked(patch: Patch) -> None:
    """Publish the intent without a look at the authorisation."""

    def publish_intent(self: Any, ground: Any, _: Any, report_with: Any) -> bool:
        self.publisher.publish(report_with(frozenset(self.intents)), ground.manifest)
        return True

    patch.set(restore.Restorer, "_publish_intent", publish_intent)


@_mutant("a restore publishes no intent")
def no_intent(patch: Patch) -> None:
    """Restore what is not authorised, and let nobody know before it is done."""

    def publish_intent(self: Any, _: Any, entry: Any, __: Any) -> bool:
        record = self.world.coordination.get(ledger.AUTHORISATION)
        return entry.entry not in ledger.authorisation_of(record).leaves

    patch.set(restore.Restorer, "_publish_intent", publish_intent)


@_mutant("an operator's restore is not marked")
def unmarked(patch: Patch) -> None:
    """Let an operator link a file without a word to the leader."""
    patch.set(operator_restore.OperatorRestore, "_mark", lambda *_: None)


@_mutant("a marked entry is authorised")
def mark_ignored(patch: Patch) -> None:
    """Confirm an entry that an operator restores."""
    _unasked(patch, marked=True)


def _unasked(patch: Patch, *, marked: bool) -> None:
    """Let leaders see no record that a restore was asked of an entry.

    ``marked`` tells of operators' marks only.
    """
    _no_checker(patch)
    real = observe.Observer.observe

    def seen(entry: Any) -> Any:
        if marked and not entry.restoring:
            return entry
        return replace(entry, asked=False, restoring=entry.restoring and not marked)

    def observe_(self: observe.Observer, **kw: Any) -> observe.Observed:
        found = real(self, **kw)
        batches = tuple(
            replace(batch, entries=tuple(seen(entry) for entry in batch.entries))
            for batch in found.seen.manifest
        )
        return replace(found, seen=replace(found.seen, manifest=batches))

    patch.set(observe.Observer, "observe", observe_)


@_mutant("no new name for a file that was asked to be restored")
def old_leaf(patch: Patch) -> None:
    """Let a file keep the name by which a link may be under way."""
    _unasked(patch, marked=False)


@_mutant("restore without the lock", "I2, I3")
def no_lock(patch: Patch) -> None:
    """Link whoever holds the name's lock."""

    def link(self: restore.Restorer, entry: Any) -> bool:
        try:
            self.world.storage.restore(entry.epoch, entry.leaf, entry.name)
        except NameExistsError:
            return True
        except (StorageError, OutcomeUnknownError):
            return False
        self._linked[entry.entry] = None
        return True

    patch.set(restore.Restorer, "_link", link)


# Taking over.


@_mutant("no seal", "I2")
def no_seal(patch: Patch) -> None:
    """Move entries, and leave the predecessors' directories open."""

    def seal(self: lead.Successor) -> None:
        storage = self.leadership.world.storage
        for number, sealed in storage.epochs().items():
            if number < self.leadership.epoch and not sealed:
                self._move_entries(number)

    patch.set(lead.Successor, "seal_lower_epochs", seal)


@_mutant("authorisation cleared before the seal")
def clear_first(patch: Patch) -> None:
    """Forget what a predecessor may unlink while it may still unlink it."""

    def take_over(self: lead.Successor) -> None:
        self._clear_authorisation()
        self.seal_lower_epochs()
        settle.Settler(self.leadership).settle_all()

    patch.set(lead.Successor, "take_over", take_over)


@_mutant("authorisation cleared while an unlink is outstanding")
def clear_outstanding(patch: Patch) -> None:
    """Take a lost answer to an unlink for a refusal."""
    real = purge.Purger._unlink

    def unlink(self: purge.Purger, authorisation: Any, entries: Any) -> set[str]:
        refused: set[str] = set()
        for entry in entries:
            try:
                refused |= real(self, authorisation, [entry])
            except act.InterruptedPassError as error:
                if "unlink unknown" not in str(error):
                    raise
                refused.add(entry.entry)
        return refused

    patch.set(purge.Purger, "_unlink", unlink)


@_mutant("the lease is not looked at", "I2")
def no_lease(patch: Patch) -> None:
    """Go on whatever became of the office."""
    patch.set(act.Actor, "may_go_on", lambda _: None)


@_mutant("the lease is not looked at, and nothing is sealed", "I2")
def no_lease_no_seal(patch: Patch) -> None:
    """Take out the lease together with what covers for it."""
    no_seal(patch)
    no_lease(patch)


@_mutant("quarantined names are used again")
def name_again(patch: Patch) -> None:
    """Give a file the quarantined name that one of its cache name had before."""
    real = take.Taker._intend

    def intend(self: take.Taker, taking: Any) -> Any:
        entry = hashlib.sha1(taking.name.encode()).hexdigest()[:16]  # noqa: S324
        leaf = names.leaf_of(taking.name, entry, self.actor.leadership.epoch)
        return replace(real(self, taking), entry=entry, leaf=leaf)

    patch.set(take.Taker, "_intend", intend)


# Reports and counters.


@_mutant("the veto counter is not checked")
def no_veto(patch: Patch) -> None:
    """Authorise whatever nodes have said since the observation."""
    _without_checks(patch, ledger.VETO_COUNTER)


@_mutant("neither counters nor manifest versions are checked")
def no_conditions(patch: Patch) -> None:
    """Authorise on the strength of the observation alone."""
    _without_checks(patch, ledger.VETO_COUNTER, ledger.ROSTER_COUNTER, "manifest/")


@_mutant("the roster counter is not checked", "I5")
def no_roster_counter(patch: Patch) -> None:
    """Remove whatever nodes have joined since the observation."""
    _without_checks(patch, ledger.ROSTER_COUNTER)
    patch.set(act.Actor, "may_go_on", lambda self: self.leadership.check())


def _without_checks(patch: Patch, *paths: str) -> None:
    real = MemorySession.commit

    def commit(self: MemorySession, operations: Sequence[Any]) -> None:
        kept = [
            one
            for one in operations
            if not (isinstance(one, Check) and one.path.startswith(paths))
        ]
        real(self, kept)

    patch.set(MemorySession, "commit", commit)


@_mutant("quarantine does not check the roster counter", "I5")
def take_unchecked(patch: Patch) -> None:
    """Announce a removal whatever nodes have joined since the observation."""
    real = MemorySession.commit

    def commit(self: MemorySession, operations: Sequence[Any]) -> None:
        announced = any(
            isinstance(one, Create) and one.path.startswith("manifest/")
            for one in operations
        )
        kept = [
            one
            for one in operations
            if not (announced and isinstance(one, Check) and one.path in COUNTERS)
        ]
        real(self, kept)

    patch.set(MemorySession, "commit", commit)


@_mutant("the stop flag is not seen", "I5")
def no_stop_flag(patch: Patch) -> None:
    """Go on with a batch whatever became of the roster."""
    patch.set(act.Actor, "may_go_on", lambda self: self.leadership.check())


@_mutant("finalizing does not check the roster counter", "I5")
def finalize_unchecked(patch: Patch) -> None:
    """Finalize whatever nodes have joined since the observation."""
    real = MemorySession.commit

    def commit(self: MemorySession, operations: Sequence[Any]) -> None:
        finalizes = any(one.path == ledger.ROLLOUT for one in operations)
        kept = [
            one
            for one in operations
            if not (finalizes and isinstance(one, Check) and one.path in COUNTERS)
        ]
        real(self, kept)

    patch.set(MemorySession, "commit", commit)


@_mutant("a pause raises no counters", "I5")
def pause_unheard(patch: Patch) -> None:
    """Pause without interrupting what is under way."""
    patch.set(operator, "_interrupting", list)


@_mutant("counters are read after the reports")
def counters_last(patch: Patch) -> None:
    """Read the counters as they are when all else has been read."""
    real = observe.Observer.observe

    def observe_(self: observe.Observer, **kw: Any) -> observe.Observed:
        found = real(self, **kw)
        self.coordination.sync()
        changes = self.coordination.watch(ledger.ROSTER_COUNTER)
        counters = observe._counters(self.coordination)
        return replace(found, counters=counters, roster_changes=changes)

    patch.set(observe.Observer, "observe", observe_)


@_mutant("counters are raised before the capabilities are written")
def counter_first(patch: Patch) -> None:
    """Write the durable half of a report first."""

    def publish(
        self: Any, report: Any, manifest: Any, conditions: Sequence[Any] = ()
    ) -> None:
        packed = ledger.pack_report(report, self.world.tokens.token())
        if not self.joined():
            self._register(packed)
        self._write(report, packed, manifest, conditions)
        self._register(packed)
        self.published = report

    patch.set(node_publish.Publisher, "publish", publish)


@_mutant("the manifest's versions are not checked")
def no_versions(patch: Patch) -> None:
    """Authorise whatever became of the records since the observation."""
    _without_checks(patch, "manifest/")


@_mutant("a new session joins empty")
def empty_join(patch: Patch) -> None:
    """Register with nothing in use, and say the rest later."""
    real = MemorySession.join

    def join(self: MemorySession, capabilities: Any) -> None:
        nothing = {
            "images": b"",
            "kernels": b"",
            "ramdisks": b"",
            "families": b"",
            "names": [],
        }
        real(
            self,
            {**capabilities, **nothing, "since": nothing, "sees": [], "saw": []},
        )

    patch.set(MemorySession, "join", join)


@_mutant("a roster of members only")
def ephemeral_roster(patch: Patch) -> None:
    """Forget a node as soon as its session is gone."""
    _no_checker(patch)
    real = observe.Observer._reports

    def reports(self: observe.Observer) -> Any:
        found, members, tombstones = real(self)
        return {n: r for n, r in found.items() if n in members}, members, tombstones

    patch.set(observe.Observer, "_reports", reports)
    patch.set(observe, "_strangers", lambda *_: [])


@_mutant("missing nodes do not hold back")
def missing_forgiven(patch: Patch) -> None:
    """Let a missing node's last report stand, as an operator may waive I1."""
    real = daemons.cleaner_policy

    def policy(one: Any) -> Any:
        return replace(real(one), missing_nodes=MissingNodes.LAST_REPORT)

    patch.set(daemons, "cleaner_policy", policy)


# Witnesses.


@_mutant("incarnations are not compared")
def no_incarnation(patch: Patch) -> None:
    """Believe a report whatever its node's witness says."""
    _no_checker(patch)
    patch.set(gate.NodeView, "witnessed", property(lambda _: True))


@_mutant("strangers are not looked for")
def no_strangers(patch: Patch) -> None:
    """Do not mind a witness of a node that is not rostered."""
    patch.set(observe, "_strangers", lambda *_: [])


@_mutant("witnesses may be read at once after a rename")
def no_floor(patch: Patch) -> None:
    """Forget that names and listings are cached."""
    _no_checker(patch)
    real = planner._time_waits

    def waits(policy: Any, seen: Any, heard: Any, _: float, entry: Any) -> Any:
        return real(policy, seen, heard, 0.0, entry)

    patch.set(planner, "_time_waits", waits)


@_mutant("a floor of one cache lifetime")
def floor_once(patch: Patch) -> None:
    """Wait for names or for listings to be forgotten, not for both."""
    _no_checker(patch)
    real = planner._time_waits

    def waits(policy: Any, seen: Any, heard: Any, cache_s: float, entry: Any) -> Any:
        return real(policy, seen, heard, cache_s / 2, entry)

    patch.set(planner, "_time_waits", waits)


@_mutant("witnesses are not read again")
def witness_once(patch: Patch) -> None:
    """Believe for ever what a witness said when it was first read."""
    real = observe.read_witnesses
    known: dict[Any, dict[str, Any]] = {}

    def read_witnesses(storage: Any) -> dict[str, Any]:
        first = known.setdefault(id(storage), {})
        found = real(storage)
        for node, witness in found.items():
            first.setdefault(node, witness)
        return {node: first[node] for node in found}

    patch.set(observe, "read_witnesses", read_witnesses)


@_mutant("a live node is expunged")
def expunge_live(patch: Patch) -> None:
    """Expunge without asking whether the node is registered."""
    real = operator._commit

    def commit(coordination: Any, transaction: Sequence[Any], act: Any) -> None:
        kept = [o for o in transaction if not o.path.startswith("groups/nodes")]
        real(coordination, kept, act)

    patch.set(operator, "_commit", commit)


@_mutant("guests start before the witness")
def guests_first(patch: Patch) -> None:
    """Start guests at boot, without waiting for the agent."""
    patch.set(process.Host, "may_start_guests", lambda h: h.up and not h.shutting_down)


@_mutant("a seal while guests may start")
def early_seal(patch: Patch) -> None:
    """Seal at every stop of an agent."""
    for name in ("stopping", "compute_stopped", "guests_gone"):
        patch.set(process.Host, name, lambda _: True)


@_mutant("no comparison with the baseline")
def no_baseline(patch: Patch) -> None:
    """Unlink an inode whatever was done to it."""
    patch.set(purge.Purger, "_unchanged", lambda *_: True)


@_mutant("no comparison with the baseline, and no new name after a restore")
def no_baseline_old_leaf(patch: Patch) -> None:
    """Take out the comparison together with what covers for it."""
    no_baseline(patch)
    old_leaf(patch)


@_mutant("the last run's uses are not taken over")
def no_inheritance(patch: Patch) -> None:
    """Report before every source has answered, from nothing."""
    patch.set(look.Looker, "inherit", lambda *_: None)
    patch.set(look.Looker, "blind", property(lambda _: False))


@_mutant("the last run's uses are not taken over, and failures not told")
def no_inheritance_told(patch: Patch) -> None:
    """Take out the uses together with what covers for them: the failure's report."""
    no_inheritance(patch)
    real = node_service.NodeService._report

    def report(self: Any, *args: Any, **kw: Any) -> Any:
        return replace(real(self, *args, **kw), failures=())

    patch.set(node_service.NodeService, "_report", report)
    real_after = window.Windows.after

    def after(self: window.Windows, one: window.Look) -> window.Windows:
        return real_after(self, replace(one, unbroken=self.present is not None))

    patch.set(window.Windows, "after", after)


# Liveness.


@_mutant("no new round for files that wait for younger reports", "liveness")
def no_fresh(patch: Patch) -> None:
    """Never ask for fresh reports."""
    patch.set(planner, "_wants_fresh_reports", lambda *_: False)


@_mutant("a file that was asked for never gets its new name", "liveness")
def no_renewal(patch: Patch) -> None:
    """Rename nothing within quarantine."""
    _no_checker(patch)
    patch.set(planner, "_renewals", lambda _: ())


@_mutant("rounds are raised without waiting for every node", "liveness")
def raise_early(patch: Patch) -> None:
    """Raise whenever a raise could be of use."""
    patch.set(service, "may_raise", lambda *_: True)


@_mutant("windows begin with the latest report", "liveness")
def window_latest(patch: Patch) -> None:
    """Begin a window anew with every look of the round before."""
    real = window.Windows.after

    def after(self: window.Windows, one: window.Look) -> window.Windows:
        found = real(self, one)
        if found.present is None or one.upto != found.present.upto:
            return found
        fresh = replace(found.present, reread=one.reread)
        return window.Windows(found.before, fresh)

    patch.set(window.Windows, "after", after)


@_mutant("files that no record names are not adopted", "liveness")
def no_adoption(patch: Patch) -> None:
    """Leave what lies in quarantine without a record."""
    patch.set(settle.Settler, "_adopt", lambda *_, **__: None)


@_mutant("an interrupted authorisation is not resumed", "liveness")
def no_resume(patch: Patch) -> None:
    """Leave an authorisation of one's own standing."""
    patch.set(purge.Purger, "resume", lambda *_: False)
