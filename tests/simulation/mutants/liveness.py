"""Mutants: that unused files do go."""

from __future__ import annotations

from dataclasses import replace

from sharedcache.cleaner import (
    purge,
    service,
    settle,
)
from sharedcache.core import planner, window
from tests.simulation.mutants.registry import Patch, mutant, no_checker


@mutant("no new round for files that wait for younger reports", "liveness")
def no_fresh(patch: Patch) -> None:
    """Never ask for fresh reports."""
    patch.set(planner, "_wants_fresh_reports", lambda *_: False)


@mutant(
    "a file that was asked for never gets its new name", "liveness", aim="late-link"
)
def no_renewal(patch: Patch) -> None:
    """Rename nothing within quarantine."""
    no_checker(patch)
    patch.set(planner, "_renewals", lambda _: ())


@mutant(
    "rounds are raised without waiting for every node",
    "liveness",
    aim="rounds-in-looks",
)
def raise_early(patch: Patch) -> None:
    """Raise whenever a raise could be of use."""
    patch.set(service, "may_raise", lambda *_: True)


@mutant("windows begin with the latest report", "liveness", aim="rounds-in-looks")
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


@mutant("files that no record names are not adopted", "liveness", aim="late-rename")
def no_adoption(patch: Patch) -> None:
    """Leave what lies in quarantine without a record."""
    patch.set(settle.Settler, "_adopt", lambda *_, **__: None)


@mutant("an interrupted authorisation is not resumed", "liveness", aim="late-unlink")
def no_resume(patch: Patch) -> None:
    """Leave an authorisation of one's own standing."""
    patch.set(purge.Purger, "resume", lambda *_: False)
