"""The shared directory: ``_base`` and ``.sharedcache`` in it, on a real mount."""

from __future__ import annotations

from sharedcache.adapters.storage.cache import CacheFiles
from sharedcache.adapters.storage.control import ControlFiles
from sharedcache.adapters.storage.digests import DigestFiles
from sharedcache.adapters.storage.epochs import EpochFiles
from sharedcache.adapters.storage.trial import Trials
from sharedcache.adapters.storage.writing import NO_SPACE, WriterDirectory

__all__ = ["NO_SPACE", "DirectoryStorage", "WriterDirectory"]


class DirectoryStorage(ControlFiles, CacheFiles, DigestFiles, EpochFiles, Trials):
    """The storage port over a directory that many hosts mount.

    ``base`` is the path of the image cache directory; ``StorageError`` if it
    cannot be opened.  Safe for threads; any call may hang for as long as the
    storage does.  ``read_marker`` and ``refresh`` open the base anew, all
    other calls stay with what was opened then.
    """
