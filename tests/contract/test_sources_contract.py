"""Every source of ours passes the contract that other people's must pass."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.instances.reader import ChainReader
from sharedcache.adapters.instances.source import InstancesSource
from sharedcache.adapters.libvirt.source import LibvirtSource
from sharedcache.adapters.proc import ProcSource
from sharedcache.adapters.uses_file import UsesFileSource
from sharedcache.core.model import Uses
from sharedcache.core.ports import Between, SourceError
from sharedcache.core.referrers import Referrer, Referrers
from sharedcache.testing.sources import ContractBrokenError, SourceContract
from tests.support.images import qcow2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sharedcache.core.ports import Source


class Instances:
    """Overlays in instance directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / "_base"
        self.base.mkdir()
        self.source: Source = self.make()

    def make(self) -> Source:
        """Make the source."""
        return InstancesSource(str(self.root), str(self.base))

    def disk(self, name: str) -> Path:
        """Say where a guest's disk lies."""
        return self.root / f"vm-{name}" / "disk"

    def use(self, name: str) -> None:
        """Make a base file and an overlay."""
        (self.base / name).write_bytes(b"raw")
        self.disk(name).parent.mkdir()
        self.disk(name).write_bytes(qcow2(str(self.base / name), "raw"))

    def release(self, name: str) -> None:
        """Delete the instance."""
        shutil.rmtree(self.disk(name).parent)

    def fail(self) -> None:
        """Take away what a chain goes through."""
        disk = next(self.root.glob("vm-*/disk"))
        disk.rename(self.root / "aside")
        disk.write_bytes(qcow2(str(self.root / "gone"), "qcow2"))

    def mend(self) -> None:
        """Put it back."""
        disk = next(self.root.glob("vm-*/disk"))
        (self.root / "aside").rename(disk)


class Libvirt(Instances):
    """Domains of libvirt's own test driver, which lives in this process."""

    def __init__(self, root: Path) -> None:
        import libvirt  # noqa: PLC0415 - an extra

        super().__init__(root)
        # The driver begins with a domain whose disk is not there.
        self.connection = libvirt.open("test:///default")
        self.clear()

    def make(self) -> Source:
        """Make the source."""
        base = str(self.base)
        return LibvirtSource("test:///default", (ChainReader(base), ChainReader(base)))

    def use(self, name: str) -> None:
        """Define a domain."""
        super().use(name)
        self.connection.defineXML(
            f"<domain type='test'><name>{name}</name><memory>1024</memory>"
            "<os><type>hvm</type></os><devices><disk type='file' device='disk'>"
            f"<driver name='qemu' type='qcow2'/><source file='{self.disk(name)}'/>"
            "<target dev='vda'/></disk></devices></domain>"
        )

    def release(self, name: str) -> None:
        """Undefine the domain, then delete its disk."""
        self.connection.lookupByName(name).undefine()
        super().release(name)

    def clear(self) -> None:
        """Forget every domain."""
        for domain in self.connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefine()

    def close(self) -> None:
        """End the connections."""
        self.clear()
        assert isinstance(self.source, LibvirtSource)
        self.source.close()
        self.connection.close()


class Proc:
    """Processes in a directory like ``/proc``."""

    def __init__(self, root: Path) -> None:
        self.base = root / "_base"
        self.base.mkdir()
        self.proc = root / "proc"
        (self.proc / "1").mkdir(parents=True)
        (self.proc / "1/comm").write_text("init\n")
        (self.proc / "self/ns").mkdir(parents=True)
        self.namespace = self.proc / "self/ns/pid"
        self.mend()
        self.source: Source = ProcSource(str(self.base), proc=str(self.proc))

    def at(self, name: str) -> Path:
        """Say where a guest's process is."""
        return self.proc / str(ord(name[0]))

    def use(self, name: str) -> None:
        """Start a qemu."""
        (self.base / name).write_bytes(b"raw")
        (self.at(name) / "fd").mkdir(parents=True)
        (self.at(name) / "exe").symlink_to("/usr/bin/qemu-system-x86_64")
        (self.at(name) / "fd/9").symlink_to(self.base / name)

    def release(self, name: str) -> None:
        """End it."""
        shutil.rmtree(self.at(name))

    def fail(self) -> None:
        """Hide the host's processes."""
        self.namespace.unlink()
        self.namespace.symlink_to("pid:[1]")

    def mend(self) -> None:
        """Show them."""
        self.namespace.unlink(missing_ok=True)
        self.namespace.symlink_to("pid:[4026531836]")


class UsesFile:
    """A JSON file."""

    def __init__(self, root: Path) -> None:
        self.path = root / "uses.json"
        self.names: set[str] = set()
        self.mend()
        self.source: Source = UsesFileSource(str(self.path))

    def use(self, name: str) -> None:
        """Add a name."""
        self.names.add(name)
        self.mend()

    def release(self, name: str) -> None:
        """Remove a name."""
        self.names.remove(name)
        self.mend()

    def fail(self) -> None:
        """Write half of it."""
        self.path.write_text('{"names": [')

    def mend(self) -> None:
        """Write all of it."""
        self.path.write_text(json.dumps({"names": sorted(self.names)}))


class TestInstances(SourceContract):
    """The source ``instances``."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> Instances:
        """Make its world."""
        return Instances(tmp_path)


class TestProc(SourceContract):
    """The source ``proc``."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> Proc:
        """Make its world."""
        return Proc(tmp_path)


class TestUsesFile(SourceContract):
    """The source ``uses-file``."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> UsesFile:
        """Make its world."""
        return UsesFile(tmp_path)


@pytest.mark.skipif(
    find_spec("libvirt") is None, reason="not installed: libvirt-dev, gcc, pkg-config"
)
class TestLibvirt(SourceContract):
    """The source ``libvirt``, with events."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[Libvirt]:
        """Make its world."""
        made = Libvirt(tmp_path)
        yield made
        made.close()


class Forgetful(UsesFile):
    """A source that breaks the contract in the ways that cost files."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.inner, self.source = self.source, self

    name = "forgetful"

    def look(self) -> Uses:
        """Take doubt for nothing."""
        try:
            return self.inner.look()
        except SourceError:
            return Uses()

    def between(self) -> Between:
        """Miss everything and say nothing."""
        return Between(Uses(), unbroken=True)

    def referrers(self) -> Referrers:
        """Say of a guest that is gone that it is there."""
        told = Referrers()
        told.add(["a" * 40], Referrer("disk"))
        return told


@contextmanager
def broken() -> Iterator[None]:
    """Expect that the contract does not hold."""
    with pytest.raises(ContractBrokenError):
        yield


def test_the_contract_can_be_broken(tmp_path: Path) -> None:
    """A source that takes doubt for nothing, or misses events, does not pass."""
    contract = SourceContract()
    (tmp_path / "one").mkdir()
    with broken():
        contract.test_doubt_is_an_error(Forgetful(tmp_path / "one"))
    (tmp_path / "three").mkdir()
    with broken():
        contract.test_what_refers_is_told(Forgetful(tmp_path / "three"))
    (tmp_path / "two").mkdir()
    with broken():
        contract.test_what_happens_between_looks(Forgetful(tmp_path / "two"))
