"""What the session relies on inside kazoo and tooz, pinned against a real server.

A new release of either that fails here needs a look at `sharedcache.adapters.
zookeeper` before it is allowed.  Some of these pin a pitfall: when one of them
fails because it was mended, what guards against it may go.
"""

from __future__ import annotations

import logging
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
from kazoo import exceptions
from kazoo.client import KazooClient
from kazoo.protocol.states import EventType, KazooState, KeeperState
from kazoo.retry import KazooRetry, RetryFailedError
from tooz import coordination
from tooz import utils as tooz_utils
from tooz.drivers.zookeeper import KazooDriver

from sharedcache.adapters.zookeeper import link
from sharedcache.adapters.zookeeper.client import Client, Handler
from sharedcache.adapters.zookeeper.tooz_backend import SharedCacheDriver
from sharedcache.adapters.zookeeper_server import PrivateServer
from tests.support import eventually, expire_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Make = Callable[..., SharedCacheDriver]

pytestmark = pytest.mark.timeout(60)

SOON_S = 10.0
GROUP = b"cleaners"


@pytest.fixture
def make(zookeeper: PrivateServer, zk_cluster_name: str) -> Iterator[Make]:
    """Give a maker of started drivers of one namespace."""
    started: list[SharedCacheDriver] = []

    def build(member: str = "node-1", **options: Any) -> SharedCacheDriver:
        driver = coordination.get_coordinator(
            f"sharedcache-zookeeper://{zookeeper.address}",
            member.encode(),
            **{
                "namespace": f"pinned/{zk_cluster_name}/groups",
                "timeout": "4.5",
                **options,
            },
        )
        assert isinstance(driver, SharedCacheDriver)
        driver.start()
        started.append(driver)
        driver.client.ensure_path(driver.group_path(GROUP))
        return driver

    yield build
    for driver in started:
        driver.stop()


@pytest.fixture
def base(make: Make) -> tuple[Client, str]:
    """Give a client and a path of the test's own."""
    driver = make()
    path = driver.group_path(b"records")
    driver.client.ensure_path(path)
    return driver.client, path


def elect(driver: SharedCacheDriver) -> bool:
    """Run tooz's election once; tell whether it was won."""
    won: list[object] = []

    def on_elected(event: object) -> None:
        won.append(event)

    driver.watch_elected_as_leader(GROUP, on_elected)
    driver.run_elect_coordinator()
    return bool(won)


# What tooz does.


def test_paths(make: Make, zk_cluster_name: str) -> None:
    """A namespace may have slashes; groups, members and elections lie where we say."""
    driver = make()
    root = f"/pinned/{zk_cluster_name}/groups"
    driver.create_group(b"nodes").get()
    driver.join_group(b"nodes", {"a": 1}).get()
    assert elect(driver)
    assert driver.group_path(b"nodes") == f"{root}/nodes"
    assert driver.client.exists(f"{root}/nodes/node-1") is not None
    assert driver.election_path(GROUP) == f"{root}/cleaners/leader"
    assert len(driver.client.get_children(f"{root}/cleaners/leader")) == 1


def test_reports_are_plain_msgpack(make: Make) -> None:
    """A report is one msgpack map with text and binary apart, nothing around it."""
    driver = make()
    driver.create_group(b"nodes").get()
    driver.join_group(b"nodes", {"a": b"\xff", "b": "x"}).get()
    data, _ = driver.client.get(driver.group_path(b"nodes") + "/node-1")
    assert data == b"\x82\xa1a\xc4\x01\xff\xa1b\xa1x"
    assert tooz_utils.loads(data) == {"a": b"\xff", "b": "x"}


