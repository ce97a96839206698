"""A full disk at each write: told, the effect is not done, and no file is removed.

The file system is a small one, and really full at the moment of the write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sharedcache.adapters.zookeeper_server import PrivateServer
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.gate import Code
from sharedcache.core.ports import StorageError
from sharedcache.node.service import NodeService
from tests.support import ExternalServer
from tests.support.disks import SmallDisk, small_disk
from tests.support.inprocess import (
    FAST,
    Site,
    gate_codes,
    image_id,
    publish,
    settle,
)
from tests.support.stake import Stake, look_on, told

pytestmark = [pytest.mark.timeout(90), pytest.mark.root]

ADVICE = "free some space by hand"


@dataclass
class FullAt:
    """Fills the disk right before one kind of write, until it is let go."""

    disk: SmallDisk
    struck: bool = False

    def every(self, storage: object, effect: str) -> None:
        """Fill it before each such write."""
        real = getattr(storage, effect)

        def filling(*args: object) -> object:
            if not self.struck:
                self.struck = True
                self.disk.fill()
            return real(*args)

        setattr(storage, effect, filling)


@pytest.fixture
def unfounded(
    tmp_path: Path, zookeeper: PrivateServer | ExternalServer, zk_cluster_name: str
) -> Iterator[tuple[Site, SmallDisk]]:
    """Make directories on a small disk, and no cluster yet."""
    root = tmp_path / "site"
    with (
        small_disk(root / "instances") as disk,
        Site(root, zookeeper.address, zk_cluster_name) as made,
    ):
        yield made, disk


@pytest.fixture
def small(unfounded: tuple[Site, SmallDisk]) -> tuple[Site, SmallDisk]:
    """Found a cluster on a small disk."""
    unfounded[0].found()
    return unfounded


def says_so(service: NodeService | CleanerService, event: str) -> bool:
    """Whether a service told what to do about the full disk."""
    return any(ADVICE in text for text in told(service, event))


Fill = Callable[[SmallDisk], None]
fills = pytest.mark.parametrize(
    "fill", [SmallDisk.fill, SmallDisk.fill_blocks], ids=["no-inode", "no-block"]
)


@fills
def test_a_full_disk_at_the_marker(
    unfounded: tuple[Site, SmallDisk], fill: Fill
) -> None:
    """`init` fails and can be repeated; no half of a marker is left."""
    site, disk = unfounded
    path = site.image(image_id())
    fill(disk)
    with pytest.raises(StorageError, match=ADVICE):
        site.found()
    assert not (site.base / ".sharedcache" / "cluster").exists()
    assert path.exists()
    disk.free()
    assert site.found().created


@fills
def test_a_full_disk_at_the_witness(small: tuple[Site, SmallDisk], fill: Fill) -> None:
    """An agent does not start; what is left of its witness closes the gate."""
    site, disk = small
    stake = Stake.of(site, "n1", "n2")
    agent = site.agent("n1")
    publish(agent)
    fill(disk)
    with pytest.raises(StorageError, match=ADVICE):
        site.agent("n2")
    disk.free()
    cleaner = site.cleaner("c1")
    if (site.base / ".sharedcache" / "nodes" / "n2").exists():
        look_on(cleaner, agent)
        assert gate_codes(cleaner) == {(Code.UNROSTERED_NODE, "n2")}
        assert stake.untouched()
    late = site.agent("n2")
    settle(agent, late, cleaner, until=stake.gone, what="it goes on")


@fills
def test_a_full_disk_at_a_witness_that_is_there(
    small: tuple[Site, SmallDisk], fill: Fill
) -> None:
    """It is written in place, so a full disk keeps no host from starting guests."""
    site, disk = small
    stake = Stake.of(site, "n1")
    first = site.agent("n1")
    publish(first)
    first.finish()
    fill(disk)
    again, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(again)
    assert again.publisher.published is not None
    assert again.publisher.published.complete
    assert stake.untouched()
    disk.free()
    settle(again, cleaner, until=stake.gone, what="it goes on")


def test_a_full_disk_at_an_epochs_directory(small: tuple[Site, SmallDisk]) -> None:
    """Nobody leads who could not be fenced."""
    site, disk = small
    stake = Stake.of(site, "n1")
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    FullAt(disk).every(cleaner.world.storage, "epoch_make")
    settle(cleaner, until=lambda: says_so(cleaner, "pass-failed"), what="it says so")
    assert cleaner.leadership is None
    assert stake.untouched()
    disk.free()
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


def test_a_full_disk_uses_up_ever_fewer_epochs(small: tuple[Site, SmallDisk]) -> None:
    """A disk may stay full for days: a cleaner waits twice as long after each try."""
    site, disk = small
    cleaner = site.cleaner("c1", replace(FAST, pass_interval_s=30.0))
    FullAt(disk).every(cleaner.world.storage, "epoch_make")
    for tries, most_s in enumerate((4.0, 8.0, 16.0, 30.0, 30.0), 1):
        assert most_s / 2 < cleaner.step() <= most_s
        assert most_s / 2 < cleaner.step() <= most_s, "it does not stand meanwhile"
        assert cleaner.observer.observe(scan=False).epoch.value == tries
        # The time passes.
        cleaner._not_before = 0.0
    disk.free()
    settle(cleaner, until=lambda: cleaner.leadership, what="it leads")


def test_a_full_disk_at_the_seal(small: tuple[Site, SmallDisk]) -> None:
    """A predecessor that cannot be sealed is no predecessor yet."""
    site, disk = small
    agent, first = site.agent("n1"), site.cleaner("c1")
    settle(agent, first, until=lambda: first.leadership is not None, what="a leader")
    first.stand_down()
    stake = Stake.of(site, "n1")
    second = site.cleaner("c2")
    FullAt(disk).every(second.world.storage, "epoch_seal")
    settle(second, until=lambda: says_so(second, "pass-failed"), what="it says so")
    assert second.leadership is None
    assert stake.untouched()
    disk.free()
    settle(agent, second, until=stake.gone, what="it goes on by itself")
    assert (site.base / ".sharedcache" / "epochs" / "1").is_file()


def test_a_full_disk_at_the_schema(small: tuple[Site, SmallDisk]) -> None:
    """The storage's copy of the finalized schema is whole or not there."""
    site, disk = small
    schema = site.base / ".sharedcache" / "schema"
    content = schema.read_bytes()
    schema.unlink()
    stake = Stake.of(site, "n1")
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    FullAt(disk).every(cleaner.world.storage, "write_schema")
    settle(
        agent, cleaner, until=lambda: says_so(cleaner, "pass-failed"), what="it is told"
    )
    assert stake.whole()
    assert not schema.exists()
    disk.free()
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")
    assert len(schema.read_bytes()) >= len(content) - len("init")


