"""Every effect of a cleaner and of a restoring agent fails once, in turn.

After each failure another cleaner (or the agent started again) goes on, and
the oracle looks at the directory itself: what is used is there with its
content, and what is unused is gone in the end, with nothing left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sharedcache import audit
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.acts import Act, Deed
from sharedcache.node.service import NodeService
from tests.support import eventually
from tests.support.crash import CrashedError, Fault, Faulty, Schedule
from tests.support.inprocess import FAST, Site, image_id, settle

pytestmark = [pytest.mark.timeout(300)]


@pytest.fixture
def sites(
    tmp_path: Path, zookeeper: object, zk_cluster_name: str
) -> Iterator[Iterator[Site]]:
    """Give one new founded site after the other."""

    def fresh() -> Iterator[Site]:
        number = 0
        while True:
            number += 1
            name = f"{zk_cluster_name}-{number}"
            with Site(tmp_path / name, zookeeper.address, name) as site:  # type: ignore[attr-defined]
                site.found()
                yield site

    made = fresh()
    yield made
    made.close()  # type: ignore[attr-defined]


def quiet(site: Site) -> bool:
    """Whether the quarantine is empty and no record of the manifest is left."""
    seen = site_observer(site).observe(scan=False).seen
    entries = list(seen.entries)
    leaves = [
        leaf
        for epoch in (site.base / ".sharedcache" / "epochs").iterdir()
        if epoch.is_dir()
        for leaf in epoch.iterdir()
    ]
    return not entries and not leaves


def site_observer(site: Site):  # noqa: ANN201 - the harness's own type
    """Return the site's one observer."""
    found = getattr(site, "_observer", None)
    if found is None:
        found = site.observer()
        site._observer = found  # type: ignore[attr-defined]
    return found


def on_record(site: Site, deed: Deed) -> list[str]:
    """Name what the audit trail says this was done to, once for each time."""
    coordination = site_observer(site).coordination
    coordination.sync()
    return sorted(
        subject.name
        for told in audit.forward(coordination, 0, 0)
        if isinstance(told.act, Act) and told.act.deed == deed
        for subject in told.act.subjects
    )


def crash(service: CleanerService | NodeService, schedule: Schedule) -> None:
    """Wrap a service's ports, so that the schedule stands at every effect."""
    service.world = replace(
        service.world,  # type: ignore[type-var]
        coordination=Faulty(service.world.coordination, schedule),
        storage=Faulty(service.world.storage, schedule),
        locks=Faulty(service.world.locks, schedule),
    )
    service.__post_init__()


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_a_cleaner_may_fail_at_any_effect(sites: Iterator[Site], fault: Fault) -> None:
    """I1 to I3 hold whatever effect fails, and the space is freed all the same.

    Each file that was taken, and each that left for good, is on record once,
    whether its own leader or the successor found out.
    """
    at = 0
    while True:
        site = next(sites)
        used = image_id()
        kept = site.image(used)
        content = kept.read_bytes()
        unused = [site.image(image_id()) for _ in range(2)]
        site.uses("n1", images=[used])
        agents = [site.agent("n1"), site.agent("n2")]
        schedule = Schedule(at, fault)
        first = site.cleaner("c1")
        crash(first, schedule)
        _run_until_it_dies_or_is_done(site, agents, first, schedule, unused)
        if schedule.struck is None:
            assert at > 15, schedule.log
            return
        second = site.cleaner("c2")
        _finish(site, agents, second, unused, f"effect {at} {schedule.struck}")
        assert kept.read_bytes() == content, schedule.struck
        names = sorted(path.name for path in unused)
        what = f"effect {at} {schedule.struck}"
        assert on_record(site, Deed.QUARANTINED) == names, what
        assert on_record(site, Deed.PURGED) == names, what
        assert not on_record(site, Deed.VANISHED), what
        at += 1


def _run_until_it_dies_or_is_done(
    site: Site,
    agents: list[NodeService],
    cleaner: CleanerService,
    schedule: Schedule,
    unused: list[Path],
) -> None:
    def done() -> bool:
        for agent in agents:
            agent.step()
        try:
            cleaner.step()
        except CrashedError:
            return True
        return not any(path.exists() for path in unused) and quiet(site)

    eventually(done, 30.0, f"the cleaner dies or is done ({schedule.log[-5:]})")
    cleaner.world.coordination.stop()  # type: ignore[attr-defined]


