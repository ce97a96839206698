"""Operators at their desks: command lines that are given, and given again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sharedcache.cleaner.finalize import RefusedError
from sharedcache.core.acts import Signature
from sharedcache.core.ports import CoordinationError, OutcomeUnknownError, StorageError
from tests.simulation.memory_storage import MemoryStorage
from tests.simulation.ports import Scheduled
from tests.simulation.process import Process, SeededTokens, SimulatedClock

if TYPE_CHECKING:
    from tests.simulation.world import World

OPERATOR = Signature("operator@desk", 0.0)


@dataclass(frozen=True, slots=True)
class Desk:
    """The ports of one operator's command line."""

    zookeeper: Any
    storage: Any
    locks: Any
    clock: Any
    tokens: Any


Word = Callable[[Desk], object]
"""A command of an operator."""


def say(world: World, title: str, wait_s: float, *words: Word) -> None:
    """Let an operator give commands, one after the other."""
    host = world.add_host(title)

    def body(process: Process) -> None:
        session = process.connect_with(title, 4.0)
        at = Desk(
            Scheduled(process, "zookeeper", session),
            Scheduled(process, "storage", MemoryStorage(host.mount)),
            Scheduled(process, "locks", process.lock_port()),
            SimulatedClock(process),
            SeededTokens(world),
        )
        for word in words:
            _insist(process, word, at)
            process.actor.sleep(wait_s)
        process.wanted = False

    Process(world, host, title, body).start()


def _insist(process: Process, word: Word, at: Desk) -> None:
    """Give a command again and again until it is known to be done or refused."""
    while True:
        try:
            at.zookeeper.start(1.0)
            word(at)
        except (CoordinationError, OutcomeUnknownError, StorageError):
            process.actor.sleep(0.5)
        except RefusedError:
            return
        else:
            return
