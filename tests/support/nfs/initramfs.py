"""The archive that a guest's kernel unpacks and starts (cpio, "newc").

The format is that of the kernel's Documentation/driver-api/early-userspace/
buffer-format.rst: a header of fourteen fields in hexadecimal, the name, the
data, each padded to four bytes, and a last entry named `TRAILER!!!`.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from tests.support.nfs.kernel import module_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.nfs.kernel import Kernel

# The guest sees our files and can change none of them: what it writes goes
# into its own memory.
_INIT = """\
#!/bin/busybox sh
set -e
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
for module in $(/bin/busybox cat /modules/order); do
    /bin/busybox insmod /modules/$module
done
/bin/busybox mount -t virtiofs -o ro host /lower
/bin/busybox mount -t tmpfs none /upper
/bin/busybox mkdir /upper/changes /upper/work
/bin/busybox mount -t overlay \\
    -o lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work none /root
/bin/busybox mount -t devtmpfs none /root/dev
/bin/busybox mount -t proc none /root/proc
/bin/busybox mount -t sysfs none /root/sys
/bin/busybox mount -t tmpfs none /root/run
/bin/busybox cp /bin/busybox /main /root/run
exec /bin/busybox switch_root /root /run/busybox sh /run/main
"""


def initramfs(kernel: Kernel, busybox: Path, main: str) -> bytes:
    """Make the archive; `main` is the shell script that the guest ends up in."""
    archive = bytearray()
    for name in ("bin", "modules", "proc", "sys", "dev", "lower", "upper", "root"):
        archive += _entry(name, stat.S_IFDIR | 0o755, b"")
    archive += _entry("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))
    archive += _entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    names = []
    for number, path in enumerate(kernel.modules):
        names.append(f"{number}.ko")
        archive += _entry(
            f"modules/{number}.ko", stat.S_IFREG | 0o644, module_bytes(path)
        )
    archive += _entry("modules/order", stat.S_IFREG | 0o644, " ".join(names).encode())
    archive += _entry("init", stat.S_IFREG | 0o755, _INIT.encode())
    archive += _entry("main", stat.S_IFREG | 0o644, main.encode())
    archive += _entry("TRAILER!!!", 0, b"")
    return bytes(archive)


def _entry(
    name: str, mode: int, data: bytes, *, device: tuple[int, int] = (0, 0)
) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + encoded) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
