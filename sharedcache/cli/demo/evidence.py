"""What the file system says: the demo's claims are checked against this alone.

Nothing here shares code with the program whose work is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sharedcache.cli.demo.world import (
    GUESTS,
    LEFT_NODES,
    Guest,
    World,
    WorldError,
    qemu_img,
)

_CONTROL = ".sharedcache"
_BLOCK_BYTES = 512
"""The unit of ``st_blocks``, whatever the file system's own blocks are."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was found: size in bytes, time in nanoseconds."""

    size: int
    mtime_ns: int


def list_base(base: Path) -> dict[str, Found]:
    """List the cache directory itself, without the program's own records."""
    found: dict[str, Found] = {}
    with os.scandir(base) as entries:
        for entry in entries:
            if entry.name == _CONTROL:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                # Renamed since it was listed: it is not there any more.
                continue
            found[entry.name] = Found(status.st_size, status.st_mtime_ns)
    return found


def list_quarantine(base: Path) -> dict[str, int]:
    """List the quarantined files: their cache names, and their sizes in bytes."""
    found: dict[str, int] = {}
    epochs = base / _CONTROL / "epochs"
    for path in epochs.glob("*/*"):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue
        # A quarantined file is called <cache name>.<entry>.<epoch>.
        found[path.name.rsplit(".", 2)[0]] = size
    return found


def quarantined_by(base: Path, name: str) -> set[int]:
    """Tell in which epochs' directories a name lies in quarantine."""
    epochs = base / _CONTROL / "epochs"
    found = (path for path in epochs.glob("*/*"))
    return {
        int(path.parent.name) for path in found if path.name.rsplit(".", 2)[0] == name
    }


def sealed_epochs(base: Path) -> set[int]:
    """Tell which epochs are sealed: a regular file is where a directory was."""
    epochs = (base / _CONTROL / "epochs").iterdir()
    return {int(path.name) for path in epochs if path.is_file()}


def measure(base: Path) -> dict[str, int]:
    """Tell how many bytes each file takes on the file system, quarantine included.

    A file with several names is listed once.
    """
    taken: dict[str, int] = {}
    inodes: set[int] = set()
    for path in [*base.iterdir(), *base.glob(f"{_CONTROL}/epochs/*/*")]:
        try:
            status = path.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if path.name != _CONTROL and status.st_ino not in inodes:
            inodes.add(status.st_ino)
            taken[path.name] = status.st_blocks * _BLOCK_BYTES
    return taken


def digest_base(base: Path) -> dict[str, str]:
    """Digest the content of every file in the cache directory."""
    digests: dict[str, str] = {}
    for name in list_base(base):
        with (base / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


@dataclass(frozen=True, slots=True)
class Chain:
    """One guest's backing chain as ``qemu-img`` reads it."""

    guest: Guest
    layers: int
    trouble: str


def read_chains(world: World, digests: Mapping[str, str]) -> list[Chain]:
    """Open the disk of every guest whose host is there, as ``read_chain`` does."""
    left = (guest for guest in GUESTS if guest.node in LEFT_NODES)
    return [read_chain(world, guest, digests) for guest in left]


def read_chain(world: World, guest: Guest, digests: Mapping[str, str]) -> Chain:
    """Open a guest's disk and compare its base with ``digests``.

    ``trouble`` is empty where the chain opens, ends in the file that the guest
    was made on, and that file has the content that it had.
    """
    try:
        told = qemu_img(
            "info", "--backing-chain", "--output", "json", str(world.disk(guest))
        )
        layers = json.loads(told)
        bottom = Path(layers[-1]["filename"])
        with bottom.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (WorldError, OSError, ValueError, LookupError) as error:
        return Chain(guest, 0, str(error))
    trouble = ""
    if bottom != world.base / guest.base_name:
        trouble = f"its chain ends in {bottom}"
    elif digest != digests.get(guest.base_name):
        trouble = "its base has other content than at the start"
    return Chain(guest, len(layers), trouble)
