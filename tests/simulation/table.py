"""The table of ``docs/simulation.md``: how soon each mutant is found."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from tests.simulation import farm
from tests.simulation.mutants import MUTANTS, PARTS
from tests.simulation.mutants.registry import Mutant
from tests.simulation.run import simulate

BASE = 1_000_000
"""Hunts begin far from the seeds that the tests run, and apart from each other."""


def seeds_of(mutant: Mutant, first: int, count: int) -> list[int | str]:
    """Return the seeds of a hunt: of the mutant's story, or of plain schedules."""
    numbers = range(first, first + count)
    return [f"{mutant.aim}:{n}" if mutant.aim else n for n in numbers]


def require_sound(mutant: Mutant, violation: str) -> None:
    """Refuse a mutant that stumbles over the code that it changes.

    Raises ``RuntimeError``: such a mutant breaks no rule, it is broken itself.
    """
    if " died of " in violation:
        raise RuntimeError(f"{mutant.name} does not fit the code: {violation}")


def hunt(name: str, first: int, limit: int) -> tuple[int | None, str]:
    """Return after how many schedules a mutant was found, and what was seen."""
    mutant = MUTANTS[name]
    with mutant.applied():
        for place, seed in enumerate(seeds_of(mutant, first, limit), 1):
            violations = simulate(seed).violations
            if violations:
                require_sound(mutant, violations[0])
                return place, violations[0]
    return None, ""


def print_table(limit: int, bases: int, only: Sequence[str] = ()) -> None:
    """Hunt every mutant from several first seeds; print a table in Markdown."""
    write = sys.stdout.write
    write(
        "| rule taken out | serves | mutant | hunted in | median | found after | "
        "first objection |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    parts = [part.__name__ for part in PARTS]
    every = sorted(MUTANTS.values(), key=lambda m: parts.index(m.apply.__module__))
    chosen = [mutant for mutant in every if not only or mutant.name in only]
    with farm.farm() as pool:
        hunting = {
            mutant.name: [
                pool.submit(hunt, mutant.name, BASE * (n + 1), limit)
                for n in range(bases)
            ]
            for mutant in chosen
        }
        for mutant in chosen:
            hunts = [one.result() for one in hunting[mutant.name]]
            write(_row(mutant, hunts, limit))
            sys.stdout.flush()


def _row(mutant: Mutant, hunts: Sequence[tuple[int | None, str]], limit: int) -> str:
    padded = [limit + 1 if count is None else count for count, _ in hunts]
    median = statistics.median_low(sorted(padded))
    shown = str(median) if median <= limit else f"over {limit}"
    after = ", ".join(str(count or "none") for count, _ in hunts)
    seen = next((what for _, what in hunts if what), "").partition(": ")[2]
    return (
        f"| {mutant.rule} | {mutant.serves} | `{mutant.name}` | "
        f"{mutant.aim or 'any'} | {shown} | {after} | {seen[:90]} |\n"
    )
