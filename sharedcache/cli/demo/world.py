"""The demo's directory: a cache with real images in it, and guests that use them.

What lies in it is made here, once; what became of it is read back from the
file system by ``evidence``, never from what is remembered.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sharedcache.cli.demo.pace import DAY_S, YEAR_S

NODES = ("compute-1", "compute-2", "compute-3")
OLD_NODE = "compute-3"
"""The node whose agent still stores kernels under their raw ids at first."""

LOST_NODE = "compute-2"
"""The node whose host is lost in the end."""

LEFT_NODES = ("compute-1", "compute-3")

CLEANERS = ("cleaner-1", "cleaner-2")

_KIB = 1024
_MIB = 1024 * _KIB
_NANOSECONDS = 1_000_000_000
_QEMU_S = 30.0
_NOTE = "README.txt"


class WorldError(Exception):
    """The demo's directory could not be made; the message says why."""


def image_id(label: str) -> str:
    """Return the image id of a label: the same in every run, so names repeat."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{label}.images.example.org"))


def hashed(label: str) -> str:
    """Return the cache name of an image, or of a kernel under the new naming."""
    return hashlib.sha1(image_id(label).encode()).hexdigest()  # noqa: S324 - Nova's naming


@dataclass(frozen=True, slots=True)
class CacheFile:
    """A file of ``_base`` as it is made: age in seconds, size in bytes.

    ``users`` are the nodes that use it; ``removable`` is what nobody uses and is
    older than the shipped minimum ages.
    """

    name: str
    what: str
    size: int
    age_s: float
    users: tuple[str, ...] = ()
    removable: bool = False


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest with one disk, whose backing chain ends in a file of ``_base``.

    With ``snapshot`` there is one more overlay between the two.
    """

    name: str
    node: str
    base_name: str
    snapshot: bool = False

    @property
    def uuid(self) -> str:
        """The guest's id, which names its instance directory."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.guests.example.org"))


OLD_IN_USE = hashed("debian-10")
"""In use, and old enough that a cleaner that goes by age would remove it."""

YOUNG = hashed("rocky-9")
"""Unused, and fetched too short a time ago to be removed."""

UNKNOWN = _NOTE
"""Not a cache name."""

FILES = (
    CacheFile(
        OLD_IN_USE, "debian-10", 4 * _MIB, 3 * YEAR_S, ("compute-1", "compute-2")
    ),
    CacheFile(hashed("ubuntu"), "ubuntu", 4 * _MIB, 40 * DAY_S, ("compute-3",)),
    CacheFile(
        f"{hashed('ubuntu')}_20", "ubuntu, 20 GB", 3 * _MIB, 12 * DAY_S, ("compute-2",)
    ),
    CacheFile(
        f"{hashed('debian-10')}_10",
        "debian-10, 10 GB",
        3 * _MIB,
        700 * DAY_S,
        removable=True,
    ),
    CacheFile(hashed("centos-7"), "centos-7", 5 * _MIB, 400 * DAY_S, removable=True),
    CacheFile(hashed("fedora-33"), "fedora-33", 4 * _MIB, 200 * DAY_S, removable=True),
    CacheFile(YOUNG, "rocky-9", 2 * _MIB, 3600.0),
    CacheFile(
        f"{hashed('alma-8')}.part",
        "alma-8, unfinished",
        2 * _MIB,
        20 * DAY_S,
        removable=True,
    ),
    # One kernel image that two nodes boot, each under its own naming.
    CacheFile(image_id("kernel-6"), "kernel-6 (raw id)", _MIB, 90 * DAY_S, (OLD_NODE,)),
    CacheFile(
        image_id("initrd-6"), "initrd-6 (raw id)", 2 * _MIB, 90 * DAY_S, (OLD_NODE,)
    ),
    CacheFile(hashed("kernel-6"), "kernel-6 (sha1)", _MIB, 30 * DAY_S, ("compute-1",)),
    CacheFile(
        hashed("initrd-6"), "initrd-6 (sha1)", 2 * _MIB, 30 * DAY_S, ("compute-1",)
    ),
    CacheFile(
        image_id("kernel-4"),
        "kernel-4 (raw id)",
        _MIB,
        800 * DAY_S,
        removable=True,
    ),
    CacheFile(
        image_id("initrd-4"),
        "initrd-4 (raw id)",
        2 * _MIB,
        800 * DAY_S,
        removable=True,
    ),
    CacheFile(hashed("kernel-5"), "kernel-5 (sha1)", _MIB, 150 * DAY_S, removable=True),
    CacheFile(UNKNOWN, "a note", 2 * _KIB, 5 * YEAR_S),
)

GUESTS = (
    Guest("web-1", "compute-1", OLD_IN_USE),
    Guest("web-2", "compute-2", OLD_IN_USE, snapshot=True),
    Guest("mail-1", "compute-2", f"{hashed('ubuntu')}_20"),
    Guest("db-1", OLD_NODE, hashed("ubuntu")),
)

AWAY = GUESTS[-1]
"""The guest that is moved off its node for a while; it alone uses its base."""

_BOOTS: Mapping[str, Mapping[str, list[str]]] = {
    "compute-1": {
        "kernels": [image_id("kernel-6")],
        "ramdisks": [image_id("initrd-6")],
    },
    "compute-2": {},
    OLD_NODE: {
        "kernels": [image_id("kernel-6")],
        "ramdisks": [image_id("initrd-6")],
    },
}
"""What each node's hypervisor boots directly, as its uses file says it."""