def test_a_full_disk_at_a_restore(small: tuple[Site, SmallDisk]) -> None:
    """A link that finds no room is tried again, and the file waits for it."""
    site, disk = small
    other = site.agent("n2")
    publish(other)
    other.finish()
    ident = image_id()
    path = site.image(ident)
    inode = path.stat().st_ino
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: not path.exists(), what="a quarantine")
    FullAt(disk).every(agent.world.storage, "restore")
    site.uses("n1", images=[ident])
    settle(
        agent,
        cleaner,
        until=lambda: says_so(agent, "restore-failed"),
        what="it says so",
    )
    look_on(cleaner, agent)
    epochs = site.base / ".sharedcache" / "epochs"
    assert inode in {p.stat().st_ino for p in epochs.glob("*/*")}
    disk.free()
    settle(agent, cleaner, until=path.exists, what="it is restored by itself")
    assert path.stat().st_ino == inode


def test_a_full_disk_at_the_lock_of_a_restore(small: tuple[Site, SmallDisk]) -> None:
    """A lock that cannot be made is not told as one that somebody holds."""
    site, disk = small
    other = site.agent("n2")
    publish(other)
    other.finish()
    ident = image_id()
    path = site.image(ident)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: not path.exists(), what="a quarantine")
    (site.locks / f"nova-{path.name}").unlink()
    disk.fill()
    site.uses("n1", images=[ident])
    settle(
        agent,
        cleaner,
        until=lambda: told(agent, "restore-lock-failed"),
        what="it says so",
    )
    (message, *_) = told(agent, "restore-lock-failed")
    assert "No space left" in message
    assert "check the lock directory" in message
    disk.free()
    settle(agent, cleaner, until=path.exists, what="it is restored by itself")


def test_a_full_disk_at_the_lock_of_a_quarantine(
    small: tuple[Site, SmallDisk],
) -> None:
    """Without Nova's lock nothing is taken, and the operator is told."""
    site, disk = small
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 0, what="a leader")
    stake = Stake.of(site, "n1")
    disk.fill()
    settle(
        agent, cleaner, until=lambda: told(cleaner, "lock-failed"), what="it is told"
    )
    (message, *_) = told(cleaner, "lock-failed")
    assert "No space left" in message
    assert "check the lock directory" in message
    assert stake.untouched()
    disk.free()
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


@pytest.mark.parametrize("effect", ["quarantine", "purge"])
def test_a_full_disk_at_what_needs_no_room(
    small: tuple[Site, SmallDisk], effect: str
) -> None:
    """Taking names away goes on: that is what makes room again."""
    site, disk = small
    stake = Stake.of(site, "n1")
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    full = FullAt(disk)
    full.every(cleaner.world.storage, effect)
    settle(agent, cleaner, until=stake.gone, what="it goes on")
    assert full.struck
    disk.free()


def test_a_disk_full_of_data_is_cleaned(small: tuple[Site, SmallDisk]) -> None:
    """Touches, renames and unlinks need no block: a whole pass gets through."""
    site, disk = small
    stake = Stake.of(site, "n1")
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    disk.fill_blocks()
    settle(agent, cleaner, until=stake.gone, what="it is cleaned")
    disk.free()
