"""What weakens the nodes' evidence reaches `status`, and stops nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from sharedcache.adapters.proc import UNLOCKED
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cli import data, views
from sharedcache.core.model import Uses
from sharedcache.core.planner import make_plan
from sharedcache.core.ports import StorageError
from sharedcache.core.referrers import Referrers
from tests.support.inprocess import FAST, Site, publish

if TYPE_CHECKING:
    from sharedcache.cli.data import Data


class Weak:
    """A source that noticed something."""

    name = "weak"

    def look(self) -> Uses:
        """See nothing."""
        return Uses()

    def referrers(self) -> Referrers:
        """Say what was noticed."""
        told = Referrers()
        told.caveats.add(UNLOCKED)
        return told


def status(site: Site) -> Data:
    """Look as `status` does."""
    observed = site.observer().observe(scan=True)
    return data.status(observed, make_plan(FAST, observed.seen), site.cluster, 1.0)


def test_locks_that_stay_on_a_host(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that keeps locks to itself is named with its nodes; nothing closes."""
    publish(site.agent("n0"))
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStorage, "local_locks", lambda _: "nolock")
        publish(site.agent("n1", sources=[Weak()]))
        publish(site.agent("n2"))
    said = status(site)
    assert said["caveats"] == [
        {"what": UNLOCKED, "nodes": ["n1"]},
        {
            "what": "nolock: locks of this node's guests stay on it",
            "nodes": ["n1", "n2"],
        },
    ]
    assert said["nodes"]["degraded"] == 0
    assert said["gate"]["reasons"] == []
    console = Console(width=120, record=True)
    views.status(console, said)
    assert "nolock" in console.export_text()


def test_a_mount_that_cannot_be_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether locks stay here is for people: not to know it degrades nobody."""

    def gone(_: object) -> str:
        raise StorageError("gone")

    monkeypatch.setattr(DirectoryStorage, "local_locks", gone)
    publish(site.agent("n1"))
    said = status(site)
    assert (said["caveats"], said["nodes"]["live"]) == ([], 1)