def _finish(
    site: Site,
    agents: list[NodeService],
    cleaner: CleanerService,
    unused: list[Path],
    what: str,
) -> None:
    def done() -> bool:
        for service in (*agents, cleaner):
            service.step()
        return not any(path.exists() for path in unused) and quiet(site)

    eventually(done, 30.0, f"everything unused is purged after {what}")


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_a_renewing_cleaner_may_fail_at_any_effect(
    sites: Iterator[Site], fault: Fault
) -> None:
    """A file that was restored gets its new name, whatever fails, and goes at last.

    The name that the restore was asked by leads nowhere when it is unlinked.
    """
    at = 0
    while True:
        site = next(sites)
        path = site.image(image_id())
        agents = [site.agent("n1"), site.agent("n2")]
        schedule = Schedule(-1, fault)
        first = site.cleaner("c1", replace(FAST, grace_s=1.0))
        crash(first, schedule)
        _until_gone(path, *agents, first)
        asked = _restored_and_lost(site, agents, path)
        schedule.at = schedule.count + at
        _watch_purges(first, asked)
        _run_until_it_dies_or_is_done(site, agents, first, schedule, [path])
        if schedule.struck is None:
            assert "epoch_move" in schedule.log
            assert at > 5, schedule.log
            return
        second = site.cleaner("c2")
        _watch_purges(second, asked)
        _finish(site, agents, second, [path], f"effect {at} {schedule.struck}")
        at += 1


def _restored_and_lost(site: Site, agents: list[NodeService], path: Path) -> list[Path]:
    """Let a file be restored, and its name be lost again; list its old names."""
    site.uses("n1", names=[path.name])
    settle(
        agents[0],
        until=lambda: path.exists() and not agents[0].restorer.intents,
        what="restored",
    )
    path.unlink()
    site.uses("n1")
    epochs = site.base / ".sharedcache" / "epochs"
    return [leaf for leaf in epochs.glob("*/*") if leaf.name.startswith(path.name)]


def _watch_purges(cleaner: CleanerService, asked: list[Path]) -> None:
    """Look at each unlink whether a link of the old names would find anything."""
    storage: Any = cleaner.world.storage
    port = storage._port if isinstance(storage, Faulty) else storage
    purge = port.purge

    def watched(epoch: int, leaf: str) -> None:
        assert asked
        assert not any(old.exists() for old in asked)
        purge(epoch, leaf)

    port.purge = watched


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_a_restoring_agent_may_fail_at_any_effect(
    sites: Iterator[Site], fault: Fault
) -> None:
    """A restore that dies anywhere is finished, and on record once, by the next run."""
    at = 0
    while True:
        site = next(sites)
        wanted = image_id()
        path = site.image(wanted)
        content = path.read_bytes()
        agent, other = site.agent("n1"), site.agent("n2")
        slow = site.cleaner("c1", replace(FAST, grace_s=3600.0))
        _until_gone(path, agent, other, slow)
        slow.stand_down()
        schedule = Schedule(at, fault)
        crash(agent, schedule)
        site.uses("n1", images=[wanted])
        agent._next_look = 0.0
        survivor = _run_agent(site, agent, path, schedule)
        if schedule.struck is None:
            assert at > 5, schedule.log
            return
        site.uses("n1", images=[wanted])
        quick = site.cleaner("c2")
        _keeps(path, content, survivor, other, quick, what=f"{at} {schedule.struck}")
        assert on_record(site, Deed.RESTORED) == [path.name], f"{at} {schedule.struck}"
        at += 1


def _until_gone(path: Path, *services: NodeService | CleanerService) -> None:
    def gone() -> bool:
        for service in services:
            service.step()
        return not path.exists()

    eventually(gone, 30.0, "the file is quarantined")


def _run_agent(
    site: Site, agent: NodeService, path: Path, schedule: Schedule
) -> NodeService:
    """Run the agent until it is done, or dies and is started again."""

    def done() -> bool:
        try:
            agent.step()
        except CrashedError:
            return True
        return path.exists() and not agent.restorer.intents

    eventually(done, 30.0, "the agent dies or restores")
    if not schedule.dead:
        return agent
    agent.world.coordination.stop()  # type: ignore[attr-defined]
    again = site.agent("n1")
    assert again.identity.incarnation.start == 2
    return again


def _keeps(
    path: Path, content: bytes, agent: NodeService, *others: object, what: str
) -> None:
    """After any failure: the wanted file is back, and no cleaner takes it."""
    steps = 0

    def back() -> bool:
        nonlocal steps
        agent.step()
        for service in others:
            service.step()  # type: ignore[attr-defined]
        present = path.exists() and path.read_bytes() == content
        steps = steps + 1 if present else 0
        return steps > 20 and not agent.restorer.intents

    eventually(back, 30.0, f"the file is back for good after {what}")
    report = agent.publisher.published
    assert report is not None
    assert not report.intents
