"""Rules for looking at the open files of running hypervisors."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.proc import UNLOCKED, ProcSource
from sharedcache.core.model import Uses
from sharedcache.core.names import leaf_of
from sharedcache.core.ports import Source, SourceError
from sharedcache.core.referrers import Key, Referrer

if TYPE_CHECKING:
    from collections.abc import Callable

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
    [
        "/usr/libexec/qemu-kvm",
        "/usr/bin/kvm",
        "/usr/bin/qemu-nbd",
        "/opt/qemu",
        f"{QEMU} (deleted)",
    ],
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


@pytest.mark.parametrize("what", ["proc", "base", "base gone"])
def test_what_cannot_be_listed(
    host: Processes, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Neither processes nor names that cannot be listed count as none."""
    host.process(7, QEMU, host.base / X)
    number = errno.ENOENT if what == "base gone" else errno.EIO
    target = str(host.proc if what == "proc" else host.base)

    def failing(real: Callable[[str], object]) -> Callable[[str], object]:
        def call(path: str) -> object:
            if path == target:
                raise OSError(number, os.strerror(number))
            return real(path)

        return call

    monkeypatch.setattr(os, "listdir", failing(os.listdir))
    monkeypatch.setattr(os, "scandir", failing(os.scandir))
    with pytest.raises(SourceError, match=f"cannot list .*{os.strerror(number)}"):
        host.look()


def test_what_is_open_and_no_file(host: Processes) -> None:
    """Devices and directories are no cache files, whatever they are called."""
    directory = host.base / ("c" * 40)
    directory.mkdir()
    host.process(7, QEMU, Path("/dev/null"), directory, host.base / X)
    assert host.look() == Uses.of_names([X])


def test_a_process_that_ends_while_it_is_named(
    host: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may say so in either way."""
    host.process(7, QEMU, host.base / X)
    real = os.readlink

    def ended(path: str) -> str:
        if path.endswith("/7/exe"):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return real(path)

    monkeypatch.setattr(os, "readlink", ended)
    assert host.look() == Uses()


def test_program_that_hides(host: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program cannot be read, either of a process's own names is enough."""
    at = host.process(7, QEMU, host.base / X)
    (at / "cmdline").write_bytes(b"guest\0")
    (at / "comm").write_text("qemu-system-x86\n")
    original = os.readlink

    def refusing(path: str) -> str:
        if path == f"{at}/exe":
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "readlink", refusing)
    assert host.look() == Uses.of_names([X])
    (at / "comm").write_text("guest\n")
    assert host.look() == Uses()


@pytest.mark.parametrize("name", [X, leaf_of(X, "0123456789abcdef", 7)])
def test_another_mount_of_the_storage(
    host: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file of another device under a cache name may be the cache's: it is used.

    A container's own mount of the storage has other paths and another number.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / name).write_bytes(b"raw")
    host.process(7, QEMU, elsewhere / name)
    assert host.look() == Uses()
    original = os.stat

    def other_device(path: str) -> os.stat_result:
        status = original(path)
        if path != f"{host.proc}/7/fd/0":
            return status
        values = list(status)
        values[2] = status.st_dev + 1
        return os.stat_result(values)

    monkeypatch.setattr(os, "stat", other_device)
    assert host.look() == Uses.of_names([X])


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        (b"file=/d,file.locking=off", {UNLOCKED}),
        (b'{"driver":"file","filename":"/d","locking":"off"}', {UNLOCKED}),
        (b"file=/d,file.locking=auto", set()),
    ],
)
def test_locks_switched_off(host: Processes, argument: bytes, told: set[str]) -> None:
    """A guest whose files are not locked is told of: the veto of locks is missing."""
    at = host.process(7, QEMU, host.base / X)
    (at / "cmdline").write_bytes(QEMU.encode() + b"\0-drive\0" + argument + b"\0")
    source = ProcSource(str(host.base), proc=str(host.proc))
    source.look()
    assert source.referrers().caveats == told


def test_who_holds_it_open(host: Processes) -> None:
    """The process is named, with the path by which it holds the file."""
    host.process(7, QEMU, host.base / X)
    source = ProcSource(str(host.base), proc=str(host.proc))
    source.look()
    who = Referrer("process", "qemu-system-x86_64, process 7", str(host.base / X))
    assert source.referrers().of(Key(X)) == ([who], 1)
