"""What becomes of a session when it, its process or its servers go: the real thing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.zookeeper.client import boottime
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.adapters.zookeeper_server import PrivateServer, ServerSpec
from sharedcache.core.ports import (
    Check,
    ConflictError,
    Create,
    DisconnectedError,
    MemberExistsError,
    OutcomeUnknownError,
    Set,
)
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sharedcache.adapters.zookeeper_server import PrivateEnsemble
    from sharedcache.core.ports import Candidacy

    Make = Callable[..., ZooKeeperSession]

SOON_S = 10.0
TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 1.5
AT_ONCE_S = 0.5

# A process of its own: joins, stands for election if told to, and then says every
# few milliseconds what time it is and from when its lease counts.
_PROCESS = """\
import sys, time
from sharedcache.adapters.zookeeper.client import boottime
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
address, cluster, member, timeout_s, stands = sys.argv[1:]
session = ZooKeeperSession(address, cluster, member, session_timeout_s=float(timeout_s))
session.start()
session.join({})
won = session.campaign() if stands == "stands" else None
while True:
    sent = None if won is None else session.lease_sent(won)
    print(boottime(), "none" if sent is None else sent, session.session_timeout_s())
    sys.stdout.flush()
    time.sleep(0.005)
"""


@pytest.fixture
def server(zookeeper: PrivateServer) -> PrivateServer:
    """Give the shared server, if it is ours to disturb."""
    if not isinstance(zookeeper, PrivateServer):
        pytest.skip("needs a server of its own to pause and kill")
    return zookeeper


@pytest.fixture
def make(zk_cluster_name: str) -> Iterator[Make]:
    """Give a maker of started sessions of one cluster."""
    sessions: list[ZooKeeperSession] = []

    def build(
        address: str,
        member: str = "node-1",
        timeout_s: float = TIMEOUT_S,
        wake: Callable[[], None] | None = None,
    ) -> ZooKeeperSession:
        session = ZooKeeperSession(
            address,
            zk_cluster_name,
            member,
            session_timeout_s=timeout_s,
            call_timeout_s=CALL_TIMEOUT_S,
            wake=wake,
        )
        sessions.append(session)
        session.start()
        return session

    yield build
    for session in sessions:
        session.stop()


class Process:
    """A process with a session of its own."""

    def __init__(
        self, address: str, cluster: str, member: str, *, stands: bool
    ) -> None:
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-c", _PROCESS, address, cluster, member),
                *(str(TIMEOUT_S), "stands" if stands else "follows"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        self._lines.extend(iter(self._child.stdout.readline, ""))

    def said(self) -> list[tuple[float, float | None, float]]:
        """Give what it said: time, the lease's beginning, the granted timeout."""
        told = [line.split() for line in self._lines]
        return [
            (float(now), None if sent == "none" else float(sent), float(timeout_s))
            for now, sent, timeout_s in told
        ]

    def signal(self, number: signal.Signals) -> None:
        """Stop it, let it go on, or kill it."""
        self._child.send_signal(number)

    def end(self) -> None:
        """Kill it and collect what it said."""
        self._child.kill()
        self._child.wait()
        self._reader.join()
        assert self._child.stdout is not None
        self._child.stdout.close()


def suspended(session: ZooKeeperSession) -> bool:
    """Whether there is no connection now; asks no server."""
    try:
        session.session_id()
    except DisconnectedError:
        return True
    return False


def timed(call: Callable[[], object]) -> float:
    """Make a call that must find no connection; return how long it took."""
    start = time.monotonic()
    with pytest.raises(DisconnectedError):
        call()
    return time.monotonic() - start


def elected(session: ZooKeeperSession) -> Candidacy:
    """Campaign until the election is won."""
    won = eventually(session.campaign, SOON_S, "the election is won")
    assert won is not None
    return won


def kazoo_threads() -> set[threading.Thread]:
    """Every thread but the launcher's of servers, which lives on."""
    return {t for t in threading.enumerate() if "server-launcher" not in t.name}


@pytest.mark.timeout(60)
def test_suspended_fails_at_once(make: Make, server: PrivateServer) -> None:
    """A server that stands still is noticed within the session timeout.

    What is under way then ends within the call timeout, and what comes after
    fails at once; a transaction under way has an unknown outcome, and the session
    goes on by itself when the server does.
    """
    wakes: list[float] = []
    session = make(server.address, wake=lambda: wakes.append(time.monotonic()))
    session.ensure("a")
    watched = session.watch("a")
    server.pause()
    start = time.monotonic()
    with pytest.raises(OutcomeUnknownError):
        session.commit([Set("a", b"1", None)])
    assert time.monotonic() - start < CALL_TIMEOUT_S + AT_ONCE_S
    eventually(lambda: suspended(session), TIMEOUT_S, "the loss is noticed")
    seen = len(wakes)
    assert seen
    for call in (
        session.session_id,
        session.sync,
        lambda: session.get_many(["a"] * 1000),
        lambda: session.commit([Create("b", b"")]),
        lambda: session.join({}),
        session.members,
        session.campaign,
        session.leader,
    ):
        assert timed(call) < AT_ONCE_S
    server.resume()
    eventually(lambda: not suspended(session), SOON_S, "the session goes on")
    assert len(wakes) > seen
    assert session.watch("a") > watched
    assert session.get("b") is None


