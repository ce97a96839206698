"""Brakes, marks and pace, with real agents and leaders on a real ZooKeeper."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sharedcache import ledger
from sharedcache.cleaner import operator
from sharedcache.cleaner.brake import as_the_leader_tells
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.brakecodec import BrakeNote
from sharedcache.core.gate import Code
from sharedcache.core.model import EntryState
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import CleanerPolicy
from sharedcache.core.ports import Delete, StorageError
from sharedcache.node.service import NodeService
from tests.support import eventually
from tests.support.cluster import Cluster, cache_name
from tests.support.cluster import image_id as numbered
from tests.support.inprocess import (
    FAST,
    OPERATOR,
    Site,
    Told,
    gate_codes,
    image_id,
    publish,
    settle,
)

pytestmark = pytest.mark.timeout(90)

WARY = replace(FAST, max_shrink_floor=5)
STRICT = replace(WARY, max_share_percent=50.0, max_share_floor=3)
USED = 8


def with_uses(site: Site, node: str) -> tuple[NodeService, list[str], list[Path]]:
    """Start an agent that uses eight images."""
    ids = [image_id() for _ in range(USED)]
    paths = [site.image(ident) for ident in ids]
    site.uses(node, images=ids)
    agent = site.agent(node)
    publish(agent)
    return agent, ids, paths


def grow_old(paths: list[Path]) -> None:
    """Make files look unused for long: agents have touched them meanwhile."""
    for path in paths:
        os.utime(path, (1, 1))


def reports(agent: NodeService, count: int) -> bool:
    """Whether an agent has told of so many uses."""
    said = agent.publisher.published
    return said is not None and len(said.now) == count


def told(cleaner: CleanerService) -> BrakeNote | None:
    """Return the brake that the leader has written down."""
    return ledger.brake_of(cleaner.world.coordination.get(ledger.BRAKE))


def shrink(site: Site, *others: NodeService) -> tuple[NodeService, list[Path]]:
    """Let a leader remember a node's uses, and the node then report none."""
    agent, _, paths = with_uses(site, "n1")
    first = site.cleaner("c1", WARY)
    settle(agent, *others, first, until=lambda: first.harvest.passes, what="a pass")
    assert told(first) is None
    first.stand_down()
    site.uses("n1")
    settle(agent, *others, until=lambda: reports(agent, 0), what="an empty report")
    grow_old(paths)
    return agent, paths


def test_a_node_that_suddenly_reports_nothing_stops_its_next_leader(
    site: Site,
) -> None:
    """The memory outlives the leader; what it protects stays, until it is back."""
    agent, paths = shrink(site)
    cleaner = site.cleaner("c2", WARY)
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 5, what="passes")
    assert gate_codes(cleaner) == {(Code.BRAKE, "n1")}
    assert all(path.exists() for path in paths)
    note = told(cleaner)
    assert note is not None
    assert (note.epoch, note.digest) == (2, cleaner.harvest.plan.digest)  # type: ignore[union-attr]
    assert "0 used files, 8 before" in note.reasons[0].message
    site.uses("n1", names=[path.name for path in paths])
    settle(
        agent,
        cleaner,
        until=lambda: not gate_codes(cleaner),
        what="the gate opens when the mount is back",
    )
    assert told(cleaner) is None
    assert all(path.exists() for path in paths)


def test_a_shrink_between_two_passes_holds_purges_at_once(site: Site) -> None:
    """A brake needs no whole pass to close the gate, and gets one for its digest."""
    agent, _, paths = with_uses(site, "n1")
    first = site.image(image_id())
    policy = replace(WARY, grace_s=2.0, pass_interval_s=600.0)
    cleaner = site.cleaner("c1", policy)
    settle(agent, cleaner, until=lambda: not first.exists(), what="one is taken")
    site.uses("n1")
    settle(agent, until=lambda: reports(agent, 0), what="an empty report")
    grow_old(paths)
    settle(agent, cleaner, until=lambda: told(cleaner), what="a brake is told of")
    end = time.monotonic() + 2.5
    settle(
        agent, cleaner, until=lambda: time.monotonic() > end, what="the grace is over"
    )
    assert (Code.BRAKE, "n1") in gate_codes(cleaner)
    assert not cleaner.harvest.purged.names
    assert all(path.exists() for path in paths)


