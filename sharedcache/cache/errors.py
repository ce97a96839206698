"""What can go wrong for a user of the cache; each message says what to do."""

from __future__ import annotations


class CacheError(Exception):
    """The cache could not give the file; nothing is held."""


class NotBoundError(CacheError):
    """The directory is not this cluster's cache: not mounted, or not initialised."""


class NotCachedError(CacheError):
    """The file is not in the cache, and there is nothing to fetch it with."""


class BusyError(CacheError):
    """The name's lock was not to be had in the stated time."""


class NoSpaceError(CacheError):
    """The file would leave less free than the reserve."""


class DamagedError(CacheError):
    """What was fetched, or what lies there, is not what it should be."""


class LostLockError(CacheError):
    """A fetch stood still for so long that others were let past it."""


class UnprotectedError(CacheError):
    """Nothing would keep a cleaner from taking the file while it is used."""


class StorageFailedError(CacheError):
    """The shared storage refused or failed."""