def test_plain_tooz_reads_ours(
    make: Make, zookeeper: PrivateServer, zk_cluster_name: str
) -> None:
    """Any tooz client sees the same members and the same leader."""
    driver = make()
    driver.create_group(b"nodes").get()
    driver.join_group(b"nodes", {"a": b"\xff"}).get()
    assert elect(driver)
    plain = coordination.get_coordinator(
        f"zookeeper://{zookeeper.address}",
        b"guest",
        namespace=f"pinned/{zk_cluster_name}/groups",
    )
    assert isinstance(plain, KazooDriver)
    plain.start()
    try:
        assert plain.get_members_with_capabilities(b"nodes").get() == {
            b"node-1": {"a": b"\xff"}
        }
        assert plain.get_leader(GROUP).get() == b"node-1"
    finally:
        plain.stop()
        plain._coord.close()  # tooz leaves two sockets open.


def test_an_election_leaves_a_phantom_member(make: Make) -> None:
    """Pitfall: the election's node counts as a member; elections have own groups."""
    driver = make()
    assert driver.get_members(GROUP).get() == set()
    assert elect(driver)
    assert driver.get_members(GROUP).get() == {b"leader"}


def test_the_lock_of_an_election(make: Make) -> None:
    """The attributes of the lock that we read, and the form of its node."""
    driver = make()
    assert elect(driver)
    lock = driver._leader_locks[GROUP]
    assert lock.is_acquired
    assert lock.path == driver.election_path(GROUP)
    assert lock.node is not None
    assert re.fullmatch(r"[0-9a-f]{32}__lock__[0-9]{10}", lock.node)
    assert lock.node.startswith(lock.prefix)
    data, stat = driver.client.get(f"{lock.path}/{lock.node}")
    assert data == lock.data == b"node-1"
    identity = driver.client.client_id
    assert identity is not None
    assert stat.ephemeralOwner == identity[0]
    assert driver.leader_node(GROUP) == f"{lock.path}/{lock.node}"


def test_the_lock_tries_once(make: Make) -> None:
    """Pitfall: kazoo's own lock tries for ever; ours once, in one session."""
    driver = make()
    lock = driver._get_group_leader_lock(GROUP)
    assert lock._retry.max_tries == 1
    assert exceptions.SessionExpiredError not in lock._retry.retry_exceptions
    plain = KazooClient().Lock("/x")
    tries: int | None = plain._retry.max_tries
    assert tries is None
    assert exceptions.SessionExpiredError in plain._retry.retry_exceptions


def test_plain_tooz_goes_on_leading_after_expiry(
    zookeeper: PrivateServer, zk_cluster_name: str
) -> None:
    """Pitfall: tooz's own lock says "acquired" after its session is gone."""
    driver = coordination.get_coordinator(
        f"zookeeper://{zookeeper.address}", b"old", namespace=zk_cluster_name
    )
    assert isinstance(driver, KazooDriver)
    driver.start()
    client = driver._coord
    try:
        client.ensure_path(f"/{zk_cluster_name}/cleaners")
        driver.watch_elected_as_leader(GROUP, lambda event: None)  # noqa: ARG005 - tooz names the argument.
        driver.run_elect_coordinator()
        identity = client.client_id
        assert identity is not None
        expire_session(zookeeper.address, identity)
        eventually(
            lambda: client.client_id not in (None, identity), SOON_S, "a new session"
        )
        assert client.get_children(f"/{zk_cluster_name}/cleaners/leader") == []
        assert driver._leader_locks[GROUP].is_acquired
    finally:
        driver.stop()
        client.close()


def test_our_driver_forgets_the_lock_with_the_session(
    make: Make, zookeeper: PrivateServer
) -> None:
    """After an expiry the driver claims nothing, and wins when it runs again."""
    driver = make()
    assert elect(driver)
    identity = driver.client.client_id
    assert identity is not None
    expire_session(zookeeper.address, identity)
    eventually(
        lambda: driver.client.client_id not in (None, identity), SOON_S, "a new session"
    )
    assert driver.leader_node(GROUP) is None
    driver.run_elect_coordinator()
    won = driver.leader_node(GROUP)
    assert won is not None
    stat = driver.client.exists(won)
    assert stat is not None
    assert driver.client.client_id is not None
    assert stat.ephemeralOwner == driver.client.client_id[0]


