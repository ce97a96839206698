"""Disk images that lead astray: told and degraded, or followed to their end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sharedcache.adapters.instances.source import InstancesSource
from sharedcache.cleaner.service import CleanerService
from sharedcache.core.model import Report
from tests.support.images import qcow2
from tests.support.inprocess import Site, publish, settle
from tests.support.stake import Stake, degraded, look_on

pytestmark = pytest.mark.timeout(120)


class Guests:
    """Instance directories beside a site's cache, read by an agent ``n1``."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.path = site.base.parent
        self.stake = Stake.of(site)
        self.disk("good", backing=str(self.stake.used))
        source = InstancesSource(str(self.path), str(site.base))
        self.agent = site.agent("n1", sources=[source])

    def disk(self, instance: str, name: str = "disk", **header: object) -> Path:
        """Make a disk; its header is as ``qcow2`` is told."""
        path = self.path / instance / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(qcow2(**header))  # type: ignore[arg-type]
        return path

    def agrees(self, bad: Path, advice: str) -> None:
        """See that one bad disk degrades the report, and removes nothing."""
        cleaner = self.site.cleaner("c1")
        message = degraded(self.agent, cleaner, "instances")
        assert str(bad) in message
        assert advice in message
        look_on(cleaner, self.agent)
        assert self.stake.whole()
        self.goes_on(bad, cleaner)

    def goes_on(self, bad: Path, cleaner: CleanerService) -> None:
        """Remove the bad disk; everything goes on by itself."""
        bad.unlink()
        settle(self.agent, cleaner, until=self.stake.gone, what="it goes on without it")

    def followed(self, *names: str) -> Report:
        """See that a strange disk is understood: whole report, these names used."""
        publish(self.agent)
        report = self.agent.publisher.published
        assert report is not None
        assert report.complete
        assert set(report.now.cache_names()) == {self.stake.used.name, *names}
        cleaner = self.site.cleaner("c1")
        settle(
            self.agent,
            cleaner,
            until=self.stake.gone,
            what="what is not on any chain goes",
        )
        assert all((self.site.base / name).exists() for name in names)
        return report


@pytest.fixture
def guests(site: Site) -> Guests:
    """Make a site whose agent reads instance directories."""
    return Guests(site)


def other(guests: Guests) -> Path:
    """Make one more cache file, which only a strange disk refers to."""
    return guests.site.image("00000000-0000-4000-8000-000000000099")


def test_a_qcow2_header_cut_short_degrades_the_report(guests: Guests) -> None:
    """What the rest of the header would name cannot be known."""
    publish(guests.agent)
    bad = guests.disk("bad", backing=str(guests.stake.used))
    bad.write_bytes(bad.read_bytes()[:40])
    guests.agrees(bad, "ends too early; repair or remove the image")


def test_a_qcow2_chain_with_a_loop_is_followed_once(guests: Guests) -> None:
    """A chain that comes back to itself has told all its names."""
    name = other(guests).name
    first, second = guests.path / "a" / "disk", guests.path / "b" / "disk"
    guests.disk("a", backing=str(second))
    guests.disk("b", backing=str(guests.path / "a" / "middle"))
    guests.disk(
        "a", "middle", backing=str(first), data_file=str(guests.site.base / name)
    )
    guests.followed(name)


def test_a_disk_behind_a_loop_of_links_degrades_the_report(guests: Guests) -> None:
    """A link that leads to itself says nothing of what is in use."""
    publish(guests.agent)
    bad = guests.disk("bad", backing=str(guests.path / "round"))
    (guests.path / "round").symlink_to("about")
    (guests.path / "about").symlink_to("round")
    # The links beside the instances could be directories, so they fail as well.
    cleaner = guests.site.cleaner("c1")
    message = degraded(guests.agent, cleaner, "instances")
    assert "remove the link" in message
    look_on(cleaner, guests.agent)
    assert guests.stake.whole()
    (guests.path / "round").unlink()
    (guests.path / "about").unlink()
    guests.goes_on(bad, cleaner)


def test_a_qcow2_pointing_outside_the_base_is_followed_there(guests: Guests) -> None:
    """A chain that leaves the base may come back, and what is elsewhere is not ours."""
    name = other(guests).name
    outside = guests.site.root / "elsewhere.qcow2"
    back = guests.site.root / "instances" / "good" / ".." / "_base" / name
    outside.write_bytes(qcow2(str(back), "raw"))
    guests.disk("a", backing=f"../../{outside.name}")
    before = outside.read_bytes()
    guests.followed(name)
    assert outside.read_bytes() == before


def test_a_qcow2_pointing_outside_to_nothing_degrades_the_report(
    guests: Guests,
) -> None:
    """A chain whose next part is not there has a rest that cannot be known."""
    publish(guests.agent)
    bad = guests.disk("bad", backing="/nowhere/at/all.qcow2")
    guests.agrees(bad, "mount or restore it, or remove the broken disk")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/dev/ptmx", "fifo"])
def test_a_qcow2_pointing_to_a_device_is_not_opened_there(
    guests: Guests, device: str
) -> None:
    """What is no image is neither read without end nor waited for."""
    path = guests.site.root / device
    if device == "fifo":
        os.mkfifo(path)
    guests.disk("a", backing=str(path))
    guests.followed()


@contextmanager
def listening() -> Iterator[socket.socket]:
    """Listen on a port of this host; nobody is answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/image.qcow2",
        "nbd://127.0.0.1:{port}/image",
        'json:{{"driver":"nbd","server":{{"type":"inet","host":"127.0.0.1","port":"{port}"}}}}',
    ],
    ids=["http", "nbd", "json"],
)
def test_a_qcow2_pointing_to_a_url_is_not_fetched(guests: Guests, url: str) -> None:
    """What is on the network is not in the base, and nobody is called there."""
    with listening() as server:
        port = server.getsockname()[1]
        guests.disk("a", backing=url.format(port=port))
        guests.followed()
        with pytest.raises(BlockingIOError):
            server.accept()


def _chain(guests: Guests, depth: int, last: str) -> Path:
    below = last
    for number in range(depth):
        below = str(guests.disk("deep", f"disk.{number}", backing=below))
    return Path(below)


def test_a_qcow2_50_deep_is_followed_to_the_bottom(guests: Guests) -> None:
    """A long chain is read whole."""
    name = other(guests).name
    _chain(guests, 50, str(guests.site.base / name))
    guests.followed(name)


def test_a_qcow2_deeper_than_any_guest_can_use_degrades_the_report(
    guests: Guests,
) -> None:
    """A chain without end is not followed without end."""
    publish(guests.agent)
    top = _chain(guests, 210, str(guests.stake.used))
    cleaner = guests.site.cleaner("c1")
    message = degraded(guests.agent, cleaner, "instances")
    assert "shorten it with 'qemu-img rebase' or block-commit" in message
    look_on(cleaner, guests.agent)
    assert guests.stake.whole()
    for disk in top.parent.iterdir():
        disk.unlink()
    settle(guests.agent, cleaner, until=guests.stake.gone, what="it goes on")
