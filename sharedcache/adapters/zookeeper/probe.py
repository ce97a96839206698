"""Asking one server of the ensemble how it is, outside any session.

``srvr`` is the one four-letter word that servers answer unless told not to
(``4lw.commands.whitelist``); it needs no credentials.
"""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from typing import Final

from sharedcache.adapters.zookeeper.client import secured
from sharedcache.adapters.zookeeper.urls import Address, parse

_MAX_ANSWER_BYTES: Final = 16 * 1024
_VERSION: Final = re.compile(r"^Zookeeper version: ([0-9][^-,\s]*)", re.MULTILINE)
_MODE: Final = re.compile(r"^Mode: (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServerWord:
    """What one server said.

    ``error`` says why it did not, empty if it did; ``version`` and ``mode``
    (``leader``, ``follower``, ``standalone``) are empty where it keeps them to
    itself.  ``answer_s`` is how long it took, in seconds.
    """

    server: str
    answer_s: float
    version: str = ""
    mode: str = ""
    error: str = ""


def servers(text: str) -> tuple[str, ...]:
    """Return the ``host:port`` of each server; ``ValueError`` for no address."""
    return parse(text).hosts


def ask(text: str, server: str, within_s: float) -> ServerWord:
    """Ask one server of the address ``text``, in about this many seconds.

    The name's resolution has limits of its own, the resolver's.
    """
    began = time.monotonic()
    try:
        answer = _answer(parse(text), server, within_s)
    except OSError as error:
        why = str(error) or type(error).__name__
        return ServerWord(server, time.monotonic() - began, error=why)
    version, mode = _VERSION.search(answer), _MODE.search(answer)
    return ServerWord(
        server,
        time.monotonic() - began,
        version[1] if version else "",
        mode[1] if mode else "",
    )


def _answer(address: Address, server: str, within_s: float) -> str:
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    until = time.monotonic() + within_s
    texts = address.options
    connection = socket.create_connection((host, int(port)), within_s)
    with connection:
        if address.flag("use_ssl", default=False):
            verify = address.flag("verify_certs", default=True)
            connection = secured(
                connection,
                host,
                ca=texts.get("ca"),
                certfile=texts.get("certfile"),
                keyfile=texts.get("keyfile"),
                keyfile_password=texts.get("keyfile_password"),
                verify_certs=verify,
                check_hostname=address.flag("check_hostname", default=verify),
            )
        with connection:
            connection.sendall(b"srvr")
            answer = b""
            while len(answer) < _MAX_ANSWER_BYTES:
                connection.settimeout(max(0.001, until - time.monotonic()))
                data = connection.recv(4096)
                if not data:
                    break
                answer += data
    if not answer:
        raise ConnectionError("it closed the connection without an answer")
    return answer.decode("utf-8", "replace")
