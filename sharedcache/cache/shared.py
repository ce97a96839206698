"""``SharedCache``: a path in the shared cache that exists, is whole, and stays.

What keeps the file, and for how long, is argued in ``docs/drivers.md``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sharedcache import ledger
from sharedcache.adapters.storage import WriterDirectory
from sharedcache.adapters.uses_socket import AgentLink
from sharedcache.cache.binding import require_bound
from sharedcache.cache.errors import (
    BusyError,
    CacheError,
    DamagedError,
    LostLockError,
    NotBoundError,
    NotCachedError,
    StorageFailedError,
    UnprotectedError,
)
from sharedcache.cache.holding import Hold, Keeper
from sharedcache.cache.limits import Limits
from sharedcache.cache.locking import LockPool, NameLock
from sharedcache.cache.partial import Fetch, Partial, refuse_below
from sharedcache.cache.records import Records
from sharedcache.core.digests import DEFAULT_ALGORITHM, Digest, Published
from sharedcache.core.model import Unreadable
from sharedcache.core.ports import (
    NameExistsError,
    OutcomeUnknownError,
    StorageError,
)
from sharedcache.core.schema import SCHEMAS
from sharedcache.core.wanted import IMAGE, FileKind, Wanted, wanted

LOGGER = logging.getLogger("sharedcache.cache")

DEFAULT_SOCKET = "/run/sharedcache/agent.sock"
"""Where the agent listens under the unit file that is shipped."""

SLOWEST_BYTES_PER_S = 10e6
"""How fast a storage makes data durable at least; a slower one hangs."""

_TRIES = 20
_RESTORE_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class _Request:
    """What one caller wants, and what is known of it."""

    image_id: str | None
    kind: FileKind
    fetch: Fetch | None
    size: int | None
    digest: Digest | None
    until: float


class SharedCache:
    """The shared cache directory, for a driver that uses its files.

    ``base`` is the directory; ``cluster``, if given, the name that it must
    bear; ``lock_path`` Nova's lock directory (default: ``locks`` beside
    ``base``); ``agent_socket`` where the local agent listens, empty for none.
    Needs no ZooKeeper.  Safe for threads; make a new one after a fork.
    """

    def __init__(
        self,
        base: str | Path,
        *,
        cluster: str | None = None,
        lock_path: str | Path | None = None,
        agent_socket: str | Path = DEFAULT_SOCKET,
        limits: Limits | None = None,
    ) -> None:
        self._base = Path(base).absolute()
        self._cluster = cluster
        self._limits = limits or Limits()
        with _as_cache_errors():
            self._storage = WriterDirectory(str(self._base))
        self._records = Records(self._storage)
        self._locks = LockPool(str(lock_path or self._base.parent / "locks"))
        self._agent = AgentLink(str(agent_socket))
        self._keeper = Keeper(self._storage, self._agent, self._limits.touch_s)
        self._pid = os.getpid()
        self._fetching = threading.local()

    def __enter__(self) -> Self:
        """Use the cache for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let everything go."""
        self.close()

    def close(self) -> None:
        """Let everything go; nothing that was held is protected any more.

        In a child of this process it does nothing: what is held is its parent's.
        """
        if self._forked():
            return
        self._keeper.stop()
        self._agent.close()
        self._locks.close()
        self._storage.close()

    def interrupt(self) -> None:
        """End all waiting for others' fetches, in every thread, with ``BusyError``.

        What is held stays held, and a fetch under way goes on.
        """
        self._locks.interrupt()

    @contextmanager
    def use(
        self,
        image_id: str | None,
        kind: FileKind = IMAGE,
        *,
        fetch: Fetch | None = None,
        size: int | None = None,
        digest: Digest | str | None = None,
    ) -> Iterator[Path]:
        """Give a path that is there, whole, and stays for the length of the block.

        ``fetch`` fills the file if it is not there: it is called by one process
        at a time on all nodes.  ``size`` (bytes) and ``digest``
        (``algorithm:hex``) are what it must yield; a file that is there, recorded
        with another digest of the same algorithm, is ``DamagedError``.  Raises
        ``CacheError``, ``WantedError`` or ``DigestError`` for a wrong question, and
        whatever ``fetch`` raises.
        """
        if isinstance(digest, str):
            digest = Digest.parse(digest)
        until = time.monotonic() + self._limits.patience_s
        request = _Request(image_id, kind, fetch, size, digest, until)
        if self._forked():
            raise CacheError("this cache was opened before a fork: open a new one")
        with _as_cache_errors():
            hold = self._acquire(request)
        try:
            yield self._base / hold.name
        finally:
            if not self._forked():
                self._keeper.drop(hold)

    def _forked(self) -> bool:
        """Whether this is a child of the process that opened the cache."""
        return os.getpid() != self._pid

    def _acquire(self, request: _Request) -> Hold:
        asked = lost = False
        for _ in range(_TRIES):
            require_bound(self._storage, self._base, self._cluster)
            want = wanted(request.image_id, request.kind, self._schema())
            for name in want.read:
                hold = self._hold_present(name, request)
                if hold is not None:
                    return hold
            if not asked and self._restored(want, request.digest):
                asked = True
                continue
            if request.fetch is None:
                raise NotCachedError(f"{want.write} is not in {self._base}")
            try:
                hold = self._fetch(request, request.fetch, want)
            except LostLockError:
                # Others were let past: what they fetched is as good.
                if lost:
                    raise
                lost = True
                continue
            if hold is not None:
                return hold
        raise StorageFailedError(
            f"{want.write} comes and goes faster than it can be used"
        )

    def _schema(self) -> int:
        """Read the finalized schema from the storage; 1 where none is written."""
        told = ledger.schema_of(self._storage.read_schema())
        if told is None:
            return 1
        if isinstance(told, Unreadable):
            raise NotBoundError(f"the finalized schema cannot be read: {told.why}")
        finalized = told.finalized_schema
        if SCHEMAS.row(finalized) is None:
            raise NotBoundError(
                f"schema {finalized} is finalized, and this release knows schemas up "
                f"to {SCHEMAS.newest}: upgrade sharedcache on this host"
            )
        return finalized

    def _hold_present(self, name: str, request: _Request) -> Hold | None:
        """Hold a file that is there; ``None`` if it is not."""
        descriptor = self._storage.open_cache(name)
        if descriptor is None:
            return None
        try:
            # Before anything is said of a use, which would keep a damaged file.
            facts = self._storage.facts_open(name, descriptor)
            self._records.require(name, facts, request.digest)
        finally:
            os.close(descriptor)
        # Declared first, so that the agent's next look knows it.
        self._agent.use(name)
        hold: Hold | None = None
        try:
            hold_s = self._limits.lock_hold_s
            with self._locks.taken(name, request.until, hold_s) as lock:
                hold = self._hold_locked(name, request.digest)
            hold = self._only_if_kept(hold, lock)
        finally:
            if hold is None:
                self._agent.release(name)
        if hold is not None:
            self._keeper.add(hold)
        return hold

    @staticmethod
    def _only_if_kept(hold: Hold | None, lock: NameLock) -> Hold | None:
        """Refuse what was done while the lock was lost: a cleaner may have been."""
        if hold is not None and not lock.kept:
            os.close(hold.descriptor)
            return None
        return hold

    def _hold_locked(self, name: str, digest: Digest | None) -> Hold | None:
        """Protect a file, under its name's lock; ``None`` if it is not there.

        A cleaner looks at the time of last use and for locks, and renames, under
        this very lock.  So it sees what is done here, or it came before and the
        name is gone.
        """
        descriptor = self._storage.open_cache(name)
        if descriptor is None:
            return None
        try:
            return self._protected(name, descriptor, digest)
        except BaseException:
            os.close(descriptor)
            raise

    def _protected(self, name: str, descriptor: int, digest: Digest | None) -> Hold:
        facts = self._storage.facts_open(name, descriptor)
        self._records.require(name, facts, digest)
        locked = self._storage.hold_open(descriptor)
        touched = self._touched(name, descriptor)
        if not (locked or touched):
            raise UnprotectedError(
                f"{name} can be neither touched nor locked here: run as the "
                "owner of the cache directory, on a mount with locks"
            )
        return Hold(name, descriptor, touched, locked)

    def _touched(self, name: str, descriptor: int) -> bool:
        try:
            self._storage.touch_open(descriptor, name)
        except StorageError as error:
            # Nova ignores a base that it may not touch.
            LOGGER.info("%s", error)
            return False
        return True

    def _restored(self, want: Wanted, digest: Digest | None) -> bool:
        """Have the agent restore what lies in quarantine; whether it did in time.

        No lock is held meanwhile: the agent takes it to link.
        """
        for name in want.read:
            lying = self._storage.quarantined(name)
            # A damaged one is restored for nobody: it was taken so that the file
            # is fetched anew.  Nor is one that is known not to be what is wanted.
            if not lying or any(
                self._records.is_unfit(name, one, digest) for one in lying
            ):
                continue
            if not self._agent.use(name):
                self._agent.release(name)
                return False
            try:
                until = time.monotonic() + self._limits.restore_s
                while time.monotonic() < until:
                    if self._storage.facts(name) is not None:
                        return True
                    time.sleep(_RESTORE_POLL_S)
            finally:
                # Whoever holds it declares it again, and a use that is over
                # is in the agent's next report all the same.
                self._agent.release(name)
        return False

    def _fetch(self, request: _Request, fetch: Fetch, want: Wanted) -> Hold | None:
        """Fetch under the name's lock; ``None`` if all must be looked at again."""
        name, stall_s = want.write, self._limits.stall_s
        under_way: set[str] = self._fetching.__dict__.setdefault("names", set())
        if name in under_way:
            # It would wait for itself.
            raise BusyError(f"the fetch of {name} asks for {name} itself")
        under_way.add(name)
        hold: Hold | None = None
        declared = False
        try:
            with self._locks.taken(name, request.until, stall_s) as lock:
                hold = self._fetch_locked(request, fetch, want, lock)
                if hold is not None:
                    # Not before: the agent restores a used name that is missing,
                    # or sounds an alarm of it, and this one is being fetched.
                    declared = True
                    self._agent.use(name)
            hold = self._only_if_kept(hold, lock)
        finally:
            under_way.discard(name)
            if declared and hold is None:
                self._agent.release(name)
        if hold is not None:
            self._keeper.add(hold)
        return hold

    def _fetch_locked(
        self, request: _Request, fetch: Fetch, want: Wanted, lock: NameLock
    ) -> Hold | None:
        name, limits = want.write, self._limits
        private, descriptor = self._storage.partial_make(name)
        try:
            # Somebody else may have fetched it while we waited; the creation
            # above made this client look at the directory anew.
            hold = self._hold_locked(name, request.digest)
            if hold is not None:
                return hold
            if any(self._storage.facts(other) for other in want.read if other != name):
                return None
            self._require_room(request.size or 0)
            partial = Partial(
                self._base / private,
                descriptor,
                algorithm=request.digest.algorithm
                if request.digest is not None
                else DEFAULT_ALGORITHM,
                stall_s=limits.stall_s,
                renew=lambda: lock.renew(limits.stall_s),
                room=self._require_room,
                size=request.size,
                checked=request.digest is not None,
            )
            with closing(partial):
                fetch(partial)
                partial.renew()
                if partial.foreign:
                    # The program may have put another file in its place.
                    fresh = self._storage.partial_open(private)
                    os.close(descriptor)
                    descriptor = partial.descriptor = fresh
                return self._publish(request, want, lock, partial)
        finally:
            # Our own private name; what a crash leaves is collected when old.
            with suppress(OSError):
                os.close(descriptor)
            if not self._forked():
                with suppress(StorageError, OutcomeUnknownError):
                    self._storage.partial_remove(private)

    def _publish(
        self, request: _Request, want: Wanted, lock: NameLock, partial: Partial
    ) -> Hold | None:
        """Give a whole file its name; ``None`` if the name is another one now.

        Durable first, named last: whoever sees the name sees all of the file.
        """
        name, storage, limits = want.write, self._storage, self._limits
        size, digest = partial.finish(request.digest)
        if not lock.renew(limits.stall_s + size / SLOWEST_BYTES_PER_S):
            partial.lose()
        facts = storage.partial_settle(partial.name, partial.descriptor)
        if facts.size != size:
            raise DamagedError(f"{partial.name} was written to by somebody else")
        self._records.note(Published(name, facts.inode, size, digest))
        if wanted(request.image_id, request.kind, self._schema()) != want:
            # Finalized meanwhile: an old name must not appear any more.
            return None
        if not lock.renew(limits.lock_hold_s):
            partial.lose()
        if not storage.bears(partial.name, partial.descriptor):
            # What was read is not what would get the name.
            raise DamagedError(f"{partial.name} was replaced while it was published")
        try:
            storage.partial_link(partial.name, name)
        except (NameExistsError, OutcomeUnknownError) as error:
            # The answer to an earlier attempt may have been lost on the way.
            ours = storage.bears(name, partial.descriptor)
            if not ours and isinstance(error, OutcomeUnknownError):
                raise
        storage.settle_base(f"publish {name}")
        storage.partial_remove(partial.name)
        return self._hold_locked(name, request.digest)

    def _require_room(self, needed: int) -> None:
        try:
            size, free = self._storage.space()
        except StorageError as error:
            LOGGER.info("%s", error)
            return
        refuse_below(free, size, self._limits.reserve_percent, needed)


@contextmanager
def _as_cache_errors() -> Iterator[None]:
    """Give what the storage says as an error of the cache."""
    try:
        yield
    except (StorageError, OutcomeUnknownError) as error:
        raise StorageFailedError(str(error)) from error
