"""What a network's clients keep in their caches, and for how long."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.contract.storage_world import OTHER
from tests.fault.cached_names_suite import FreshNames, RememberedNames, rename_away
from tests.fault.fence_suite import DONE, EPOCH, Scene
from tests.fault.sharing_suite import SharingSuite
from tests.support.hands import given_bytes
from tests.support.nfs.guest import MOUNT
from tests.support.nfs.rig import NAME_CACHE_S

if TYPE_CHECKING:
    from tests.support.clients import Clients
    from tests.support.nfs.rig import Rig

pytestmark = pytest.mark.timeout(600)

_NS = 1_000_000_000


@pytest.fixture(scope="module")
def clients(nfs: Rig) -> Clients:
    """Give the hands in the two guests."""
    return nfs.clients


class TestNfsSharing(RememberedNames, FreshNames, SharingSuite):
    """What the protocol relies on, of an NFS server."""

    name_cache_s = NAME_CACHE_S
    late_by_s = 2.0

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

    def test_renamed_name_leads_a_client_astray(self, scene: Scene) -> None:
        """Why the adapter looks a new name up: the cache is wrong for longer.

        A bare rename through a cached name leaves this client with the old
        file under the new name, past the lifetime of names, since nobody else
        changes the directory.
        """
        rename_away(scene)
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
