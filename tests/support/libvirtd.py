"""Private libvirtd daemons with real guests, on one machine, as no user's own.

Each is a session daemon with directories of its own, so that it neither needs
root nor meets the machine's own; as root it runs as ``nobody``.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from tests.support.polling import eventually

NOBODY = "nobody"
EMULATOR = "qemu-system-x86_64"
_SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing() -> str:
    """Name what is not installed, as Debian's packages; empty if nothing is."""
    wanted = {
        "libvirt-daemon": shutil.which("libvirtd", path=_SBIN),
        "libvirt-clients": shutil.which("virsh"),
        "qemu-system-x86": shutil.which(EMULATOR),
        "qemu-utils": shutil.which("qemu-img"),
        "libvirt-dev gcc pkg-config (then make venv)": find_spec("libvirt"),
    }
    return ", ".join(name for name, found in wanted.items() if not found)


def _as_nobody() -> list[str]:
    """Return what runs a program as an ordinary user, if we are not one."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(NOBODY)
    return [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
    ]


def give(path: Path) -> None:
    """Let the guests' user own a file or directory."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(NOBODY)
        os.chown(path, user.pw_uid, user.pw_gid)


@dataclass
class Daemon:
    """One libvirtd; a restart leaves its guests running."""

    root: Path
    number: int
    cache: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Where clients connect to."""
        return f"qemu+unix:///session?socket={self.root}/run/libvirt/libvirt-sock"

    def start(self) -> Self:
        """Start the daemon, and wait until it answers."""
        settings = self.root / "config/libvirt"
        settings.mkdir(parents=True, exist_ok=True)
        (settings / "qemu.conf").write_text(
            'stdio_handler = "file"\nsecurity_driver = "none"\n'
        )
        # Two daemons of one host would not migrate to each other.
        (settings / "libvirtd.conf").write_text(
            f'host_uuid = "aaaaaaaa-1111-4111-8111-{self.number:012x}"\n'
        )
        (self.root / "run").mkdir(exist_ok=True)
        for path in (self.root, settings.parent, settings, self.root / "run"):
            give(path)
        environment = {
            "PATH": _SBIN,
            "HOME": str(self.root),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_DATA_HOME": str(self.root / "data"),
            "XDG_CACHE_HOME": str(self.cache),
        }
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_as_nobody(), "libvirtd"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        try:
            eventually(self._answers, 30.0, "libvirtd to answer")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def _answers(self) -> bool:
        """Whether the daemon answers; one that has ended never will."""
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError((self.root / "log").read_text())
        return self.tried("list")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the daemon; its guests run on."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def tried(self, *arguments: str) -> bool:
        """Run virsh; whether it succeeded."""
        return self._virsh(arguments).returncode == 0

    def virsh(self, *arguments: str) -> str:
        """Run virsh, which must succeed."""
        done = self._virsh(arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def _virsh(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["virsh", "-q", "-c", self.uri, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def domains(self) -> list[str]:
        """List running and defined domains, as virsh does."""
        return self.virsh("list", "--all", "--name").split()

    def qemu(self, name: str) -> int:
        """Return the process id of a guest."""
        return int((self.root / f"run/libvirt/qemu/run/{name}.pid").read_text())

    def clear(self) -> None:
        """End every guest and forget every domain."""
        for name in self.domains():
            self.tried("destroy", name)
            self.tried("undefine", name, "--snapshots-metadata", "--managed-save")


@dataclass
class Host:
    """A directory of instances with ``_base``, and daemons whose guests use it."""

    root: Path
    daemons: list[Daemon] = field(default_factory=list)

    @property
    def instances(self) -> Path:
        """Nova's instances directory."""
        return self.root / "instances"

    @property
    def base(self) -> Path:
        """The cache directory."""
        return self.instances / "_base"

    def daemon(self) -> Daemon:
        """Start another daemon."""
        number = len(self.daemons)
        root = self.root / f"d{number}"
        root.mkdir()
        cache = self.root / "cache"
        cache.mkdir(exist_ok=True)
        give(cache)
        made = Daemon(root, number, cache)
        self.daemons.append(made)
        return made.start()

    def clear(self) -> None:
        """End every guest, and remove every disk and base file."""
        for daemon in self.daemons:
            if daemon.process is None:
                daemon.start()
            daemon.clear()
        shutil.rmtree(self.instances, ignore_errors=True)
        self.base.mkdir(parents=True)
        give(self.instances)

    def image(self, name: str) -> Path:
        """Make a base file with content of its own."""
        path = self.base / name
        path.write_bytes(hashlib.sha512(name.encode()).digest() * 16384)
        return path

    def overlay(self, at: str, backing: Path, backing_format: str = "raw") -> Path:
        """Make an overlay by qemu-img."""
        path = self.instances / at
        path.parent.mkdir(exist_ok=True)
        give(path.parent)
        qemu_img(
            "create", "-q", "-f", "qcow2", "-F", backing_format, "-b",
            str(backing), str(path),
        )  # fmt: skip
        give(path)
        return path

    def xml(
        self,
        name: str,
        *disks: Path,
        extra: str = "",
        boot: str = "",
        passed: tuple[str, ...] = (),
    ) -> Path:
        """Write a domain's XML with qcow2 disks, and what is handed to qemu."""
        devices = "".join(
            f'<disk type="file" device="disk"><driver name="qemu" type="qcow2"/>'
            f'<source file="{disk}"/><target dev="vd{letter}" bus="virtio"/></disk>'
            for letter, disk in zip("abcdefgh", disks, strict=False)
        )
        path = self.root / f"{name}.xml"
        path.write_text(
            '<domain type="qemu"'
            ' xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">'
            f"<name>{name}</name><memory unit='MiB'>16</memory>"
            '<vcpu>1</vcpu><os><type arch="x86_64" machine="pc">hvm</type>'
            f"{boot}</os>{extra}<devices>"
            f"<emulator>{shutil.which(EMULATOR)}</emulator>{devices}"
            f"</devices>{_passed(passed)}</domain>"
        )
        return path

    def used(self, *daemons: Daemon) -> set[str]:
        """Tell the base files in use as virsh and qemu-img tell it."""
        found: set[str] = set()
        for daemon in daemons or self.daemons:
            for name in daemon.domains():
                for mode in ([], ["--inactive"]):
                    listed = daemon._virsh(("domblklist", name, "--details", *mode))
                    for line in listed.stdout.splitlines():
                        disk = line.split()[3]
                        if disk == "-":
                            # An empty drive.
                            continue
                        found |= {
                            link
                            for link in chain_of(disk)
                            if link.startswith(f"{self.base}/")
                        }
        return {link.rpartition("/")[2] for link in found}


def _passed(arguments: tuple[str, ...]) -> str:
    """Hand arguments to qemu as they are."""
    if not arguments:
        return ""
    told = "".join(f'<qemu:arg value="{one}"/>' for one in arguments)
    return f"<qemu:commandline>{told}</qemu:commandline>"


def qemu_img(*arguments: str) -> str:
    """Run qemu-img, which must succeed."""
    done = subprocess.run(
        ["qemu-img", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


def chain_of(disk: str) -> list[str]:
    """List the files of a backing chain, as qemu-img tells it."""
    told = qemu_img("info", "-U", "--backing-chain", "--output=json", disk)
    return [image["filename"] for image in json.loads(told)]


class Rig:
    """The host of a test module; ends all that it started."""

    def __enter__(self) -> Host:
        """Make the directories, where a socket's path is short enough."""
        self._root = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
        self._root.chmod(0o755)
        self.host = Host(self._root)
        return self.host

    def __exit__(self, *_: object) -> None:
        """End guests first, then daemons."""
        for daemon in self.host.daemons:
            if daemon.process is None:
                daemon.start()
            daemon.clear()
            daemon.stop()
        if sys.exc_info()[0] is None:
            shutil.rmtree(self._root)
