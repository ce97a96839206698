"""Uses as a real libvirtd with real guests shows them, beside virsh and qemu-img."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.instances.reader import ChainReader
from sharedcache.adapters.libvirt.source import LibvirtSource
from sharedcache.adapters.proc import ProcSource
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.core.model import Uses
from sharedcache.core.names import digest_of
from sharedcache.core.ports import EventSource, SourceError
from sharedcache.core.referrers import Key, Referrer
from tests.support.libvirtd import Host, Rig, chain_of, missing
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.libvirtd import Daemon

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}"),
]

X, Y, Z = "a" * 40, "b" * 40, "c" * 40
IMAGE = "11111111-2222-3333-4444-555555555555"
NOVA = (
    '<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">'
    f'<nova:root type="image" uuid="{IMAGE}"/></nova:instance></metadata>'
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Host]:
    """Return a host with one daemon, which the module's tests share."""
    with Rig() as host:
        host.daemon()
        yield host


@pytest.fixture
def host(rig: Host) -> Iterator[Host]:
    """Return the host without guests."""
    rig.clear()
    yield rig
    rig.clear()


@pytest.fixture
def daemon(host: Host) -> Daemon:
    """Return the host's first daemon."""
    return host.daemons[0]


def source_of(host: Host, daemon: Daemon) -> LibvirtSource:
    """Make the source as the agent does."""
    base = str(host.base)
    return LibvirtSource(daemon.uri, (ChainReader(base), ChainReader(base)))


@pytest.fixture
def source(host: Host, daemon: Daemon) -> Iterator[LibvirtSource]:
    """Return a source that has looked once."""
    made = source_of(host, daemon)
    made.look()
    made.between()
    yield made
    made.close()


def same(source: LibvirtSource, host: Host, *daemons: Daemon) -> set[str]:
    """Look, compare with virsh and qemu-img, and return the names."""
    found = set(source.look().cache_names())
    assert found == host.used(*daemons)
    return found


