"""One ZooKeeper session and the tree of one cluster: the port ``Coordination``."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kazoo.protocol.states import KazooState
from tooz import ToozError, coordination

from sharedcache.adapters.zookeeper import reports, urls
from sharedcache.adapters.zookeeper.election import Election
from sharedcache.adapters.zookeeper.errors import (
    FAILURES,
    check_results,
    committing,
    translate,
    translated,
)
from sharedcache.adapters.zookeeper.link import Link, check_size, pipelined
from sharedcache.adapters.zookeeper.tooz_backend import SharedCacheDriver
from sharedcache.adapters.zookeeper.watches import Watches
from sharedcache.core import names
from sharedcache.core.ports import (
    Append,
    Candidacy,
    Check,
    CoordinationError,
    Create,
    Delete,
    DisconnectedError,
    MemberExistsError,
    Operation,
    Record,
    SessionChangedError,
    Set,
    UndecodableMember,
)

ROOT: Final = "sharedcache"
GROUPS: Final = "groups"
NODES: Final = "nodes"
CLEANERS: Final = "cleaners"

_CLUSTER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?\Z")

# What an operation takes in a packet beside its path and its data, generously:
# its headers, and an ACL with a digest.
_OPERATION_BYTES: Final = 160

_NODES_GROUP: Final = NODES.encode()


class ZooKeeperSession:
    """The port ``Coordination`` on a real ZooKeeper.

    ``servers`` is a host list or a URL (see ``urls``), ``member`` this node's or
    cleaner's name.  ``wake`` is called on every watch event and every change of
    the connection, on a thread of kazoo's: it must not block and not call back.
    ``creates`` makes what the groups need at the start; without it a session
    leaves nothing behind in a tree that is not there, and reads an empty one.
    Times are in seconds.  The constructor raises ``ValueError`` for names or
    addresses that cannot be; nothing is connected before ``start``.

    Methods may be called from several threads.
    """

    def __init__(
        self,
        servers: str,
        cluster: str,
        member: str,
        *,
        session_timeout_s: float = 10.0,
        call_timeout_s: float = 5.0,
        wake: Callable[[], None] | None = None,
        creates: bool = True,
    ) -> None:
        if _CLUSTER.match(cluster) is None:
            raise ValueError(
                f"{cluster!r} cannot name a cluster: letters, digits, dot, dash and"
                " underscore, up to 100"
            )
        if not names.is_node_name(member):
            raise ValueError(f"{member!r} cannot name a member of the cluster")
        self._address = urls.parse(servers)
        self._namespace = f"{ROOT}/{cluster}/{GROUPS}"
        self._root = f"/{ROOT}/{cluster}"
        self._member = member
        self._asked_s = self._address.number("timeout", session_timeout_s)
        self._call_timeout_s = call_timeout_s
        self._creates = creates
        self._wake = wake if wake is not None else _nothing
        self._watches = Watches(self._wake)
        self._starting = threading.Lock()
        self._driver: SharedCacheDriver | None = None
        self._link: Link | None = None
        self._election: Election | None = None

    # Life

    def start(self, within_s: float = 15.0) -> None:
        """Connect, and create what the groups need, if this session creates.

        Raises ``DisconnectedError`` after about ``within_s`` seconds without a
        session, and may then be called again.  Once started the session looks
        after its connection by itself, for ever.
        """
        with self._starting:
            if self._driver is not None:
                return
            driver = self._make_driver(within_s)
            try:
                driver.start()
            except FAILURES as error:
                raise self._not_connected(error) from error
            link = Link(driver.client, self._root, str(self._address))
            try:
                if self._creates:
                    self._make_groups(driver)
            except CoordinationError:
                driver.stop()
                raise
            self._election = Election(driver, link, CLEANERS, self._wake)
            self._driver, self._link = driver, link
            driver.client.add_listener(self._on_state)
            self._watches.disturbed()

    def _make_driver(self, within_s: float) -> SharedCacheDriver:
        try:
            driver = coordination.get_coordinator(
                self._address.url(),
                self._member.encode("ascii"),
                namespace=self._namespace,
                timeout=self._asked_s,
                call_timeout_s=self._call_timeout_s,
                start_timeout_s=within_s,
                creates=self._creates,
            )
        except ToozError as error:
            raise translate(error, "setting up ZooKeeper's client") from error
        if not isinstance(driver, SharedCacheDriver):
            raise TypeError(f"the tooz backend {urls.BACKEND} is not sharedcache's own")
        return driver

    def _not_connected(self, error: BaseException) -> DisconnectedError:
        hint = (
            "check that it runs, that this host reaches its port, and the URL's TLS"
            " options and credentials"
        )
        return DisconnectedError(
            f"cannot connect to ZooKeeper at {self._address}: {error}; {hint}"
        )

    @staticmethod
    def _make_groups(driver: SharedCacheDriver) -> None:
        for group in (NODES, CLEANERS):
            with translated(f"creating the group {group}"):
                try:
                    driver.create_group(group.encode()).get()
                except coordination.GroupAlreadyExist:
                    continue

    def stop(self) -> None:
        """End the session, and with it this process's registration and candidacy.

        Takes at most about the call timeout and two seconds, whatever the servers
        do; if none answers, they end the session when it times out.
        """
        with self._starting:
            driver, election = self._driver, self._election
            self._driver = self._link = self._election = None
            if driver is None:
                return
            driver.client.remove_listener(self._on_state)
            if election is not None:
                election.close(wait_s=0.0)
            driver.stop()
            if election is not None:
                election.close(wait_s=1.0)

    def _on_state(self, state: str) -> None:
        """Note a change; on kazoo's thread, so it sends nothing and never waits."""
        election = self._election
        if state == KazooState.LOST and election is not None:
            election.lost_session()
        self._watches.disturbed()
        self._wake()

    def _linked(self) -> Link:
        link = self._link
        if link is None:
            raise DisconnectedError("the session with ZooKeeper is not started")
        return link

    def _driven(self) -> SharedCacheDriver:
        driver = self._driver
        if driver is None:
            raise DisconnectedError("the session with ZooKeeper is not started")
        self._linked().client()
        return driver

    def _candidate(self) -> Election:
        self._driven()
        election = self._election
        if election is None:
            raise DisconnectedError("the session with ZooKeeper is not started")
        return election

    def session_id(self) -> int:
        """See the port."""
        return self._linked().session_id()

    def session_timeout_s(self) -> float:
        """See the port: the smallest that was granted to this session.

        Before the first connection, the one that is asked for.
        """
        link = self._link
        grant = None if link is None else link.raw.grant
        return self._asked_s if grant is None else grant.timeout_s

    # Records

    def sync(self) -> None:
        """See the port."""
        self._linked().sync()

    def get(self, path: str) -> Record | None:
        """See the port."""
        return self._linked().get(path)

    def get_many(self, paths: Sequence[str]) -> list[Record | None]:
        """See the port."""
        return self._linked().get_many(paths)

    def children(self, path: str) -> list[str]:
        """See the port."""
        return self._linked().children(path)

    def ensure(self, path: str) -> None:
        """See the port."""
        link = self._linked()
        absolute = link.absolute(path)
        client = link.client()
        with translated(f"creating {absolute}"):
            client.ensure_path_async(absolute).get()

    def watch(self, path: str) -> int:
        """See the port."""
        return self._watches.count(self._linked(), path)

    def commit(self, operations: Sequence[Operation]) -> None:
        """See the port.

        A transaction of more than 1,000,000 bytes is refused: ZooKeeper would
        drop the connection.
        """
        link = self._linked()
        client = link.client()
        if not operations:
            return
        size = 0
        transaction = client.transaction()
        for operation in operations:
            path = link.absolute(operation.path)
            size += len(path) + _OPERATION_BYTES
            match operation:
                case Check(version=version):
                    transaction.check(path, _version(version))
                case Create(data=data):
                    size += len(data)
                    transaction.create(path, data)
                case Set(data=data, version=version):
                    size += len(data)
                    transaction.set_data(path, data, _version(version))
                case Append(data=data):
                    size += len(data)
                    transaction.create(path, data, sequence=True)
                case Delete(version=version):
                    transaction.delete(path, _version(version))
        check_size(size, f"a transaction of {len(operations)} operations")
        with committing(f"a transaction of {len(operations)} operations"):
            results = transaction.commit_async().get()
        check_results(results, [operation.path for operation in operations])

    def access(self, path: str) -> list[str]:
        """Tell who may do something with a node, as ``scheme:id``, sorted."""
        link = self._linked()
        absolute = link.absolute(path)
        with translated(f"reading the access list of {absolute}"):
            acls, _ = link.client().get_acls_async(absolute).get()
        return sorted({f"{acl.id.scheme}:{acl.id.id}" for acl in acls})

    # The group of nodes

    @property
    def member_path(self) -> str:
        """See the port."""
        return f"{GROUPS}/{NODES}/{self._member}"

    def join(self, capabilities: Mapping[str, object]) -> None:
        """See the port."""
        driver = self._driven()
        report = reports.checked(capabilities, self._member)
        try:
            with translated("joining the cluster"):
                try:
                    driver.join_group(_NODES_GROUP, report).get()
                except coordination.MemberAlreadyExist as error:
                    raise MemberExistsError(
                        f"another session is registered as {self._member}: that of"
                        " an earlier run ends at its timeout; if it stays, two agents"
                        " share this node name, so set [agent] node"
                    ) from error
        except MemberExistsError:
            # Our own, if the answer to an earlier try was lost.
            if not self.joined():
                raise
            self.update_capabilities(capabilities)

    def joined(self) -> bool:
        """See the port."""
        session = self.session_id()
        record = self.get(self.member_path)
        return record is not None and record.owner == session

    def update_capabilities(self, capabilities: Mapping[str, object]) -> None:
        """See the port.

        Raises ``SessionChangedError`` if this session has no registration; tooz
        would overwrite that of another process with the same name.
        """
        driver = self._driven()
        report = reports.checked(capabilities, self._member)
        if not self.joined():
            raise SessionChangedError(f"this session is not registered: {self._member}")
        with translated("updating the report"):
            try:
                driver.update_capabilities(_NODES_GROUP, report).get()
            except coordination.MemberNotJoined as error:
                raise SessionChangedError("the registration is gone") from error

    def leave(self) -> None:
        """See the port; another session's registration is left alone."""
        driver = self._driven()
        if not self.joined():
            return
        with translated("leaving the cluster"):
            try:
                driver.leave_group(_NODES_GROUP).get()
            except coordination.MemberNotJoined:
                return

    def members(self) -> dict[str, Mapping[str, object] | UndecodableMember]:
        """See the port."""
        driver = self._driven()
        with translated("listing the members"):
            try:
                ids = sorted(driver.get_members(_NODES_GROUP).get())
            except coordination.GroupNotCreated:
                return {}
        found: dict[str, Mapping[str, object] | UndecodableMember] = {}
        for member in ids:
            if not member.isascii():
                found[member.decode()] = UndecodableMember("its name is not ASCII")
        for member, answer in pipelined(
            [member for member in ids if member.isascii()],
            lambda member: driver.get_member_capabilities(_NODES_GROUP, member),
        ):
            report = reports.take(answer, member.decode())
            if report is not None:
                found[member.decode()] = report
        return found

    # The election of the cleaners

    def campaign(self) -> Candidacy | None:
        """See the port."""
        return self._candidate().campaign()

    def lease_sent(self, candidacy: Candidacy) -> float | None:
        """See the port; asks nothing of the servers and never waits for them."""
        election = self._election
        return None if election is None else election.lease_sent(candidacy)

    def leader(self) -> str | None:
        """See the port."""
        return self._candidate().leader()

    def resign(self) -> None:
        """See the port; raises nothing."""
        election = self._election
        if election is not None:
            election.resign()


def _version(version: int | None) -> int:
    """Return kazoo's form of a version: -1 for none; 0 is one like any other."""
    return -1 if version is None else version


def _nothing() -> None:
    """Wake nobody."""