def test_an_approved_shrink_is_believed_for_good(site: Site) -> None:
    """The approval of the leader's own plan ends the brake, and is remembered."""
    agent, paths = shrink(site)
    cleaner = site.cleaner("c2", WARY)
    settle(agent, cleaner, until=lambda: told(cleaner), what="a brake is told of")
    note, observed = told(cleaner), cleaner.harvest.observed
    assert note is not None
    assert observed is not None
    word = site.session("operator")
    operator.approve(word, note.digest, observed.seen.storage_now_ns, OPERATOR)
    settle(
        agent,
        cleaner,
        until=lambda: not any(path.exists() for path in paths),
        what="the files are taken",
    )
    memory = ledger.memory_of(word.get(ledger.MEMORY))
    assert isinstance(memory, dict)
    assert memory["n1"].count == 0
    assert told(cleaner) is None


def test_a_shrink_that_lasts_is_believed_in_the_end(site: Site) -> None:
    """A decommissioned host brakes no longer than its time, leaders or not."""
    agent, paths = shrink(site)
    policy = replace(WARY, shrink_lasts_s=3.0)
    cleaner = site.cleaner("c2", policy)
    settle(agent, cleaner, until=lambda: told(cleaner), what="a brake is told of")
    began = time.monotonic()
    cleaner.stand_down()
    third = site.cleaner("c3", policy)
    settle(
        agent,
        third,
        until=lambda: not any(path.exists() for path in paths),
        what="the files are taken",
    )
    assert 2.0 < time.monotonic() - began < 20.0
    assert told(third) is None


def test_guests_that_move_brake_nothing(site: Site) -> None:
    """A host that is emptied by migration loses no name to the cluster."""
    agent, ids, paths = with_uses(site, "n1")
    other, cleaner = site.agent("n2"), site.cleaner("c1", WARY)
    settle(agent, other, cleaner, until=lambda: cleaner.harvest.passes, what="a pass")
    site.uses("n2", images=ids)
    settle(other, until=lambda: reports(other, USED), what="they have arrived")
    site.uses("n1")
    settle(agent, until=lambda: reports(agent, 0), what="they have left")
    passes = cleaner.harvest.passes
    settle(
        agent,
        other,
        cleaner,
        until=lambda: cleaner.harvest.passes > passes + 3,
        what="passes",
    )
    assert told(cleaner) is None
    assert gate_codes(cleaner) == set()
    assert all(path.exists() for path in paths)


def test_an_onlooker_with_other_settings_speaks_of_the_leaders_brake(
    site: Site,
) -> None:
    """What can be approved is the leader's plan, whatever settings a host has."""
    paths = [site.image(image_id()) for _ in range(6)]
    agent, cleaner = site.agent("n1"), site.cleaner("c1", STRICT)
    settle(agent, cleaner, until=lambda: told(cleaner), what="a brake is told of")
    young = CleanerPolicy()
    observed = site.observer().observe(scan=True)
    own = make_plan(young, observed.seen)
    assert own.gate.open
    shown = as_the_leader_tells(observed, own)
    assert [r.code for r in shown.gate.reasons] == [Code.BRAKE]
    operator.approve(
        site.session("operator"), shown.digest, observed.seen.storage_now_ns, OPERATOR
    )
    settle(
        agent,
        cleaner,
        until=lambda: not any(path.exists() for path in paths),
        what="the approved plan is carried out",
    )
    settle(agent, cleaner, until=lambda: not told(cleaner), what="the brake is off")


def test_an_approved_pass_that_is_interrupted_goes_on(site: Site) -> None:
    """What is left of an approved plan needs no approval of its own."""
    paths = [site.image(image_id()) for _ in range(8)]
    agent = site.agent("n1")
    cleaner = site.cleaner("c1", replace(STRICT, max_share_percent=10.0))
    settle(agent, cleaner, until=lambda: told(cleaner), what="a brake is told of")
    note, observed = told(cleaner), cleaner.harvest.observed
    assert note is not None
    assert observed is not None
    word = site.session("operator")
    rename, done = cleaner.world.storage.quarantine, list[str]()

    def interrupting(name: str, epoch: int, leaf: str) -> None:
        rename(name, epoch, leaf)
        done.append(name)
        if len(done) == 2:
            before = cleaner.world.coordination.watch(ledger.ROSTER_COUNTER)
            word.commit([ledger.bump(ledger.ROSTER_COUNTER)])
            eventually(
                lambda: (
                    cleaner.world.coordination.watch(ledger.ROSTER_COUNTER) > before
                ),
                5.0,
                "the leader learns of it",
            )

    cleaner.world.storage.quarantine = interrupting  # type: ignore[method-assign]
    operator.approve(word, note.digest, observed.seen.storage_now_ns, OPERATOR)
    settle(
        agent,
        cleaner,
        until=lambda: not any(path.exists() for path in paths),
        what="all of it is taken",
    )
    journal = cleaner.world.journal
    assert isinstance(journal, Told)
    assert "pass-interrupted" in journal.names()
    assert sorted(done) == sorted(path.name for path in paths)
    # Another plan needs another word.
    later = [site.image(image_id()) for _ in range(8)]
    settle(agent, cleaner, until=lambda: told(cleaner), what="a brake again")
    assert all(path.exists() for path in later)