def removable() -> frozenset[str]:
    """Names of the files that nothing uses and that are old enough."""
    return frozenset(file.name for file in FILES if file.removable)


@dataclass(frozen=True, slots=True)
class World:
    """The private directory of one demo."""

    root: Path

    @property
    def base(self) -> Path:
        """The shared cache directory."""
        return self.root / "shared" / "_base"

    @property
    def locks(self) -> Path:
        """The lock directory beside the cache, as Nova's is."""
        return self.base.with_name("locks")

    @property
    def logs(self) -> Path:
        """Where every process writes its log."""
        return self.root / "logs"

    def instances(self, node: str) -> Path:
        """Return where a node's own instance directories are."""
        return self.root / node / "instances"

    def uses_file(self, node: str) -> Path:
        """Return the file in which a node's hypervisor says what it boots."""
        return self.root / node / "uses.json"

    def disk(self, guest: Guest) -> Path:
        """Return a guest's disk, the top of its backing chain."""
        return self.instances(guest.node) / guest.uuid / "disk"

    def put_away(self, guest: Guest) -> None:
        """Move a guest's directory off its node; raises ``OSError``."""
        away = self.root / "away"
        away.mkdir()
        self.disk(guest).parent.rename(away / guest.uuid)

    def bring_back(self, guest: Guest) -> None:
        """Move a guest's directory back; raises ``OSError``."""
        (self.root / "away" / guest.uuid).rename(self.disk(guest).parent)

    def make(self) -> None:
        """Make everything; raises ``WorldError`` or ``OSError``."""
        self.base.mkdir(parents=True)
        self.logs.mkdir()
        for file in FILES:
            self._make_file(file)
        for node in NODES:
            self.instances(node).mkdir(parents=True)
            self.uses_file(node).write_text(json.dumps(_BOOTS[node]), "utf-8")
        for guest in GUESTS:
            self._make_disk(guest)
        # The overlays only refer to their bases, but the times are what the
        # story is about, so they are set when nothing else is to be done.
        now_ns = time.time_ns()
        for file in FILES:
            then_ns = now_ns - int(file.age_s * _NANOSECONDS)
            os.utime(self.base / file.name, ns=(then_ns, then_ns))

    def _make_file(self, file: CacheFile) -> None:
        """Fill a file with bytes that no file system can store as a hole."""
        path = self.base / file.name
        if file.name == UNKNOWN:
            text = "Ask the storage team before you remove anything here.\n"
            path.write_text(text * (file.size // len(text)), "utf-8")
            return
        # Seeded, so that two runs of the demo make the same images.
        content = random.Random(file.name).randbytes(file.size)  # noqa: S311 - no secret
        with path.open("wb") as out:
            out.write(content)
            out.flush()
            # Not before this is it sure how much space the file takes.
            os.fsync(out.fileno())

    def _make_disk(self, guest: Guest) -> None:
        """Make a guest's overlay, or its two, as Nova and a snapshot would."""
        disk = self.disk(guest)
        disk.parent.mkdir()
        backing, backing_format = self.base / guest.base_name, "raw"
        if guest.snapshot:
            lower = disk.with_name("disk.before-upgrade")
            create_overlay(lower, backing, backing_format)
            backing, backing_format = lower, "qcow2"
        create_overlay(disk, backing, backing_format)


def create_overlay(disk: Path, backing: Path, backing_format: str) -> None:
    """Make a qcow2 image over another one; raises ``WorldError``."""
    qemu_img(
        *("create", "-q", "-f", "qcow2", "-F", backing_format),
        *("-b", str(backing), str(disk)),
    )


def qemu_img(*arguments: str) -> str:
    """Run ``qemu-img``; return what it said, or raise ``WorldError``."""
    command = ["qemu-img", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_QEMU_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorldError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise WorldError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