def test_life_of_a_domain(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """A domain uses its disks from its definition to its end, running or not."""
    host.image(X)
    xml = str(host.xml("g", host.overlay("g/disk", host.base / X)))
    assert same(source, host) == set()
    daemon.virsh("define", xml)
    assert same(source, host) == {X}
    daemon.virsh("start", "g", "--paused")
    assert same(source, host) == {X}
    daemon.virsh("destroy", "g")
    assert same(source, host) == {X}
    daemon.virsh("undefine", "g")
    assert same(source, host) == set()


def test_every_disk(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """Root, ephemeral, swap and rescue disks count, and those behind others."""
    names = [X, Y, f"{Z}_20", "swap_512", "ephemeral_10_40d1d2c"]
    disks = [
        host.overlay(f"g/disk.{number}", host.image(name))
        for number, name in enumerate(names)
    ]
    disks[0] = host.overlay("g/disk.rescue", disks[0], "qcow2")
    daemon.virsh("create", str(host.xml("g", *disks)), "--paused")
    assert same(source, host) == set(names)


def test_rescue(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """A rescued guest uses its rescue disk and its own; rescued no more, its own."""
    own = host.overlay("g/disk", host.image(X))
    rescue = host.overlay("g/disk.rescue", host.image(Y))
    daemon.virsh("create", str(host.xml("g", own)), "--paused")
    assert same(source, host) == {X}
    daemon.virsh("destroy", "g")
    daemon.virsh("create", str(host.xml("g", rescue, own)), "--paused")
    assert same(source, host) == {X, Y}
    daemon.virsh("destroy", "g")
    rescue.unlink()
    daemon.virsh("define", str(host.xml("g", own)))
    assert same(source, host) == {X}


def test_copy_under_way(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """While a disk is copied, what the copy refers to is used as well."""
    disk = host.overlay("g/disk", host.image(X))
    copy = host.overlay("g/copy", host.image(Y))
    daemon.virsh("create", str(host.xml("g", disk)))
    daemon.virsh("blockcopy", "g", "vda", str(copy), "--format", "qcow2",
                 "--reuse-external", "--transient-job", "--wait")  # fmt: skip
    assert set(source.look().cache_names()) == {X, Y}
    daemon.virsh("blockjob", "g", "vda", "--pivot")
    assert same(source, host) == {Y}


def test_snapshot_commit_and_pull(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """Block jobs of a running guest change the chain, and the look follows."""
    middle = host.overlay("g/middle", host.image(X))
    disk = host.overlay("g/disk", middle, "qcow2")
    daemon.virsh("create", str(host.xml("g", disk)))
    assert same(source, host) == {X}
    snapshot = f"vda,file={host.instances}/g/snap"
    daemon.virsh("snapshot-create-as", "g", "s", "--disk-only", "--no-metadata",
                 "--diskspec", snapshot)  # fmt: skip
    assert same(source, host) == {X}
    daemon.virsh("blockcommit", "g", "vda", "--base", str(disk), "--active", "--pivot",
                 "--wait")  # fmt: skip
    assert same(source, host) == {X}
    daemon.virsh("blockpull", "g", "vda", "--wait")
    assert same(source, host) == set()
    assert chain_of(str(disk)) == [str(disk)]


def test_defined_otherwise_than_it_runs(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """A guest uses what it runs on, and what its next start would use."""
    first = host.overlay("g/disk", host.image(X))
    second = host.overlay("g/other", host.image(Y))
    daemon.virsh("define", str(host.xml("g", first)))
    daemon.virsh("start", "g", "--paused")
    uuid = f"<uuid>{daemon.virsh('domuuid', 'g').strip()}</uuid>"
    daemon.virsh("define", str(host.xml("g", second, extra=uuid)))
    assert same(source, host) == {X, Y}


def test_snapshots_that_libvirt_knows(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """What a domain can be reverted to is used."""
    first = host.overlay("g/disk", host.image(X))
    second = host.overlay("g/other", host.image(Y))
    daemon.virsh("define", str(host.xml("g", first)))
    daemon.virsh("snapshot-create-as", "g", "s", "--disk-only", "--diskspec",
                 f"vda,file={host.instances}/g/snap")  # fmt: skip
    uuid = f"<uuid>{daemon.virsh('domuuid', 'g').strip()}</uuid>"
    daemon.virsh("define", str(host.xml("g", second, extra=uuid)))
    assert set(source.look().cache_names()) == {X, Y}


def test_saved_guest(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """A guest that was saved starts as it was saved, however it is defined now."""
    first = host.overlay("g/disk", host.image(X))
    second = host.overlay("g/other", host.image(Y))
    daemon.virsh("define", str(host.xml("g", first)))
    daemon.virsh("start", "g")
    uuid = f"<uuid>{daemon.virsh('domuuid', 'g').strip()}</uuid>"
    daemon.virsh("define", str(host.xml("g", second, extra=uuid)))
    daemon.virsh("managedsave", "g")
    assert set(source.look().cache_names()) == {X, Y}
    daemon.virsh("start", "g", "--paused")
    assert str(first) in daemon.virsh("domblklist", "g")
    assert same(source, host) == {X, Y}
    daemon.virsh("destroy", "g")
    assert same(source, host) == {Y}


def test_disk_that_libvirt_does_not_know(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """What a domain hands to qemu as it is may be a disk, running or not."""
    disk = host.overlay("g/disk", host.image(X))
    path = host.xml("g", passed=("-drive", f"file={disk},format=qcow2,if=none"))
    daemon.virsh("define", str(path))
    assert set(source.look().cache_names()) == {X}
    daemon.virsh("start", "g", "--paused")
    assert locked(host, X)
    assert set(source.look().cache_names()) == {X}


def test_who_refers(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """The domain is named with the file by which it refers; events name it too."""
    disk = host.overlay("g/disk", host.image(X))
    daemon.virsh("create", str(host.xml("g", disk, extra=NOVA)), "--paused")
    source.look()
    told = source.between()
    assert told.referrers is not None
    image = digest_of(IMAGE).hex()
    for said in (source.referrers(), told.referrers):
        assert said.of(Key(X))[0] == [Referrer("domain", "g", str(disk))]
        for family in (False, True):
            key = Key(image, family=family)
            assert said.of(key)[0] == [Referrer("domain", "g")]


@pytest.mark.parametrize("known", [True, False])
def test_libvirtd_that_hangs(
    host: Host,
    daemon: Daemon,
    known: bool,  # noqa: FBT001 - a case
) -> None:
    """One that does not answer is given up, and asked again once it has answered."""
    base = str(host.base)
    source = LibvirtSource(daemon.uri, (ChainReader(base), ChainReader(base)), look_s=1)
    disk = host.overlay("g/disk", host.image(X))
    daemon.virsh("create", str(host.xml("g", disk)), "--paused")
    if known:
        source.look()
        source.between()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(SourceError, match="did not answer within 1 seconds"):
            source.look()
        begun = time.monotonic()
        with pytest.raises(SourceError, match="still owes an answer"):
            source.look()
        told = source.between()
        assert time.monotonic() - begun < 0.5 or not known
        assert not told.unbroken or not known
    finally:
        daemon.process.send_signal(signal.SIGCONT)

    def answers() -> bool:
        try:
            return source.look() == Uses.of_names([X])
        except SourceError:
            return False

    eventually(answers, 20.0, "a look")
    source.close()


def test_kernels_and_metadata(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """A kernel that boots from the cache counts, and the image that Nova names."""
    for name in (Y, Z, IMAGE):
        host.image(name)
    boot = f"<kernel>{host.base}/{IMAGE}</kernel><initrd>{host.base}/{Z}</initrd>"
    daemon.virsh("define", str(host.xml("g", extra=NOVA, boot=boot)))
    found = source.look()
    digest = digest_of(IMAGE)
    assert found == Uses(
        images=frozenset({digest, bytes.fromhex(Z)}),
        families=frozenset({digest}),
        names=frozenset({IMAGE}),
    )


def test_link_to_a_cache_file(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """Whatever a path is there for, it may be a link; one that is nothing is left."""
    link = host.instances / "table"
    link.symlink_to(host.image(X))
    away = host.instances / ("n" * 300)
    daemon.virsh("define", str(host.xml("g", extra=(
        '<sysinfo type="fwcfg">'
        f'<entry name="opt/a" file="{link}"/><entry name="opt/b" file="{away}"/>'
        "</sysinfo>"))))  # fmt: skip
    assert set(source.look().cache_names()) == {X}
    assert source.referrers().of(Key(X))[0] == [Referrer("domain", "g", str(link))]


def test_killed_qemu(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """A transient guest whose qemu is killed uses nothing any more."""
    disk = host.overlay("g/disk", host.image(X))
    daemon.virsh("create", str(host.xml("g", disk)), "--paused")
    assert same(source, host) == {X}
    os.kill(daemon.qemu("g"), signal.SIGKILL)
    eventually(lambda: not daemon.domains(), 20.0, "libvirtd to notice")
    assert same(source, host) == set()


def test_guest_between_looks(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """A guest that comes and goes between two looks is told by events."""
    assert isinstance(source, EventSource)
    disk = host.overlay("g/disk", host.image(X))
    daemon.virsh("create", str(host.xml("g", disk)), "--paused")
    told = source.between()
    assert (set(told.uses.cache_names()), told.unbroken) == ({X}, True)
    daemon.virsh("destroy", "g")
    assert source.look() == Uses()
    told = source.between()
    assert (told.uses, told.unbroken) == (Uses(), True)


def test_what_a_running_guest_is_given(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """A medium and an image's id that come and go between two looks are told."""
    drive = (
        '<disk type="file" device="cdrom"><driver name="qemu" type="raw"/>'
        '<target dev="hda" bus="ide"/></disk>'
    )
    disk = host.overlay("g/disk", host.image(X))
    xml = host.xml("g", disk)
    xml.write_text(xml.read_text().replace("</devices>", f"{drive}</devices>"))
    daemon.virsh("define", str(xml))
    # Paused: a guest's firmware would open and close the drive meanwhile.
    daemon.virsh("start", "g", "--paused")
    source.look()
    source.between()
    medium = str(host.image(Y))
    daemon.virsh("change-media", "g", "hda", medium, "--insert", "--live")
    daemon.virsh("change-media", "g", "hda", "--eject", "--live", "--force")
    assert same(source, host) == {X}
    told = source.between()
    assert Y in set(told.uses.cache_names()) or not told.unbroken
    nova = ("metadata", "g", "http://openstack.org/xmlns/libvirt/nova/1.1")
    root = f'<instance><root type="image" uuid="{IMAGE}"/></instance>'
    daemon.virsh(*nova, "--key", "nova", "--set", root, "--config")
    daemon.virsh(*nova, "--remove", "--config")
    assert same(source, host) == {X}
    told = source.between()
    assert digest_of(IMAGE) in told.uses.images or not told.unbroken


def test_guest_that_nobody_could_read(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """A guest of which only its end was seen breaks coverage, or was read."""
    disk = host.overlay("g/disk", host.image(X))
    xml = str(host.xml("g", disk))
    for _ in range(3):
        daemon.virsh("define", xml)
        daemon.virsh("undefine", "g")
        assert source.look() == Uses()
        told = source.between()
        assert set(told.uses.cache_names()) == {X} or not told.unbroken


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restart_of_libvirtd(
    source: LibvirtSource, host: Host, daemon: Daemon, number: signal.Signals
) -> None:
    """Guests outlive their libvirtd; events do not, and that is said once."""
    disk = host.overlay("g/disk", host.image(X))
    daemon.virsh("create", str(host.xml("g", disk)), "--paused")
    source.look()
    assert source.between().unbroken
    daemon.stop(number)
    with pytest.raises(SourceError, match="start libvirtd"):
        source.look()
    daemon.start()
    assert same(source, host) == {X}
    assert not source.between().unbroken
    assert same(source, host) == {X}
    assert source.between().unbroken


def test_restart_between_looks(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """A libvirtd that was restarted before anybody looked loses events all the same."""
    disk = host.overlay("g/disk", host.image(X))
    daemon.virsh("create", str(host.xml("g", disk)), "--paused")
    daemon.stop()
    daemon.start()
    assert same(source, host) == {X}
    assert not source.between().unbroken


def test_disk_that_is_not_there(
    source: LibvirtSource, host: Host, daemon: Daemon
) -> None:
    """A defined domain whose disk is gone is doubt; a running one's chain is known."""
    disk = host.overlay("g/disk", host.image(X))
    daemon.virsh("create", str(host.xml("g", disk)), "--paused")
    disk.unlink()
    assert set(source.look().cache_names()) == {X}
    daemon.virsh("destroy", "g")
    daemon.virsh("define", str(host.xml("g", disk)))
    with pytest.raises(SourceError, match="undefine the domain"):
        source.look()


def locked(host: Host, name: str) -> bool:
    """Probe as the cleaner does before it takes a name."""
    storage = DirectoryStorage(str(host.base))
    try:
        return storage.locked(name)
    finally:
        storage.close()


def test_live_migration(source: LibvirtSource, host: Host, daemon: Daemon) -> None:
    """A guest on its way is used on both hosts; the one that waits has no lock."""
    other = host.daemons[1] if len(host.daemons) > 1 else host.daemon()
    there = source_of(host, other)
    assert there.look() == Uses()
    there.between()
    disk = host.overlay("g/disk", host.image(X))
    daemon.virsh("create", str(host.xml("g", disk)))
    assert same(source, host, daemon) == {X}
    daemon.virsh("migrate", "--live", "--unsafe", "g", other.uri, "tcp:127.0.0.1")
    told = there.between()
    assert (set(told.uses.cache_names()), told.unbroken) == ({X}, True)
    assert same(there, host, other) == {X}
    assert same(source, host, daemon) == set()
    assert source.between().unbroken
    there.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="looks into another user's processes")
def test_open_files_and_locks(host: Host, daemon: Daemon) -> None:
    """Locks and open files of a paused guest show, and end with it."""
    disk = host.overlay("g/disk", host.image(X))
    host.image(Y)
    daemon.virsh("create", str(host.xml("g", disk)), "--paused")
    proc = ProcSource(str(host.base))
    assert proc.look() == Uses.of_names([X])
    assert (locked(host, X), locked(host, Y)) == (True, False)
    # Renamed under the guest by another's hand: found by its inode.
    (host.base / X).rename(host.base / f"{X}_20")
    assert f"{X}_20" in set(proc.look().cache_names())
    assert locked(host, f"{X}_20")
    os.kill(daemon.qemu("g"), signal.SIGKILL)
    eventually(lambda: not daemon.domains(), 20.0, "libvirtd to notice")
    assert proc.look() == Uses()
    assert not locked(host, f"{X}_20")
