"""ZooKeeper servers for tests, and what befalls them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kazoo.client import KazooClient

if TYPE_CHECKING:
    from sharedcache.adapters.zookeeper_server import PrivateEnsemble, PrivateServer

# The variable that names a running server to test against.
EXTERNAL_SERVER = "SHAREDCACHE_TEST_ZOOKEEPER"

_CONNECT_DEADLINE_S = 10.0


@dataclass(frozen=True)
class ExternalServer:
    """A running server that somebody else looks after, at `host:port`."""

    address: str


def restore(server: PrivateServer | PrivateEnsemble) -> None:
    """Put right what a test did to a server, so that the next finds it well."""
    server.resume()
    server.start()
    server.wait_ready()


def expire_session(
    address: str, client_id: tuple[int, bytes], deadline_s: float = 30.0
) -> None:
    """End another client's session at the server, as its expiry would.

    `client_id` is that client's `client_id`.  A second client joins the session
    and closes it.  The first may win its session back just before that, so a
    third looks whether it has really gone.  Raises TimeoutError if it lives on
    after `deadline_s` seconds.
    """
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        intruder = KazooClient(hosts=address, client_id=client_id)
        try:
            intruder.start(timeout=_CONNECT_DEADLINE_S)
            # Asked for a session that is gone, the server gives a new one.
            gone = intruder.client_id[0] != client_id[0]
        finally:
            intruder.stop()
            intruder.close()
        if gone:
            return
    raise TimeoutError(f"session 0x{client_id[0]:x} lives on after {deadline_s:g} s")


def password_of(session: int) -> bytes:
    """Return the password of a session of a real server, from its id alone.

    ZooKeeper derives it: the first 16 bytes of Java's ``Random`` seeded with the
    id and a constant (``ZooKeeperServer.generatePasswd``).  So a test can expire
    the session of a process that it cannot look into.
    """
    mask = (1 << 48) - 1
    state = ((session ^ 0xB3415C00) ^ 0x5DEECE66D) & mask
    password = bytearray()
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & mask
        password += (state >> 16).to_bytes(4, "little")
    return bytes(password)


def forget_cluster(address: str, name: str) -> None:
    """Delete one cluster's tree, as if its data had been lost."""
    client = KazooClient(hosts=address)
    client.start(timeout=_CONNECT_DEADLINE_S)
    try:
        client.delete(f"/sharedcache/{name}", recursive=True)
    finally:
        client.stop()
        client.close()
