"""Rules for looking at the open files of running hypervisors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sharedcache.adapters.proc import ProcSource
from sharedcache.core.model import Uses
from sharedcache.core.names import leaf_of
from sharedcache.core.ports import Source, SourceError

X = "a" * 40
Y = "b" * 40
QEMU = "/usr/bin/qemu-system-x86_64"
INITIAL = "pid:[4026531836]"


class Processes:
    """A directory like ``/proc``, whose descriptors are links to real files."""

    def __init__(self, root: Path) -> None:
        self.base = root / "_base"
        self.base.mkdir()
        for name in (X, Y):
            (self.base / name).write_bytes(b"raw")
        self.proc = root / "proc"
        self.process(1, "/sbin/init")
        namespaces = self.proc / "self/ns"
        namespaces.mkdir(parents=True)
        (namespaces / "pid").symlink_to(INITIAL)

    def process(self, pid: int, program: str, *opened: Path) -> Path:
        """Add a process that holds files open."""
        at = self.proc / str(pid)
        (at / "fd").mkdir(parents=True)
        (at / "exe").symlink_to(program)
        (at / "comm").write_text("name\n")
        (at / "cmdline").write_bytes(program.encode() + b"\0-S\0")
        for number, path in enumerate(opened):
            (at / "fd" / str(number)).symlink_to(path)
        return at

    def look(self) -> Uses:
        """Look as the agent does."""
        source: Source = ProcSource(str(self.base), proc=str(self.proc))
        assert source.name == "proc"
        return source.look()


@pytest.fixture
def host(tmp_path: Path) -> Processes:
    """Return a host without guests."""
    return Processes(tmp_path)


def test_open_files_of_qemu_count(host: Processes) -> None:
    """What a qemu holds open is used; what others hold open is not looked at."""
    host.process(7, QEMU, host.base / X)
    host.process(8, "/bin/cp", host.base / Y)
    assert host.look() == Uses.of_names([X])


@pytest.mark.parametrize(
    "program",
    ["/usr/libexec/qemu-kvm", "/usr/bin/kvm", "/usr/bin/qemu-nbd", f"{QEMU} (deleted)"],
)
def test_programs(host: Processes, program: str) -> None:
    """Every distribution's name of qemu counts, an upgraded one's too."""
    host.process(7, program, host.base / X)
    assert host.look() == Uses.of_names([X])


def test_quarantined_file(host: Processes, tmp_path: Path) -> None:
    """A file that was renamed into quarantine is used under its cache name."""
    epoch = host.base / ".sharedcache/epochs/12"
    epoch.mkdir(parents=True)
    (epoch.parent / "9").write_bytes(b"sealed")
    leaf = epoch / leaf_of(X, "0123456789abcdef", 12)
    (host.base / X).rename(leaf)
    held = tmp_path / "held"
    os.link(leaf, held)
    host.process(7, QEMU, held)
    assert host.look() == Uses.of_names([X])


def test_deleted_name(host: Processes) -> None:
    """A file that was unlinked under a qemu is used by the name that it had."""
    at = host.process(7, QEMU)
    kept = host.base.parent / "kept"
    (host.base / X).rename(kept)
    (at / "fd/3").symlink_to(kept)
    real = os.readlink

    def readlink(path: str) -> str:
        found = real(path)
        return f"{host.base}/{X} (deleted)" if found == str(kept) else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "readlink", readlink)
        assert host.look() == Uses.of_names([X])


def test_both_names_of_one_inode(host: Processes) -> None:
    """A file that has two names is used under both."""
    os.link(host.base / X, host.base / f"{X}_20")
    host.process(7, QEMU, host.base / X)
    assert host.look() == Uses.of_names([X, f"{X}_20"])


def test_process_that_ends_meanwhile(host: Processes) -> None:
    """A process or a descriptor that is gone uses nothing."""
    at = host.process(7, QEMU, host.base / "gone", host.base / X)
    assert host.look() == Uses.of_names([X])
    for path in (at / "fd").iterdir():
        path.unlink()
    (at / "fd").rmdir()
    assert host.look() == Uses()
    (at / "exe").unlink()
    assert host.look() == Uses()


@pytest.mark.parametrize("hidden", ["exe", "fd"])
def test_no_leave_to_look(
    host: Processes, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """A qemu that may not be looked into is doubt, and the remedy is told."""
    at = host.process(7, QEMU, host.base / X)
    real_list, real_link = os.listdir, os.readlink
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def listdir(path: str) -> list[str]:
        if path == str(at / "fd"):
            raise refused
        return real_list(path)

    def readlink(path: str) -> str:
        if path == str(at / "exe") and hidden == "exe":
            raise refused
        return real_link(path)

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(os, "readlink", readlink)
    with pytest.raises(SourceError, match=r"process 7: .*CAP_SYS_PTRACE"):
        host.look()


def test_hidden_processes(host: Processes) -> None:
    """Who does not see all processes cannot say that nothing is open."""
    (host.proc / "1/comm").unlink()
    with pytest.raises(SourceError, match="hidepid"):
        host.look()


def test_another_pid_namespace(host: Processes) -> None:
    """In a PID namespace of its own the agent sees its own processes only."""
    (host.proc / "self/ns/pid").unlink()
    (host.proc / "self/ns/pid").symlink_to("pid:[4026532000]")
    with pytest.raises(SourceError, match="PID namespace"):
        host.look()


def test_base_that_cannot_be_read(host: Processes) -> None:
    """A cache directory that is not there is a failure, not an empty one."""
    source = ProcSource(str(host.base / "none"), proc=str(host.proc))
    with pytest.raises(SourceError, match="mount it"):
        source.look()
