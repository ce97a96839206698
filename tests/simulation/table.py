"""The table of ``docs/simulation.md``: how soon each mutant is found."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from tests.simulation import farm
from tests.simulation.mutants import MUTANTS, PARTS
from tests.simulation.mutants.registry import Mutant

BASE = 1_000_000
"""Hunts begin far from the seeds that the tests run, and apart from each other."""


def seeds_of(mutant: Mutant, first: int, count: int) -> list[int | str]:
    """Return the seeds of a hunt: of the mutant's story, or of plain schedules."""
    numbers = range(first, first + count)
    return [f"{mutant.aim}:{n}" if mutant.aim else n for n in numbers]


def hunt(mutant: Mutant, first: int, limit: int) -> tuple[int | None, str]:
    """Return after how many schedules a mutant was found, and what was seen.

    Schedules are counted in the order of their seeds, whoever ran them.
    """
    seeds = seeds_of(mutant, first, limit)
    places = {seed: place for place, seed in enumerate(seeds, 1)}
    found: dict[int, str] = {}
    for result in farm.run_many(seeds, mutant.name):
        place = places[result.seed]
        if result.violations:
            found[place] = result.violations[0]
        if found and place > min(found) + farm.CHUNK * 2 * farm.workers():
            break
    if not found:
        return None, ""
    return min(found), found[min(found)]


def print_table(limit: int, bases: int, only: Sequence[str] = ()) -> None:
    """Hunt every mutant from several first seeds; print a table in Markdown."""
    write = sys.stdout.write
    write(
        "| rule taken out | serves | mutant | hunted in | median | found after | "
        "first objection |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    parts = [part.__name__ for part in PARTS]
    every = sorted(MUTANTS.values(), key=lambda m: parts.index(m.apply.__module__))
    for mutant in every:
        if only and mutant.name not in only:
            continue
        hunts = [hunt(mutant, BASE * (n + 1), limit) for n in range(bases)]
        padded = [limit + 1 if count is None else count for count, _ in hunts]
        median = statistics.median_low(sorted(padded))
        shown = str(median) if median <= limit else f"over {limit}"
        after = ", ".join(str(count or "none") for count, _ in hunts)
        seen = next((what for _, what in hunts if what), "").partition(": ")[2]
        write(
            f"| {mutant.rule} | {mutant.serves} | `{mutant.name}` | "
            f"{mutant.aim or 'any'} | {shown} | {after} | {seen[:90]} |\n"
        )
        sys.stdout.flush()
