"""Protections of the shipped code, each switched off in turn.

A simulation that cannot fail shows nothing.
"""

from __future__ import annotations

from tests.simulation.mutants import (
    liveness,
    looks,
    offices,
    recoveries,
    reports,
    restores,
    waits,
    witnesses,
)
from tests.simulation.mutants.registry import MUTANTS

PARTS = (looks, restores, offices, reports, witnesses, recoveries, liveness, waits)
"""The parts in the order of the table."""

__all__ = ["MUTANTS", "PARTS"]
