"""The finalized schema as the storage tells it is ahead of ZooKeeper's."""

from __future__ import annotations

import json

import pytest

from sharedcache import ledger
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.core.gate import Code
from sharedcache.core.model import Rollout
from sharedcache.core.ports import Set
from tests.support.inprocess import Site, gate_codes, image_id, publish, settle

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    "ahead", [{"finalized_schema": 3}, {"schema": 99}], ids=["schema", "record"]
)
def test_nothing_goes_while_the_storage_is_ahead(
    site: Site, ahead: dict[str, int]
) -> None:
    """Writers go by the storage's word, so a leader that does not know it waits.

    Where that word is taken away the leader writes its own, and goes on.
    """
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    told = site.base / ".sharedcache" / "schema"
    good = told.read_text()
    newer = json.dumps({**json.loads(good), **ahead})
    told.write_text(newer)
    path = site.image(image_id())
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 3, what="passes")
    assert gate_codes(cleaner) == {(Code.NODE_SCHEMA_UNKNOWN, "storage")}
    assert path.exists()
    assert told.read_text() == newer
    told.unlink()
    settle(agent, cleaner, until=lambda: not path.exists(), what="it goes on")
    assert json.loads(told.read_text())["finalized_schema"] == 2


def test_names_are_acknowledged_under_a_known_schema_only(site: Site) -> None:
    """Under one that is not known it is not said that none is finalized."""
    publish(site.agent("n1"))
    data = ledger.rollout_data(Rollout(3))
    site.session("newer").commit([Set(ledger.ROLLOUT, data, None)])
    with pytest.raises(RefusedError, match="cannot tell which schema is finalized"):
        site.acknowledge()