@pytest.mark.timeout(60)
def test_nobody_listens(zk_cluster_name: str, tmp_path: Path) -> None:
    """A start without servers is bounded, says what to check, and leaves nothing.

    It can be repeated, and works once there is a server.
    """
    server = PrivateServer(ServerSpec(data_dir=tmp_path, fsync=False))
    with server:
        address = server.address
    before = kazoo_threads()
    session = ZooKeeperSession(address, zk_cluster_name, "node-1")
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(DisconnectedError, match="refused") as caught:
            session.start(within_s=0.5)
        assert time.monotonic() - start < 2.0
        assert address in str(caught.value)
        assert kazoo_threads() <= before
    session.stop()
    with server:
        session.start()
        assert session.children("groups") == ["cleaners", "nodes"]
        session.stop()
    assert kazoo_threads() <= before


@pytest.mark.timeout(60)
def test_a_host_without_address(zk_cluster_name: str) -> None:
    """A name that does not resolve is named as the reason."""
    session = ZooKeeperSession("no-such-host.invalid", zk_cluster_name, "node-1")
    with pytest.raises(DisconnectedError, match=r"no host name.*known"):
        session.start(within_s=0.5)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("noticed", [False, True])
@pytest.mark.parametrize("fate", ["paused", "killed"])
def test_stop_is_bounded(
    make: Make, server: PrivateServer, fate: str, *, noticed: bool
) -> None:
    """Stopping takes a bounded time whatever the servers do, and ends the threads."""
    before = kazoo_threads()
    session = make(server.address)
    session.join({})
    elected(session)
    if fate == "paused":
        server.pause()
    else:
        server.kill()
    if noticed:
        eventually(lambda: suspended(session), SOON_S, "the loss is noticed")
    start = time.monotonic()
    session.stop()
    assert time.monotonic() - start < CALL_TIMEOUT_S + 2.0
    eventually(lambda: kazoo_threads() <= before, SOON_S, "every thread has ended")


@pytest.mark.timeout(60)
def test_it_reconnects_for_ever(make: Make, server: PrivateServer) -> None:
    """A server that is down for longer than the timeout is found again.

    Member and watches are what the caller has to look at then: the count is
    raised, and a change after that is counted as ever.
    """
    session = make(server.address)
    session.join({"a": 1})
    count = session.watch("a")
    server.kill()
    eventually(lambda: suspended(session), SOON_S, "the loss is noticed")
    time.sleep(TIMEOUT_S * 1.5)
    server.start()
    server.wait_ready()
    eventually(lambda: not suspended(session), SOON_S, "it is back")
    raised = session.watch("a")
    assert raised > count
    session.commit([Create("a", b"")])
    eventually(lambda: session.watch("a") > raised, SOON_S, "a change is counted")
    if not session.joined():
        eventually(lambda: joins(session), SOON_S, "it joins again")
    assert session.members() == {"node-1": {"a": 1}}


def joins(session: ZooKeeperSession) -> bool:
    """Join unless the registration of an earlier session is there still."""
    try:
        session.join({"a": 1})
    except MemberExistsError:
        return False
    return True


@pytest.mark.timeout(60)
def test_a_restart_within_the_timeout(
    make: Make, server: PrivateServer, zk_cluster_name: str
) -> None:
    """A process that was killed holds its name until its session ends."""
    process = Process(server.address, zk_cluster_name, "node-1", stands=False)
    try:
        eventually(process.said, SOON_S, "the process has joined")
    finally:
        process.end()
    killed = time.monotonic()
    session = make(server.address)
    with pytest.raises(MemberExistsError, match="timeout"):
        session.join({"a": 1})
    eventually(lambda: joins(session), SOON_S, "the name is free")
    assert time.monotonic() - killed < 2 * TIMEOUT_S + 1
    assert session.members() == {"node-1": {"a": 1}}


