"""Many seeds at once: several processes, results as they come.

No worker outlives the block that it works for, nor the process that began it,
however that ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from itertools import islice
from multiprocessing import connection
from threading import Thread
from typing import ParamSpec, TypeVar

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import simulate
from tests.simulation.world import Result

P = ParamSpec("P")
R = TypeVar("R")

CHUNK = 10
"""Seeds that one worker takes at a time."""


def quiet() -> None:
    """Keep the daemons' own log from the terminal: the trace has it all."""
    logging.getLogger("sharedcache").setLevel(logging.CRITICAL)


def workers() -> int:
    """How many processes to use: one for each processor that we may use."""
    return len(os.sched_getaffinity(0))


class Farm:
    """Worker processes that take one call after the other."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor

    def submit(
        self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """Let a worker make this call.

        Workers begin here.  A terminal's interrupt goes to them too, at any moment of
        their lives; they leave it to us.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._executor.submit(call, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def farm() -> Iterator[Farm]:
    """Give workers, which are gone after the block.

    A block that ends by an exception, or that nobody goes on with, waits for nothing
    that they are about.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers(), context, _begin) as executor:
        try:
            yield Farm(executor)
        except BaseException:
            end_workers()
            raise


def end_workers() -> None:
    """Kill all workers; what was asked of them raises ``BrokenProcessPool``."""
    for child in multiprocessing.active_children():
        child.kill()


def _begin() -> None:
    quiet()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker as soon as the process that began it has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(seeds: list[int | str], mutant: str) -> list[Result]:
    with ExitStack() as stack:
        if mutant:
            stack.enter_context(MUTANTS[mutant].applied())
        return [simulate(seed) for seed in seeds]


def run_many(
    seeds: Iterable[int | str], mutant: str = ""
) -> Generator[Result, None, None]:
    """Run seeds in several processes; give each result once it is there.

    Whoever closes it ends the work.
    """
    left = iter(seeds)
    with farm() as pool:
        flying: set[Future[list[Result]]] = set()
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
