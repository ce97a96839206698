"""When a reader of the manifest reads it again: whenever its parent has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sharedcache import ledger
from sharedcache.core.model import ManifestBatch
from sharedcache.core.ports import Coordination, Record

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tree:
    """As much of a ZooKeeper as a reader asks for; counts how often it is read."""

    def __init__(self) -> None:
        self.batches: dict[str, Record] = {}
        self.reads = 0

    def children(self, path: str) -> list[str]:
        """See the port."""
        assert path == ledger.MANIFEST
        self.reads += 1
        return list(self.batches)

    def get_many(self, paths: Sequence[str]) -> list[Record | None]:
        """See the port."""
        by_path = {ledger.batch_path(name): r for name, r in self.batches.items()}
        return [by_path.get(path) for path in paths]

    def put(self, name: str) -> None:
        """Add an empty batch."""
        data = ledger.batch_data(ManifestBatch(name, (), 0))
        self.batches[name] = Record(data, 0)


def test_a_manifest_is_read_again_when_its_parent_changed() -> None:
    """Version and token tell that, and nothing is read if both are as they were.

    A ZooKeeper that lost its data and was filled again comes to the same version
    with other transactions; the token alone tells.
    """
    tree, reader = Tree(), ledger.ManifestReader()
    coordination = cast("Coordination", tree)

    def read(version: int, token: bytes) -> list[str]:
        found = reader.read(coordination, Record(token, version))
        return [batch.batch for batch in found]

    tree.put("1-a")
    assert read(7, b"one") == ["1-a"]
    tree.put("1-b")
    assert read(7, b"one") == ["1-a"]
    assert tree.reads == 1
    assert read(8, b"one") == ["1-a", "1-b"]
    tree.put("1-c")
    assert read(8, b"two") == ["1-a", "1-b", "1-c"]
