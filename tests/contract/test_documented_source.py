"""The worked example of docs/sources.md is a source that passes the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache.core import names
from sharedcache.testing import sources
from sharedcache.testing.sources import FIRST, SECOND, SourceContract

if TYPE_CHECKING:
    from sharedcache.core.ports import Source

PAGE = Path(__file__).parents[2] / "docs/sources.md"
IDS = {
    FIRST: "11111111-1111-4111-8111-111111111111",
    SECOND: "22222222-2222-4222-8222-222222222222",
}


class Leases:
    """A directory of leases, for images whose digests the contract names."""

    def __init__(self, root: Path) -> None:
        block = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        assert block is not None
        scope: dict[str, Any] = {}
        exec(block[1], scope)  # noqa: S102 - the page is ours
        self.root = root
        self.source: Source = scope["LeaseSource"](root)

    def use(self, name: str) -> None:
        """Write a lease."""
        (self.root / name).write_text(IDS[name])

    def release(self, name: str) -> None:
        """Remove it."""
        (self.root / name).unlink()

    def fail(self) -> None:
        """Cut one short."""
        (self.root / "half").write_text("1111")

    def mend(self) -> None:
        """Finish it."""
        (self.root / "half").unlink()


class TestLeases(SourceContract):
    """The example, whose uses are digests of ids."""

    @pytest.fixture
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leases:
        """Let the contract's names be the images' digests."""
        for wanted, old in (("FIRST", FIRST), ("SECOND", SECOND)):
            digest = names.digest_of(IDS[old]).hex()
            IDS[digest] = IDS[old]
            monkeypatch.setattr(sources, wanted, digest)
        return Leases(tmp_path)
