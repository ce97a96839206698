"""What the rig needs of this machine, and what of that is missing."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from tests.support.nfs.kernel import KernelMissingError, find_kernel

QEMU = "qemu-system-x86_64"
GANESHA = "ganesha.nfsd"

_FSAL = "ganesha/libfsalvfs.so"
_LIBRARIES = (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib"))
# The first is Debian's until bookworm, the second the one written in Rust.
_VIRTIOFSD = (Path("/usr/lib/qemu/virtiofsd"), Path("/usr/libexec/virtiofsd"))
_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))
_SBIN = f"{os.defpath}:/usr/sbin:/sbin"


def program(name: str) -> Path | None:
    """Find a program on PATH or where administrators' programs are."""
    found = shutil.which(name) or shutil.which(name, path=_SBIN)
    return None if found is None else Path(found)


def virtiofsd() -> Path | None:
    """Find the daemon that shares our files with a guest."""
    return next((path for path in _VIRTIOFSD if path.exists()), None)


def busybox() -> Path | None:
    """Find a busybox that needs no library."""
    return next((path for path in _BUSYBOX if path.exists() and _static(path)), None)


def _static(path: Path) -> bool:
    # A dynamic program names its interpreter within its first page.
    with path.open("rb") as file:
        return b"ld-linux" not in file.read(4096)


def missing() -> str | None:
    """Say what keeps the rig from running here; `None` if nothing does."""
    if platform.machine() != "x86_64":
        return f"its guests are x86_64 machines, and this one is {platform.machine()}"
    if os.geteuid() != 0:
        return "an NFS server opens files by their handles, which only root may"
    lacking = [package for package, there in _packages() if not there]
    if lacking:
        return f"missing (Debian's packages): {', '.join(lacking)}"
    try:
        find_kernel()
    except KernelMissingError as error:
        return str(error)
    return None


def _packages() -> list[tuple[str, bool]]:
    return [
        ("nfs-ganesha", program(GANESHA) is not None),
        ("nfs-ganesha-vfs", any((where / _FSAL).exists() for where in _LIBRARIES)),
        ("qemu-system-x86", program(QEMU) is not None),
        ("qemu-system-common", virtiofsd() is not None),
        ("busybox-static", busybox() is not None),
    ]
