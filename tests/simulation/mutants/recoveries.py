"""Mutants: what an operator's ``recover`` does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sharedcache.cleaner.recover import Recoverer
from sharedcache.core import planner
from sharedcache.core.ports import Delete
from sharedcache.core.rounds import Confirmation
from tests.simulation.mutants.offices import kept_round
from tests.simulation.mutants.registry import Patch, mutant, no_checker
from tests.simulation.mutants.witnesses import no_strangers


@mutant("a recovery expects no nodes that have a witness", aim="forgotten-node")
def no_readd(patch: Patch) -> None:
    """Leave the roster as the copy has it."""
    _recover_otherwise(patch, lambda _: {"expect": ()})


@mutant(
    "a recovery expects no nodes that have a witness, and strangers are not looked for",
    aim="forgotten-node",
)
def no_readd_no_strangers(patch: Patch) -> None:
    """Take the expecting out together with what covers for it."""
    no_readd(patch)
    no_strangers(patch)


@mutant("a recovery leaves the round as the copy has it", aim="rounds-of-old")
def no_round(patch: Patch) -> None:
    """Go on counting from where the copy was made."""
    _recover_otherwise(patch, lambda seen: {"round": seen.standing.round})


@mutant("reports of rounds that are yet to come count", aim="rounds-of-old")
def no_guard(patch: Patch) -> None:
    """Believe what a report says of a round that was not raised."""
    no_checker(patch)
    patch.set(planner, "proof_of", lambda _, heard: Confirmation.of(heard))


@mutant(
    "a recovery leaves the round as the copy has it, and reports of rounds that are "
    "yet to come count",
    aim="rounds-of-old",
)
def no_round_no_guard(patch: Patch) -> None:
    """Take the round out together with what covers for it."""
    no_round(patch)
    no_guard(patch)


def _no_restart(patch: Patch) -> None:
    """Let what the copy knows of quarantined files stand, rounds included."""
    real = Recoverer._opening

    def opening(self: Recoverer, *args: Any) -> list[Any]:
        return [one for one in real(self, *args) if not isinstance(one, Delete)]

    patch.set(Recoverer, "_opening", opening)


def _no_doubt(patch: Patch) -> None:
    """Take a copy's reports for the last word."""
    _recover_otherwise(patch, lambda _: {"doubt": ()})
    patch.set(Recoverer, "_unregister", lambda *_: None)


@mutant(
    "a recovery leaves the manifest, reports and registrations as the copy has them",
    aim="words-of-old",
)
def no_restart_no_doubt(patch: Patch) -> None:
    """Take the new beginning of entries out together with what covers for it."""
    _no_restart(patch)
    _no_doubt(patch)


@mutant(
    "a recovery leaves the manifest, reports and registrations as the copy has them, "
    "and a takeover leaves entries their rounds",
    aim="words-of-old",
)
def no_restart_no_doubt_kept_round(patch: Patch) -> None:
    """Take out the new beginning in a takeover as well."""
    no_restart_no_doubt(patch)
    kept_round(patch)


def _recover_otherwise(patch: Patch, changes: Any) -> None:
    """Let a recovery do what was judged, but for some of it."""
    real = Recoverer.run

    def run(self: Recoverer, seen: Any, recovery: Any, tell: Any) -> None:
        real(self, seen, replace(recovery, **changes(seen)), tell)

    patch.set(Recoverer, "run", run)
