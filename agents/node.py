"""``sharedcache-agent``: the process around the agent's service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from agents import process
from agents.process import ProcessFailedError, Stop
from sharedcache.adapters.clock import SystemClock
from sharedcache.adapters.journal import LogJournal
from sharedcache.adapters.settings import Settings
from sharedcache.adapters.systemd import notify
from sharedcache.adapters.uses_socket import UsesSocketError
from sharedcache.cli.wiring import AgentParts
from sharedcache.core.ports import OutcomeUnknownError, StorageError
from sharedcache.node.service import NodeService, start
from sharedcache.node.world import AgentRefusedError, SupersededError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the agent until it is told to stop; exits with its status."""
    sys.exit(process.run("agent", _agent, arguments))


def _agent(
    settings: Settings, clock: SystemClock, stop: Stop, journal: LogJournal
) -> None:
    try:
        parts = AgentParts(settings, clock, journal)
    except StorageError as error:
        raise ProcessFailedError(str(error)) from error
    try:
        _run(parts, settings, clock, stop)
    except (AgentRefusedError, SupersededError) as error:
        raise ProcessFailedError(f"refused to run: {error}") from error
    finally:
        notify("STOPPING=1")
        parts.close()


def _run(parts: AgentParts, settings: Settings, clock: SystemClock, stop: Stop) -> None:
    """Start on the storage alone, then report for as long as the process lives."""
    try:
        identity = start(parts.world, settings.cluster)
    except (StorageError, OutcomeUnknownError) as error:
        raise ProcessFailedError(
            f"cannot write the witness: {error}; this agent must be able to write "
            f"below {settings.base}/.sharedcache"
        ) from error
    if parts.socket is not None:
        # Before guests start: what a driver declares is in the first report.
        try:
            parts.socket.start()
        except UsesSocketError as error:
            raise ProcessFailedError(str(error)) from error
    # From here on guests may start: the witness says that this node exists.
    notify("READY=1\nSTATUS=Started; connecting to ZooKeeper")
    if not process.connect(parts.session, clock, stop):
        return
    notify(f"STATUS=Reporting as {parts.world.policy.node}")
    service = NodeService(parts.world, identity)
    if parts.socket is not None:
        parts.socket.on_use = partial(_look_soon, service, clock)
    while not stop.wanted():
        clock.wait(service.step())
    service.finish()


def _look_soon(service: NodeService, clock: SystemClock) -> None:
    """Have the loop look at once; called by the thread that serves the socket."""
    service.look_soon()
    clock.wake()


if __name__ == "__main__":
    main()
