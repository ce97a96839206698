"""A host's answers: only what was seen is a yes, every doubt is a no."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.host import SystemdHost
from sharedcache.adapters.systemd import notify

if TYPE_CHECKING:
    from sharedcache.core.ports import Host

_INITIAL = "pid:[4026531836]"


class Proc:
    """A /proc of our own making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "self/ns").mkdir(parents=True)
        (root / "self/ns/pid").symlink_to(_INITIAL)
        (root / "sys/kernel/random").mkdir(parents=True)
        (root / "sys/kernel/random/boot_id").write_text("0f3c-boot\n")
        self.add(1, "systemd", "/usr/lib/systemd/systemd", b"/sbin/init\0splash\0")
        self.add(2, "kthreadd")
        self.add(77, "kvm-irqfd-clean")

    def add(
        self, pid: int, comm: str, exe: str | None = None, cmdline: bytes = b""
    ) -> Path:
        """Add a process; without a program it is a thread of the kernel."""
        process = self.root / str(pid)
        process.mkdir()
        (process / "comm").write_text(comm + "\n")
        (process / "cmdline").write_bytes(cmdline)
        if exe is not None:
            (process / "exe").symlink_to(exe)
        return process

    def host(self) -> Host:
        """Give the host over it."""
        return SystemdHost(proc=str(self.root))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """Give a host without guests."""
    return Proc(tmp_path / "proc")


def test_boot_id(proc: Proc) -> None:
    """The boot id is the kernel's, without its line end."""
    assert proc.host().boot_id() == "0f3c-boot"


def test_real_boot_id() -> None:
    """The real one is there and stays the same."""
    assert len(SystemdHost().boot_id()) == 36
    assert SystemdHost().boot_id() == SystemdHost().boot_id()


# Guests.


def test_no_guest(proc: Proc) -> None:
    """Daemons, and the threads that kvm has without any guest, are no guests."""
    proc.add(300, "libvirtd", "/usr/sbin/libvirtd", b"/usr/sbin/libvirtd\0")
    proc.add(301, "qemu-nbd", "/usr/bin/qemu-nbd", b"qemu-nbd\0")
    proc.add(302, "python3", "/usr/bin/python3", b"python3\0/x/qemu-system-x86_64\0")
    assert proc.host().guests_gone() is True


@pytest.mark.parametrize(
    ("comm", "exe", "cmdline"),
    [
        ("qemu-system-x86", "/usr/bin/qemu-system-x86_64", b"/usr/bin/qemu-sys\0-x\0"),
        ("qemu-kvm", "/usr/libexec/qemu-kvm", b"/usr/libexec/qemu-kvm\0-name\0"),
        ("kvm", "/usr/bin/kvm", b"kvm\0"),
        # Named by `-name process=`, upgraded since it was started.
        ("guest-7", "/usr/bin/qemu-system-x86_64 (deleted)", b"guest-7\0"),
        # Another user's program, as an ordinary user sees it.
        ("qemu-system-x86", None, b"whatever\0"),
        ("guest-7", None, b"/usr/bin/qemu-system-x86_64\0-name\0guest-7\0"),
    ],
)
def test_guest_is_seen(proc: Proc, comm: str, exe: str | None, cmdline: bytes) -> None:
    """By its program, its name or its first argument, whichever can be read."""
    proc.add(400, comm, exe, cmdline)
    assert proc.host().guests_gone() is False


def test_ended_guest_is_gone(proc: Proc) -> None:
    """A zombie has no program and no arguments, and no file open."""
    proc.add(400, "qemu-system-x86")
    assert proc.host().guests_gone() is True


def test_process_that_ends_meanwhile(proc: Proc) -> None:
    """A process that goes while it is looked at is no guest."""
    (proc.root / "500").mkdir()
    assert proc.host().guests_gone() is True


def test_unreadable_proc_is_doubt(proc: Proc, tmp_path: Path) -> None:
    """Without /proc, or with hidden processes, nobody can tell."""
    assert SystemdHost(proc=str(tmp_path / "absent")).guests_gone() is False
    (proc.root / "1/comm").unlink()
    assert proc.host().guests_gone() is False


def test_unreadable_process_is_doubt(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process that may not be looked at spoils the answer."""
    hidden = proc.add(400, "x", "/x", b"x\0") / "cmdline"
    read_bytes = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path == hidden:
            raise PermissionError
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    assert proc.host().guests_gone() is False


def test_another_pid_namespace_is_doubt(proc: Proc) -> None:
    """In a container without the host's processes no guest is ever seen."""
    (proc.root / "self/ns/pid").unlink()
    (proc.root / "self/ns/pid").symlink_to("pid:[4026532999]")
    assert proc.host().guests_gone() is False


# systemd.


def _systemd(tmp_path: Path, says: str, status: int = 0) -> SystemdHost:
    """Give a host whose systemctl notes its arguments and says this."""
    program = tmp_path / "systemctl"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f"cat <<'END'\n{says}\nEND\nexit {status}\n"
    )
    program.chmod(0o755)
    return SystemdHost("x.service", systemctl=str(program))


@pytest.mark.parametrize(
    ("says", "status", "expected"),
    [
        ("stopping", 1, True),
        ("running", 0, False),
        ("degraded", 1, False),
        ("offline", 1, False),
        ("unknown", 1, False),
        ("", 1, False),
    ],
)
def test_stopping(tmp_path: Path, says: str, status: int, *, expected: bool) -> None:
    """Only the word `stopping` means that the host is being stopped."""
    assert _systemd(tmp_path, says, status).stopping() is expected
    assert (tmp_path / "asked").read_text() == "is-system-running\n"