def test_a_lock_of_another_session_is_forgotten(make: Make) -> None:
    """The id of a session can change without notice: the lock is compared with it."""
    driver = make()
    assert elect(driver)
    before = driver._leader_locks[GROUP]
    driver._lock_sessions[GROUP] += 1
    assert driver._get_group_leader_lock(GROUP) is not before


# Transactions and versions in kazoo.


def test_results_of_a_failed_transaction(base: tuple[Client, str]) -> None:
    """Errors are returned, not raised, one for each operation."""
    client, path = base
    transaction = client.transaction()
    transaction.check(path, 0)
    transaction.check(path, 7)
    transaction.create(f"{path}/x", b"")
    results = transaction.commit()
    assert [type(result) for result in results] == [
        exceptions.RolledBackError,
        exceptions.BadVersionError,
        exceptions.RuntimeInconsistency,
    ]


def test_results_of_a_good_transaction(base: tuple[Client, str]) -> None:
    """Every operation has one result, and none is an error."""
    client, path = base
    transaction = client.transaction()
    transaction.check(path, -1)
    transaction.create(f"{path}/x", b"")
    transaction.set_data(f"{path}/x", b"1", 0)
    transaction.delete(f"{path}/x", 1)
    results = transaction.commit()
    assert len(results) == 4
    assert not any(isinstance(result, Exception) for result in results)


def test_a_transaction_that_only_checks_is_agreed_like_a_write(
    base: tuple[Client, str],
) -> None:
    """It takes a number of the servers' log and changes nothing: our renewal."""
    client, path = base
    before = client.exists(path)

    def agreed() -> int:
        # Only what is agreed by a majority raises the number of the last answer.
        client.sync(path)
        return client.last_zxid

    start = agreed()
    assert agreed() == start
    transaction = client.transaction()
    transaction.check(path, -1)
    assert transaction.commit() == [True]
    assert client.last_zxid > start
    assert client.exists(path) == before


def test_versions_restart_with_the_node(base: tuple[Client, str]) -> None:
    """Pitfall: a node made again has version 0; children change no version."""
    client, path = base
    node = f"{path}/x"
    client.create(node)
    client.set(node, b"1")
    client.create(f"{node}/child")
    client.delete(f"{node}/child")
    stat = client.exists(node)
    assert stat is not None
    assert stat.version == 1
    client.delete(node)
    client.create(node)
    stat = client.exists(node)
    assert stat is not None
    assert stat.version == 0


# Sessions in kazoo.


@pytest.mark.parametrize(("asked", "granted"), [("60", 40.0), ("0.1", 1.0)])
def test_the_granted_timeout_is_learned(
    make: Make, zookeeper: PrivateServer, asked: str, granted: float
) -> None:
    """The servers have the last word on the timeout, and we hear it.

    The fixture's servers grant 1 to 40 seconds.
    """
    if not isinstance(zookeeper, PrivateServer):
        pytest.skip("another server may grant other timeouts")
    grant = make(timeout=asked).client.grant
    assert grant is not None
    assert grant.timeout_s == granted


def test_a_fraction_of_a_second_is_kept(make: Make) -> None:
    """A timeout of 4.5 seconds stays one: tooz's own driver cuts it to whole ones."""
    driver = make()
    identity = driver.client.client_id
    assert identity is not None
    grant = driver.client.grant
    assert grant is not None
    assert (grant.timeout_s, grant.session) == (4.5, identity[0])


