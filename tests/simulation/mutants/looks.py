"""Mutants: looks, rounds and windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sharedcache import ledger
from sharedcache.cleaner import (
    act,
    service,
    settle,
    take,
)
from sharedcache.core import rounds, window
from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError
from sharedcache.node import look
from sharedcache.node import service as node_service
from tests.simulation import process
from tests.simulation.mutants.registry import Patch, mutant, no_checker


@mutant("no `since` in reports", aim="behind-a-look")
def no_since(patch: Patch) -> None:
    """Say only what is used now."""
    real = window.Windows.coverage

    def coverage(self: window.Windows) -> window.Coverage:
        return replace(real(self), since=Uses())

    patch.set(window.Windows, "coverage", coverage)


@mutant("the window's round is read before the looks", aim="slow-first-look")
def round_before(patch: Patch) -> None:
    """Claim that a window began before it did."""
    real = look.Looker._take

    def take_(self: look.Looker, one: window.Look) -> None:
        real(self, replace(one, reread=one.upto))

    patch.set(look.Looker, "_take", take_)


@mutant("the report's round is read after the looks", aim="look-across-a-raise")
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


@mutant("the window's round is read without a sync", aim="lagging-first-look")
def reread_unsynced(patch: Patch) -> None:
    """Read the round at a look's end as a server that lags has it."""
    real = look.Looker.look

    def look_(self: look.Looker, ground: look.Ground) -> look.Sight:
        coordination: Any = self.world.coordination
        coordination.sync = lambda: None
        try:
            return real(self, ground)
        finally:
            del coordination.sync

    patch.set(look.Looker, "look", look_)


@mutant("two clean looks, no common round", aim="between-looks")
def no_common(patch: Patch) -> None:
    """Confirm what every node has looked for after the rename, each in its time."""
    no_checker(patch)
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


@mutant("broken coverage counts", aim="look-after-a-failure")
def broken_coverage(patch: Patch) -> None:
    """Take a first look for a whole window."""
    real = window.Windows.coverage

    def coverage(self: window.Windows) -> window.Coverage:
        found = real(self)
        if found.unbroken or self.present is None:
            return found
        return replace(found, unbroken=True, since_round=self.present.upto - 1)

    patch.set(window.Windows, "coverage", coverage)


@mutant("looks count from before the rename", aim="behind-a-rename")
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


@mutant("no look whether the name is gone", aim="remembered-name")
def no_gone_check(patch: Patch) -> None:
    """Say that no quarantined name is seen."""
    patch.set(look.Looker, "_sees", lambda *_: frozenset())


@mutant("the present round, not the next one", aim="behind-a-rename")
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


@mutant(
    "a restore's mark is lost as the rename is recorded", aim="link-before-the-record"
)
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


@mutant("`since` only from the latest look of the round before", aim="slow-look")
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


@mutant("a name that was seen counts as of the latest look", aim="name-forgotten")
def saw_latest(patch: Patch) -> None:
    """Forget that a name could still be opened earlier in the window."""
    real = window.Windows.coverage

    def coverage(self: window.Windows) -> window.Coverage:
        return replace(real(self), saw=frozenset())

    patch.set(window.Windows, "coverage", coverage)


@mutant("the manifest is read before the round", aim="news-between-reads")
def manifest_first(patch: Patch) -> None:
    """Read a round whose entries may have come after the manifest was read."""

    def ground(self: look.Looker) -> look.Ground:
        coordination = self.world.coordination
        coordination.sync()
        parent = coordination.get(ledger.MANIFEST)
        manifest = self._manifest.read(coordination, parent)
        return look.Ground(self._round(), manifest, bool(self._manifest.broken))

    patch.set(look.Looker, "ground", ground)


@mutant("scans only, no events", aim="two-moves")
def no_events(patch: Patch) -> None:
    """See only what is there at the moment of a look."""
    patch.set(process.EventSource, "ended", lambda *_: None)


@mutant("a source that fails says that nothing is used", aim="blind-host")
def silent_source(patch: Patch) -> None:
    """Take a source that does not answer for one that sees nothing."""
    real = process.EventSource.look

    def look_(self: process.EventSource) -> Uses:
        return Uses() if self.fails else real(self)

    patch.set(process.EventSource, "look", look_)


@mutant("a report of a node whose sources failed counts", aim="blind-host")
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
            except SourceError:
                # That is the mutation: a source that failed counts for nothing.
                continue
        return union

    patch.set(node_service.NodeService, "_report", report)
    patch.set(look.Looker, "_sources", sources)
    patch.set(look.Looker, "blind", property(lambda _: False))
