"""Looks at the cluster now and then, apart from what must not wait for storage."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from sharedcache.adapters.settings import Settings
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.cleaner.observe import Observer
from sharedcache.cli import data
from sharedcache.cli.data import Data
from sharedcache.core.codec import RecordError
from sharedcache.core.planner import make_plan
from sharedcache.core.ports import CoordinationError, StorageError

_LEAST_S = 2.0
"""Shortest time between two looks, in seconds."""

_SHARE = 20.0
"""A look at a large directory takes long; it may cost one part in so many."""

_END_S = 3.0


@dataclass(frozen=True, slots=True)
class Sight:
    """The last look: what ``status`` says, or why nobody knows."""

    status: Data | None = None
    trouble: str = ""


@dataclass(slots=True)
class Watch:
    """Looks on a thread of its own, which a storage that hangs may hold up."""

    settings: Settings
    session: ZooKeeperSession
    sight: Sight = field(default_factory=Sight)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(
            target=self._run, name="standalone-watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Look no more; does not wait long for a look that hangs."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    def _run(self) -> None:
        took_s = 0.0
        while not self._over.wait(max(_LEAST_S, _SHARE * took_s) if took_s else 0.0):
            began = time.monotonic()
            try:
                self.sight = Sight(self._look())
            except (CoordinationError, StorageError, RecordError, OSError) as error:
                self.sight = Sight(self.sight.status, " ".join(str(error).split()))
            took_s = max(time.monotonic() - began, 1e-3)

    def _look(self) -> Data:
        policy = self.settings.cleaner.policy()
        # Opened anew each time, so that a directory that was mounted over is seen.
        with DirectoryStorage(self.settings.require_base()) as storage:
            observer = Observer(self.session, storage, policy.missing_nodes)
            observed = observer.observe(scan=True)
        plan = make_plan(policy, observed.seen)
        return data.status(observed, plan, self.settings.cluster, time.time())