def test_a_tree_without_the_brakes_records_gets_them(site: Site) -> None:
    """A tree that an earlier release founded is remembered in all the same."""
    word = site.session("operator")
    word.commit([Delete(ledger.MEMORY, None), Delete(ledger.BRAKE, None)])
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1", WARY)
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is taken")
    memory = ledger.memory_of(word.get(ledger.MEMORY))
    assert isinstance(memory, dict)
    assert set(memory) == {"n1"}


def test_least_recent_use_goes_first_in_small_batches(site: Site) -> None:
    """A pass takes the oldest files first, and all of them batch by batch."""
    paths = {age: site.image(image_id(), age_s=age) for age in (3e5, 9e5, 1e5, 6e5)}
    agent = site.agent("n1")
    cleaner = site.cleaner("c1", replace(WARY, batch=3))
    settle(agent, cleaner, until=lambda: cleaner.harvest.taken.names, what="a pass")
    oldest_first = [paths[age].name for age in sorted(paths, reverse=True)]
    assert cleaner.harvest.taken.names == oldest_first


class Space:
    """A storage whose free space a test decides."""

    def __init__(self, storage: Any, free: int | None) -> None:
        self._storage = storage
        self.free = free

    def __getattr__(self, name: str) -> Any:
        """Pass everything else on."""
        return getattr(self._storage, name)

    def space(self) -> tuple[int, int]:
        """Tell what was decided; ``None`` is a storage that cannot tell."""
        if self.free is None:
            raise StorageError("no answer")
        return 1000, self.free


def test_below_the_mark_the_grace_is_shorter_and_rounds_are_not_skipped(
    site: Site,
) -> None:
    """Space that cannot be told keeps the grace, and so does space above the mark."""
    path = site.image(image_id())
    agent = site.agent("n1")
    policy = replace(WARY, grace_s=3600.0, low_water_percent=5.0, low_water_grace_s=0)
    cleaner = site.cleaner("c1", policy)
    space = Space(cleaner.world.storage, 50)
    cleaner.observer.storage = space  # type: ignore[assignment]
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is taken")
    confirmed = ("grace: ",)

    def waits() -> tuple[str, ...]:
        latest = cleaner.harvest.latest
        words = [] if latest is None else list(latest.waiting.values())
        return tuple(word[:7] for word in words[0]) if words else ()

    settle(agent, cleaner, until=lambda: waits() == confirmed, what="a confirmation")
    for free in (50, None):
        space.free = free
        passes = cleaner.harvest.passes
        settle(
            agent,
            cleaner,
            until=lambda passes=passes: cleaner.harvest.passes > passes + 3,  # type: ignore[misc]
            what="passes",
        )
        assert waits() == confirmed
    space.free = 49
    settle(agent, cleaner, until=lambda: cleaner.harvest.purged.names, what="a purge")
    # A file that nobody has confirmed yet waits for its round all the same.
    second = site.image(image_id())
    passes = cleaner.harvest.passes
    settle(cleaner, until=lambda: cleaner.harvest.passes > passes + 3, what="passes")
    assert not second.exists()
    assert len(cleaner.harvest.purged.names) == 1
    assert waits()[0].startswith("round")


