"""The writers' side: files of the shared cache for drivers that use them.

``with SharedCache(base).use(image_id, IMAGE, fetch=download) as path:`` gives a
path that is there, whole, and stays for the length of the block; see
``docs/drivers.md``.
"""

from __future__ import annotations

from sharedcache.cache.errors import (
    BusyError,
    CacheError,
    DamagedError,
    LostLockError,
    NoSpaceError,
    NotBoundError,
    NotCachedError,
    StorageFailedError,
    UnprotectedError,
)
from sharedcache.cache.limits import Limits
from sharedcache.cache.partial import Fetch, Partial
from sharedcache.cache.shared import DEFAULT_SOCKET, SharedCache
from sharedcache.core.digests import Digest, DigestError
from sharedcache.core.wanted import (
    IMAGE,
    KERNEL,
    RAMDISK,
    FileKind,
    WantedError,
    ephemeral,
    resized,
    swap,
)

__all__ = [
    "DEFAULT_SOCKET",
    "IMAGE",
    "KERNEL",
    "RAMDISK",
    "BusyError",
    "CacheError",
    "DamagedError",
    "Digest",
    "DigestError",
    "Fetch",
    "FileKind",
    "Limits",
    "LostLockError",
    "NoSpaceError",
    "NotBoundError",
    "NotCachedError",
    "Partial",
    "SharedCache",
    "StorageFailedError",
    "UnprotectedError",
    "WantedError",
    "ephemeral",
    "resized",
    "swap",
]
