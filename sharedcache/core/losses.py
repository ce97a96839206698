"""Used names that are nowhere: told once that is sure.

A client may remember for a while that a name was not there, after another node has
fetched the file again.  One look that does not find it is therefore no loss yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Losses:
    """Keeps since when used names are missing; ``lost`` are those surely gone."""

    lost: tuple[str, ...] = ()
    _since_s: dict[str, float] = field(default_factory=dict)

    def look(
        self, missing: Iterable[str], now_s: float, name_cache_s: float
    ) -> tuple[str, ...]:
        """Take one look into account; return the names that are lost since.

        A name is lost when a look that comes at least ``name_cache_s`` seconds,
        the mount's lifetime of names, after the first does not find it either.
        """
        before = self._since_s
        self._since_s = {name: before.get(name, now_s) for name in missing}
        told = set(self.lost)
        self.lost = tuple(
            name
            for name, since_s in self._since_s.items()
            if name in told or (name in before and now_s - since_s >= name_cache_s)
        )
        return tuple(name for name in self.lost if name not in told)
