"""Hands on a mount in memory: the same calls as those of a client over the network."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simulation.memory_disk import Inode, MemoryDisk
from tests.simulation.memory_storage import MemoryStorage, Mount
from tests.support.hands import DONE, Hands

_STEP_S = 0.25


class Time:
    """Seconds that pass when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


class MemoryHands(Hands):
    """One client of one disk.  ``stale`` is asked whether memory answers a look."""

    def __init__(
        self, disk: MemoryDisk, time: Time, cache_s: float, stale: Callable[[], bool]
    ) -> None:
        super().__init__(Path())
        self._disk = disk
        self._time = time
        self._mount = Mount(disk, time, cache_s, stale)

    def ask(self, call: str, *given: Any) -> Any:
        """Do what is asked, as a ``Remote`` has it done elsewhere."""
        return getattr(self, call)(*given)

    def enter(self, place: str) -> None:
        """Use the disk; there is one place on it."""
        del place
        self._storage = MemoryStorage(self._mount)  # type: ignore[assignment]

    def found(self, place: str) -> None:
        """Bind the disk."""
        self.enter(place)
        MemoryStorage(self._mount).create_marker(b"identity")

    def hold(self, path: str) -> None:
        """Nothing of memory is held open."""

    def warm(self, path: str) -> list[str]:
        """Remember what a directory holds; those of epochs have no cached names."""
        if path != ".":
            return []
        return sorted(self._mount.listing(self._disk.base))

    def put(self, path: str, text: str) -> None:
        """Write a file of `_base`."""
        made = self._disk.new_file(text.encode())
        self._disk.create(self._disk.base, path, made)
        self._mount.forget(self._disk.base, path)

    def system(self, call: str, *paths: str) -> str:
        """Rename within `_base`, which is all that these suites ask for."""
        assert call == "rename"
        name, new = paths
        self._disk.rename(self._disk.base, name, self._disk.base, new)
        for one in paths:
            self._mount.forget(self._disk.base, one)
        return DONE

    def look_opened(self, path: str) -> list[Any]:
        """Open a name of `_base` as the kernel does."""
        found = self._mount.lookup(self._disk.base, path)
        if not isinstance(found, Inode):
            return [errno.errorcode[errno.ENOENT], None]
        return [DONE, dataclasses.asdict(found.facts())]

    def until(
        self, wanted: object, limit_s: float, call: str, *arguments: Any
    ) -> list[Any]:
        """See ``Hands``; the time that passes is this disk's."""
        start = self._time.now_s
        looks: list[object] = []
        while True:
            look = self.ask(call, *arguments)
            looks.append(look[0] if isinstance(wanted, str) else look)
            passed = self._time.now_s - start
            if looks[-1] == wanted or passed > limit_s:
                return [looks[0], looks[-1], passed]
            self._time.now_s += _STEP_S
