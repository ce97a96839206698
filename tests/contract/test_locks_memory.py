"""The locks' contract on the table in memory that the simulation uses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.contract.locks_suite import LocksContract
from tests.simulation.memory_locks import LockTable, MemoryLocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sharedcache.core.ports import NameLocks


class MemoryWorld:
    """A lock table, a Nova beside us, and a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.table = LockTable(lambda: self.now)
        self.locks: NameLocks = MemoryLocks(self.table, self.pass_time)

    @contextmanager
    def nova_holds(self, name: str) -> Iterator[None]:
        """Hold a lock as Nova does, for as long as it likes."""
        holding = self.table.hold(name)
        assert holding is not None
        yield
        self.table.let_go(holding)

    def nova_could(self, name: str) -> bool:
        """Try a lock and let it go."""
        holding = self.table.hold(name)
        if holding is not None:
            self.table.let_go(holding)
        return holding is not None

    def pass_time(self, seconds: float) -> None:
        """Turn the clock."""
        self.now += seconds


class TestMemoryLocks(LocksContract):
    """The contract suite in memory."""

    @pytest.fixture
    def world(self) -> MemoryWorld:
        """Give an empty lock directory."""
        return MemoryWorld()
