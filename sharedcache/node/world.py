"""What an agent's parts share: its policy, its ports, and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharedcache.core.model import Cluster, Incarnation
from sharedcache.core.policy import AgentPolicy
from sharedcache.core.ports import (
    Clock,
    Coordination,
    Host,
    Journal,
    NameLocks,
    Source,
    Storage,
    Tokens,
)


class AgentRefusedError(Exception):
    """The agent must not run as it is configured; the message says what to do."""


class ExpungedError(Exception):
    """This very incarnation was expunged: only a new one may report again."""


class SupersededError(Exception):
    """Another agent reports under this node's name; this one must stop."""


@dataclass(frozen=True, slots=True)
class World:
    """The ports of one agent."""

    policy: AgentPolicy
    storage: Storage
    coordination: Coordination
    locks: NameLocks
    sources: Sequence[Source]
    clock: Clock
    tokens: Tokens
    host: Host
    journal: Journal


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is, since its start: its cluster and its incarnation."""

    cluster: Cluster
    incarnation: Incarnation
