"""Digests of cache files, as writers record and read them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sharedcache.adapters.storage import WriterDirectory
from sharedcache.cache.errors import DamagedError
from sharedcache.core import codec, digests
from sharedcache.core.digests import Digest, Published
from sharedcache.core.model import FileFacts, Unreadable
from sharedcache.core.ports import OutcomeUnknownError, StorageError

LOGGER = logging.getLogger("sharedcache.cache")


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one directory: by name and inode, needing no ZooKeeper."""

    storage: WriterDirectory

    def read(self, name: str, inode: int) -> Published | Unreadable | None:
        """Read the record of one file; what is not about it counts as unreadable."""
        try:
            data = self.storage.digest_read(name, inode)
        except StorageError as error:
            return Unreadable(str(error))
        if data is None:
            return None
        text = data
        found = codec.readable(lambda: digests.from_record(codec.from_text(text)))
        if isinstance(found, Published) and (found.name, found.inode) != (name, inode):
            return Unreadable(f"it is about {found.name}, inode {found.inode}")
        return found

    def write(self, published: Published) -> None:
        """Write a record; raises ``StorageError``, ``OutcomeUnknownError``."""
        data = codec.to_text(digests.to_record(published))
        name, inode = published.name, published.inode
        self.storage.digest_write(name, inode, data, whole=not published.damage)

    def note(self, published: Published) -> None:
        """Record a digest; a file without one is as good, but cannot be verified."""
        try:
            self.write(published)
        except (StorageError, OutcomeUnknownError) as error:
            LOGGER.warning("no digest of %s is recorded: %s", published.name, error)

    def require(self, name: str, facts: FileFacts, asked: Digest | None) -> None:
        """Refuse a file that is known not to be as recorded, or as asked for."""
        record = self._known(name, facts)
        if record is None:
            return
        wrong = _damage(record, facts)
        if wrong:
            raise DamagedError(f"{name} {wrong}: {_WAY_OUT.format(name=name)}")
        if _differs(record, asked):
            raise DamagedError(
                f"{name} is there with digest {record.digest}, and {asked} was asked "
                f"for: {_OTHER.format(name=name)}"
            )

    def is_unfit(self, name: str, facts: FileFacts, asked: Digest | None) -> bool:
        """Whether ``require`` would refuse a file."""
        record = self._known(name, facts)
        return record is not None and (
            _damage(record, facts) != "" or _differs(record, asked)
        )

    def _known(self, name: str, facts: FileFacts) -> Published | None:
        """Return what is known of a file; nothing if its record cannot be read.

        No guest waits for a record.
        """
        record = self.read(name, facts.inode)
        if isinstance(record, Unreadable):
            LOGGER.warning("the digest record of %s: %s", name, record.why)
            return None
        return record


def _damage(record: Published, facts: FileFacts) -> str:
    """Tell how a file is known not to be as recorded; empty if it is not."""
    if record.size != facts.size:
        return f"has {facts.size} bytes and had {record.size} when it was published"
    return f"was found damaged, {record.damage}" if record.damage else ""


def _differs(record: Published, asked: Digest | None) -> bool:
    """Whether a file is known to be another one; by two algorithms nobody knows."""
    return (
        asked is not None
        and asked.algorithm == record.digest.algorithm
        and asked != record.digest
    )


_WAY_OUT = (
    "`sharedcache verify {name}` looks again and orders it away; it goes once no "
    "guest uses it, and is fetched anew then"
)
_OTHER = (
    "give other content another image id; `sharedcache verify {name}` tells whether it "
    "is as recorded, `sharedcache explain {name}` who uses it and when it goes"
)
