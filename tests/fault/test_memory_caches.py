"""The mount in memory remembers names as an NFS client was measured to.

The simulation rests on it: what a real client does must be among what this one may
do.  Where it may do worse, that is stated here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from tests.contract.storage_world import OTHER
from tests.fault.cached_names_suite import FreshNames, RememberedNames, rename_away
from tests.fault.fence_suite import Scene
from tests.simulation.memory_disk import MemoryDisk
from tests.support.clients import Clients
from tests.support.hands import given_bytes
from tests.support.memory_hands import MemoryHands, Time

if TYPE_CHECKING:
    from tests.support.channel import Remote

CACHE_S = 4.0


def _scene(*, stale: bool) -> Scene:
    """Give two clients of one disk; the late one answers from memory, or never."""
    time = Time()
    disk = MemoryDisk(time)
    hands = (
        MemoryHands(disk, time, CACHE_S, lambda: stale),
        MemoryHands(disk, time, CACHE_S, lambda: False),
    )
    return Scene(Clients(*(cast("Remote", one) for one in hands)))


class TestRemembered(RememberedNames):
    """A mount that answers from memory whenever it can."""

    name_cache_s = CACHE_S
    late_by_s = 0.5

    @pytest.fixture
    def scene(self) -> Scene:
        """Give a disk of its own."""
        return _scene(stale=True)

    def test_lists_may_be_old_too(self, scene: Scene) -> None:
        """Worse than measured: a list of witnesses is remembered as names are."""
        assert scene.must(scene.late, "witness_list") == []
        scene.must(scene.successor, "witness_write", "a", given_bytes(b""))
        first, last, passed = scene.late.ask(
            "until", ["done", ["a"]], self._limit_s, "store", "witness_list"
        )
        assert (first, last) == (["done", []], ["done", ["a"]])
        assert 0 < passed <= self._limit_s

    def test_looks_at_names_may_be_old_too(self, scene: Scene) -> None:
        """Worse than measured: the adapter's look goes by a remembered name."""
        rename_away(scene)
        assert scene.must(scene.late, "facts", OTHER) is not None
        scene.late.ask("until", ["done", None], self._limit_s, "store", "facts", OTHER)
        assert scene.must(scene.late, "facts", OTHER) is None


class TestFresh(FreshNames):
    """A mount that asks the server each time, which a schedule may choose as well."""

    @pytest.fixture
    def scene(self) -> Scene:
        """Give a disk of its own."""
        return _scene(stale=False)
