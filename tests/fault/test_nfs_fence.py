"""The storage's fence on NFSv4.1, by two guests with kernels of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.fault.fence_suite import DONE, FenceSuite
from tests.support.clients import Clients

if TYPE_CHECKING:
    from tests.support.nfs.rig import Rig

# The first test waits for the guests to boot.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def clients(nfs: Rig) -> Clients:
    """Give the hands in the two guests."""
    return nfs.clients


class TestNfsFence(FenceSuite):
    """The fence of an NFS server."""

    late_link = DONE
    answers: ClassVar = {
        "rename into it, by path": (DONE, DONE, "ENOENT", "ENOTDIR"),
        "rename into it, by descriptor": (DONE, DONE, "ESTALE", "ESTALE"),
        "link into it, by descriptor": (DONE, DONE, "ESTALE", "ESTALE"),
        "create in it, by descriptor": (DONE, DONE, "ESTALE", "ESTALE"),
        "unlink from it, by path": (DONE, "ENOENT", "ENOENT", "ENOTDIR"),
        "unlink from it, by descriptor": (DONE, "ENOENT", "ESTALE", "ESTALE"),
        "rename out of it, by descriptor": (DONE, "ENOENT", "ESTALE", "ESTALE"),
        "link out of it, by descriptor": (DONE, DONE, DONE, DONE),
        "mkdir of it, by path": ("EEXIST", "EEXIST", DONE, "EEXIST"),
    }
