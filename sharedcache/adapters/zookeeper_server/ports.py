"""Loopback ports: choosing free ones, and asking the server behind one."""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_ANSWER_TIMEOUT_S = 1.0
_LEAST_PORT = 10_000


def four_letter_word(port: int, word: str) -> str:
    """Ask the loopback server at `port` one of ZooKeeper's four-letter words.

    Raises OSError if it does not answer within a second.
    """
    answer = bytearray()
    with socket.create_connection((LOOPBACK, port), _ANSWER_TIMEOUT_S) as connection:
        connection.sendall(word.encode("ascii"))
        while block := connection.recv(65536):
            answer += block
    return answer.decode("utf-8", "replace")


def is_free(port: int) -> bool:
    """Tell whether a server could listen at a loopback port now.

    Connections of an earlier server there that the kernel still remembers do
    not count, as they do not for ZooKeeper.
    """
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((LOOPBACK, port))
            candidate.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Choose `count` different TCP ports that are free on loopback now.

    They are outside the range that the kernel takes outgoing connections' ports
    from.  Inside it, a client that retries while its server is down can be given
    the server's own port, connect to itself, and keep the server from coming
    back.  Raises OSError if the range is all but full.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for _ in range(100 * count):
            candidate = held.enter_context(socket.socket())
            # The port is not drawn with `random`: a test runner seeds that alike
            # in every process, and they would all draw the same ports.
            span = low - _LEAST_PORT
            port = _LEAST_PORT + secrets.randbelow(span) if span > 0 else 0
            with contextlib.suppress(OSError):
                candidate.bind((LOOPBACK, port))
                ports.append(candidate.getsockname()[1])
            if len(ports) == count:
                return ports
    raise OSError(f"no {count} free TCP ports found on {LOOPBACK}")
