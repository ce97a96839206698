"""Mutants: witnesses, and what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sharedcache import ledger
from sharedcache.cleaner import (
    observe,
    operator,
    purge,
)
from sharedcache.core import gate, planner, window
from sharedcache.node import look
from sharedcache.node import service as node_service
from tests.simulation import process
from tests.simulation.mutants.registry import Patch, mutant, no_checker
from tests.simulation.mutants.restores import old_leaf


@mutant("incarnations are not compared", aim="sealed-host")
def no_incarnation(patch: Patch) -> None:
    """Believe a report whatever its node's witness says."""
    no_checker(patch)
    patch.set(gate.NodeView, "witnessed", property(lambda _: True))


@mutant("strangers are not looked for", aim="newcomer")
def no_strangers(patch: Patch) -> None:
    """Do not mind a witness of a node that is not rostered."""
    patch.set(observe, "_strangers", lambda *_: [])


@mutant("witnesses may be read at once after a rename", aim="unseen-newcomer")
def no_floor(patch: Patch) -> None:
    """Forget that names and listings are cached."""
    no_checker(patch)
    real = planner._time_waits

    def waits(policy: Any, seen: Any, heard: Any, _: float, entry: Any) -> Any:
        return real(policy, seen, heard, 0.0, entry)

    patch.set(planner, "_time_waits", waits)


@mutant("a floor of one cache lifetime", aim="unseen-newcomer")
def floor_once(patch: Patch) -> None:
    """Wait for names or for listings to be forgotten, not for both."""
    no_checker(patch)
    real = planner._time_waits

    def waits(policy: Any, seen: Any, heard: Any, cache_s: float, entry: Any) -> Any:
        return real(policy, seen, heard, cache_s / 2, entry)

    patch.set(planner, "_time_waits", waits)


@mutant("reports do not tell how long names are kept", aim="longer-memory")
def cache_untold(patch: Patch) -> None:
    """Report as if this node's client kept no names."""
    real = node_service.NodeService._report

    def report(self: Any, *args: Any, **kw: Any) -> Any:
        return replace(real(self, *args, **kw), name_cache_s=0.0)

    patch.set(node_service.NodeService, "_report", report)


@mutant("witnesses are not read again", aim="sealed-host")
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


@mutant("a live node is expunged", aim="expunged-alive")
def expunge_live(patch: Patch) -> None:
    """Expunge without asking whether the node is registered."""
    real = operator._commit

    def commit(coordination: Any, transaction: Sequence[Any], act: Any) -> None:
        kept = [o for o in transaction if not o.path.startswith("groups/nodes")]
        real(coordination, kept, act)

    patch.set(operator, "_commit", commit)


@mutant("a tombstone stands for any witness", aim="expunged-returns")
def any_witness(patch: Patch) -> None:
    """Take an expunged host that has booted again for one that is off."""
    patch.set(ledger.Tombstone, "covers", lambda *_: True)


@mutant("guests start before the witness", aim="sealed-host")
def guests_first(patch: Patch) -> None:
    """Start guests at boot, without waiting for the agent."""
    patch.set(process.Host, "may_start_guests", lambda h: h.up and not h.shutting_down)


@mutant("a seal while guests may start", aim="agent-stops")
def early_seal(patch: Patch) -> None:
    """Seal at every stop of an agent."""
    for name in ("stopping", "compute_stopped", "guests_gone"):
        patch.set(process.Host, name, lambda _: True)


@mutant("no comparison with the baseline", aim="earlier-late-link")
def no_baseline(patch: Patch) -> None:
    """Unlink an inode whatever was done to it."""
    patch.set(purge.Purger, "_unchanged", lambda *_: True)


@mutant(
    "no comparison with the baseline, and no new name after a restore",
    aim="earlier-late-link",
)
def no_baseline_old_leaf(patch: Patch) -> None:
    """Take out the comparison together with what covers for it."""
    no_baseline(patch)
    old_leaf(patch)


@mutant("the last run's uses are not taken over", aim="blind-host")
def no_inheritance(patch: Patch) -> None:
    """Report before every source has answered, from nothing."""
    patch.set(look.Looker, "inherit", lambda *_: None)
    patch.set(look.Looker, "blind", property(lambda _: False))


@mutant(
    "the last run's uses are not taken over, and failures not told", aim="blind-host"
)
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
