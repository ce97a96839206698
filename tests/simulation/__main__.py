"""``python -m tests.simulation``: run many schedules, or replay one.

``make simulate`` calls it, and passes ``SCHEDULES``, ``FIRST``, ``SEED``,
``STRIKE`` and ``MUTANT`` on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from tests.simulation import farm
from tests.simulation.crash_points import run_struck
from tests.simulation.mutants import MUTANTS
from tests.simulation.remedy import RESTARTED
from tests.simulation.run import simulate
from tests.simulation.stories import STORIES
from tests.simulation.table import print_table
from tests.simulation.world import Result, profile_of

SHOWN = 20
"""Failures that are told in full; a fault that is everywhere fills no screen."""


def main() -> int:
    """Run; return 0 if no schedule failed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--seed", help="replay this one, with its trace")
    parser.add_argument(
        "--strike", help="replay one crash point, as operation:change:mode"
    )
    parser.add_argument("--story", default="", choices=["", *STORIES])
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS])
    parser.add_argument("--table", action="store_true", help="hunt every mutant")
    parser.add_argument("--bases", type=int, default=3, help="hunts for each mutant")
    chosen = parser.parse_args()
    farm.quiet()
    if chosen.table:
        print_table(
            chosen.schedules, chosen.bases, [chosen.mutant] * bool(chosen.mutant)
        )
        return 0
    if chosen.strike is not None:
        name, at, mode = chosen.strike.split(":")
        struck, _ = run_struck(name, int(at), mode, tracing=True)
        return show(chosen.strike, struck)
    if chosen.seed is not None:
        seed = int(chosen.seed) if chosen.seed.isdecimal() else chosen.seed
        return replay(seed, chosen.mutant)
    numbers = range(chosen.first, chosen.first + chosen.schedules)
    story = chosen.story
    seeds = [f"{story}:{n}" if story else n for n in numbers]
    return many(seeds, chosen.mutant, chosen.minutes)


def replay(seed: int | str, mutant: str = "") -> int:
    """Run one seed again and print all that happens."""
    with ExitStack() as stack:
        if mutant:
            stack.enter_context(MUTANTS[mutant].applied())
        result = simulate(seed, tracing=True)
    sys.stdout.write(f"{profile_of(seed)}\n\n")
    return show(f"seed {seed}", result)


def show(what: str, result: Result) -> int:
    """Print all that happened, and what the oracle says to it."""
    write = sys.stdout.write
    for line in result.trace:
        write(line + "\n")
    write(f"\n{what}: " + ("\n".join(result.violations) or "nothing wrong") + "\n")
    return 1 if result.violations else 0


def many(
    seeds: Sequence[int | str], mutant: str = "", minutes: float | None = None
) -> int:
    """Run many seeds; tell each that fails, and how to replay it.

    After ``minutes`` no more are begun.
    """
    console = Console(stderr=True)
    failed, done, counts, steps = 0, 0, Counter[str](), 0
    began = time.monotonic()
    limit_s = float("inf") if minutes is None else 60 * minutes
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("schedules", total=len(seeds))
        for result in farm.run_many(seeds, mutant):
            progress.advance(task)
            done += 1
            steps += result.steps
            counts.update(result.counts)
            if result.violations:
                failed += 1
                progress.update(task, description=f"schedules, {failed} failed")
                if failed <= SHOWN:
                    suffix = f" MUTANT={mutant}" if mutant else ""
                    console.print(
                        f"seed {result.seed}: {result.violations[0]}\n"
                        f"    replay: make simulate SEED={result.seed}{suffix}",
                        markup=False,
                        highlight=False,
                    )
            if time.monotonic() - began > limit_s:
                break
    seconds = time.monotonic() - began
    console.print(
        f"{done} schedules in {seconds:.0f} s, {failed} failed; {steps} steps, "
        f"{counts['renamed']} quarantined, {counts['unlinked']} purged, "
        f"{counts['restored']} restored, {counts['leading']} leaderships, "
        f"{counts[RESTARTED]} {RESTARTED}",
        highlight=False,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
