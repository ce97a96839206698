"""A restore's link that lands late: after its agent died and all else was settled.

One leader serves all the while, since a successor gives every file a new name
anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sharedcache.cleaner import operator
from sharedcache.cleaner.service import CleanerService
from sharedcache.cleaner.settle import Settler
from sharedcache.core import names
from sharedcache.core.model import ManifestEntry
from sharedcache.core.ports import OutcomeUnknownError
from sharedcache.node.service import NodeService
from tests.support.crash import CrashedError
from tests.support.inprocess import FAST, OPERATOR, Site, image_id, settle

pytestmark = pytest.mark.timeout(90)

SLOW = replace(FAST, grace_s=3600.0)


def entries(site: Site) -> list[ManifestEntry]:
    """Read the manifest as any observer does."""
    return list(site.observer().observe(scan=False).seen.entries)


@dataclass
class LateLink:
    """The link of an agent that died: sent, and not answered."""

    source: Path
    name: Path

    def land(self) -> bool:
        """Let the storage carry it out now; tell whether it gave the name."""
        try:
            os.link(self.source, self.name)
        except (FileNotFoundError, FileExistsError, NotADirectoryError):
            return False
        return True


def quarantined(site: Site, cleaner: CleanerService, *agents: NodeService) -> Path:
    """Let a new unused file be quarantined; return its path."""
    path = site.image(image_id())
    settle(*agents, cleaner, until=lambda: not path.exists(), what="quarantined")
    settle(*agents, cleaner, until=lambda: _taken(site), what="recorded")
    return path


def _taken(site: Site) -> bool:
    return all(entry.round for entry in entries(site))


def die_while_linking(site: Site, agent: NodeService, path: Path) -> LateLink:
    """Let an agent die with its link under way."""
    sent: list[LateLink] = []

    def never_answered(epoch: int, leaf: str, name: str) -> None:
        source = site.base / ".sharedcache" / "epochs" / str(epoch) / leaf
        sent.append(LateLink(source, site.base / name))
        raise CrashedError

    agent.world.storage.restore = never_answered  # type: ignore[method-assign]
    site.uses("n1", names=[path.name])
    with pytest.raises(CrashedError):
        settle(agent, until=lambda: False, what="the agent dies")
    agent.world.locks.release()
    agent.world.coordination.stop()  # type: ignore[attr-defined]
    (link,) = sent
    assert link.source.exists()
    return link


def at_every_purge(cleaner: CleanerService, call: Callable[[], object]) -> list[str]:
    """Do something between the authorisation and each unlink; list what was purged."""
    purge, purged = cleaner.world.storage.purge, []

    def late(epoch: int, leaf: str) -> None:
        call()
        purge(epoch, leaf)
        purged.append(leaf)

    cleaner.world.storage.purge = late  # type: ignore[method-assign]
    return purged


def impatient(cleaner: CleanerService) -> None:
    """Let the grace of what is in quarantine be over."""
    cleaner.world = replace(cleaner.world, policy=FAST)
    assert cleaner.leadership is not None
    cleaner.leadership = replace(cleaner.leadership, world=cleaner.world)


def test_a_link_that_lands_before_the_unlink_finds_nothing(site: Site) -> None:
    """I1: no proof is undone by a restore of which nobody knows any more."""
    agent, other = site.agent("n1"), site.agent("n2")
    cleaner = site.cleaner("c1", SLOW)
    path = quarantined(site, cleaner, agent, other)
    link = die_while_linking(site, agent, path)
    # Its next run finds the intent, and restores by a link of its own.
    again = site.agent("n1")
    settle(
        again,
        until=lambda: path.exists() and not again.restorer.intents,
        what="restored by the next run",
    )
    # A foreign cleaner takes the name away, and the use is over.
    path.unlink()
    site.uses("n1")
    landed: list[bool] = []
    purged = at_every_purge(cleaner, lambda: landed.append(link.land()))
    impatient(cleaner)
    settle(again, other, cleaner, until=lambda: purged, what="purged")
    assert landed == [False]
    assert not path.exists()


def test_a_link_outlives_an_expunged_node(site: Site) -> None:
    """The mark is the entry's own: it stays when the intent goes with its node."""
    agent, other = site.agent("n1"), site.agent("n2")
    cleaner = site.cleaner("c1", SLOW)
    path = quarantined(site, cleaner, agent, other)
    link = die_while_linking(site, agent, path)
    (before,) = entries(site)
    assert before.asked
    settle(other, cleaner, until=lambda: True, what="a pass")
    (kept,) = entries(site)
    assert kept.leaf == before.leaf, "its node may still come back and finish"
    command = site.session("operator")
    settle(
        until=lambda: "n1" not in command.members(),
        what="the dead agent's registration ends",
    )
    operator.expunge(command, site.storage(), "n1", OPERATOR)
    landed: list[bool] = []
    purged = at_every_purge(cleaner, lambda: landed.append(link.land()))
    impatient(cleaner)
    settle(other, cleaner, until=lambda: purged, what="purged")
    assert landed == [False]
    assert not path.exists()


