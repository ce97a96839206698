"""What an agent's report says of its host's client of the storage."""

from __future__ import annotations

import pytest

from sharedcache import ledger
from sharedcache.core.model import RosterRecord
from tests.support.memory_agent import MemoryCluster


@pytest.mark.parametrize("cache_s", [0.0, 2.5, 60.0])
def test_the_report_tells_how_long_the_mount_keeps_names(cache_s: float) -> None:
    """The floor of every grace rests on it: a cleaner's own mount may keep less."""
    cluster = MemoryCluster()
    cluster.agent("n1", cache_s).step()
    session = cluster.session("reader")
    record = session.get(ledger.node_path("n1"))
    assert record is not None
    head = ledger.durable_report(record, "n1", session)
    assert isinstance(head, RosterRecord)
    assert head.report is not None
    assert head.report.name_cache_s == cache_s
