"""What a network's clients keep in their caches, and for how long."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.contract.storage_world import IMAGE, OTHER
from tests.fault.fence_suite import DONE, EPOCH, Scene
from tests.fault.sharing_suite import SharingSuite
from tests.support.hands import given_bytes
from tests.support.nfs.guest import MOUNT
from tests.support.nfs.rig import NAME_CACHE_S

if TYPE_CHECKING:
    from tests.support.clients import Clients
    from tests.support.nfs.rig import Rig

pytestmark = pytest.mark.timeout(600)

_LIMIT_S = NAME_CACHE_S + 2.0
"""The lifetime, and what an emulated machine may be late by, in seconds."""

_NS = 1_000_000_000


@pytest.fixture(scope="module")
def clients(nfs: Rig) -> Clients:
    """Give the hands in the two guests."""
    return nfs.clients


class TestNfsSharing(SharingSuite):
    """What the protocol relies on, of an NFS server."""

    def test_mount_is_what_it_should_be(self, scene: Scene) -> None:
        """Version 4.1, and the adapter reads the names' lifetime from the mount."""
        for client in (scene.late, scene.successor):
            mounts = client.ask("text", "/proc/mounts").splitlines()
            mount = next(line for line in mounts if f" {MOUNT} " in line)
            assert " nfs4 " in mount
            assert "vers=4.1" in mount
            assert scene.must(client, "name_cache_s") == NAME_CACHE_S

    # Whose clock.

    def test_times_are_the_servers(self, scene: Scene) -> None:
        """A touch that names no time takes the server's clock, not the client's.

        The clients' own clocks are a day off, each to another side.
        """
        scene.lead()
        scene.must(scene.late, "witness_write", "n", given_bytes(b""))
        for client in (scene.late, scene.successor):
            apart = abs(client.ask("clock_ns") - time.time_ns()) / _NS
            assert apart > 80_000
            scene.must(client, "touch", OTHER)
            times = [
                scene.must(client, "witness_touch", "n")["mtime_ns"],
                scene.must(client, "epoch_time", 5),
                client.ask("look_opened", OTHER)[1]["mtime_ns"],
            ]
            for moment in times:
                assert abs(moment - time.time_ns()) < 60 * _NS

    # Names that a client still believes in.

    def test_name_that_went_is_opened_for_a_while(self, scene: Scene) -> None:
        """Why agents look themselves: a cached name opens a file that was renamed.

        It does so for the lifetime that the mount says, and no longer.
        """
        self._rename_away(scene)
        first, last, passed = scene.late.ask(
            "until", "ENOENT", _LIMIT_S, "look_opened", OTHER
        )
        assert first == DONE, "the client asked the server: its cache was not tried"
        assert last == "ENOENT"
        assert 0 < passed <= _LIMIT_S

    def test_name_that_came_is_missed_for_a_while(self, scene: Scene) -> None:
        """A name believed to be missing stays so for the lifetime of names at most."""
        scene.lead()
        assert scene.late.ask("look_opened", IMAGE)[0] == "ENOENT"
        scene.successor.ask("put", IMAGE, "fetched again")
        first, last, passed = scene.late.ask(
            "until", DONE, _LIMIT_S, "look_opened", IMAGE
        )
        assert first == "ENOENT", "the client asked the server: its cache was not tried"
        assert last == DONE
        assert 0 < passed <= _LIMIT_S

    def test_witness_that_came_is_missed_for_a_while(self, scene: Scene) -> None:
        """Why every grace has a floor: a new witness is missed by its name.

        For the lifetime of names at most.
        """
        assert scene.must(scene.late, "witness_read", "n") is None
        written = scene.must(scene.successor, "witness_write", "n", given_bytes(b"new"))
        wanted = [DONE, ["new", written]]
        first, last, passed = scene.late.ask(
            "until", wanted, _LIMIT_S, "store", "witness_read", "n"
        )
        assert first == [DONE, None], "its cache was not tried"
        assert last == wanted
        assert 0 < passed <= _LIMIT_S

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
        self._rename_away(scene)
        assert scene.must(scene.late, "facts", OTHER) is None
        scene.successor.ask("put", OTHER, "fetched again")
        truth = scene.must(scene.successor, "facts", OTHER)
        assert scene.must(scene.late, "facts", OTHER)["inode"] == truth["inode"]
        other = f"{OTHER}.z"
        scene.successor.ask("put", other, "fetched by another")
        assert scene.successor.ask("system", "rename", other, OTHER) == DONE
        truth = scene.must(scene.successor, "facts", OTHER)
        assert scene.must(scene.late, "facts", OTHER)["inode"] == truth["inode"]

    def test_file_renamed_through_a_cached_name(self, scene: Scene) -> None:
        """What is seen after a rename is the file that was renamed.

        The name led to another file in this client's cache than on the server,
        which renames what bears the name there.
        """
        self._rename_away(scene)
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

    def test_renamed_name_leads_a_client_astray(self, scene: Scene) -> None:
        """Why the adapter looks a new name up: the cache is wrong for longer.

        A bare rename through a cached name leaves this client with the old
        file under the new name, past the lifetime of names, since nobody else
        changes the directory.
        """
        self._rename_away(scene)
        scene.successor.ask("put", OTHER, "fetched again")
        leaf = f"{OTHER}.y"
        assert scene.late.ask("system", "rename", OTHER, f"{EPOCH}/{leaf}") == DONE
        truth = scene.successor.ask("writable_facts", 5, leaf)
        first, last, _ = scene.late.ask(
            "until", truth, 2 * NAME_CACHE_S, "writable_facts", 5, leaf
        )
        assert (first[0], truth[0]) == (DONE, DONE)
        # Were it otherwise, the adapter could leave its lookup out.
        assert last == first != truth

    @staticmethod
    def _rename_away(scene: Scene) -> None:
        """Let the successor rename a file whose name the late client has cached."""
        scene.lead()
        assert scene.late.ask("look_opened", OTHER)[0] == DONE
        scene.must(scene.successor, "epoch_make", 6)
        scene.must(scene.successor, "quarantine", OTHER, 6, f"{OTHER}.x")


def test_storage_contract_in_a_guest(nfs: Rig) -> None:
    """The port's whole contract, run by a guest on the directory that it mounted."""
    folder = "tests/contract"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-o", "timeout=300", f"--basetemp={MOUNT}/contract"),
        *(f"{folder}/test_storage_real.py", f"{folder}/test_storage_errors.py"),
    ]
    code, output = nfs.clients.late.ask("program", command, {})
    assert code == 0, output
