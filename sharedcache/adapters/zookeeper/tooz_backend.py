"""The tooz backend ``sharedcache-zookeeper``: tooz's driver on a client of ours."""

from __future__ import annotations

import importlib.util
import time
from typing import Any, Final, NoReturn

from kazoo import security
from kazoo.exceptions import AuthFailedError, KazooException, NoNodeError
from kazoo.protocol.states import KazooState
from kazoo.recipe.lock import Lock
from kazoo.retry import KazooRetry
from tooz import ToozError
from tooz.coordination import GroupNotCreated, ToozConnectionError
from tooz.drivers.zookeeper import KazooDriver, ZooAsyncResult

from sharedcache.adapters.zookeeper import urls
from sharedcache.adapters.zookeeper.client import Client

DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_CALL_TIMEOUT_S: Final = 5.0
DEFAULT_START_TIMEOUT_S: Final = 15.0

# What the session hands over beside the options of the URL.
_OWN_OPTIONS: Final = frozenset(
    {
        "namespace",
        "call_timeout_s",
        "start_timeout_s",
        "hosts",
        "timeout",
        "creates",
    }
)

_RECONNECT_DELAY_S: Final = 0.1
_RECONNECT_MAX_DELAY_S: Final = 1.0
_START_POLL_S: Final = 0.05


