"""A model of the cleaner of 2013, and of the Nova that it belongs to.

Each node runs its own.  It looks at names of the length of a SHA-1 digest only,
knows which disk images are in use from the register that the nodes share, and
counts no kernel and no ramdisk: under the naming of its day those have other
names.  What it does not know it removes once it is old enough, for good.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.cluster import cache_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{40}\Z")


@dataclass
class Cleaner2013:
    """The cleaner of one node; ``min_age_s`` is its minimum age for all names."""

    base: Path
    min_age_s: float
    passes: int = 0

    def clean(self, disk_images: Iterable[str]) -> list[str]:
        """Make one pass; ``disk_images`` are the ids in the shared register."""
        explained = {cache_name(image) for image in disk_images}
        removed: list[str] = []
        for path in self.base.iterdir():
            if _DIGEST.match(path.name) is None or path.name in explained:
                continue
            try:
                if time.time() - path.stat().st_mtime < self.min_age_s:
                    continue
                path.unlink()
            except FileNotFoundError:
                continue
            removed.append(path.name)
        self.passes += 1
        return removed


def fetch_as_then(base: Path, image: str, kernel: str) -> None:
    """Put a guest's disk image and kernel there, as the Nova of then names them."""
    for name in (cache_name(image), kernel):
        path = base / name
        if not path.exists():
            path.write_bytes(name.encode())