@pytest.mark.timeout(60)
def test_a_process_that_stood_still_has_no_lease(
    make: Make, server: PrivateServer, zk_cluster_name: str
) -> None:
    """A leader that is stopped past its timeout is deposed, and knows in time.

    From the moment another has won, nothing that it says makes a good lease:
    lease times count from the sending, so it needs no message to know.
    """
    process = Process(server.address, zk_cluster_name, "node-1", stands=True)
    try:
        eventually(lambda: len(process.said()) > 10, SOON_S, "the process leads")
        session = make(server.address, member="node-2")
        assert session.leader() == "node-1"
        process.signal(signal.SIGSTOP)
        won = elected(session)
        won_at = boottime()
        before = len(process.said())
        process.signal(signal.SIGCONT)
        eventually(
            lambda: process.said()[-1][1] is None and len(process.said()) > before + 5,
            SOON_S,
            "the old leader knows",
        )
    finally:
        process.end()
    assert session.lease_sent(won) is not None
    said = process.said()
    assert any(sent is not None and now < sent + t for now, sent, t in said)
    for now, sent, timeout_s in said:
        assert sent is None or now < won_at or now >= sent + timeout_s


@pytest.mark.timeout(60)
def test_the_lease_stands_still_while_suspended(
    make: Make, server: PrivateServer
) -> None:
    """Without answers the lease is not renewed, and a new session does not have it."""
    session = make(server.address)
    won = elected(session)
    server.pause()
    eventually(lambda: suspended(session), SOON_S, "the loss is noticed")
    sent = session.lease_sent(won)
    assert sent is not None
    time.sleep(TIMEOUT_S / 2)
    assert session.lease_sent(won) == sent
    assert sent + session.session_timeout_s() < boottime() + TIMEOUT_S
    server.resume()


@pytest.mark.timeout(60)
def test_resigning_without_a_connection_is_made_good(
    make: Make, server: PrivateServer
) -> None:
    """Who resigns while cut off stands in nobody's way when connected again."""
    session = make(server.address, timeout_s=6.0)
    other = make(server.address, member="node-2", timeout_s=30.0)
    won = elected(session)
    server.pause()
    eventually(lambda: suspended(session), SOON_S, "the loss is noticed")
    start = time.monotonic()
    session.resign()
    assert time.monotonic() - start < AT_ONCE_S
    assert session.lease_sent(won) is None
    server.resume()
    eventually(lambda: not suspended(other), SOON_S, "the other is back")
    elected(other)


@pytest.mark.timeout(60)
def test_a_deposed_leader_cannot_write(
    make: Make, server: PrivateServer, zk_cluster_name: str
) -> None:
    """A write that checks the election's node fails once another leads."""
    process = Process(server.address, zk_cluster_name, "node-1", stands=True)
    try:
        eventually(process.said, SOON_S, "the process leads")
        session = make(server.address, member="node-2")
        eventually(lambda: session.leader() == "node-1", SOON_S, "seen to lead")
        (old,) = session.children("groups/cleaners/leader")
    finally:
        process.end()
    won = elected(session)
    session.ensure("epoch")
    session.commit([Check(won.path, None), Set("epoch", b"2", 0)])
    with pytest.raises(ConflictError, match="missing"):
        session.commit(
            [Check(f"groups/cleaners/leader/{old}", None), Set("epoch", b"1", None)]
        )


@pytest.mark.timeout(120)
def test_a_server_of_an_ensemble_goes(make: Make, ensemble: PrivateEnsemble) -> None:
    """With a majority left, session, registration, candidacy and lease go on.

    The servers are killed one after the other, so the session moves at least
    once, whichever it was connected to.
    """
    session = make(ensemble.addresses, timeout_s=8.0)
    session.join({"a": 1})
    won = elected(session)
    identity = session.session_id()
    for member in ensemble.members:
        before = session.lease_sent(won)
        assert before is not None
        member.kill()
        ensemble.wait_ready()
        eventually(
            lambda: (session.lease_sent(won) or 0) > before,  # noqa: B023 - called within this turn of the loop.
            SOON_S,
            "the lease is renewed",
        )
        member.start()
        ensemble.wait_ready()
    eventually(lambda: not suspended(session), SOON_S, "connected")
    assert session.session_id() == identity
    assert session.joined()
    assert session.campaign() == won


@pytest.mark.timeout(60)
def test_no_majority_no_lease(make: Make, ensemble: PrivateEnsemble) -> None:
    """A server without a majority renews nothing."""
    session = make(ensemble.addresses)
    won = elected(session)
    for member in ensemble.members[:2]:
        member.pause()
    time.sleep(TIMEOUT_S / 2)
    sent = session.lease_sent(won)
    assert sent is not None
    time.sleep(TIMEOUT_S / 2)
    assert session.lease_sent(won) in (sent, None)
