"""Every effect of an operator's restore fails once, in turn, and cleaners go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sharedcache import audit
from sharedcache.adapters.clock import RandomTokens, SystemClock
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.restore import OperatorRestore
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.acts import Act, Deed
from sharedcache.core.model import ManifestEntry
from sharedcache.core.ports import CoordinationError, OutcomeUnknownError, StorageError
from sharedcache.node.service import NodeService
from tests.support import eventually
from tests.support.crash import CrashedError, Fault, Faulty, Schedule
from tests.support.inprocess import FAST, OPERATOR, Site, image_id, settle

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


def restorer(site: Site, schedule: Schedule | None = None) -> OperatorRestore:
    """Make an operator's restore, with a schedule standing at its effects."""
    locks = NovaNameLocks(str(site.locks))
    site.stack.callback(locks.close)
    clock = site.stack.enter_context(SystemClock())
    ports = (site.session("operator"), site.storage(), locks)
    if schedule is None:
        return OperatorRestore(*ports, clock, RandomTokens(), OPERATOR.who)
    return OperatorRestore(
        *(Faulty(port, schedule) for port in ports), clock, RandomTokens(), OPERATOR.who
    )


def entries(site: Site) -> list[ManifestEntry]:
    """Read the manifest."""
    return list(site.observer().observe(scan=False).seen.entries)


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_a_restore_may_fail_at_any_effect(sites: Iterator[Site], fault: Fault) -> None:
    """Never purged while marked; the next restore finishes it; then all is as usual.

    The restore is on record once, whichever run finished it.
    """
    at = 0
    while True:
        site = next(sites)
        path = site.image(image_id())
        content = path.read_bytes()
        agents = [site.agent("n1"), site.agent("n2")]
        slow = site.cleaner("c1", replace(FAST, grace_s=3600.0))
        settle(*agents, slow, until=partial(gone, path), what="it is quarantined")
        slow.stand_down()
        schedule = Schedule(at, fault)
        finished = attempt(restorer(site, schedule), path.name)
        if schedule.struck is None:
            assert finished
            assert at >= 6, schedule.log
            return
        where = f"{at} {schedule.struck}"
        quick = site.cleaner("c2")
        if any(entry.restoring for entry in entries(site)):
            passes_go_by(quick, *agents)
            (marked,) = entries(site)
            assert marked.restoring, where
            assert attempt(restorer(site), path.name), where
        elif not path.exists():
            assert not finished, where
            assert (at, fault) in {(0, Fault.BEFORE), (0, Fault.LOST)}, where
            settle(*agents, quick, until=partial(quiet, site), what="it is purged")
            at += 1
            continue
        assert path.read_bytes() == content, where
        passes_go_by(quick, *agents)
        assert path.read_bytes() == content, where
        assert not any(entry.restoring for entry in entries(site)), where
        word = site.session("word")
        acts = [told.act for told in audit.forward(word, 0, 0)]
        told = [a for a in acts if isinstance(a, Act) and a.deed == Deed.RESTORED]
        assert [a.doer for a in told] == [OPERATOR.doer], where
        assert [s.name for a in told for s in a.subjects] == [path.name], where
        at += 1


def gone(path: Path) -> bool:
    """Whether the file has left the cache."""
    return not path.exists()


def quiet(site: Site) -> bool:
    """Whether nothing is in quarantine."""
    return not entries(site)


def passes_go_by(cleaner: CleanerService, *agents: NodeService) -> None:
    """Let a cleaner make passes enough to purge whatever it may."""
    for _ in range(6):
        before = cleaner.harvest.passes
        settle(
            *agents,
            cleaner,
            until=lambda before=before: cleaner.harvest.passes > before,  # type: ignore[misc]
            what="a pass",
        )


def attempt(restore: OperatorRestore, name: str) -> bool:
    """Run it to its end, its refusal, or its death; tell whether it came through."""
    try:
        restore.run(name)
    except (
        CrashedError,
        RefusedError,
        StorageError,
        CoordinationError,
        OutcomeUnknownError,
    ):
        return False
    return True


def test_a_restored_file_stays_and_its_entry_waits(sites: Iterator[Site]) -> None:
    """The name is there at once, young again, and no mark is left behind."""
    site = next(sites)
    path = site.image(image_id())
    content = path.read_bytes()
    agent, cleaner = site.agent("n1"), site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is quarantined")
    before = entries(site)[0]
    done = restorer(site).run(path.name)
    assert (done.name, done.entry, done.linked) == (path.name, before.entry, True)
    assert path.read_bytes() == content
    after = entries(site)[0]
    assert not after.restoring
    assert after.round >= before.round
    assert after.baseline is not None
    assert after.baseline.links == 2
    passes = cleaner.harvest.passes
    settle(
        agent, cleaner, until=lambda: cleaner.harvest.passes > passes + 5, what="passes"
    )
    assert path.exists(), "it is young again, so no pass takes it"
    again = restorer(site).run(before.entry)
    assert (again.linked, again.name) == (False, path.name)


def test_what_cannot_be_restored_is_refused(sites: Iterator[Site]) -> None:
    """A name that is not there, and one that was fetched again meanwhile."""
    site = next(sites)
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is quarantined")
    with pytest.raises(RefusedError, match="not in quarantine"):
        restorer(site).run("0" * 40)
    path.write_bytes(b"fetched again")
    with pytest.raises(RefusedError, match="as another file"):
        restorer(site).run(path.name)
    assert path.read_bytes() == b"fetched again"
    (entry,) = entries(site)
    assert not entry.restoring, "nothing is left marked for ever"


def test_a_busy_lock_leaves_the_mark_for_the_nextattempt(sites: Iterator[Site]) -> None:
    """While somebody downloads under the name nothing is linked, and nothing purged."""
    site = next(sites)
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is quarantined")
    downloader = NovaNameLocks(str(site.locks))
    assert downloader.take(path.name, 0.0, 60.0)
    with pytest.raises(RefusedError, match="run this again"):
        restorer(site).run(path.name)
    assert not path.exists()
    (entry,) = entries(site)
    assert entry.restoring
    downloader.close()
    assert restorer(site).run(path.name).linked
    eventually(path.exists, 1.0, "the file")


def test_the_file_is_young_before_its_lock_is_let_go(sites: Iterator[Site]) -> None:
    """A leader that planned before the mark gets the lock, and finds it touched."""
    site = next(sites)
    path = site.image(image_id())
    agent, cleaner = site.agent("n1"), site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, cleaner, until=partial(gone, path), what="it is quarantined")
    leader = NovaNameLocks(str(site.locks))
    site.stack.callback(leader.close)
    taken_meanwhile: list[bool] = []
    restore = restorer(site)
    touch = restore.storage.touch

    def watched(name: str) -> None:
        taken_meanwhile.append(leader.take(name, 0.0, 1.0))
        touch(name)

    restore.storage.touch = watched  # type: ignore[method-assign]
    restore.run(path.name)
    assert taken_meanwhile == [False]
    assert leader.take(path.name, 0.0, 1.0)
