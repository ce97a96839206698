"""What libvirt cannot tell is doubt, whichever of its calls it is that fails."""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext
from typing import Any

import pytest

from sharedcache.adapters.libvirt import events
from sharedcache.adapters.libvirt.domains import TRIES, uses_of
from sharedcache.adapters.libvirt.events import Events
from sharedcache.adapters.libvirt.source import LibvirtSource
from sharedcache.core.model import Uses
from sharedcache.core.ports import SourceError
from sharedcache.core.referrers import Referrers

libvirt = pytest.importorskip("libvirt", reason="libvirt's Python module is missing")

X = "a" * 40


class LibvirtError(libvirt.libvirtError):  # type: ignore[misc]
    """An error with a number, without a connection that has it."""

    def __init__(self, number: int = 1) -> None:
        super().__init__("why")
        self._number = number

    def get_error_code(self) -> int:
        """Return the number."""
        return self._number


def _domain(*paths: str) -> str:
    disks = "".join(
        f"<disk type='file'><source file='{path}'/><target dev='vd{n}'/></disk>"
        for n, path in enumerate(paths)
    )
    return f"<domain><name>g</name><devices>{disks}</devices></domain>"


class Domain:
    """A domain whose answers a test chooses; one that is an error is raised."""

    def __init__(self, *documents: Any, saved: Any = None, stays: bool = True) -> None:
        self.documents = list(documents)
        self.saved, self.stays = saved, stays
        self.asked = 0

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's name
        """Give one after the other, the last one for ever."""
        answer = self.documents.pop(0) if len(self.documents) > 1 else self.documents[0]
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    def isPersistent(self) -> bool:  # noqa: N802 - libvirt's name
        """Whether it is defined."""
        return self.saved is not None

    def hasManagedSaveImage(self, _flags: int) -> bool:  # noqa: N802 - libvirt's name
        """Whether it was saved, at the first question and at later ones."""
        self.asked += 1
        return self.asked == 1 or self.stays

    def managedSaveGetXMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's name
        """Tell what it was then."""
        if isinstance(self.saved, Exception):
            raise self.saved
        return str(self.saved)

    def snapshotNum(self, _flags: int) -> int:  # noqa: N802 - libvirt's name
        """Have none."""
        return 0

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        """Name it."""
        return "its-uuid"


class Chains:
    """Backing chains that are all of one file."""

    def names_of(self, disk: str, image_format: str | None = None) -> frozenset[str]:
        """Fail for a path that says so."""
        del image_format
        if "bad" in disk:
            raise SourceError(f"cannot read {disk}")
        if "gone" in disk:
            raise FileNotFoundError(disk)
        return frozenset({X})


def _uses(domain: Domain, connection: object = None) -> Uses | None:
    return uses_of(connection, domain, Chains(), Referrers())  # type: ignore[arg-type]


def test_a_domain_that_went_uses_nothing() -> None:
    """It was listed, and is undefined by now."""
    assert _uses(Domain(LibvirtError(libvirt.VIR_ERR_NO_DOMAIN))) is None


def test_any_other_error_is_none_of_an_empty_domain() -> None:
    """Whoever asked hears of it."""
    with pytest.raises(libvirt.libvirtError):
        _uses(Domain(LibvirtError(libvirt.VIR_ERR_INTERNAL_ERROR)))


def test_a_saved_state_that_cannot_be_read() -> None:
    """It starts as it was saved: unless that is gone, nobody knows what it uses."""
    defined = _domain("/disk")
    with pytest.raises(libvirt.libvirtError):
        _uses(Domain(defined, saved=LibvirtError()))
    gone = Domain(defined, saved=LibvirtError(), stays=False)
    assert _uses(gone) == Uses.of_names([X])


def test_a_domain_that_changes_is_read_again() -> None:
    """A broken disk that was replaced meanwhile is no failure; endless change is."""
    mended = Domain(_domain("/bad"), _domain("/disk"))
    assert _uses(mended) == Uses.of_names([X])
    with pytest.raises(SourceError, match="cannot read /bad"):
        _uses(Domain(_domain("/bad")))
    restless = Domain(*(_domain(f"/bad{n}") for n in range(TRIES + 2)))
    with pytest.raises(SourceError, match=r"its-uuid changed during each"):
        _uses(restless)


