"""A way to a server that can be cut, held, and made slow."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_CHUNK_BYTES = 64 * 1024


class Proxy:
    """Passes connections on to a server at ``host:port``, with a delay.

    Begins cut: whoever connects is turned away at once.  ``delay_s`` is how long
    each piece of data takes, each way.  As a context manager it ends with its
    threads.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._guard = threading.Lock()
        self._open = False
        self._ended = threading.Event()
        self._passing = threading.Event()
        self._passing.set()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.delay_s = 0.0

    @property
    def address(self) -> str:
        """Where to connect instead: ``host:port``."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        """Begin to turn away."""
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        """Cut everything and wait for the threads."""
        self._ended.set()
        self._passing.set()
        # Closing alone would not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def open(self) -> None:
        """Let connections through from now on."""
        with self._guard:
            self._open = True

    def cut(self) -> None:
        """Cut what there is, and turn away what comes."""
        with self._guard:
            self._open = False
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Let nothing through from now on, and keep connections as they are."""
        self._passing.clear()

    def release(self) -> None:
        """Let through what was held, and all that comes."""
        self._passing.set()

    def _start(self, body: object, *arguments: object) -> None:
        thread = threading.Thread(target=body, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        with self._guard:
            try:
                server = socket.create_connection(self._target) if self._open else None
            except OSError:
                server = None
            if server is None:
                client.close()
                return
            self._sockets |= {client, server}
        self._start(self._pump, client, server)
        self._start(self._pump, server, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                self._ended.wait(self.delay_s)
                self._passing.wait()
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._forget(source)

    def _forget(self, one: socket.socket) -> None:
        """Close the side that this thread alone reads from."""
        with self._guard:
            self._sockets.discard(one)
        one.close()
