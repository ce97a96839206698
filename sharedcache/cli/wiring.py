"""Worlds put together from settings: which adapter stands behind which port.

Imports of ZooKeeper's client are made late: they cost 36 MiB and half a second,
and ``--help`` needs none of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from sharedcache.adapters.clock import RandomTokens, SystemClock
from sharedcache.adapters.host import SystemdHost
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.adapters.settings import Settings, SettingsError
from sharedcache.adapters.settings.reading import host_name
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.uses_socket import UsesSocket
from sharedcache.cleaner.world import CleanerWorld
from sharedcache.cli.sources import build_sources
from sharedcache.core.ports import Journal
from sharedcache.node.world import World

if TYPE_CHECKING:
    from sharedcache.adapters.zookeeper.session import ZooKeeperSession


def open_session(
    settings: Settings,
    member: str,
    *,
    session_timeout_s: float,
    wake: Callable[[], None] | None = None,
    creates: bool = True,
) -> ZooKeeperSession:
    """Make a session that is not connected yet; raises ``SettingsError``."""
    from sharedcache.adapters.zookeeper.session import (  # noqa: PLC0415 - see the module
        ZooKeeperSession,
    )

    try:
        return ZooKeeperSession(
            settings.require_zookeeper(),
            settings.cluster,
            member,
            session_timeout_s=session_timeout_s,
            wake=wake,
            creates=creates,
        )
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"[sharedcache] {error}") from error


def open_storage(settings: Settings) -> DirectoryStorage:
    """Open the cache directory; raises ``StorageError``, ``SettingsError``."""
    return DirectoryStorage(settings.require_base())


def cleaner_name(suffix: str = "") -> str:
    """Name a cleaner after its host and process; no two that live share it."""
    return f"{host_name() or 'cleaner'}-{os.getpid()}{suffix}"


class AgentParts:
    """What one agent is made of; ``close`` gives everything back."""

    def __init__(
        self, settings: Settings, clock: SystemClock, journal: Journal
    ) -> None:
        policy = settings.agent.policy()
        sources = build_sources(settings)
        self.socket: UsesSocket | None = None
        if settings.agent.socket:
            self.socket = UsesSocket(settings.agent.socket)
            sources.append(self.socket)
        self.session = open_session(
            settings,
            policy.node,
            session_timeout_s=policy.session_timeout_s,
            wake=clock.wake,
        )
        self.storage = open_storage(settings)
        self.locks = NovaNameLocks(settings.lock_path)
        self.world = World(
            policy=policy,
            storage=self.storage,
            coordination=self.session,
            locks=self.locks,
            sources=sources,
            clock=clock,
            tokens=RandomTokens(),
            host=SystemdHost(
                settings.agent.compute_service,
                base=settings.base,
                hypervisors=settings.agent.hypervisors,
            ),
            journal=journal,
        )

    def close(self) -> None:
        """End the socket, the session, the helper for locks, and the storage."""
        if self.socket is not None:
            self.socket.close()
        self.session.stop()
        self.locks.close()
        self.storage.close()


class CleanerParts:
    """What one cleaner is made of; ``close`` gives everything back."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        clock: SystemClock,
        journal: Journal,
        stopping: Callable[[], bool],
    ) -> None:
        policy = settings.cleaner.policy()
        self.session = open_session(
            settings,
            name,
            session_timeout_s=policy.session_timeout_s,
            wake=clock.wake,
            # A cluster's groups are made with it; a mistyped name makes none.
            creates=False,
        )
        self.storage = open_storage(settings)
        self.locks = NovaNameLocks(settings.lock_path)
        self.world = CleanerWorld(
            name=name,
            policy=policy,
            storage=self.storage,
            coordination=self.session,
            locks=self.locks,
            clock=clock,
            tokens=RandomTokens(),
            journal=journal,
            stopping=stopping,
        )

    def close(self) -> None:
        """End the session, the helper for locks, and the storage."""
        self.session.stop()
        self.locks.close()
        self.storage.close()
