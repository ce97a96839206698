"""What else the protocol relies on of a storage that several clients share.

A test file subclasses `SharingSuite` and gives the fixture `clients`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.storage_world import IMAGE, LEAF, OTHER
from tests.fault.fence_suite import DONE, EPOCH, Scene, together
from tests.support.hands import given_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import Clients

_NAMES = [f"{number:040x}" for number in range(20)]


class SharingSuite:
    """The whole suite, on two clients that share nothing but the storage."""

    @pytest.fixture
    def scene(self, clients: Clients) -> Iterator[Scene]:
        """Give a cache directory of its own to each test."""
        scene = Scene(clients)
        yield scene
        for client in clients.both:
            client.ask("leave")

    # Exclusive steps.

    def test_link_never_replaces(self, scene: Scene) -> None:
        """Neither a name that is known to be taken nor one believed free is replaced.

        The late client has looked for the name just before the other client
        made it, so that its cache says that the name is free.
        """
        scene.lead()
        scene.late.ask("look", IMAGE)
        scene.successor.ask("put", IMAGE, "fetched again")
        answers = [
            scene.late.ask("system", "link", OTHER, IMAGE),
            scene.late.ask("store", "restore", 5, LEAF, IMAGE)[0],
            scene.successor.ask("system", "link", OTHER, IMAGE),
        ]
        assert answers == ["EEXIST", "NameExistsError", "EEXIST"]
        for client in (scene.late, scene.successor):
            assert client.ask("read", IMAGE) == "fetched again"

    @pytest.mark.parametrize("call", ["epoch_make", "epoch_seal"])
    def test_names_of_epochs_are_won_by_one(self, scene: Scene, call: str) -> None:
        """Of two clients that make one epoch's name at once, exactly one is told so."""
        epochs = list(range(1, 1 + len(_NAMES)))
        answers = together(
            *(
                (client, "all_of", [[[call, epoch] for epoch in epochs]])
                for client in (scene.late, scene.successor)
            )
        )
        for pair in zip(*answers, strict=True):
            assert sorted(pair) == ["NameExistsError", DONE], pair

    def test_files_are_created_by_one(self, scene: Scene) -> None:
        """An exclusive creation succeeds on one client only."""
        for name in _NAMES:
            pair = together(
                (scene.late, "system", ["create", name]),
                (scene.successor, "system", ["create", name]),
            )
            assert sorted(pair) == ["EEXIST", DONE], pair

    def test_one_of_two_renames(self, scene: Scene) -> None:
        """A file that two clients rename at once goes to one of them."""
        for client, epoch in ((scene.late, 5), (scene.successor, 6)):
            scene.must(client, "epoch_make", epoch)
        for name in _NAMES:
            scene.late.ask("put", name, name)
        taking = [
            (client, "all_of", [[["quarantine", n, epoch, f"{n}.x"] for n in _NAMES]])
            for client, epoch in ((scene.late, 5), (scene.successor, 6))
        ]
        for pair in zip(*together(*taking), strict=True):
            assert sorted(pair) == ["NameMissingError", DONE], pair

    # Freshness.

    def test_inodes_are_the_same_everywhere(self, scene: Scene) -> None:
        """A file has one inode number on every client, before and after a rename."""
        scene.late.ask("put", IMAGE, "content")
        seen = [
            client.ask("look_opened", IMAGE)[1]["inode"]
            for client in (scene.late, scene.successor)
        ]
        scene.must(scene.late, "epoch_make", 5)
        scene.must(scene.late, "quarantine", IMAGE, 5, LEAF)
        seen += [
            scene.must(client, "quarantined_facts", 5, LEAF)["inode"]
            for client in (scene.late, scene.successor)
        ]
        assert len(set(seen)) == 1, seen

    def test_opened_witness_is_fresh(self, scene: Scene) -> None:
        """A witness that was read before is read anew when it is opened by name."""
        for number in range(5):
            data = f"incarnation {number}"
            scene.must(
                scene.successor, "witness_write", "n", given_bytes(data.encode())
            )
            seen = scene.must(scene.late, "witness_read", "n")
            assert seen[0] == data
            touched = scene.must(scene.successor, "witness_touch", "n")
            seen = scene.must(scene.late, "witness_read", "n")
            assert seen[1]["mtime_ns"] == touched["mtime_ns"]

    def test_opened_inode_is_current(self, scene: Scene) -> None:
        """Times and links of a quarantined file are those of now, on every client.

        The purge compares them with the baseline.  They were looked at just
        before the other client changed them, by a touch and by a restore.
        """
        scene.lead()
        before = scene.late.ask("writable_facts", 5, LEAF)[1]
        path = f"{EPOCH}/{LEAF}"
        assert scene.successor.ask("system", "utime", path) == DONE
        touched = scene.late.ask("writable_facts", 5, LEAF)[1]
        assert touched["mtime_ns"] > before["mtime_ns"]
        assert touched["ctime_ns"] > before["ctime_ns"]
        scene.must(scene.successor, "restore", 5, LEAF, IMAGE)
        linked = scene.late.ask("writable_facts", 5, LEAF)[1]
        assert (touched["links"], linked["links"]) == (1, 2)
        assert linked["ctime_ns"] > touched["ctime_ns"]
        assert linked == scene.successor.ask("writable_facts", 5, LEAF)[1]

    def test_guest_of_another_client_is_seen(self, scene: Scene) -> None:
        """A lock that a qemu holds on one client shows on the other one."""
        scene.lead()
        scene.successor.ask("lock", f"{EPOCH}/{LEAF}")
        scene.successor.ask("lock", OTHER)
        assert scene.must(scene.late, "locked", OTHER) is True
        assert scene.must(scene.late, "quarantined_locked", 5, LEAF) is True
        scene.successor.ask("drop", f"{EPOCH}/{LEAF}")
        assert scene.must(scene.late, "quarantined_locked", 5, LEAF) is False