def test_a_document_that_is_none() -> None:
    """What cannot be read may name anything."""
    with pytest.raises(SourceError, match="upgrade sharedcache"):
        _uses(Domain("<domain"))


class Pools:
    """A connection that knows one volume of one pool."""

    def storagePoolLookupByName(self, name: str) -> Pools:  # noqa: N802 - libvirt's name
        """Find the pool."""
        if name != "pool":
            raise LibvirtError
        return self

    def storageVolLookupByName(self, name: str) -> Pools:  # noqa: N802 - libvirt's name
        """Find the volume."""
        if name != "volume":
            raise LibvirtError
        return self

    def path(self) -> str:
        """Tell where it lies."""
        return "/pool/volume"


def test_a_volume_is_where_its_pool_says() -> None:
    """One that its pool does not know, or whose pool is off, is doubt."""

    def on(pool: str, volume: str) -> Domain:
        where = f"<source pool='{pool}' volume='{volume}'/><target dev='vda'/>"
        disk = f"<disk type='volume'>{where}</disk>"
        return Domain(f"<domain><name>g</name><devices>{disk}</devices></domain>")

    assert _uses(on("pool", "volume"), Pools()) == Uses.of_names([X])
    for pool, volume in (("off", "volume"), ("pool", "strange")):
        with pytest.raises(SourceError, match=f"volume {volume} of pool {pool}"):
            _uses(on(pool, volume), Pools())


# The connection.


class Connection:
    """A connection on which every listing fails."""

    def __init__(self, *, alive: bool | Exception) -> None:
        self.alive, self.closed = alive, False

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        """Tell, or fail."""
        if isinstance(self.alive, Exception):
            raise self.alive
        return int(self.alive)

    def listAllDomains(self, _flags: int) -> list[object]:  # noqa: N802 - libvirt's name
        """Fail."""
        raise LibvirtError

    def close(self) -> None:
        """End it."""
        self.closed = True


@pytest.mark.parametrize("alive", [True, False, LibvirtError()])
def test_a_listing_that_fails_is_tried_once_more_if_the_connection_broke(
    monkeypatch: pytest.MonkeyPatch, *, alive: bool | Exception
) -> None:
    """A libvirtd that was restarted is no failure; one that refuses is, at once."""
    opened: list[Connection] = []

    def opening(_self: object) -> Connection:
        opened.append(Connection(alive=alive))
        monkeypatch.setattr(made, "_connection", opened[-1])
        return opened[-1]

    reader = nullcontext  # The chains are not asked.
    made = LibvirtSource("test:///default", (reader, reader))  # type: ignore[arg-type]
    monkeypatch.setattr(LibvirtSource, "_open", opening)
    monkeypatch.setattr(made._events, "detach", lambda *_: None)
    with pytest.raises(SourceError, match=r"test:///default failed: why"):
        made.look()
    assert len(opened) == (1 if alive is True else 2)
    assert all(connection.closed for connection in opened)
    assert not made._events.take().unbroken


def test_without_its_module_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "libvirt", None)
    made = LibvirtSource("test:///default", (nullcontext, nullcontext))  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"install sharedcache\[libvirt\]"):
        made.look()


# Events.


def test_a_copy_that_fails_leaves_the_time_between_in_doubt() -> None:
    """What it copied to was used, and is not named any more."""
    for status, lost in (
        (libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED, True),
        (libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED, True),
        (libvirt.VIR_DOMAIN_BLOCK_JOB_READY, False),
    ):
        told = Events(lambda *_: Uses())
        kind = libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY
        told._block_job(None, Domain(), "vda", kind, status, None)  # type: ignore[arg-type]
        assert told.take().unbroken is not lost


@pytest.mark.parametrize("stuck", ["loop", "worker"])
def test_events_that_are_not_read_in_time_are_lost(
    monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    """A look that waited for them in vain proves nothing of the time before it."""
    monkeypatch.setattr(events, "DRAIN_S", 0.01)
    monkeypatch.setattr(events.loop, "drained", lambda _: stuck != "loop")
    told = Events(lambda *_: Uses())
    told._worker = threading.Thread(target=told._work, daemon=True)
    if stuck == "loop":
        told._worker.start()
    assert not told.take().unbroken
