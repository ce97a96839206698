"""A private ensemble: several servers on loopback that elect a leader."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sharedcache.adapters.zookeeper_server.ports import free_ports
from sharedcache.adapters.zookeeper_server.server import (
    POLL_S,
    PORT_ATTEMPTS,
    START_DEADLINE_S,
    PrivateServer,
    ServerFailedError,
    ServerMode,
)
from sharedcache.adapters.zookeeper_server.spec import QuorumMember, ServerSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_SERVING_PEERS = {ServerMode.LEADER, ServerMode.FOLLOWER}


class PrivateEnsemble:
    """A quorum of `size` servers on loopback, with ports of their own.

    `spec` says what all members have in common: its `data_dir` gets one
    directory for each of them, and its ports and ids are ignored.  Without one
    the data is kept in a temporary directory until `close`.  As a context
    manager it is started and ready inside, and closed after.  Raises
    ZooKeeperUnavailable if no server can be started here.
    """

    def __init__(
        self,
        size: int = 3,
        spec: ServerSpec | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._scratch: str | None = None
        if spec is None:
            self._scratch = tempfile.mkdtemp(prefix="zookeeper-")
            spec = ServerSpec(data_dir=Path(self._scratch), fsync=False)
        self._size = size
        self._spec = spec
        self._environ = environ
        self._served = False
        try:
            self.members = self._make_members()
        except BaseException:
            self._remove_scratch()
            raise

    def _make_members(self) -> tuple[PrivateServer, ...]:
        ports = free_ports(3 * self._size)
        quorum = tuple(
            QuorumMember(server_id=i + 1, quorum_port=quorum, election_port=election)
            for i, (quorum, election) in enumerate(
                zip(ports[0::3], ports[1::3], strict=True)
            )
        )
        return tuple(
            PrivateServer(
                replace(
                    self._spec,
                    data_dir=self._spec.data_dir / f"server{member.server_id}",
                    client_port=client_port,
                    server_id=member.server_id,
                    members=quorum,
                ),
                self._environ,
            )
            for member, client_port in zip(quorum, ports[2::3], strict=True)
        )

    @property
    def addresses(self) -> str:
        """Where clients connect, as `host:port,host:port,...`.

        Final once `wait_ready` has returned.
        """
        return ",".join(member.address for member in self.members)

    @property
    def running(self) -> bool:
        """Whether every member's JVM is there."""
        return all(member.running for member in self.members)

    def find_leader(self) -> PrivateServer | None:
        """Ask all members which of them leads; None if none says so now."""
        for member in self.members:
            if member.mode() is ServerMode.LEADER:
                return member
        return None

    def start(self) -> None:
        """Start every member that does not run, and return at once."""
        for member in self.members:
            member.start()

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until every wanted member serves and one of them leads.

        Members that were stopped or killed through their methods are not
        wanted; paused ones are.  A new ensemble that finds a port taken is
        started on other ones.  Raises ServerFailedError after `deadline_s`
        seconds, or at once if a wanted member has ended or none is wanted.
        """
        deadline = time.monotonic() + deadline_s
        attempts = 1
        while not self._is_ready():
            if not self._served and any(m.port_was_taken for m in self.members):
                if attempts == PORT_ATTEMPTS:
                    raise self._failure("found its ports taken again and again")
                attempts += 1
                self._move()
            elif not any(member.wanted for member in self.members):
                raise self._failure("is not started")
            elif any(member.wanted and not member.running for member in self.members):
                raise self._failure("has lost a member")
            if time.monotonic() >= deadline:
                raise self._failure(f"was not ready after {deadline_s:g} s")
            time.sleep(POLL_S)
        self._served = True

    def _is_ready(self) -> bool:
        modes = [member.mode() for member in self.members if member.wanted]
        return modes.count(ServerMode.LEADER) == 1 and _SERVING_PEERS.issuperset(modes)

    def _move(self) -> None:
        """Start again on other ports; no client knows the old ones yet."""
        self.kill()
        for member in self.members:
            shutil.rmtree(member.spec.data_dir)
        self.members = self._make_members()
        self.start()

    def _failure(self, what: str) -> ServerFailedError:
        return ServerFailedError(
            f"the ZooKeeper ensemble at {self.addresses} {what}; the end of its "
            f"logs:\n{self.log_tail()}",
        )

    def stop(self) -> None:
        """End every member with SIGTERM, or SIGKILL if it takes too long."""
        for member in self.members:
            member.stop()

    def kill(self) -> None:
        """End every member with SIGKILL and wait until they are gone."""
        for member in self.members:
            member.kill()

    def pause(self) -> None:
        """Freeze every running member."""
        for member in self.members:
            if member.running:
                member.pause()

    def resume(self) -> None:
        """Let every paused member go on."""
        for member in self.members:
            member.resume()

    def close(self) -> None:
        """Stop the ensemble, and remove its data if it is in a temporary directory."""
        self.stop()
        self._remove_scratch()

    def _remove_scratch(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch)
            self._scratch = None

    def log_tail(self, lines: int = 40) -> str:
        """Give the last `lines` lines of every member's log."""
        return "\n".join(
            f"--- {member.address}\n{member.log_tail(lines)}" for member in self.members
        )

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            self._remove_scratch()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