def test_a_restored_entry_gets_a_new_name_and_a_new_wait(site: Site) -> None:
    """Each restore costs one rename, and the entry waits from the rename on."""
    agent = site.agent("n1")
    cleaner = site.cleaner("c1", SLOW)
    path = quarantined(site, cleaner, agent)
    (before,) = entries(site)
    site.uses("n1", names=[path.name])
    settle(
        agent,
        until=lambda: path.exists() and not agent.restorer.intents,
        what="restored",
    )
    (asked,) = entries(site)
    assert asked.asked
    assert asked.leaf == before.leaf
    settle(agent, cleaner, until=lambda: not entries(site)[0].asked, what="renewed")
    (after,) = entries(site)
    assert after.leaf == names.next_leaf(before.leaf)
    assert after.round > before.round
    assert after.moved_ns > before.moved_ns
    assert after.since_ns == before.since_ns
    assert after.baseline is not None
    assert after.baseline.inode == path.stat().st_ino
    assert after.baseline.ctime_ns == path.stat().st_ctime_ns
    told = cleaner.world.journal.names()  # type: ignore[attr-defined]
    settle(agent, cleaner, until=lambda: True, what="one more pass")
    assert told.count("renewed") == 1


def test_a_live_agent_whose_entry_was_renamed_reads_the_manifest_again(
    site: Site,
) -> None:
    """An agent may hold the old name in its hands: it looks again and restores."""
    agent, other = site.agent("n1"), site.agent("n2")
    cleaner = site.cleaner("c1", SLOW)
    path = quarantined(site, cleaner, agent, other)
    restore, missed = agent.world.storage.restore, []

    def renamed_first(epoch: int, leaf: str, name: str) -> None:
        if not missed:
            missed.append(leaf)
            assert cleaner.leadership is not None
            fresh = names.next_leaf(leaf)
            cleaner.world.storage.epoch_move(epoch, leaf, epoch, fresh)
            seen = cleaner.observer.observe(scan=False, epoch=epoch).seen
            assert Settler(cleaner.leadership).settle_open(seen.manifest)
        restore(epoch, leaf, name)

    agent.world.storage.restore = renamed_first  # type: ignore[method-assign]
    site.uses("n1", names=[path.name])
    settle(agent, other, cleaner, until=path.exists, what="restored")
    assert missed
    told = agent.world.journal.names()  # type: ignore[attr-defined]
    assert "restore-entry-moved" in told
    settle(
        agent,
        other,
        cleaner,
        until=lambda: not agent.restorer.intents and not entries(site)[0].asked,
        what="settled",
    )


def test_a_mark_that_is_set_while_the_leader_records_its_rename_stays(
    site: Site,
) -> None:
    """An agent may restore what is only intended: the leader keeps its mark."""
    agent, other = site.agent("n1"), site.agent("n2")
    cleaner = site.cleaner("c1", SLOW)
    path = site.image(image_id())
    look, links = cleaner.world.storage.quarantined_facts, []

    def asked_meanwhile(epoch: int, leaf: str, **how: bool) -> Any:
        facts = look(epoch, leaf, **how)
        if not links:
            links.append(die_while_linking(site, agent, path))
        return facts

    cleaner.world.storage.quarantined_facts = asked_meanwhile  # type: ignore[method-assign, assignment]
    settle(other, agent, cleaner, until=lambda: links, what="asked")
    settle(other, cleaner, until=lambda: _taken(site), what="recorded")
    (entry,) = entries(site)
    assert entry.asked


def test_a_rename_whose_answer_is_lost_is_found_again(site: Site) -> None:
    """Where the file lies is looked up, whether the rename was done or not."""
    for done in (True, False):
        agent = site.agent("n1")
        cleaner = site.cleaner(f"c{done}", SLOW)
        path = quarantined(site, cleaner, agent)
        site.uses("n1", names=[path.name])
        settle(
            agent,
            until=lambda p=path, a=agent: p.exists() and not a.restorer.intents,  # type: ignore[misc]
            what="restored",
        )
        move, lost = cleaner.world.storage.epoch_move, []

        def unanswered(
            *args: Any, move: Any = move, lost: list[bool] = lost, done: bool = done
        ) -> None:
            if lost:
                move(*args)
                return
            lost.append(done)
            if done:
                move(*args)
            raise OutcomeUnknownError("the answer was lost")

        cleaner.world.storage.epoch_move = unanswered  # type: ignore[method-assign]
        settle(
            agent,
            cleaner,
            until=lambda: not any(e.asked for e in entries(site)),
            what="renewed",
        )
        assert lost == [done]
        cleaner.stand_down()
        agent.finish()
