"""The table of ``docs/simulation.md``: how soon each mutant is found."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from tests.simulation import farm
from tests.simulation.mutants import MUTANTS

BASE = 1_000_000
"""Hunts begin far from the seeds that the tests run, and apart from each other."""


def hunt(mutant: str, first: int, limit: int) -> tuple[int | None, str]:
    """Return after how many schedules a mutant was found, and what was seen.

    Schedules are counted in the order of their seeds, whoever ran them.
    """
    found: dict[int, str] = {}
    for result in farm.run_many(range(first, first + limit), mutant):
        if result.violations:
            found[int(result.seed)] = result.violations[0]
        if found and int(result.seed) > min(found) + farm.CHUNK * 2 * farm.workers():
            break
    if not found:
        return None, ""
    seed = min(found)
    return seed - first + 1, found[seed]


def print_table(limit: int, bases: int, only: Sequence[str] = ()) -> None:
    """Hunt every mutant from several first seeds; print a table in Markdown."""
    write = sys.stdout.write
    write("| rule taken out | serves | mutant | median | found | first seen |\n")
    write("| --- | --- | --- | --- | --- | --- |\n")
    for mutant in MUTANTS.values():
        if only and mutant.name not in only:
            continue
        hunts = [hunt(mutant.name, BASE * (n + 1), limit) for n in range(bases)]
        counts = [count for count, _ in hunts if count is not None]
        padded = counts + [limit + 1] * (bases - len(counts))
        median = statistics.median_low(sorted(padded))
        shown = str(median) if median <= limit else f"over {limit}"
        seen = next((what for _, what in hunts if what), "").partition(": ")[2]
        write(
            f"| {mutant.rule} | {mutant.serves} | `{mutant.name}` | {shown} | "
            f"{len(counts)} of {bases} | {seen[:90]} |\n"
        )
        sys.stdout.flush()
