"""Mutants: reports and counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sharedcache import ledger
from sharedcache.cleaner import (
    act,
    observe,
    operator,
)
from sharedcache.cleaner.restore import OperatorRestore
from sharedcache.core.acts import Deed
from sharedcache.core.policy import MissingNodes
from sharedcache.core.ports import (
    Check,
    Create,
    Set,
)
from sharedcache.node import publish as node_publish
from tests.simulation import daemons
from tests.simulation.memory_zookeeper import MemorySession
from tests.simulation.mutants.registry import Patch, mutant, no_checker
from tests.simulation.mutants.restores import no_intent


@mutant("the veto counter is not checked", aim="wanted-just-before")
def no_veto(patch: Patch) -> None:
    """Authorise whatever nodes have said since the observation."""
    _without_checks(patch, ledger.VETO_COUNTER)


@mutant("neither counters nor manifest versions are checked", aim="wanted-just-before")
def no_conditions(patch: Patch) -> None:
    """Authorise on the strength of the observation alone."""
    _without_checks(patch, ledger.VETO_COUNTER, ledger.ROSTER_COUNTER, "manifest/")


@mutant("the roster counter is not checked", "I5", aim="news-in-between")
def no_roster_counter(patch: Patch) -> None:
    """Remove whatever nodes have joined since the observation."""
    _without_checks(patch, ledger.ROSTER_COUNTER)
    patch.set(act.Actor, "may_go_on", lambda self: self.leadership.check())


def _without_checks(
    patch: Patch, *paths: str, where: Callable[[Any], bool] = lambda _: True
) -> None:
    """Leave checks of some paths out of transactions that have such an operation."""
    real = MemorySession.commit

    def commit(self: MemorySession, operations: Sequence[Any]) -> None:
        chosen = any(where(one) for one in operations)
        kept = [
            one
            for one in operations
            if not (chosen and isinstance(one, Check) and one.path.startswith(paths))
        ]
        real(self, kept)

    patch.set(MemorySession, "commit", commit)


@mutant("quarantine does not check the roster counter", "I5", aim="news-in-between")
def take_unchecked(patch: Patch) -> None:
    """Announce a removal whatever nodes have joined since the observation."""

    def announces(one: Any) -> bool:
        return isinstance(one, Create) and one.path.startswith("manifest/")

    _without_checks(patch, ledger.ROSTER_COUNTER, where=announces)


@mutant("the stop flag is not seen", "I5", aim="old-node-midway")
def no_stop_flag(patch: Patch) -> None:
    """Go on with a batch whatever became of the roster."""
    patch.set(act.Actor, "may_go_on", lambda self: self.leadership.check())


@mutant(
    "finalizing does not check the roster counter", "I5", aim="old-node-as-finalized"
)
def finalize_unchecked(patch: Patch) -> None:
    """Finalize whatever nodes have joined since the observation."""

    def finalizes(one: Any) -> bool:
        return isinstance(one, Set) and one.path == ledger.ROLLOUT

    _without_checks(patch, ledger.ROSTER_COUNTER, where=finalizes)


@mutant("a pause raises no counters", "I5", aim="news-in-between")
def pause_unheard(patch: Patch) -> None:
    """Pause without interrupting what is under way."""
    patch.set(operator, "_interrupting", list)


@mutant("expecting a node raises no counter", "I5", aim="expected-in-between")
def expect_unheard(patch: Patch) -> None:
    """Put a node on the roster without interrupting what is under way."""
    real = operator._commit

    def commit(coordination: Any, transaction: Sequence[Any], act: Any) -> None:
        silent = act.deed == Deed.EXPECTED
        kept = [o for o in transaction if not (silent and _raises_a_counter(o))]
        real(coordination, kept, act)

    patch.set(operator, "_commit", commit)


def _raises_a_counter(operation: Any) -> bool:
    return bool(operation.path.startswith("counters/"))


@mutant("counters are read after the reports", aim="wanted-just-before")
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


@mutant("counters are raised before the capabilities are written", aim="half-published")
def counter_first(patch: Patch) -> None:
    """Write the durable half of a report first."""
    write, register = node_publish.Publisher._write, node_publish.Publisher._register
    late: dict[int, Any] = {}

    def register_later(self: Any, packed: Any) -> bool:
        if not self.joined():
            return register(self, packed)
        late[id(self)] = packed
        return False

    def write_first(self: Any, *args: Any, **kw: Any) -> None:
        write(self, *args, **kw)
        packed = late.pop(id(self), None)
        if packed is not None:
            register(self, packed)

    patch.set(node_publish.Publisher, "_register", register_later)
    patch.set(node_publish.Publisher, "_write", write_first)


@mutant("no report raises the veto counter", aim="wanted-just-before")
def veto_unraised(patch: Patch) -> None:
    """Publish a use, a sight or an intent without a word to authorisations."""
    patch.set(node_publish.Spoken, "must_be_heard", lambda *_: False)


@mutant("the manifest's versions are not checked", aim="asked-just-before")
def no_versions(patch: Patch) -> None:
    """Authorise whatever became of the records since the observation."""
    _without_checks(patch, "manifest/")


@mutant(
    "the manifest's versions are not checked, and a restore publishes no intent",
    aim="asked-just-before",
)
def no_versions_no_intent(patch: Patch) -> None:
    """Take out the versions together with what covers for them."""
    no_versions(patch)
    no_intent(patch)


@mutant("an operator's restore raises no counter", aim="asked-just-before")
def by_hand_unheard(patch: Patch) -> None:
    """Mark a record without a word to authorisations."""
    real = OperatorRestore._write

    def write(self: OperatorRestore, entry_id: str, asked: str, attempt: Any) -> None:
        def silent(found: Any) -> Any:
            operations = attempt(found)
            return operations and [o for o in operations if not _raises_a_counter(o)]

        real(self, entry_id, asked, silent)

    patch.set(OperatorRestore, "_write", write)


@mutant(
    "the manifest's versions are not checked, and an operator's restore raises no "
    "counter",
    aim="asked-just-before",
)
def no_versions_by_hand_unheard(patch: Patch) -> None:
    """Take the operator's word out together with what covers for it."""
    no_versions(patch)
    by_hand_unheard(patch)


@mutant("a new session joins empty", aim="new-session")
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


@mutant("a roster of members only", aim="node-missing")
def ephemeral_roster(patch: Patch) -> None:
    """Forget a node as soon as its session is gone."""
    no_checker(patch)
    real = observe.Observer._reports

    def reports(self: observe.Observer) -> Any:
        found, members, tombstones = real(self)
        return {n: r for n, r in found.items() if n in members}, members, tombstones

    patch.set(observe.Observer, "_reports", reports)
    patch.set(observe, "_strangers", lambda *_: [])


@mutant("missing nodes do not hold back", aim="node-missing")
def missing_forgiven(patch: Patch) -> None:
    """Let a missing node's last report stand, as an operator may waive I1."""
    real = daemons.cleaner_policy

    def policy(one: Any) -> Any:
        return replace(real(one), missing_nodes=MissingNodes.LAST_REPORT)

    patch.set(daemons, "cleaner_policy", policy)
