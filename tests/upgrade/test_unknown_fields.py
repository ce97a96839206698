"""What a later release adds to a record survives its rewrite by this one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedcache import ledger
from sharedcache.adapters.clock import RandomTokens, SystemClock
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import finalize
from sharedcache.cleaner.recover import Recoverer, survey
from sharedcache.cleaner.restore import OperatorRestore
from sharedcache.core import codec
from sharedcache.core.model import ManifestBatch, Rollout
from sharedcache.core.ports import Coordination, Set
from sharedcache.core.recovery import judge
from tests.property.strategies import entry
from tests.support.inprocess import FAST, OPERATOR, Site, image_id, publish, settle

if TYPE_CHECKING:
    from pathlib import Path

    from sharedcache.cleaner.service import CleanerService
    from sharedcache.node.service import NodeService

pytestmark = pytest.mark.timeout(120)

LATER = {"deep": [1, {"x": b"\x00raw"}], "word": "of a later release"}
"""What a later release has added, under the key ``later``."""

SLOW = replace(FAST, grace_s=3600.0)

_PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=9)
_VALUES = st.recursive(
    _PLAIN | st.binary(max_size=9) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
_EXTRA = st.dictionaries(
    st.text(max_size=6).map(lambda word: f"later-{word}"), _VALUES, max_size=3
)


@settings(max_examples=150)
@given(_EXTRA, _EXTRA)
def test_unknown_fields_of_a_batch_and_its_entries_are_carried_along(
    beside: dict[str, object], within: dict[str, object]
) -> None:
    """Decoded, changed and encoded again, a record still has what nobody here knew."""
    written = codec.batch_to_record(ManifestBatch("b1", (entry(),)))
    (one,) = written["entries"]  # type: ignore[misc]
    later = {**written, **beside, "entries": [{**one, **within}]}
    read = codec.batch_from_record(codec.unpack(codec.pack(later)), 3)
    changed = replace(read, entries=tuple(replace(e, asked=True) for e in read.entries))
    again = codec.unpack(ledger.batch_data(changed))
    assert again.items() >= beside.items()
    (kept,) = again["entries"]  # type: ignore[misc]
    assert kept == {**one, **within, "asked": True}


@settings(max_examples=150)
@given(_EXTRA)
def test_unknown_fields_of_the_rollout_are_carried_along(
    extra: dict[str, object],
) -> None:
    """Finalizing the next schema keeps what stood beside the last one."""
    later = {**codec.rollout_to_record(Rollout(1, "me", 2.0)), **extra}
    read = codec.rollout_from_record(codec.unpack(codec.pack(later)))
    again = codec.unpack(ledger.rollout_data(replace(read, finalized_schema=2)))
    assert again == {**later, "schema": codec.RECORD_SCHEMA, "finalized_schema": 2}


@settings(max_examples=150)
@given(_EXTRA, st.sampled_from(("value", "report", "why")))
def test_a_record_that_is_replaced_whole_keeps_unknown_fields_and_no_others(
    extra: dict[str, object], known: str
) -> None:
    """Known fields come from the new record alone, dropped ones from neither."""
    before = codec.pack({known: 1, "gone": 2, **extra})
    assert codec.renewed(before, {known: 3}, {"gone"}) == {**extra, known: 3}
    assert codec.renewed(b"\xc1", {known: 3}) == {known: 3}


def test_what_is_carried_along_is_bounded() -> None:
    """More than the bound makes a record unreadable, which keeps everything."""
    big: dict[str, object] = {"later": b"x" * codec.MAX_EXTRA_BYTES}
    written = codec.batch_to_record(ManifestBatch("b1", (entry(),)))
    with pytest.raises(codec.RecordError, match="too many"):
        codec.batch_from_record({"schema": 1, **written, **big}, 0)
    with pytest.raises(codec.RecordError, match="too many"):
        codec.renewed(codec.pack({"value": 1, **big}), {"value": 2})
    unsaid = {"schema": 1, "finalized_schema": 2, "finalized_at": 1.0, "later": 2**70}
    with pytest.raises(codec.RecordError, match="carried along"):
        codec.rollout_from_record(unsaid)


def extend(coordination: Coordination, *paths: str) -> None:
    """Add to records what a later release would, in the entries of a batch too."""
    for path in paths:
        record = coordination.get(path)
        assert record is not None
        values: dict[str, Any] = {**codec.unpack(record.data), "later": LATER}
        if "entries" in values:
            values["entries"] = [{**one, "later": LATER} for one in values["entries"]]
        if isinstance(values.get("report"), dict):
            values["report"] = {**values["report"], "later": LATER}
        coordination.commit([Set(path, codec.pack(values), record.version)])


def kept(coordination: Coordination, path: str, version: int) -> bool:
    """Whether a record was written since, and still has all that was added."""
    record = coordination.get(path)
    assert record is not None
    assert record.version > version, f"{path} was not rewritten"
    values: Any = codec.unpack(record.data)
    within = [one.get("later") for one in values.get("entries", [])]
    return values.get("later") == LATER and all(one == LATER for one in within)


def versions(coordination: Coordination, *paths: str) -> dict[str, int]:
    """Return the data versions of records."""
    found = {path: coordination.get(path) for path in paths}
    return {path: record.version for path, record in found.items() if record}


@pytest.fixture
def held(site: Site) -> Held:
    """Give a site with one file in quarantine, and whoever put it there."""
    path = site.image(image_id())
    agents, cleaner = [site.agent("n1"), site.agent("n2")], site.cleaner("c1", SLOW)
    settle(*agents, cleaner, until=lambda: not path.exists(), what="quarantined")
    settle(*agents, cleaner, until=lambda: _round(cleaner) > 1, what="a round")
    return site, agents, cleaner, path


def _round(cleaner: CleanerService) -> int:
    observed = cleaner.harvest.observed
    return 0 if observed is None else observed.round.value


Held = tuple[Site, list["NodeService"], "CleanerService", "Path"]


def _batch(coordination: Coordination) -> str:
    (name,) = coordination.children(ledger.MANIFEST)
    return ledger.batch_path(name)


def test_an_agent_s_restore_and_a_leader_s_renewal_keep_them(held: Held) -> None:
    """Batch, entry, roster, round and memory, each by whoever rewrites it."""
    site, agents, cleaner, path = held
    session = site.session("op")
    batch = _batch(session)
    node = ledger.node_path("n1")
    paths = (batch, node, ledger.ROUND, ledger.MEMORY)
    extend(session, *paths)
    # The agent reads its own record anew only when it begins, or was in doubt.
    agents[0].publisher._version = None
    agents[0].publisher.published = None
    before = versions(session, *paths)
    site.uses("n1", names=[path.name])
    settle(*agents, until=path.exists, what="restored by the agent")
    settle(*agents, until=lambda: not agents[0].restorer.intents, what="finished")
    assert kept(session, batch, before[batch])
    assert kept(session, node, before[node])
    again = versions(session, batch)[batch]
    settle(
        *agents,
        cleaner,
        until=lambda: versions(session, batch)[batch] > again,
        what="renewed by the leader",
    )
    assert kept(session, batch, again)
    # Another unused file asks for another round.
    site.image(image_id())
    settle(
        *agents,
        cleaner,
        until=lambda: (
            versions(session, *paths)[ledger.ROUND] > before[ledger.ROUND]
            and versions(session, *paths)[ledger.MEMORY] > before[ledger.MEMORY]
        ),
        what="a round, and a memory of the new use",
    )
    assert kept(session, ledger.ROUND, before[ledger.ROUND])
    assert kept(session, ledger.MEMORY, before[ledger.MEMORY])


def test_a_takeover_and_an_operator_s_restore_keep_them(held: Held) -> None:
    """A successor moves every entry to its own epoch; an operator marks one."""
    site, agents, cleaner, path = held
    session = site.session("op")
    batch = _batch(session)
    extend(session, batch, ledger.EPOCH)
    before = versions(session, batch, ledger.EPOCH)
    cleaner.stand_down()
    successor = site.cleaner("c2", SLOW)
    settle(
        *agents, successor, until=lambda: successor.leadership is not None, what="c2"
    )
    assert kept(session, ledger.EPOCH, before[ledger.EPOCH])
    assert kept(session, batch, before[batch])
    moved = versions(session, batch)[batch]
    locks = NovaNameLocks(str(site.locks))
    site.stack.callback(locks.close)
    clock = site.stack.enter_context(SystemClock())
    OperatorRestore(
        session, site.storage(), locks, clock, RandomTokens(), OPERATOR.who
    ).run(path.name)
    assert path.exists()
    assert kept(session, batch, moved)


def test_an_operator_s_words_keep_them(held: Held) -> None:
    """A hold that is ordered anew; a node that is expunged, expected, and returns."""
    site, agents, _, path = held
    session, storage = site.session("op"), site.storage()
    hold, node = ledger.hold_path(path.name), ledger.node_path("n2")
    operator.hold(session, path.name, "first", OPERATOR)
    agents[1].finish()
    extend(session, hold, node)
    before = versions(session, hold, node)
    operator.hold(session, path.name, "second", OPERATOR)
    assert kept(session, hold, before[hold])
    assert [held.why for held in operator.holds(session)] == ["second"]
    operator.expunge(session, storage, "n2", OPERATOR)
    assert kept(session, node, before[node])
    operator.expect(session, "n2", OPERATOR)
    assert kept(session, node, before[node] + 1)
    publish(site.agent("n2"))
    assert kept(session, node, before[node] + 2)
    record = session.get(node)
    assert record is not None
    assert "unreadable" not in codec.unpack(record.data)
    assert "boot_id" not in codec.unpack(record.data)


def test_finalizing_keeps_them_in_both_places(
    tmp_path: Path, zookeeper: object, zk_cluster_name: str
) -> None:
    """The record in ZooKeeper keeps its own fields, and that of the storage its own."""
    with Site(tmp_path / "s", zookeeper.address, zk_cluster_name) as site:  # type: ignore[attr-defined]
        site.found(schema=1)
        publish(site.agent("n1"))
        session, storage = site.session("op"), site.storage()
        extend(session, ledger.ROLLOUT)
        before = versions(session, ledger.ROLLOUT)[ledger.ROLLOUT]
        text = codec.from_text(storage.read_schema() or b"")
        storage.write_schema(codec.to_text({**text, "later": "on the storage"}))
        observed = site.observer().observe(scan=False)
        assert finalize(session, storage, observed, "me", 1.0).finalized_schema == 2
        assert kept(session, ledger.ROLLOUT, before)
        text = codec.from_text(storage.read_schema() or b"")
        assert (text["finalized_schema"], text["later"]) == (2, "on the storage")


def test_a_recovery_keeps_them(held: Held) -> None:
    """Doubt is added to a report whose other fields stay, and the rest is carried."""
    site, agents, cleaner, _ = held
    cleaner.stand_down()
    for agent in agents:
        agent.finish()
    session, storage = site.session("op"), site.storage()
    node = ledger.node_path("n1")
    paths = (node, ledger.IDENTITY, ledger.ROLLOUT, ledger.ROUND)
    extend(session, *paths)
    before = versions(session, *paths)
    seen = survey(session, storage)
    judged = judge(seen.standing, site.cluster, 10**13, anyway=True)
    Recoverer(session, storage, RandomTokens(), "me", 1.0).run(
        seen, judged, lambda _: None
    )
    for path in paths:
        assert kept(session, path, before[path])
    record = session.get(node)
    assert record is not None
    report: Any = codec.unpack(record.data)["report"]
    assert report["later"] == LATER
    assert report["failures"]
