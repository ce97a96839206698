import logging
import socket
from threading import Event
from typing import Any, Final

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.retry import KazooRetry

STOP_CONNECTING: Final[object]

class ConnectionHandler:
    client: KazooClient
    handler: SequentialThreadingHandler
    connection_stopped: Event
    sasl_options: dict[str, str] | None
    _socket: socket.socket | None
    _read_sock: socket.socket | None
    _write_sock: socket.socket | None
    def __init__(
        self,
        client: KazooClient,
        retry_sleeper: KazooRetry,
        logger: logging.Logger | None = ...,
        sasl_options: dict[str, str] | None = ...,
    ) -> None: ...
    def _invoke(self, timeout: float, request: Any, xid: int | None = ...) -> Any: ...
    def _connect_attempt(
        self, host: str, hostip: str, port: int, retry: Any
    ) -> Any: ...
    def _expand_client_hosts(self) -> list[tuple[str, str, int]]: ...
