"""What a network's client keeps of names: expectations for NFS and for memory.

They were measured on NFSv4.1 by two kernels (`test_nfs_caches.py`), and the mount
in memory that the simulation uses is held to them (`test_memory_caches.py`).  A
test file subclasses the suites and gives the fixture `scene`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tests.contract.storage_world import IMAGE, OTHER
from tests.fault.fence_suite import DONE
from tests.support.hands import given_bytes

if TYPE_CHECKING:
    from tests.fault.fence_suite import Scene


def rename_away(scene: Scene) -> None:
    """Let the successor rename a file whose name the late client has cached."""
    scene.lead()
    assert scene.late.ask("look_opened", OTHER)[0] == DONE
    scene.must(scene.successor, "epoch_make", 6)
    scene.must(scene.successor, "quarantine", OTHER, 6, f"{OTHER}.x")


class RememberedNames:
    """Names that a client still believes in, and for how long."""

    name_cache_s: ClassVar[float]
    """The lifetime of names that the mount says, in seconds."""

    late_by_s: ClassVar[float]
    """What the client's machine may be late by, in seconds."""

    @property
    def _limit_s(self) -> float:
        return self.name_cache_s + self.late_by_s

    def test_name_that_went_is_opened_for_a_while(self, scene: Scene) -> None:
        """Why agents look themselves: a cached name opens a file that was renamed.

        It does so for the lifetime that the mount says, and no longer.
        """
        rename_away(scene)
        first, last, passed = scene.late.ask(
            "until", "ENOENT", self._limit_s, "look_opened", OTHER
        )
        assert first == DONE, "the client asked the server: its cache was not tried"
        assert last == "ENOENT"
        assert 0 < passed <= self._limit_s

    def test_name_that_came_is_missed_for_a_while(self, scene: Scene) -> None:
        """A name believed to be missing stays so for the lifetime of names at most."""
        scene.lead()
        assert scene.late.ask("look_opened", IMAGE)[0] == "ENOENT"
        scene.successor.ask("put", IMAGE, "fetched again")
        first, last, passed = scene.late.ask(
            "until", DONE, self._limit_s, "look_opened", IMAGE
        )
        assert first == "ENOENT", "the client asked the server: its cache was not tried"
        assert last == DONE
        assert 0 < passed <= self._limit_s

    def test_witness_that_came_is_missed_for_a_while(self, scene: Scene) -> None:
        """Why every grace has a floor: a new witness is missed by its name.

        For the lifetime of names at most.
        """
        assert scene.must(scene.late, "witness_read", "n") is None
        written = scene.must(scene.successor, "witness_write", "n", given_bytes(b"new"))
        wanted = [DONE, ["new", written]]
        first, last, passed = scene.late.ask(
            "until", wanted, self._limit_s, "store", "witness_read", "n"
        )
        assert first == [DONE, None], "its cache was not tried"
        assert last == wanted
        assert 0 < passed <= self._limit_s

    def test_file_renamed_through_a_cached_name(self, scene: Scene) -> None:
        """What is seen after a rename is the file that was renamed.

        The name led to another file in this client's cache than on the server,
        which renames what bears the name there.
        """
        rename_away(scene)
        scene.successor.ask("put", OTHER, "fetched again")
        fetched = scene.must(scene.successor, "facts", OTHER)["inode"]
        leaf = f"{OTHER}.y"
        scene.must(scene.late, "quarantine", OTHER, 5, leaf)
        for look in ("quarantined_facts", "writable_facts"):
            for client in (scene.late, scene.successor):
                if look == "writable_facts":
                    answer, seen = client.ask(look, 5, leaf)
                    assert answer == DONE
                else:
                    seen = scene.must(client, look, 5, leaf)
                assert seen["inode"] == fetched


class FreshNames:
    """What is as the server has it, at once, whatever the client remembers."""

    def test_list_of_witnesses_is_fresh(self, scene: Scene) -> None:
        """A stranger's witness is listed at once: the adapter opens the directory."""
        for node in ("a", "b", "c"):
            before = scene.must(scene.late, "witness_list")
            scene.must(scene.successor, "witness_write", node, given_bytes(b""))
            assert scene.must(scene.late, "witness_list") == [*before, node]

    def test_look_at_a_name_asks_the_server(self, scene: Scene) -> None:
        """The adapter's look at a cache name goes by no cached name.

        Not when the name went, and not when it leads to another file now.
        """
        rename_away(scene)
        assert scene.must(scene.late, "facts", OTHER) is None
        scene.successor.ask("put", OTHER, "fetched again")
        truth = scene.must(scene.successor, "facts", OTHER)
        assert scene.must(scene.late, "facts", OTHER)["inode"] == truth["inode"]
        other = f"{OTHER}.z"
        scene.successor.ask("put", other, "fetched by another")
        assert scene.successor.ask("system", "rename", other, OTHER) == DONE
        truth = scene.must(scene.successor, "facts", OTHER)
        assert scene.must(scene.late, "facts", OTHER)["inode"] == truth["inode"]
