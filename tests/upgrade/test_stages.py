"""Three stages, each enforced: readers first, writers later, the cleaner last."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.uses_socket import AgentLink, UsesSocket
from sharedcache.cleaner.finalize import finalize
from sharedcache.core import rollout
from sharedcache.core.gate import Code
from sharedcache.core.model import KernelNaming, Uses
from sharedcache.core.names import digest_of
from sharedcache.core.ports import Between
from tests.support.inprocess import Site, gate_codes, image_id, publish, settle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sharedcache.cleaner.observe import Observer

pytestmark = pytest.mark.timeout(90)

RAW = KernelNaming.RAW_ID


@pytest.fixture
def mixed(tmp_path: Path, zookeeper: object, zk_cluster_name: str) -> Iterator[Site]:
    """Found a cluster at schema 1."""
    address = zookeeper.address  # type: ignore[attr-defined]
    with Site(tmp_path / "site", address, zk_cluster_name) as site:
        site.found(schema=1)
        yield site


class Paths:
    """A source that reads paths, as most do: it knows names, and no image id."""

    name = "paths"

    def __init__(self, *names: str) -> None:
        self._uses = Uses.of_names(names)

    def look(self) -> Uses:
        """Return the names."""
        return self._uses


class Told(Paths):
    """A source that is told of a use between two looks, and sees none."""

    name = "told"

    def look(self) -> Uses:
        """See nothing: the use is over."""
        return Uses()

    def between(self) -> Between:
        """Tell of the names."""
        return Between(self._uses, unbroken=True)


def test_readers_first_whatever_source_names_a_kernel(site: Site) -> None:
    """A kernel's raw id in any source is reported under its digest too."""
    kernel = image_id()
    seen = site.agent("n1", sources=[Paths(kernel)])
    told = site.agent("n2", sources=[Told(kernel)])
    old = site.old_agent("n3", sources=[Paths(kernel)])
    for agent in (seen, told, old):
        publish(agent)
    both = {kernel, digest_of(kernel).hex()}
    reports = [a.publisher.published for a in (seen, told, old)]
    now, then, before = (r for r in reports if r is not None)
    assert set(now.now.cache_names()) == both
    assert set(then.since.cache_names()) == both
    assert set(before.now.cache_names()) == {kernel}


def test_readers_first_for_what_drivers_hold(site: Site, tmp_path: Path) -> None:
    """What ``SharedCache`` declares at the socket has both its names, too."""
    kernel, path = image_id(), str(tmp_path / "s")
    served = UsesSocket(path)
    served.start()
    link = AgentLink(path, answer_s=10.0, retry_s=0.0)
    with closing(served), closing(link):
        assert link.use(kernel)
        agent = site.agent("n1", sources=[served])
        publish(agent)
    assert agent.publisher.published is not None
    names = set(agent.publisher.published.now.cache_names())
    assert names == {kernel, digest_of(kernel).hex()}


@pytest.mark.parametrize("source", ["ids", "raw name", "digest"])
def test_a_used_kernel_is_kept_under_both_names_and_unused_ones_go(
    site: Site, source: str
) -> None:
    """After the rollout: either file of a used kernel stays, whichever is named."""
    used, unused = image_id(), image_id()
    hashed = digest_of(used).hex()
    kept = [site.file(used), site.file(hashed)]
    gone = [site.file(unused), site.file(digest_of(unused).hex())]
    site.acknowledge()
    if source == "ids":
        site.uses("n1", kernels=[used])
    else:
        site.uses("n1", names=[used if source == "raw name" else hashed])
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(
        agent,
        cleaner,
        until=lambda: set(cleaner.harvest.purged.names) == {p.name for p in gone},
        what="both files of the unused one are purged",
    )
    first = cleaner.harvest.passes
    settle(
        agent, cleaner, until=lambda: cleaner.harvest.passes > first + 3, what="passes"
    )
    assert all(path.exists() for path in kept)


def test_a_young_raw_id_is_aged_and_a_partial_one_as_well(site: Site) -> None:
    """Files of the old naming wait for their age like all others, ramdisks too."""
    young, old = site.file(image_id(), age_s=30.0), site.file(image_id())
    partial = site.file(f"{uuid.uuid4()}.part")
    site.acknowledge()
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(
        agent,
        cleaner,
        until=lambda: not old.exists() and not partial.exists(),
        what="the old ones are taken",
    )
    assert young.exists()


def _status(observer: Observer) -> rollout.RolloutStatus:
    observed = observer.observe(scan=False)
    assert observed.rollout is not None
    finalized = observed.seen.facts.finalized_schema
    assert isinstance(finalized, int)
    return rollout.status(finalized, observed.seen.facts.nodes)


def test_early_writers_are_shown_and_late_ones_keep_the_gate_closed(
    mixed: Site,
) -> None:
    """Writers turn at the finalization, and the cleaner waits for the last of them."""
    path = mixed.image(image_id())
    early = mixed.agent("n1")
    late = mixed.agent("n2", kernel_naming=RAW)
    for agent in (early, late):
        publish(agent)
    observer, cleaner = mixed.observer(), mixed.cleaner("c1")
    before = _status(observer)
    assert before.stage is rollout.Stage.READY
    assert before.early_writers == ("n1",)
    finalize(
        mixed.session("op"), mixed.storage(), observer.observe(scan=False), "me", 1.0
    )
    after = _status(observer)
    assert after.stage is rollout.Stage.FINALIZED
    assert (after.early_writers, [node for node, _ in after.lagging]) == ((), ["n2"])
    assert "n2" in after.advice
    settle(
        early, late, cleaner, until=lambda: cleaner.harvest.passes > 3, what="passes"
    )
    assert gate_codes(cleaner) == {(Code.NODE_OLD_KERNEL_NAMING, "n2")}
    assert path.exists()
    late.finish()
    turned = mixed.agent("n2")
    settle(
        early, turned, cleaner, until=lambda: not path.exists(), what="the gate is open"
    )
    assert _status(observer).lagging == ()
