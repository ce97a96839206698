"""A guest with a kernel of its own: a compute node that mounts the storage.

It is emulated (tcg), so that it needs no KVM, boots a kernel straight into
this machine's own files, shared read-only with its memory above them
(virtiofs, overlayfs), mounts the server's directory, and serves the tests with
`tests/support/hands.py`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sharedcache.adapters.zookeeper_server.launcher import start_child
from tests.support.nfs.initramfs import initramfs
from tests.support.nfs.kernel import TREE, Kernel
from tests.support.nfs.needs import QEMU, busybox, program, virtiofsd
from tests.support.nfs.server import PSEUDO
from tests.support.polling import eventually

if TYPE_CHECKING:
    from tests.support.channel import Remote, Switchboard

MOUNT = "/run/storage"
BOOT_DEADLINE_S = 240.0
_STOP_S = 10.0
_MEMORY = "768M"
# An emulated machine on a busy host fails the check of its timer, and a kernel
# that is not told to leave it out stops there.
_KERNEL_LINE = "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check"
# Where user networking puts this machine, and the guest.
_HOST, _GUEST = "10.0.2.2", "10.0.2.15"

_MAIN = """\
set -e
b=/run/busybox
trap '$b poweroff -f' EXIT
$b hostname {name}
$b ip link set lo up
$b ip link set eth0 up
$b ip addr add {guest}/24 dev eth0
$b ip route add default via {host}
$b mkdir {mount}
$b mount -t nfs4 -o {options} {host}:{pseudo} {mount}
cd {tree}
export PYTHONDONTWRITEBYTECODE=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run
{python} -m tests.support.hands {host} {port} {token} {mount}
"""


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What makes a guest: its name, its clock, how it mounts the storage.

    `clock` is in UTC, as qemu's `-rtc base=` takes it.
    """

    name: str
    clock: str
    options: tuple[str, ...]
    nfs_port: int

    def mount_options(self) -> str:
        """Give the options of mount(2) that a helper would make."""
        return ",".join(
            (
                *("vers=4.1", "proto=tcp", "sec=sys", f"port={self.nfs_port}"),
                *(f"addr={_HOST}", f"clientaddr={_GUEST}"),
                *self.options,
            )
        )


class Guest:
    """One guest; it runs inside its `with` block, and serves once `wait` is back."""

    def __init__(self, home: Path, spec: GuestSpec, board: Switchboard) -> None:
        self.home = home
        self.spec = spec
        self._board = board
        self._token = board.token()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._remote: Remote | None = None

    def __enter__(self) -> Self:
        """Start it, and return before it has booted."""
        self.home.mkdir()
        try:
            self._start_sharing()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Pull its plug: nothing that it holds is wanted any more."""
        self._stop()

    @property
    def remote(self) -> Remote:
        """The hands in the guest."""
        assert self._remote is not None
        return self._remote

    def boot(self, kernel: Kernel) -> None:
        """Start the machine."""
        archive = self.home / "initramfs"
        archive.write_bytes(initramfs(kernel, _required(busybox()), self._main()))
        self._start(
            [
                str(program(QEMU)),
                *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                *("-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", _MEMORY),
                *("-object", f"memory-backend-memfd,id=memory,size={_MEMORY},share=on"),
                *("-machine", "q35,memory-backend=memory"),
                *("-rtc", f"base={self.spec.clock},clock=host"),
                *("-kernel", str(kernel.image), "-initrd", str(archive)),
                *("-append", _KERNEL_LINE),
                *("-serial", f"file:{self.home / 'console.log'}"),
                *("-chardev", f"socket,id=files,path={self._socket}"),
                *("-device", "vhost-user-fs-pci,chardev=files,tag=host"),
                *("-netdev", "user,id=net"),
                *("-device", "virtio-net-pci,netdev=net,romfile="),
            ],
            "qemu.log",
        )

    def wait(self) -> None:
        """Wait until the guest has mounted the storage and calls back."""
        self._remote = self._board.wait(self._token, BOOT_DEADLINE_S, self._alive)

    def console(self, lines: int) -> str:
        """Return the end of the guest's console, and what its programs said."""
        told = [
            path.read_text("utf-8", "replace")
            for path in sorted(self.home.glob("*.log"))
        ]
        return "\n".join("\n".join(told).splitlines()[-lines:])

    @property
    def _socket(self) -> Path:
        return self.home / "files"

    def _main(self) -> str:
        return _MAIN.format(
            name=self.spec.name,
            options=self.spec.mount_options(),
            host=_HOST,
            guest=_GUEST,
            pseudo=PSEUDO,
            mount=MOUNT,
            tree=TREE,
            python=sys.executable,
            port=self._board.port,
            token=self._token,
        )

    def _start_sharing(self) -> None:
        self._start(
            [
                *(str(_required(virtiofsd())), f"--socket-path={self._socket}"),
                *("-o", "source=/", "-o", "cache=always", "-o", "xattr"),
                # Pivoting roots is refused where / is the first file system of all.
                *("-o", "sandbox=chroot", "-o", "log_level=err"),
            ],
            "virtiofsd.log",
        )
        eventually(self._socket.exists, 20, "virtiofsd listens")

    def _start(self, command: list[str], log: str) -> None:
        with (self.home / log).open("wb") as output:
            self._processes.append(
                start_child(command, directory=self.home, output=output.fileno())
            )

    def _alive(self) -> None:
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(
                    f"the guest {self.spec.name} ended before it answered:\n"
                    f"{self.console(60)}"
                )

    def _stop(self) -> None:
        if self._remote is not None:
            self._remote.close()
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            process.kill()
            process.wait()
        self._processes.clear()


def _required(path: Path | None) -> Path:
    if path is None:
        raise FileNotFoundError("`missing` was not asked before the rig was started")
    return path
