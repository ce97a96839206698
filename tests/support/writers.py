"""Directories for writers: bound to a cluster, without any ZooKeeper."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cache import Fetch, Limits, Partial, SharedCache
from sharedcache.core import codec
from sharedcache.core.model import Cluster, Rollout

QUICK = Limits(
    touch_s=0.1,
    stall_s=10.0,
    patience_s=30.0,
    restore_s=5.0,
    reserve_percent=0.0,
)
"""Limits of a writer that is done waiting before a test is."""

KERNEL_ID = "0b5cbd6e-6f3a-4d3c-9a51-0123456789ab"
CONTENT = os.urandom(300_000)


def bound_base(root: Path, finalized: int = 2, name: str = "c") -> Path:
    """Make a cache directory that is bound to a cluster, with its lock directory."""
    base = root / "instances" / "_base"
    base.mkdir(parents=True)
    (base.parent / "locks").mkdir()
    with DirectoryStorage(str(base)) as storage:
        marker = codec.cluster_to_record(Cluster(name, "0123456789abcdef"))
        storage.create_marker(codec.to_text(marker))
        finalize(storage, finalized)
    return base


def finalize(storage: DirectoryStorage, schema: int) -> None:
    """Write the finalized schema to the storage."""
    storage.write_schema(codec.to_text(codec.rollout_to_record(Rollout(schema))))


def writer(base: Path, socket: Path | str = "", limits: Limits = QUICK) -> SharedCache:
    """Open a directory as a driver does."""
    return SharedCache(base, agent_socket=socket, limits=limits)


def giving(content: bytes = CONTENT, calls: list[str] | None = None) -> Fetch:
    """Return a fetch of some content, which counts its calls."""

    def fetch(partial: Partial) -> None:
        if calls is not None:
            calls.append(partial.name)
        partial.write(content)

    return fetch


def names_in(base: Path) -> set[str]:
    """List what lies in a cache directory, our own directory apart."""
    return {path.name for path in base.iterdir() if path.name != ".sharedcache"}


def age(path: Path, seconds: float) -> None:
    """Make a file's last use lie in the past."""
    then = time.time() - seconds
    os.utime(path, (then, then))
