"""Counts that do not depend on the machine: what a report and a pass ask for.

A change of these numbers is a decision, not an accident: at thousands of
nodes each request counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from kazoo.client import KazooClient

from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.cleaner.service import CleanerService
from sharedcache.node.service import NodeService
from tests.support import eventually
from tests.support.inprocess import Site, image_id

pytestmark = pytest.mark.timeout(90)


@contextmanager
def requests_of(session: object) -> Iterator[Counter[str]]:
    """Count the requests that one session sends to the server, by kind."""
    assert isinstance(session, ZooKeeperSession)
    client = session._linked().client()
    counts: Counter[str] = Counter()
    patch = pytest.MonkeyPatch()
    call = KazooClient._call

    def counting(self: Any, request: Any, answer: Any) -> Any:
        # Renewing the lease goes on beside the pass, at its own pace.
        if self is client and not renewing(request):
            counts[type(request).__name__] += 1
        return call(self, request, answer)

    def renewing(request: Any) -> bool:
        # A renewal is a transaction that checks the election's node, and no more.
        parts = getattr(request, "operations", [request])
        return all("leader" in str(getattr(part, "path", "")) for part in parts)

    patch.setattr(KazooClient, "_call", counting)
    try:
        yield counts
    finally:
        patch.undo()


class CountingStorage:
    """Counts the calls of a storage, which are its steps, by name."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.counts: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        """Count a call and pass it on."""
        self.counts[name] += 1
        return getattr(self._storage, name)


def reported(agent: NodeService) -> bool:
    """Step an agent; tell whether a report of it is published."""
    agent._next_look = 0.0
    agent.step()
    return agent.publisher.published is not None


def leads(cleaner: CleanerService) -> bool:
    """Step a cleaner; tell whether it made a pass."""
    cleaner.step()
    return cleaner.harvest.passes > 0


def test_a_look_that_finds_nothing_new_writes_nothing(site: Site) -> None:
    """An unchanged report costs two syncs, four reads and no write."""
    used = image_id()
    site.image(used)
    site.uses("n1", images=[used])
    agent = site.agent("n1")
    eventually(lambda: reported(agent), 10.0, "a report")
    reported(agent)
    reported(agent)
    with requests_of(agent.world.coordination) as counts:
        reported(agent)
    assert counts == {"Sync": 2, "GetData": 4}


def test_a_changed_report_costs_one_set_and_one_transaction(site: Site) -> None:
    """Capabilities first, then one transaction with the durable half."""
    agent = site.agent("n1")
    eventually(lambda: reported(agent), 10.0, "a report")
    reported(agent)
    reported(agent)
    site.uses("n1", images=[image_id()])
    with requests_of(agent.world.coordination) as counts:
        reported(agent)
    writes = {k: n for k, n in counts.items() if k not in ("Sync", "GetData")}
    assert writes == {"SetData": 1, "Transaction": 1}


def test_an_idle_pass_writes_nothing_to_zookeeper(site: Site) -> None:
    """A pass over a directory where all is in use reads, and does not write."""
    ids = [image_id() for _ in range(30)]
    for ident in ids:
        site.image(ident)
    site.uses("n1", images=ids)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    eventually(lambda: reported(agent), 10.0, "a report")
    eventually(lambda: leads(cleaner), 10.0, "a pass")
    storage = CountingStorage(cleaner.world.storage)
    cleaner.observer.storage = storage  # type: ignore[assignment]
    with requests_of(cleaner.world.coordination) as counts:
        cleaner.pass_now()
        cleaner.step()
    assert not {"SetData", "Create", "Delete", "Transaction"} & set(counts)
    assert counts["Sync"] == 1
    assert counts["GetData"] <= 16
    # One scan for all thirty files, and one witness for the one node.
    assert storage.counts == {
        "read_marker": 1,
        "read_schema": 1,
        "epochs": 1,
        "epoch_time": 1,
        "witness_list": 1,
        "witness_read": 1,
        "scan": 1,
        "name_cache_s": 1,
        "space": 1,
    }


def test_a_batch_costs_five_transactions_and_nine_steps_a_file(site: Site) -> None:
    """Two transactions quarantine a batch and three purge it, whatever its size.

    On the storage a file costs five steps on its way out of ``_base`` and
    four on its way out of quarantine, the last but one of its digest record.
    """
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    eventually(lambda: reported(agent), 10.0, "a report")
    eventually(lambda: leads(cleaner), 10.0, "a pass")
    files = 25
    for _ in range(files):
        site.image(image_id())
    storage = CountingStorage(cleaner.world.storage)
    cleaner.world = replace(cleaner.world, storage=storage)  # type: ignore[arg-type]
    assert cleaner.leadership is not None
    cleaner.leadership = replace(cleaner.leadership, world=cleaner.world)
    with requests_of(cleaner.world.coordination) as counts:
        cleaner.pass_now()
        cleaner.step()
    assert len(cleaner.harvest.taken.names) == files
    taking = {name: count for name, count in storage.counts.items() if count >= files}
    assert taking == dict.fromkeys(
        ("facts", "locked", "quarantine", "quarantined_facts", "epoch_time"), files
    )
    # Two for the batch; the round is raised by a third.
    assert counts["Transaction"] <= 3
    storage.counts.clear()
    rounds = 0
    with requests_of(cleaner.world.coordination) as counts:
        while not cleaner.harvest.purged.names:
            agent.step()
            before = counts["Transaction"]
            cleaner.step()
            rounds += 1
            assert rounds < 1000
        last = counts["Transaction"] - before
    assert len(cleaner.harvest.purged.names) == files
    purging = {name: count for name, count in storage.counts.items() if count >= files}
    assert purging == dict.fromkeys(
        ("quarantined_facts", "quarantined_locked", "digest_drop", "purge"), files
    )
    assert last == 3
