"""Image files as tests need them, without a process for each."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from sharedcache.adapters.instances.base import opened
from sharedcache.adapters.instances.chain import Chains
from sharedcache.adapters.instances.headers import SETTLED_S, Headers
from sharedcache.adapters.instances.source import InstancesSource
from sharedcache.core.model import Uses

if TYPE_CHECKING:
    from pathlib import Path

X = "a" * 40
Y = "b" * 40
VM = "00000000-0000-0000-0000-000000000001"
KERNEL = "11111111-2222-3333-4444-555555555555"

DATA_FILE_BIT = 4


def extension(kind: int, data: bytes) -> bytes:
    """Return one header extension, padded."""
    return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def qcow2(
    backing: str | bytes | None = None,
    backing_format: str | None = None,
    *,
    data_file: str | None = None,
    version: int = 3,
    cluster_bits: int = 16,
    extensions: bytes = b"",
    features: int = 0,
    size: int = 4096,
) -> bytes:
    """Return the first ``size`` bytes of a qcow2 image."""
    name = os.fsencode(backing) if backing is not None else b""
    fixed = 72 if version < 3 else 104
    if data_file is not None:
        features |= DATA_FILE_BIT
        extensions += extension(0x44415441, os.fsencode(data_file))
    if backing_format is not None:
        extensions += extension(0xE2792ACA, backing_format.encode())
    extensions += extension(0, b"")
    backing_at = fixed + len(extensions) if name else 0
    header = struct.pack(
        ">4sIQII", b"QFI\xfb", version, backing_at, len(name), cluster_bits
    ).ljust(72, b"\0")
    if version >= 3:
        header += struct.pack(">QQQII", features, 0, 0, 4, 104)
    return (header + extensions + name).ljust(size, b"\0")


class Ticks:
    """A clock that moves only when it is told to (seconds)."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        """Return the time, as ``time.monotonic`` does."""
        return self.now_s

    def pause(self, seconds: float) -> None:
        """Remember a pause instead of making it."""
        self.pauses.append(seconds)


def names_of(base: Path, disk: Path, image_format: str | None = None) -> set[str]:
    """Walk one disk's chain with nothing remembered."""
    ticks = Ticks()
    headers = Headers(monotonic=ticks.monotonic, pause=ticks.pause)
    with opened(str(base)) as directory:
        return set(Chains(directory, headers).names_of(str(disk), image_format))


class Site:
    """Instance directories beside a cache directory, and a source over them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / "_base"
        self.base.mkdir()
        for name in (X, Y):
            (self.base / name).write_bytes(b"raw")
        self.ticks = Ticks()
        self.source = self.make()

    def make(
        self,
        max_instances: int = 100,
        max_files: int = 100,
    ) -> InstancesSource:
        """Make another source."""
        return InstancesSource(
            str(self.root),
            str(self.base),
            max_instances=max_instances,
            max_files=max_files,
            monotonic=self.ticks.monotonic,
            pause=self.ticks.pause,
        )

    def disk(self, name: str = X, vm: str = VM, disk: str = "disk") -> Path:
        """Make an overlay on a base file."""
        path = self.root / vm / disk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(qcow2(str(self.base / name), "raw"))
        return path

    def settle(self) -> Uses:
        """Look until every header is trusted."""
        self.source.look()
        self.ticks.now_s += SETTLED_S
        return self.source.look()