class SharedCacheDriver(KazooDriver):
    """tooz's ZooKeeper driver with what it leaves out.

    Host name checking and SASL, an explicit ACL on every node, a session timeout
    with fractions, calls that never wait for longer than ``call_timeout_s``, a
    start that can be repeated, a stop that is bounded, and an election that
    forgets its lock when its session is gone.
    """

    _coord: Client

    def __init__(
        self, member_id: bytes, parsed_url: Any, options: dict[str, Any]
    ) -> None:
        flat = {
            name: value[-1]
            if isinstance(value, (list, tuple)) and name != "hosts"
            else value
            for name, value in options.items()
        }
        self._session_timeout_s = float(flat.pop("timeout", DEFAULT_TIMEOUT_S))
        self._call_timeout_s = float(flat.get("call_timeout_s", DEFAULT_CALL_TIMEOUT_S))
        self._start_timeout_s = float(
            flat.get("start_timeout_s", DEFAULT_START_TIMEOUT_S)
        )
        self._creates = bool(flat.get("creates", True))
        self._leader_locks: dict[bytes, Lock] = {}
        self._lock_sessions: dict[bytes, int] = {}
        super().__init__(member_id, parsed_url, flat)
        self._coord.add_listener(self._on_state)

    @property
    def client(self) -> Client:
        """The one session of this process, for records and transactions."""
        return self._coord

    def _make_client(self, parsed_url: Any, options: Any) -> Client:
        hosts = [parsed_url.netloc, *options.get("hosts", [])]
        address = urls.build(
            ",".join(filter(None, hosts)),
            parsed_url.path,
            {
                name: str(value)
                for name, value in options.items()
                if name not in _OWN_OPTIONS
            },
        )
        sasl = address.sasl()
        if sasl and importlib.util.find_spec("puresasl") is None:
            raise ToozError("SASL needs the package pure-sasl: pip install pure-sasl")
        verify = address.flag("verify_certs", default=True)
        texts = address.options
        return Client(
            hosts=str(address),
            timeout=self._session_timeout_s,
            call_timeout_s=self._call_timeout_s,
            default_acl=_acl(address),
            auth_data=_digest(address),
            sasl_options=sasl or None,
            randomize_hosts=address.flag("randomize_hosts", default=True),
            use_ssl=address.flag("use_ssl", default=False),
            ca=texts.get("ca"),
            certfile=texts.get("certfile"),
            keyfile=texts.get("keyfile"),
            keyfile_password=texts.get("keyfile_password"),
            verify_certs=verify,
            check_hostname=address.flag("check_hostname", default=verify),
            # A command is tried once: a second try could fall into another
            # session, and whoever called knows better whether to repeat it.
            command_retry=KazooRetry(max_tries=1, ignore_expire=False),
            connection_retry=KazooRetry(
                max_tries=-1,
                delay=_RECONNECT_DELAY_S,
                max_delay=min(_RECONNECT_MAX_DELAY_S, self._session_timeout_s / 4),
            ),
        )

    def _start(self) -> None:
        client = self._coord
        live = client.start_async()
        deadline = time.monotonic() + self._start_timeout_s
        while not client.usable and time.monotonic() < deadline:
            live.wait(_START_POLL_S)
        if not client.usable:
            self._give_up(client.last_failure or "no server answered", None)
        try:
            if self._creates:
                client.ensure_path(self._base_path())
            else:
                # The first request all the same: it tells refused credentials.
                client.exists(self._base_path())
        except AuthFailedError as error:
            # The refusal can come just after the connection, before the client
            # has noted it: then this request is the first to be told.
            self._give_up("the credentials were refused", error)
        except KazooException as error:
            failure = client.last_failure or str(error) or type(error).__name__
            self._give_up(failure, error)
        self._leader_locks.clear()

    def _give_up(self, why: str, cause: Exception | None) -> NoReturn:
        self._coord.shut(limit_s=0.0)
        raise ToozConnectionError(why, cause) from cause

    def stop(self) -> None:
        """End the session; bounded by the call timeout, whatever the servers do."""
        # Closing the session takes its nodes away; leaving every group before
        # would only add waits.
        self._joined_groups.clear()
        super().stop()

    def _stop(self) -> None:
        self._leader_locks.clear()
        self._coord.shut(limit_s=self._call_timeout_s)

    def _on_state(self, state: str) -> None:
        """Forget every won lock with the session; runs on kazoo's thread."""
        if state == KazooState.LOST:
            self._leader_locks.clear()

    def _get_group_leader_lock(self, group_id: bytes) -> Lock:
        identity = self._coord.client_id
        session = 0 if identity is None else identity[0]
        if self._lock_sessions.get(group_id) != session:
            # A session's id can change without a notice of LOST.
            self._leader_locks.pop(group_id, None)
        lock = super()._get_group_leader_lock(group_id)
        self._lock_sessions[group_id] = session
        # kazoo's own tries for ever and across the end of a session.
        lock._retry = KazooRetry(max_tries=1, ignore_expire=False)  # noqa: SLF001 - there is no public way to give it.
        return lock

    def leader_node(self, group_id: bytes) -> str | None:
        """Path of the election's node that our lock says it won; ``None`` if none.

        The lock's word is not enough: read the node and compare its owner.
        """
        lock = self._leader_locks.get(group_id)
        if lock is None or not lock.is_acquired or lock.node is None:
            return None
        return f"{lock.path}/{lock.node}"

    def forget_leader_lock(self, group_id: bytes) -> None:
        """Forget a lock, won or not, so that the next election starts anew."""
        self._leader_locks.pop(group_id, None)

    def election_path(self, group_id: bytes) -> str:
        """Path under which tooz keeps the contenders' nodes of a group."""
        return self._path_group(group_id) + "/leader"

    def group_path(self, group_id: bytes) -> str:
        """Path of a group."""
        return self._path_group(group_id)

    def get_members(self, group_id: bytes) -> ZooAsyncResult[set[bytes]]:
        """Read the members' ids; one that is not ASCII comes as UTF-8.

        tooz raises for the whole group because of one such name.
        """
        answer = self._coord.get_children_async(self._path_group(group_id))

        def members(answer: Any, timeout: float | None, /) -> set[bytes]:
            try:
                return {name.encode() for name in answer.get(timeout=timeout)}
            except NoNodeError as error:
                raise GroupNotCreated(group_id) from error
            except KazooException as error:
                raise ToozError(str(error), error) from error

        return ZooAsyncResult(answer, members)


def _digest(address: urls.Address) -> list[tuple[str, str]] | None:
    if address.username is None or address.password is None:
        return None
    return [("digest", f"{address.username}:{address.password}")]


def _acl(address: urls.Address) -> list[security.ACL]:
    """Return the ACL of every node that this process creates, tooz's included.

    With SASL the servers put in the creator's own ids; with a password the
    digest is spelled out, so that the certificate of one host's TLS connection
    does not get in.
    """
    if address.sasl():
        return list(security.CREATOR_ALL_ACL)
    if address.username is not None and address.password is not None:
        return [security.make_digest_acl(address.username, address.password, all=True)]
    return list(security.OPEN_ACL_UNSAFE)