def test_the_wake_up_pipe_is_wide_enough() -> None:
    """Pitfall: a sender blocks when kazoo's pair of sockets is full of wake-ups."""
    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.setblocking(False)
        for _ in range(3 * link._IN_FLIGHT // 2):
            sender.send(b"\0")


def test_retries() -> None:
    """One try is written `max_tries=1`; the default crosses a session's end."""
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise exceptions.ConnectionLoss

    with pytest.raises(RetryFailedError):
        KazooRetry(max_tries=1, ignore_expire=False)(fails)
    assert len(calls) == 1
    expiry = exceptions.SessionExpiredError
    assert expiry in KazooRetry().retry_exceptions
    assert expiry not in KazooRetry(ignore_expire=False).copy().retry_exceptions


def test_nobody_waits_without_limit() -> None:
    """An answer that does not come is given up, with an error that kazoo knows."""
    answer = Handler(call_timeout_s=0.01, connect_timeout_s=1).async_result()
    with pytest.raises(exceptions.OperationTimeoutError, match=r"0\.01 s"):
        answer.get()


def test_nothing_is_queued_without_a_connection(base: tuple[Client, str]) -> None:
    """Pitfall: kazoo keeps requests for later; ours fail at once and never go out."""
    client, path = base
    client._session_callback(KeeperState.CONNECTING)
    with pytest.raises(exceptions.ConnectionLoss):
        client.create(f"{path}/late")
    assert not client._queue
    slipped = client.handler.async_result()
    client._queue.append((object(), slipped))
    client._session_callback(KeeperState.CONNECTED)
    assert isinstance(slipped.exception, exceptions.ConnectionLoss)
    assert client.exists(f"{path}/late") is None


def test_the_end_of_the_session_is_not_refused(base: tuple[Client, str]) -> None:
    """What `stop` puts in the queue is sent even if the connection just came."""
    client, _ = base
    client._session_callback(KeeperState.CONNECTING)
    closing = object()
    client._queue.append((closing, None))
    client._refuse_queued()
    assert list(client._queue) == [(closing, None)]
    client._queue.clear()
    client._session_callback(KeeperState.CONNECTED)


def test_the_thread_survives_what_it_did_not_foresee(
    base: tuple[Client, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall: kazoo's thread ends for good after an error it does not know."""
    client, path = base
    failures: list[int] = []
    kazoos = client._connection._invoke

    def fails(*args: Any, **kwargs: Any) -> Any:
        failures.append(1)
        if len(failures) == 1:
            raise RuntimeError("garbled")
        if len(failures) == 2:
            raise exceptions.AuthFailedError
        return kazoos(*args, **kwargs)

    monkeypatch.setattr(client._connection, "_invoke", fails)
    client._connection.abort()
    eventually(lambda: len(failures) > 2 and client.usable, SOON_S, "it reconnects")
    assert client.exists(path) is not None


def test_one_watch_sees_creation_change_and_deletion(base: tuple[Client, str]) -> None:
    """`exists` sets a watch on a node that is not there, and it fires once."""
    client, path = base
    seen: list[str] = []
    node = f"{path}/w"
    for act, event in (
        (lambda: client.create(node), EventType.CREATED),
        (lambda: client.set(node, b"1"), EventType.CHANGED),
        (lambda: client.delete(node), EventType.DELETED),
    ):
        client.exists(node, watch=lambda event: seen.append(event.type))
        act()
        wanted = [event]
        eventually(lambda: seen[-1:] == wanted, SOON_S, f"a {event} event")  # noqa: B023 - called within this turn of the loop.
    assert len(seen) == 3


def test_states_are_told_in_order(
    base: tuple[Client, str], zookeeper: PrivateServer
) -> None:
    """An expiry is told as SUSPENDED, LOST, CONNECTED."""
    client, _ = base
    states: list[str] = []
    client.add_listener(states.append)
    identity = client.client_id
    assert identity is not None
    expire_session(zookeeper.address, identity)
    eventually(lambda: states[-1:] == [KazooState.CONNECTED], SOON_S, "reconnected")
    assert states[-3:] == [KazooState.SUSPENDED, KazooState.LOST, KazooState.CONNECTED]


def test_no_password_in_the_log(
    zookeeper: PrivateServer, zk_cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Pitfall: kazoo's debug log shows every request, the credentials' too."""
    caplog.set_level(logging.DEBUG)
    driver = coordination.get_coordinator(
        f"sharedcache-zookeeper://user:hunter2@{zookeeper.address}",
        b"node-1",
        namespace=zk_cluster_name,
    )
    driver.start()
    driver.stop()
    assert "<Auth>" in caplog.text
    assert "hunter2" not in caplog.text