def test_renames_and_unlinks_keep_the_rate(site: Site) -> None:
    """Six steps at ten a second take half a second, renames and unlinks alike."""
    first = site.image(image_id())
    agent = site.agent("n1")
    policy = replace(WARY, rate_per_s=10.0, round_interval_s=1.0)
    cleaner = site.cleaner("c1", policy)
    # The helper for locks runs from here on, and costs the first step nothing.
    settle(agent, cleaner, until=lambda: not first.exists(), what="one is taken")
    storage, renames, unlinks = cleaner.world.storage, list[float](), list[float]()
    rename, unlink = storage.quarantine, storage.purge

    def quarantine(name: str, epoch: int, leaf: str) -> None:
        renames.append(time.monotonic())
        rename(name, epoch, leaf)

    def purge(epoch: int, leaf: str) -> None:
        unlinks.append(time.monotonic())
        unlink(epoch, leaf)

    storage.quarantine = quarantine  # type: ignore[method-assign]
    storage.purge = purge  # type: ignore[method-assign]
    for _ in range(6):
        site.image(image_id())
    settle(
        agent,
        cleaner,
        until=lambda: len(cleaner.harvest.purged.names) == 7,
        what="all are purged",
    )
    for steps in (renames[-6:], unlinks[-6:]):
        # A step is counted when its turn comes, a little before the call.
        assert steps[-1] - steps[0] >= 0.5 - 0.15


@pytest.mark.parametrize("how", ["stop", "pause", "deposed"])
def test_a_slow_rate_delays_no_stop(site: Site, how: str) -> None:
    """Whoever waits for his turn reacts within a second, and leaves all recorded."""
    paths = [site.image(image_id()) for _ in range(5)]
    agent = site.agent("n1")
    publish(agent)
    cleaner = site.cleaner("c1", replace(WARY, rate_per_s=0.1, round_interval_s=40.0))
    asked: list[str] = []
    cleaner.world = replace(cleaner.world, stopping=lambda: "stop" in asked)
    word = site.session("operator")
    rename, renamed = cleaner.world.storage.quarantine, list[float]()

    def quarantine(name: str, epoch: int, leaf: str) -> None:
        rename(name, epoch, leaf)
        renamed.append(time.monotonic())
        asked.append(how)
        if how == "pause":
            operator.pause(word, "now", OPERATOR)
        if how == "deposed":
            cleaner.world.coordination.resign()

    cleaner.world.storage.quarantine = quarantine  # type: ignore[method-assign]
    settle(agent, cleaner, until=lambda: renamed, what="the first rename")
    assert time.monotonic() - renamed[0] < 1.5
    assert sum(path.exists() for path in paths) == 4
    if how != "deposed":
        seen = site.observer().observe(scan=False).seen
        states = sorted(entry.state.value for entry in seen.entries)
        assert EntryState.TAKEN.value in states


def test_a_brake_of_a_leader_with_other_settings_is_released(cluster: Cluster) -> None:
    """`status` shows the leader's digest, and `approve` takes it, on any host."""
    for number in range(4):
        cluster.put(cache_name(numbered(number)))
    cluster.init()
    cluster.agent("n1")
    cluster.wait_live("n1")
    cluster.cleaner("c1", max_share_percent=10, max_share_floor=2)
    cluster.wait(lambda: cluster.ask("status")["brake"], "a brake is told of")
    status = cluster.ask("status")
    assert status["brake"]["files"] == 4
    assert status["brake"]["subjects"] == ["plan"]
    assert [r["code"] for r in status["gate"]["reasons"]] == ["brake"]
    assert status["space"]["bytes"] > status["space"]["free_bytes"] > 0
    plan = cluster.ask("plan", "--all")
    assert plan["digest"] == status["brake"]["digest"]
    assert {file["reason"] for file in plan["files"]} == {"brake"}
    assert cluster.run("approve", "0" * 12).code == 3
    cluster.ask("approve", status["brake"]["digest"][:12])
    cluster.wait(lambda: not cluster.names(), "the approved plan is carried out")


def test_a_cleaner_that_waits_for_its_turn_stops_when_it_is_told(
    cluster: Cluster,
) -> None:
    """SIGTERM ends a slow pass at once, in order."""
    for number in range(4):
        cluster.put(cache_name(numbered(number)))
    cluster.init()
    cluster.agent("n1")
    cluster.wait_live("n1")
    cleaner = cluster.cleaner("c1", rate_per_s=0.1)
    cluster.wait(cluster.quarantined, "one is taken")
    began = time.monotonic()
    assert cleaner.stop() == 0
    assert time.monotonic() - began < 5.0
    assert len(cluster.names()) == 3
