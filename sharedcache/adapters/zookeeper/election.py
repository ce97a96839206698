"""The election of the cleaners: tooz's, read back, and a lease that is proved."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sharedcache.adapters.zookeeper.client import Grant, boottime
from sharedcache.adapters.zookeeper.errors import (
    FAILURES,
    check_results,
    committing,
    translated,
)
from sharedcache.core.ports import (
    Candidacy,
    ConflictError,
    CoordinationError,
    OutcomeUnknownError,
)

if TYPE_CHECKING:
    from sharedcache.adapters.zookeeper.link import Link
    from sharedcache.adapters.zookeeper.tooz_backend import SharedCacheDriver

_LOG = logging.getLogger(__name__)

_CONTENDER: Final = re.compile(r"__lock__(-?[0-9]{10})\Z")

_RENEWALS_PER_TIMEOUT: Final = 8
_TOUCH_LAG: Final = 0.25


@dataclass(frozen=True, slots=True)
class Contender:
    """A node of the election: path below the root, the member's name, the session."""

    path: str
    name: str
    owner: int


class Touches:
    """When the servers are known to have counted this session's timeout anew.

    What a confirmed renewal proves: the server that leads by a majority's will
    held the session alive when it took the request, which was after the sending.
    It does not prove that this server started the session's timeout again at that
    moment: a client's server tells the leading one of its clients' signs of life
    only with the answers to pings, which come every half tick, and what it had
    not told yet is lost with it.  But it tells in order, on one connection.  So
    when a renewal is confirmed, every sign of life sent before it by more than
    half a tick has been told.  The servers grant no session timeout below two
    ticks unless they are configured to, so a quarter of the timeout is at least
    half a tick; the newest send that is so much older than a confirmed one is
    what is published here.

    A new session is agreed by a majority, so its beginning counts at once.  When
    a session moves to another connection, the leading server is told at once too,
    but that it leads is proved only by the next renewal.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grant: Grant | None = None
        # What is proved by a renewal that was sent at or after: after, time.
        self._waiting: deque[tuple[float, float]] = deque()
        self._proved = 0.0

    def renewed(self, grant: Grant, sent: float) -> None:
        """Note that what was sent at ``sent`` on the connection of ``grant`` came."""
        with self._lock:
            self._follow(grant)
            while self._waiting and self._waiting[0][0] <= sent:
                self._proved = self._waiting.popleft()[1]
            self._waiting.append((sent + _TOUCH_LAG * grant.timeout_s, sent))

    def proved(self, grant: Grant) -> float:
        """Return the newest proved time, boot-time clock, in seconds."""
        with self._lock:
            self._follow(grant)
            return self._proved

    def _follow(self, grant: Grant) -> None:
        before = self._grant
        if before is grant:
            return
        # Another connection: the old one's last words may never have come.
        self._grant = grant
        self._waiting.clear()
        if before is None or before.session != grant.session:
            self._proved = grant.sent
        else:
            self._waiting.append((grant.sent, grant.sent))


class Election:
    """One process's part in the election; made anew for every client.

    ``wake`` is called when the candidacy is lost, and when standing for election
    becomes possible.
    """

    def __init__(
        self,
        driver: SharedCacheDriver,
        link: Link,
        group: str,
        wake: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._link = link
        self._group = group.encode()
        self._path = link.relative(driver.election_path(self._group))
        self._wake = wake
        self._touches = Touches()
        self._candidacy: Candidacy | None = None
        self._elected = False
        self._leftovers = False
        self._campaigning = threading.Lock()
        self._end = threading.Event()
        self._keeper: threading.Thread | None = None
        driver.watch_elected_as_leader(self._group, self._on_elected)
        if link.raw.grant is not None:
            self._touches.proved(link.raw.grant)

    def _on_elected(self, event: Any) -> None:
        del event
        self._elected = True

    def contenders(self) -> list[Contender]:
        """Read the election's nodes, the first to come first."""
        order = []
        for name in self._link.children(self._path):
            match = _CONTENDER.search(name)
            if match is not None:
                order.append((int(match[1]), f"{self._path}/{name}"))
        paths = [path for _, path in sorted(order)]
        return [
            Contender(path, record.data.decode("utf-8", "replace"), record.owner)
            for path, record in zip(paths, self._link.get_many(paths), strict=True)
            if record is not None
        ]

    def campaign(self) -> Candidacy | None:
        """Try once; see the port.

        Also ``None`` while this session's own signs of life are not yet proved
        recent: leadership with a lease that has run out is of no use.
        """
        with self._campaigning:
            self._start_keeper()
            session = self._link.session_id()
            self._drop_stranger(session)
            if not self._fresh():
                return None
            self._sweep(session)
            standing = self.contenders()
            held = self._candidacy
            if held is not None and [c.path for c in standing[:1]] == [held.path]:
                return held
            if standing and standing[0].owner != session:
                self._lose()
                return None
            return self._run(session)

    def _run(self, session: int) -> Candidacy | None:
        """Let tooz elect, then believe only what the servers say."""
        self._elected = False
        self._lose()
        self._driver.forget_leader_lock(self._group)
        self._leftovers = True
        with translated("the election"):
            self._driver.run_elect_coordinator()
        won = self._driver.leader_node(self._group)
        if not self._elected or won is None:
            self._driver.forget_leader_lock(self._group)
            return None
        path = self._link.relative(won)
        record = self._link.get(path)
        if (
            record is None
            or record.owner != session
            or self._link.session_id() != session
        ):
            self._driver.forget_leader_lock(self._group)
            return None
        self._leftovers = False
        self._candidacy = Candidacy(path, session)
        return self._candidacy

    def _drop_stranger(self, session: int) -> None:
        held = self._candidacy
        if held is not None and held.session != session:
            self._lose()

    def _fresh(self) -> bool:
        grant = self._link.client().grant
        return grant is not None and self._is_recent(grant)

    def _is_recent(self, grant: Grant) -> bool:
        return boottime() - self._touches.proved(grant) < grant.timeout_s / 2

    def _sweep(self, session: int) -> None:
        """Take away nodes that this session left in the election.

        A lost answer leaves one, and it would stand before ourselves.
        """
        if not self._leftovers:
            return
        held = self._candidacy
        for contender in self.contenders():
            if contender.owner == session and (
                held is None or held.path != contender.path
            ):
                self._link.delete(contender.path)
        self._leftovers = False

    def lease_sent(self, candidacy: Candidacy) -> float | None:
        """See the port; the time is one of ``Touches``."""
        if candidacy != self._candidacy:
            return None
        client = self._link.raw
        grant = client.grant
        if grant is None or grant.session != candidacy.session:
            return None
        return self._touches.proved(grant)

    def leader(self) -> str | None:
        """Return the name of the first contender."""
        standing = self.contenders()
        return standing[0].name if standing else None

    def resign(self) -> None:
        """Stand down; if no server answers, the node goes later."""
        with self._campaigning:
            held = self._candidacy
            self._lose()
            if held is None and not self._leftovers:
                return
            self._leftovers = True
            try:
                self._driver.stand_down_group_leader(self._group)
                self._driver.forget_leader_lock(self._group)
                self._sweep(self._link.session_id())
            except (*FAILURES, CoordinationError) as error:
                # The keeper sweeps when there is a connection again, and the
                # session's end takes the node in any case.
                self._driver.forget_leader_lock(self._group)
                _LOG.warning("standing down has to wait: %s", error)

    def lost_session(self) -> None:
        """Forget what went with the session; on kazoo's thread, so it sends nothing."""
        self._lose()

    def _lose(self) -> None:
        if self._candidacy is not None:
            # Its node may be there still, and would stand in everybody's way.
            self._leftovers = True
            self._candidacy = None

    def close(self, wait_s: float) -> None:
        """End the keeper."""
        self._end.set()
        self._lose()
        keeper = self._keeper
        if keeper is not None:
            keeper.join(wait_s)

    def _start_keeper(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(
                target=self._keep, name="zookeeper-lease", daemon=True
            )
            self._keeper.start()

    def _keep(self) -> None:
        while True:
            grant = self._link.raw.grant
            if grant is not None and self._link.raw.usable:
                try:
                    self._renew(grant)
                except (CoordinationError, OutcomeUnknownError, *FAILURES) as error:
                    # Nothing was proved; the deadline goes on counting.
                    _LOG.info("a renewal was not confirmed: %s", error)
            pause_s = 1.0 if grant is None else grant.timeout_s / _RENEWALS_PER_TIMEOUT
            if self._end.wait(pause_s):
                return

    def _renew(self, grant: Grant) -> None:
        """Give one sign of life and have it confirmed by the leading server."""
        held = self._candidacy
        sent = boottime()
        if held is None:
            # One that only stands by writes nothing.  When it wins, the creation
            # of its node is agreed by a majority on this same connection.
            self._link.sync()
            self._sweep_later()
        elif not self._still_there(held):
            return
        if self._link.raw.grant is grant:
            stale = not self._is_recent(grant)
            self._touches.renewed(grant, sent)
            if stale and self._is_recent(grant):
                self._wake()

    def _still_there(self, held: Candidacy) -> bool:
        """Ask a majority whether the election's node is there.

        A `sync` and a read would be answered by a server that was deposed and has
        not noticed yet.  A transaction that only checks changes no node, but it
        is agreed by a majority like a write.  The node's name is never used
        again, so where it exists its owner is the session that was read back.
        """
        transaction = self._link.client().transaction()
        path = self._link.absolute(held.path)
        transaction.check(path, -1)
        try:
            with committing("renewing the lease"):
                check_results(transaction.commit_async().get(), [held.path])
        except ConflictError:
            if self._candidacy == held:
                self._lose()
                self._driver.forget_leader_lock(self._group)
                self._wake()
            return False
        return True

    def _sweep_later(self) -> None:
        if self._leftovers and self._campaigning.acquire(blocking=False):
            try:
                self._sweep(self._link.session_id())
            finally:
                self._campaigning.release()
