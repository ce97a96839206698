"""Mutants: ages, graces, holds, and what the storage refused."""

from __future__ import annotations

from typing import Any

from sharedcache import ledger
from sharedcache.cleaner import service
from sharedcache.core import policy
from tests.simulation.mutants.registry import Patch, mutant, no_checker


@mutant("files are taken at any age", "the minimum age", aim="young-file")
def any_age(patch: Patch) -> None:
    """Take seconds for nanoseconds."""
    no_checker(patch)
    patch.set(
        policy.CleanerPolicy,
        "min_age_ns",
        lambda self, kind: int(self.min_age_s[kind]),
    )


@mutant("files are purged within their grace", "the grace", aim="young-file")
def no_grace(patch: Patch) -> None:
    """Take seconds for nanoseconds."""
    no_checker(patch)
    patch.set(policy.CleanerPolicy, "grace_now_s", lambda self, _: 1e-9 * self.grace_s)


@mutant("holds are not read", "holds", aim="held")
def no_holds(patch: Patch) -> None:
    """See no name that is held."""
    patch.set(ledger, "read_holds", lambda _: frozenset())


@mutant("what the storage refused is never tried again", "liveness", aim="refused")
def refused_for_ever(patch: Patch) -> None:
    """Leave out for ever what was refused once."""
    real = service.CleanerService._note_refusals

    def note(self: service.CleanerService, *args: Any) -> None:
        refused = list(self.harvest.purged.refused)
        real(self, *args)
        self._refused.update(dict.fromkeys(refused, float("inf")))

    patch.set(service.CleanerService, "_note_refusals", note)
