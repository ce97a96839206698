"""Many seeds at once: several processes, results as they come."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from itertools import islice

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import simulate
from tests.simulation.world import Result

CHUNK = 10
"""Seeds that one worker takes at a time."""


def quiet() -> None:
    """Keep the daemons' own log from the terminal: the trace has it all."""
    logging.getLogger("sharedcache").setLevel(logging.CRITICAL)


def _work(seeds: list[int | str], mutant: str) -> list[Result]:
    with ExitStack() as stack:
        if mutant:
            stack.enter_context(MUTANTS[mutant].applied())
        return [simulate(seed) for seed in seeds]


def workers() -> int:
    """How many processes to use: one for each processor that we may use."""
    return len(os.sched_getaffinity(0))


def run_many(seeds: Iterable[int | str], mutant: str = "") -> Iterator[Result]:
    """Run seeds in several processes; give each result once it is there.

    Whoever stops listening ends the work.
    """
    context = multiprocessing.get_context("spawn")
    left = iter(seeds)
    with ProcessPoolExecutor(workers(), context, quiet) as pool:
        flying: set[Future[list[Result]]] = set()
        try:
            while True:
                while len(flying) < 2 * workers():
                    chunk = list(islice(left, CHUNK))
                    if not chunk:
                        break
                    flying.add(pool.submit(_work, chunk, mutant))
                if not flying:
                    return
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            for future in flying:
                future.cancel()
