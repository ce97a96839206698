"""This host: its boot, whether it is stopping, whether guests still run on it.

A node may seal its last report only if it has seen its own compute service
stopped and no guest running, so every doubt here is a "no".
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_TIMEOUT_S = 5.0
_STOPPED = frozenset({"inactive", "failed"})
_GUESTS = ("qemu-system", "qemu-kvm", "kvm")
_MARKER = ".sharedcache/cluster"
_SCRIPT_ARGUMENTS = 2
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's own: ``PROC_PID_INIT_INO`` in include/linux/proc_ns.h."""


class SystemdHost:
    """The port of the host, on Linux with systemd.

    ``unit`` is the compute service's unit; ``base`` the cache directory, and
    ``hypervisors`` the names of processes that must see it as this one does;
    ``proc`` and ``systemctl`` are for tests.
    """

    def __init__(
        self,
        unit: str = "nova-compute.service",
        *,
        base: str = "",
        hypervisors: Sequence[str] = (),
        proc: str = "/proc",
        systemctl: str = "systemctl",
    ) -> None:
        self._unit = unit
        self._base = base
        self._hypervisors = frozenset(hypervisors)
        self._proc = Path(proc)
        self._systemctl = systemctl

    def boot_id(self) -> str:
        """Return the kernel's boot id; ``OSError`` without a readable /proc."""
        path = self._proc / "sys/kernel/random/boot_id"
        return path.read_text("ascii").strip()

    def stopping(self) -> bool:
        """Whether the host itself is being stopped; doubt is ``False``."""
        # The exit status is 0 only for "running", so the word counts.
        return self._ask("is-system-running") == "stopping"

    def compute_stopped(self) -> bool:
        """Whether the compute service was seen stopped; doubt is ``False``.

        systemd calls a unit that it does not know "inactive" too, so it must
        be one that it has loaded: a wrong name, a masked unit or a service
        that runs in a container is no evidence.
        """
        answer = self._ask("show", "--property=LoadState,ActiveState", self._unit)
        words = dict(line.partition("=")[::2] for line in answer.splitlines())
        loaded = words.get("LoadState") == "loaded"
        return loaded and words.get("ActiveState") in _STOPPED

    def guests_gone(self) -> bool:
        """Whether no guest runs on this host; doubt is ``False``.

        A guest is a process whose executable, name or first argument starts
        like qemu's.  Whoever does not see every process of the host (another
        PID namespace, ``hidepid``) cannot tell.
        """
        try:
            namespace = (self._proc / "self/ns/pid").readlink()
            if str(namespace) != _INITIAL_PID_NAMESPACE:
                return False
            # With hidepid the first process is hidden from us.
            (self._proc / "1/comm").read_bytes()
            processes = [one for one in self._proc.iterdir() if one.name.isdecimal()]
            return not any(_is_guest(one) for one in processes)
        except OSError:
            return False

    def seen_otherwise(self, marker: bytes) -> tuple[str, ...]:
        """Name the hypervisor's processes that see another directory at the base.

        A process in another mount namespace sees the same directory if the
        cluster's marker, read through its own root, is ``marker``.  One that may
        not be looked into is not named: doubt is no evidence here.
        """
        if not self._base or not self._hypervisors:
            return ()
        try:
            # A symbolic link on the way would be followed from our own root.
            base = os.path.realpath(self._base).lstrip("/")
            ours = (self._proc / "self/ns/mnt").readlink()
            processes = [one for one in self._proc.iterdir() if one.name.isdecimal()]
        except OSError:
            return ()
        return tuple(
            f"{name} (process {process.name})"
            for process in sorted(processes, key=lambda one: int(one.name))
            for name in self._named(process)
            if _sees_another(process, ours, base, marker)
        )

    def _named(self, process: Path) -> list[str]:
        """Return the hypervisor's name if this is one of its processes."""
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return []
        # A script's interpreter comes first, and its own name second.
        bases = [_text(w.rpartition(b"/")[2]) for w in words[:_SCRIPT_ARGUMENTS]]
        return [name for name in bases if name in self._hypervisors][:1]

    def unit(self, name: str) -> dict[str, str]:
        """Return a unit's load, active and file state; empty without systemd."""
        states = "--property=LoadState,ActiveState,UnitFileState"
        answer = self._ask("show", states, name)
        return dict(line.partition("=")[::2] for line in answer.splitlines())

    def _ask(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                [self._systemctl, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("utf-8", "replace").strip()


def _sees_another(process: Path, ours: Path, base: str, marker: bytes) -> bool:
    try:
        if (process / "ns/mnt").readlink() == ours:
            return False
        return (process / "root" / base / _MARKER).read_bytes() != marker
    except (FileNotFoundError, NotADirectoryError):
        # Another directory lies there, unless the process itself is gone.
        return (process / "ns/mnt").is_symlink()
    except OSError:
        return False


def _is_guest(process: Path) -> bool:
    """Whether a process is a guest; one that ends meanwhile is none."""
    try:
        command = (process / "cmdline").read_bytes()
        comm = (process / "comm").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    executable = _executable(process)
    if executable is None and not command:
        # A thread of the kernel, as kvm has them even without any guest, or
        # a process that has ended and waits for its parent.
        return False
    first = command.partition(b"\0")[0].rpartition(b"/")[2]
    found = (executable or "", _text(comm), _text(first))
    return any(name.startswith(_GUESTS) for name in found)


def _executable(process: Path) -> str | None:
    """Name of the program that runs; ``None`` if there is none or it is hidden."""
    try:
        return (process / "exe").readlink().name
    except OSError:
        # Other users' programs are hidden from an ordinary user; their names
        # and arguments are not.
        return None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip()
