"""A kazoo client that answers in bounded time, fails fast and reconnects for ever.

kazoo as it is queues what is asked while no server answers and sends it whenever
one does, perhaps in another session; waits without limit; tells nobody which
session timeout the servers granted; spends a whole session timeout on connecting
to one dead server; lets its thread end for good after an error that it did not
foresee; and knocks for ever at servers that know less than its session saw.  Each
override below is for one of these, and a contract test pins what of kazoo's inside
it rests on.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from kazoo.client import KazooClient
from kazoo.exceptions import (
    ConnectionDropped,
    ConnectionLoss,
    OperationTimeoutError,
    SessionExpiredError,
)
from kazoo.handlers.threading import (
    AsyncResult,
    KazooTimeoutError,
    SequentialThreadingHandler,
)
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import SASL, Auth, Connect
from kazoo.protocol.states import KazooState, KeeperState

_LOG = logging.getLogger("sharedcache.zookeeper.kazoo")

_ABORT_WAIT_S: Final = 1.0
_MIN_CONNECT_S: Final = 0.25


def boottime() -> float:
    """Seconds on CLOCK_BOOTTIME, which runs on while the host is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HideSecrets(logging.Filter):
    """Keeps credentials out of kazoo's debug log, where it shows every request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace requests that carry credentials; let every record pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                f"<{type(value).__name__}>"
                if isinstance(value, (Auth, SASL))
                else value
                for value in record.args
            )
        return True


_LOG.addFilter(HideSecrets())


@dataclass(frozen=True, slots=True)
class Grant:
    """What the servers said when this connection was made.

    ``sent`` is when the connect request was sent (boot-time clock, seconds);
    ``timeout_s`` the smallest timeout granted to this session so far.
    """

    session: int
    timeout_s: float
    sent: float


class Answer(AsyncResult):
    """An answer that nobody waits for longer than the limit, tooz included."""

    def __init__(self, handler: SequentialThreadingHandler, limit_s: float) -> None:
        super().__init__(handler)
        self._limit_s = limit_s

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - kazoo's signature.
        """Return the value or raise the error; wait at most the limit."""
        if timeout is not None or not block:
            return super().get(block, timeout)
        try:
            return super().get(block, self._limit_s)
        except KazooTimeoutError as error:
            # kazoo's recipes clean up after the one error and not the other.
            raise OperationTimeoutError(
                f"no answer within {self._limit_s:g} s"
            ) from error


class Handler(SequentialThreadingHandler):
    """kazoo's threads and sockets, with limits."""

    def __init__(self, call_timeout_s: float, connect_timeout_s: float) -> None:
        super().__init__()
        self._call_timeout_s = call_timeout_s
        self._connect_timeout_s = max(connect_timeout_s, _MIN_CONNECT_S)
        self.last_failure = ""

    def async_result(self) -> Answer:
        """Make the place for one answer."""
        return Answer(self, self._call_timeout_s)

    def create_connection(
        self,
        address: tuple[str, int],
        hostname: str | None = None,
        timeout: float | None = None,
        *,
        use_ssl: bool = False,
        **tls: Any,
    ) -> socket.socket:
        """Connect to one server, remembering why if it fails."""
        limit_s = self._connect_timeout_s
        if timeout is not None:
            limit_s = min(timeout, limit_s)
        connection: socket.socket | None = None
        try:
            connection = socket.create_connection(address, limit_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if use_ssl:
                connection = secured(connection, hostname, **tls)
        except OSError as error:
            self.last_failure = f"{hostname or address[0]}:{address[1]}: {error}"
            if connection is not None:
                connection.close()
            raise
        return connection


def secured(
    plain: socket.socket,
    hostname: str | None,
    *,
    ca: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    keyfile_password: str | None = None,
    verify_certs: bool = True,
    check_hostname: bool = True,
) -> ssl.SSLSocket:
    """Wrap a socket in TLS.

    kazoo's own trusts the machine's authorities beside the one that is given;
    here one that is given is the only one.  The files are read at every
    connection, so that renewed certificates need no restart.
    """
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = check_hostname and verify_certs
    if not verify_certs:
        context.verify_mode = ssl.CERT_NONE
    if certfile is not None:
        context.load_cert_chain(certfile, keyfile, keyfile_password)
    return context.wrap_socket(plain, server_hostname=hostname)


class Connection(ConnectionHandler):
    """kazoo's connection thread: tells the grant, survives, and can be cut."""

    grant: Grant | None = None
    _refused_since: float | None = None

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        sent = boottime()
        try:
            answer = super()._invoke(timeout, request, xid)
        except ConnectionDropped:
            if isinstance(request, Connect):
                self._refused(sent)
            raise
        if isinstance(request, Connect):
            self._refused_since = None
            self._learn(answer[0], sent)
        return answer

    def _refused(self, now: float) -> None:
        """Begin a new session if the servers will not hear of this one.

        A server closes the connection of a client that has seen more than it
        knows itself, and kazoo would ask for ever: so it is after ZooKeeper was
        restored from an old copy.  A follower that is behind does the same for a
        moment; hence only after the session's timeout, when it is over anyway.
        """
        if self._refused_since is None:
            self._refused_since = now
        grant, client = self.grant, self.client
        if grant is None or now - self._refused_since < grant.timeout_s:
            return
        if client.last_zxid:
            client.last_zxid = 0
            self._refused_since = None
            _LOG.warning(
                "the servers refuse the session, perhaps they know less than it saw "
                "(restored from a copy?): a new session begins"
            )
            raise SessionExpiredError

    def _learn(self, granted: Connect, sent: float) -> None:
        if granted.time_out <= 0:
            return  # The session that was asked for has expired.
        timeout_s = granted.time_out / 1000.0
        before = self.grant
        if before is not None and before.session == granted.session_id:
            # Another server may grant more, but a touch that the first one passed
            # on can still count; the smaller is the safe one.
            timeout_s = min(timeout_s, before.timeout_s)
        self.grant = Grant(granted.session_id, timeout_s, sent)

    def _expand_client_hosts(self) -> list[tuple[str, str, int]]:
        found = super()._expand_client_hosts()
        if not found:
            self._note("no host name of ZooKeeper's is known here")
        return found

    def _connect_attempt(self, host: str, hostip: str, port: int, retry: Any) -> Any:
        try:
            status = super()._connect_attempt(host, hostip, port, retry)
        except Exception as error:  # noqa: BLE001 - kazoo re-raises here whatever it did not foresee (a garbled packet, a SASL library's own error), after logging it, and its thread would end for good: a node that never reports again.
            self._note(f"{host}:{port}: {error}")
            self.client._session_callback(KeeperState.CONNECTING)  # noqa: SLF001 - kazoo's own way to say so.
            return None
        if self.client.client_state == KeeperState.AUTH_FAILED:
            # kazoo gives up for good, though a connection that breaks during the
            # SASL exchange looks the same; try on, at the retry's pace.
            self._note(f"{host}:{port}: the credentials were refused")
            return None
        return status

    def _note(self, failure: str) -> None:
        handler = self.handler
        if isinstance(handler, Handler):
            handler.last_failure = failure

    def abort(self) -> None:
        """Cut the connection, so that whoever waits on it in kazoo's thread ends."""
        connection = self._socket
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Client(KazooClient):
    """One session.  Times are in seconds; see the module for the differences."""

    def __init__(
        self,
        *,
        hosts: str,
        timeout: float,
        call_timeout_s: float,
        **options: Any,
    ) -> None:
        connect_timeout_s = timeout / (2 * len(hosts.split(",")))
        super().__init__(
            hosts=hosts,
            timeout=timeout,
            handler=Handler(call_timeout_s, connect_timeout_s),
            logger=_LOG,
            **options,
        )
        self._connection: Connection = Connection(
            self,
            self._conn_retry.copy(),
            logger=_LOG,
            sasl_options=self._connection.sasl_options,
        )

    @property
    def usable(self) -> bool:
        """Whether there is a connection now."""
        return self.connected and self.state == KazooState.CONNECTED

    @property
    def grant(self) -> Grant | None:
        """What the servers granted; a new object for every connection."""
        return self._connection.grant

    @property
    def last_failure(self) -> str:
        """Why the last attempt to connect failed; empty if none has."""
        handler = self.handler
        return handler.last_failure if isinstance(handler, Handler) else ""

    def _call(self, request: Any, async_object: Any) -> bool | None:
        if self.client_state == KeeperState.CONNECTING:
            # kazoo would queue the request and send it later, perhaps much later
            # and in another session.
            async_object.set_exception(ConnectionLoss())
            return False
        return super()._call(request, async_object)

    def _session_callback(self, state: str) -> None:
        if state == KeeperState.CONNECTED:
            self._refuse_queued()
        super()._session_callback(state)

    def _refuse_queued(self) -> None:
        """Fail what slipped into the queue while the connection broke."""
        for _ in range(len(self._queue)):
            try:
                request, answer = self._queue.popleft()
            except IndexError:
                return
            if answer is None:
                # The end of the session, asked for by `stop`: it is to be sent.
                self._queue.append((request, answer))
            else:
                answer.set_exception(ConnectionLoss())

    def shut(self, limit_s: float) -> None:
        """Close the session and end kazoo's threads.

        Takes at most about ``limit_s`` + 1 seconds.  If no server answers the
        session ends by its timeout.  kazoo's own ``stop`` may wait for 10
        seconds and longer.
        """
        worker = threading.Thread(
            target=self._stop_and_close, name="zookeeper-stop", daemon=True
        )
        connected = self.usable
        worker.start()
        worker.join(limit_s if connected else 0.0)
        if worker.is_alive():
            self._connection.abort()
            worker.join(_ABORT_WAIT_S)

    def _stop_and_close(self) -> None:
        self.stop()
        self.close()
