"""``python -m tests.simulation``: run many schedules, or replay one.

``make simulate`` calls it, and passes ``SCHEDULES``, ``FIRST``, ``MINUTES``,
``STORY``, ``SEED``, ``STRIKE`` and ``MUTANT`` on.

It returns 0 if nothing was wrong, 1 if something was, and 2 if what was asked has no
meaning.  Stopped by a signal it tells what was done so far and returns 128 and
the signal's number, as shells do (130 after Ctrl-C), even if something was wrong
by then: neither "nothing" nor "this is all" would be true.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing

from rich.console import Console

from sharedcache.cli.signals import heard
from tests.simulation import farm
from tests.simulation.command import Asked, Strike, asked
from tests.simulation.crash_points import run_struck
from tests.simulation.mutants import MUTANTS
from tests.simulation.progress import Bar, Lines
from tests.simulation.remedy import RESTARTED
from tests.simulation.run import simulate
from tests.simulation.table import print_table
from tests.simulation.world import Result, profile_of

SHOWN = 20
"""Failures that are told in full; a fault that is everywhere fills no screen."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Notes a signal, and ends what the workers are about.

    An exception would come at any point of the code, so none is raised here:
    whoever waits for a worker hears that there are none any more.
    """

    def __init__(self) -> None:
        self.code = 0

    def note(self, number: int) -> None:
        """Hear a signal."""
        self.code = self.code or 128 + number
        farm.end_workers()


def main() -> int:
    """Do what was asked; return what the module says."""
    chosen = asked()
    farm.quiet()
    if chosen.seed is not None or chosen.strike is not None:
        # One process, and nothing to tell before its end: signals just end it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        return again(chosen)
    stop = Stop()
    try:
        with heard(STOPS, stop.note):
            if not chosen.table:
                return many(chosen, stop)
            only = [chosen.mutant] * bool(chosen.mutant)
            print_table(chosen.schedules, chosen.bases, only)
    except BrokenProcessPool:
        if not stop.code:
            raise
        return stop.code
    except BrokenPipeError:
        # Whoever read has gone, and Python would try once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def again(chosen: Asked) -> int:
    """Run one seed or one crash point again and print all that happens."""
    with ExitStack() as stack:
        if chosen.mutant:
            stack.enter_context(MUTANTS[chosen.mutant].applied())
        if chosen.strike is not None:
            return _strike(chosen.strike)
        seed = chosen.seed or 0
        result = simulate(seed, tracing=True)
    sys.stdout.write(f"{profile_of(seed)}\n\n")
    return show(f"seed {seed}", result)


def _strike(point: Strike) -> int:
    result, striker = run_struck(point.operation, point.at, point.mode, tracing=True)
    if striker.struck:
        return show(str(point), result)
    sys.stderr.write(
        f"{point}: nothing was struck; the changes of {point.operation} "
        f"are 0 to {striker.count - 1}\n"
    )
    return 2


def show(what: str, result: Result) -> int:
    """Print all that happened, and what the oracle says to it."""
    write = sys.stdout.write
    for line in result.trace:
        write(line + "\n")
    write(f"\n{what}: " + ("\n".join(result.violations) or "nothing wrong") + "\n")
    return 1 if result.violations else 0


def many(chosen: Asked, stop: Stop) -> int:
    """Run many seeds; tell each that fails, and how to replay it."""
    console = Console(stderr=True, highlight=False, markup=False)
    numbers = range(chosen.first, chosen.first + chosen.schedules)
    seeds: Sequence[int | str] = numbers
    if chosen.story:
        seeds = [f"{chosen.story}:{number}" for number in numbers]
    failed, done, counts, steps = 0, 0, Counter[str](), 0
    began, limit_s = time.monotonic(), 60 * chosen.minutes
    shown: Bar | Lines = (
        Bar(console, len(seeds))
        if console.is_terminal
        else Lines(console.print, len(seeds), limit_s)
    )
    with shown, closing(farm.run_many(seeds, chosen.mutant)) as results:
        try:
            for result in results:
                done += 1
                steps += result.steps
                counts.update(result.counts)
                if result.violations:
                    failed += 1
                    if failed <= SHOWN:
                        suffix = f" MUTANT={chosen.mutant}" if chosen.mutant else ""
                        console.print(
                            f"seed {result.seed}: {result.violations[0]}\n"
                            f"    replay: make simulate SEED={result.seed}{suffix}",
                            soft_wrap=True,
                        )
                shown.told(done, failed)
                if stop.code or time.monotonic() - began > limit_s:
                    break
        except BrokenProcessPool:
            if not stop.code:
                raise
    seconds = time.monotonic() - began
    console.print(
        f"{done} schedules in {seconds:.0f} s, {failed} failed; {steps} steps, "
        f"{counts['renamed']} quarantined, {counts['unlinked']} purged, "
        f"{counts['restored']} restored, {counts['leading']} leaderships, "
        f"{counts[RESTARTED]} {RESTARTED}"
        + (f"; stopped with {len(seeds) - done} left" if stop.code else ""),
        soft_wrap=True,
    )
    return stop.code or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())