@pytest.mark.parametrize(
    ("load", "active", "expected"),
    [
        ("loaded", "inactive", True),
        ("loaded", "failed", True),
        ("loaded", "active", False),
        ("loaded", "activating", False),
        ("loaded", "deactivating", False),
        ("loaded", "reloading", False),
        ("loaded", "unknown", False),
        ("loaded", "", False),
        # What systemd says of a name that it does not know.
        ("not-found", "inactive", False),
        ("masked", "inactive", False),
        ("error", "inactive", False),
    ],
)
def test_compute_stopped(
    tmp_path: Path, load: str, active: str, *, expected: bool
) -> None:
    """A known unit that is inactive or failed was seen stopped, nothing else."""
    host = _systemd(tmp_path, f"LoadState={load}\nActiveState={active}")
    assert host.compute_stopped() is expected
    asked = (tmp_path / "asked").read_text()
    assert asked == "show --property=LoadState,ActiveState x.service\n"


def test_compute_stopped_without_an_answer(tmp_path: Path) -> None:
    """An empty answer is doubt."""
    assert _systemd(tmp_path, "", 1).compute_stopped() is False


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), subprocess.TimeoutExpired("systemctl", 5)]
)
def test_no_systemd_is_doubt(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A host without systemd, or one that does not answer, seals nothing."""
    given: dict[str, object] = {}

    def failing(*_: object, **options: object) -> None:
        given.update(options)
        raise error

    monkeypatch.setattr(subprocess, "run", failing)
    assert SystemdHost().stopping() is False
    assert SystemdHost().compute_stopped() is False
    assert given["timeout"] == 5.0


# Telling systemd.


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool
) -> None:
    """The state reaches the socket that NOTIFY_SOCKET names."""
    name = f"{tmp_path}/notify"[-90:]
    address = "\0" + name if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        assert notify("READY=1") is True
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "/absent/notify"])
def test_notify_without_a_listener(
    monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    """Nobody to hear it is no error."""
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify("READY=1") is False


class Hypervisor:
    """A /proc in which one process lives in a mount namespace of its own."""

    def __init__(self, root: Path, *words: str, namespace: str = "mnt:[2]") -> None:
        self.proc = root / "proc"
        for pid, space in (("self", "mnt:[1]"), ("7", namespace)):
            (self.proc / pid / "ns").mkdir(parents=True)
            (self.proc / pid / "ns" / "mnt").symlink_to(space)
        (self.proc / "7" / "cmdline").write_bytes(b"\0".join(map(str.encode, words)))
        self.marker = self.proc / "7" / "root" / "cache" / ".sharedcache" / "cluster"
        self.marker.parent.mkdir(parents=True)
        self.marker.write_bytes(b"ours")

    def ask(self, *names: str) -> tuple[str, ...]:
        """Name who sees another directory."""
        host = SystemdHost(base="/cache", hypervisors=names, proc=str(self.proc))
        return host.seen_otherwise(b"ours")


def test_a_process_that_sees_another_marker_is_named(tmp_path: Path) -> None:
    """Another cluster's directory, or none, is another directory."""
    host = Hypervisor(tmp_path, "/usr/sbin/libvirtd", "--daemon")
    assert host.ask("libvirtd") == ()
    host.marker.write_bytes(b"theirs")
    assert host.ask("libvirtd") == ("libvirtd (process 7)",)
    host.marker.unlink()
    assert host.ask("libvirtd") == ("libvirtd (process 7)",)
    assert host.ask("virtqemud") == ()
    assert host.ask() == ()


def test_a_script_is_known_by_its_own_name(tmp_path: Path) -> None:
    """Nova's services are scripts: the interpreter comes first."""
    host = Hypervisor(tmp_path, "/usr/bin/python3", "/usr/bin/nova-compute", "--x")
    host.marker.unlink()
    assert host.ask("nova-compute") == ("nova-compute (process 7)",)


def test_a_symbolic_link_on_the_way_hides_nothing(tmp_path: Path) -> None:
    """An absolute one would be followed from our own root, not the process's."""
    host = Hypervisor(tmp_path, "libvirtd")
    ours = tmp_path / "data"
    ours.mkdir()
    link = tmp_path / "link"
    link.symlink_to(ours)
    theirs = host.proc / "7" / "root" / str(ours).lstrip("/") / ".sharedcache"
    theirs.mkdir(parents=True)
    (theirs / "cluster").write_bytes(b"theirs")
    through = host.proc / "7" / "root" / str(link).lstrip("/")
    through.symlink_to(ours)
    (ours / ".sharedcache").mkdir()
    (ours / ".sharedcache" / "cluster").write_bytes(b"ours")
    asked = SystemdHost(
        base=str(link), hypervisors=["libvirtd"], proc=str(host.proc)
    ).seen_otherwise(b"ours")
    assert asked == ("libvirtd (process 7)",)


def test_a_process_of_our_own_namespace_sees_what_we_see(tmp_path: Path) -> None:
    """It is not looked into, so its own root does not matter."""
    host = Hypervisor(tmp_path, "libvirtd", namespace="mnt:[1]")
    host.marker.unlink()
    assert host.ask("libvirtd") == ()


def test_a_process_that_cannot_be_looked_into_is_not_named(tmp_path: Path) -> None:
    """An ordinary user's agent must not close the gate by what it cannot see."""
    host = Hypervisor(tmp_path, "libvirtd")
    (host.proc / "7" / "ns" / "mnt").unlink()
    host.marker.unlink()
    assert host.ask("libvirtd") == ()
    assert (
        SystemdHost(base="/cache", proc=str(tmp_path / "no")).seen_otherwise(b"") == ()
    )
