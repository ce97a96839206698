"""A ZooKeeper of a test's own, which can lose its data or go back to a copy."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sharedcache.adapters.zookeeper_server import PrivateServer, ServerSpec


@dataclass
class OwnServer:
    """One real standalone server whose data directory is copied and put back.

    It stays at one address, so that clients find it again by themselves.
    """

    root: Path
    stack: ExitStack = field(default_factory=ExitStack)
    port: int | None = None

    def __enter__(self) -> Self:
        """Start the server on a port that it keeps."""
        self.server = self._server(self.root / "zookeeper")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop whatever runs."""
        self.server.stop()
        self.stack.close()

    @property
    def address(self) -> str:
        """Where clients connect, as ``host:port``."""
        return self.server.address

    def _server(self, home: Path) -> PrivateServer:
        server = PrivateServer(
            ServerSpec(data_dir=home, fsync=False, client_port=self.port)
        )
        server.start()
        server.wait_ready()
        self.port = server.port
        return server

    def copy(self) -> Path:
        """Copy the data directory while the server is stopped, then go on."""
        self.server.stop()
        copy = self.root / "copy"
        shutil.copytree(self.root / "zookeeper", copy)
        self.server = self._server(self.root / "zookeeper")
        return copy

    def go_back(self, copy: Path | None) -> None:
        """Put a copy in the place of the data; ``None`` loses it all."""
        self.server.stop()
        shutil.rmtree(self.root / "zookeeper")
        if copy is not None:
            shutil.copytree(copy, self.root / "zookeeper")
        self.server = self._server(self.root / "zookeeper")

    def clone(self, copy: Path) -> PrivateServer:
        """Start a second server from a copy, at an address of its own."""
        server = PrivateServer(ServerSpec(data_dir=copy, fsync=False))
        server.start()
        self.stack.callback(server.stop)
        server.wait_ready()
        return server
