"""Services, a real libvirtd and real guests together: what runs is kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.instances.reader import ChainReader
from sharedcache.adapters.libvirt.source import LibvirtSource
from sharedcache.adapters.proc import ProcSource
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cleaner import ask
from sharedcache.core.model import Report, Uses
from sharedcache.core.ports import Between, DisconnectedError
from sharedcache.core.questions import Answer
from sharedcache.core.referrers import Key, Referrer
from sharedcache.node.look import Looker
from tests.support.inprocess import FAST, Site, publish, settle
from tests.support.libvirtd import EMULATOR, Host, Rig, missing, qemu_img
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sharedcache.adapters.zookeeper_server import ExternalServer, PrivateServer
    from sharedcache.core.ports import Source
    from sharedcache.node.service import NodeService

X = "a" * 40
SLOW = replace(FAST, grace_s=3600.0)
guests = pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")


def with_sources(agent: NodeService, sources: Sequence[Source]) -> NodeService:
    """Give an agent other sources before its first look."""
    agent.world = replace(agent.world, sources=sources)
    agent.__post_init__()
    return agent


def look_now(agent: NodeService) -> Report:
    """Let an agent scan now; return its report."""
    agent._next_look = 0.0
    agent.step()
    assert agent.publisher.published is not None
    return agent.publisher.published


@dataclass
class Told:
    """A source that is told of events by the test."""

    name: str = "told"
    next: list[Between] = field(default_factory=list)

    def look(self) -> Uses:
        """See nothing."""
        return Uses()

    def between(self) -> Between:
        """Return what the test says, else that nothing happened."""
        return self.next.pop(0) if self.next else Between(Uses(), unbroken=True)


def raise_round(site: Site, agent: NodeService) -> None:
    """Let a leader raise the round until the agent has a window."""
    cleaner = site.cleaner("c1", SLOW)
    site.image("11111111-2222-3333-4444-555555555555")
    settle(
        agent,
        cleaner,
        until=lambda: (r := agent.publisher.published) and r.unbroken,
        what="a window",
    )


def test_what_events_told_is_in_the_window(site: Site) -> None:
    """A use that began and ended between two looks is reported as used since."""
    told = Told()
    agent = with_sources(site.agent("n1"), [told])
    publish(agent)
    raise_round(site, agent)
    used = Uses.of_names([X])
    told.next.append(Between(used, unbroken=True))
    report = look_now(agent)
    assert (report.now, report.since, report.unbroken) == (Uses(), used, True)


def test_lost_events_break_coverage(site: Site) -> None:
    """After lost events the next report is a first look, complete as it is."""
    told = Told()
    agent = with_sources(site.agent("n1"), [told])
    publish(agent)
    raise_round(site, agent)
    told.next.append(Between(Uses(), unbroken=False))
    report = look_now(agent)
    assert (report.unbroken, report.complete) == (False, True)
    # Within the same round nothing can mend it.
    assert not look_now(agent).unbroken


def test_lost_events_while_zookeeper_is_away(site: Site) -> None:
    """No window may begin with a look around which no round was read."""
    told = Told()
    agent = with_sources(site.agent("n1"), [told])
    publish(agent)
    told.next.append(Between(Uses(), unbroken=False))
    agent.looker.look_alone()
    assert agent.looker.windows.present is None


def test_events_of_a_look_that_ended_early(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told to a look that joined no window is not forgotten."""
    told = Told()
    agent = with_sources(site.agent("n1"), [told])
    publish(agent)
    raise_round(site, agent)
    used = Uses.of_names([X])
    told.next += [Between(used, unbroken=True), Between(Uses(), unbroken=True)]

    def away() -> int:
        raise DisconnectedError("away")

    ground = agent.looker.ground()
    with monkeypatch.context() as patch:
        patch.setattr(Looker, "_round", lambda _: away())
        with pytest.raises(DisconnectedError):
            agent.looker.look(ground)
    assert look_now(agent).since == used
    told.next += [Between(Uses(), unbroken=False), Between(Uses(), unbroken=True)]
    with monkeypatch.context() as patch:
        patch.setattr(Looker, "_round", lambda _: away())
        with pytest.raises(DisconnectedError):
            agent.looker.look(ground)
    assert not look_now(agent).unbroken


def test_events_that_cannot_be_told(site: Site) -> None:
    """A third party's source that fails here makes the report degraded."""

    class Broken(Told):
        def between(self) -> Between:
            raise OSError("no bus")

    agent = with_sources(site.agent("n1"), [Broken()])
    publish(agent)
    failures = look_now(agent).failures
    assert [(one.source, one.message) for one in failures] == [
        ("told", "OSError: no bus")
    ]


@pytest.fixture
def host(
    zookeeper: PrivateServer | ExternalServer, zk_cluster_name: str
) -> Iterator[tuple[Host, Site]]:
    """Return a host with a daemon, and a cluster over its instances directory."""
    with (
        Rig() as made,
        Site(made.root / "site", zookeeper.address, zk_cluster_name) as site,
    ):
        made.instances.symlink_to(site.base.parent)
        for path in (site.root, site.base.parent, site.base):
            path.chmod(0o777)
        site.found()
        made.daemon()
        yield made, site


def content(disk: Path) -> bytes:
    """Read a whole disk as its guest sees it."""
    flat = disk.with_name("flat")
    qemu_img("convert", "-U", "-O", "raw", str(disk), str(flat))
    try:
        return flat.read_bytes()
    finally:
        flat.unlink()


@pytest.mark.qemu
@guests
def test_guest_of_an_overlay_that_nobody_had_seen(host: tuple[Host, Site]) -> None:
    """A guest that comes between quarantine and purge gets its base file back."""
    machine, site = host
    daemon = machine.daemons[0]
    base = site.file(X)
    base.write_bytes(os.urandom(1 << 20))
    os.utime(base, (0, 1e9))
    disk = machine.overlay("../elsewhere/disk", machine.base / X)
    before = content(disk)
    reader = str(machine.base)
    source = LibvirtSource(daemon.uri, (ChainReader(reader), ChainReader(reader)))
    agent = with_sources(site.agent("n1"), [source])
    publish(agent)
    cleaner = site.cleaner("c1")
    cleaner.pass_now()
    settle(agent, cleaner, until=lambda: not base.exists(), what="quarantined")

    daemon.virsh("define", str(machine.xml("g", disk)))
    assert not daemon.tried("start", "g")
    settle(agent, cleaner, until=base.exists, what="restored")
    daemon.virsh("start", "g", "--paused")
    assert site.storage().locked(X)
    assert content(disk) == before
    # Who it is can be asked from anywhere.
    word = ask.ask(site.session("desk"), ["n1"], X, "t",
                   left_s=lambda: 10.0, pause=lambda _: agent.step())["n1"]  # fmt: skip
    assert isinstance(word, Answer)
    (sighting,) = word.sightings
    assert [one for one, _ in sighting.referrers] == [
        Referrer("domain", "g", str(disk))
    ]
    # However often it is judged again, it stays while the domain is there.
    for _ in range(5):
        cleaner.pass_now()
        settle(agent, cleaner, until=lambda: True, what="a pass")
    assert base.exists()
    assert content(disk) == before
    source.close()


@pytest.mark.root
@pytest.mark.qemu
@guests
def test_waiting_destination_of_a_migration(host: tuple[Host, Site]) -> None:
    """A destination that waits holds no lock, and is seen by what it has open."""
    machine, site = host
    base = site.file(X)
    disk = machine.overlay("g/disk", machine.base / X)
    storage = DirectoryStorage(str(site.base))
    proc = ProcSource(str(site.base))
    qemu = subprocess.Popen(
        [
            shutil.which(EMULATOR) or EMULATOR,
            *("-machine", "pc,accel=tcg", "-m", "16", "-display", "none"),
            *("-nodefaults", "-incoming", "defer", "-S"),
            *("-drive", f"file={disk},format=qcow2,if=virtio"),
        ],
        stdin=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: proc.look() == Uses.of_names([X]), 20.0, "open files")
        assert not storage.locked(X)
        # Under its quarantined name it is found as well, by its inode.
        storage.epoch_make(7)
        storage.quarantine(X, 7, f"{X}.0123456789abcdef.7")
        assert not base.exists()
        assert X in set(proc.look().cache_names())
        assert not storage.quarantined_locked(7, f"{X}.0123456789abcdef.7")
    finally:
        qemu.send_signal(signal.SIGKILL)
        qemu.wait(20)
        storage.close()
    assert proc.look() == Uses()


@pytest.mark.qemu
@guests
def test_locks_of_a_real_guest(host: tuple[Host, Site]) -> None:
    """A guest's lock shows under the cache name and in quarantine, and ends with it."""
    machine, site = host
    daemon = machine.daemons[0]
    site.file(X)
    disk = machine.overlay("g/disk", machine.base / X)
    storage = site.storage()
    assert not storage.locked(X)
    daemon.virsh("create", str(machine.xml("g", disk)), "--paused")
    assert storage.locked(X)
    storage.epoch_make(7)
    leaf = f"{X}.0123456789abcdef.7"
    storage.quarantine(X, 7, leaf)
    assert storage.quarantined_locked(7, leaf)
    os.kill(daemon.qemu("g"), signal.SIGKILL)
    eventually(lambda: not storage.quarantined_locked(7, leaf), 20.0, "the lock to end")


@pytest.mark.root
@pytest.mark.qemu
@guests
@pytest.mark.parametrize("how", ["descriptor", "namespace"])
def test_qemu_that_knows_the_file_otherwise(host: tuple[Host, Site], how: str) -> None:
    """A descriptor that was handed over, and another namespace, hide nothing."""
    machine, site = host
    base = site.file(X)
    qemu = [shutil.which(EMULATOR) or EMULATOR, "-machine", "pc,accel=tcg", "-m", "16",
            "-display", "none", "-nodefaults", "-S", "-drive"]  # fmt: skip
    options = "format=raw,if=none,id=x,readonly=on"
    proc = ProcSource(str(site.base))
    given = os.open(base, os.O_RDONLY)
    if how == "descriptor":
        command = [
            *qemu,
            f"file=/dev/fdset/1,{options}",
            "-add-fd",
            f"fd={given},set=1",
        ]
    else:
        other = machine.root / "other"
        other.mkdir()
        hide = f"mount --bind {site.base} {other} && mount -t tmpfs none {site.base}"
        start = " ".join([*qemu, f"file={other}/{X},{options}"])
        command = ["unshare", "-m", "sh", "-c", f"{hide} && exec {start}"]
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[given])
    os.close(given)
    try:
        eventually(lambda: proc.look() == Uses.of_names([X]), 20.0, "open files")
        told, _ = proc.referrers().of(Key(X))
        assert {f"process {running.pid}" in one.name for one in told} == {True}
    finally:
        running.kill()
        running.wait(20)
    assert proc.look() == Uses()
