"""Agents and cleaners inside the test's process, on real adapters.

The services are the shipped ones; the test decides when each makes a step, so
that an interleaving can be written down instead of hoped for.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sharedcache.adapters.clock import RandomTokens, SystemClock
from sharedcache.adapters.host import SystemdHost
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.uses_file import UsesFileSource
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.cleaner.finalize import Founded, found
from sharedcache.cleaner.inventory import acknowledge
from sharedcache.cleaner.observe import Observer
from sharedcache.cleaner.service import CleanerService
from sharedcache.cleaner.world import CleanerWorld
from sharedcache.core.acts import Signature
from sharedcache.core.gate import Code
from sharedcache.core.model import KernelNaming
from sharedcache.core.names import Kind, digest_of
from sharedcache.core.policy import AgentPolicy, CleanerPolicy
from sharedcache.core.ports import Source
from sharedcache.node.service import NodeService, start
from sharedcache.node.world import World
from tests.support.polling import eventually

SESSION_TIMEOUT_S = 4.0

OPERATOR = Signature("operator@desk", 1.0)
"""Whoever speaks in a test."""

FAST = CleanerPolicy(
    pass_interval_s=0.05,
    round_interval_s=0.02,
    grace_s=0.0,
    session_timeout_s=SESSION_TIMEOUT_S,
    min_age_s={kind: 60.0 for kind in Kind if kind is not Kind.UNRECOGNISED},
)
"""A policy by which a file that is a minute old is taken as soon as may be."""


@dataclass
class Told:
    """A journal that keeps what it is told."""

    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def event(self, name: str, /, **fields: object) -> None:
        """Keep one event."""
        self.events.append((name, fields))

    def names(self) -> list[str]:
        """List the events' names, in order."""
        return [name for name, _ in self.events]


def settle(
    *services: NodeService | CleanerService,
    until: Callable[[], object],
    what: str,
    deadline_s: float = 30.0,
) -> None:
    """Let every service make steps in turn until something holds."""

    def holds() -> object:
        for service in services:
            service.step()
        return until()

    eventually(holds, deadline_s, what)


def publish(agent: NodeService) -> None:
    """Step an agent until it has reported."""
    settle(agent, until=lambda: agent.publisher.published, what="a report")


def gate_codes(cleaner: CleanerService) -> set[tuple[Code, str]]:
    """Return the gate's reasons as a cleaner saw them last."""
    gate = cleaner.harvest.gate
    return set() if gate is None else {(r.code, r.subject) for r in gate.reasons}


def image_id() -> str:
    """Return a new image id."""
    return str(uuid.uuid4())


@dataclass
class Site:
    """A base directory, its ZooKeeper, and the services that work on it."""

    root: Path
    address: str
    cluster: str
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Make the directories."""
        self.base.mkdir(parents=True)
        self.locks.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every session and every helper, and close every directory."""
        self.stack.close()

    @property
    def base(self) -> Path:
        """The image cache directory."""
        return self.root / "instances" / "_base"

    @property
    def locks(self) -> Path:
        """Nova's lock directory."""
        return self.root / "instances" / "locks"

    def file(self, name: str, age_s: float = 1e6, size: int = 1000) -> Path:
        """Make a cache file of an age."""
        path = self.base / name
        path.write_bytes(os.urandom(size))
        then = time.time() - age_s
        os.utime(path, (then, then))
        return path

    def image(self, ident: str, age_s: float = 1e6) -> Path:
        """Make an image's cache file under its sha1 name."""
        return self.file(digest_of(ident).hex(), age_s)

    def session(self, member: str) -> ZooKeeperSession:
        """Start a session that ends with the site."""
        session = ZooKeeperSession(
            self.address, self.cluster, member, session_timeout_s=SESSION_TIMEOUT_S
        )
        self.stack.callback(session.stop)
        session.start()
        return session

    def storage(self) -> DirectoryStorage:
        """Open the directory as one host would, until the site ends."""
        storage = DirectoryStorage(str(self.base))
        self.stack.callback(storage.close)
        return storage

    def found(self, schema: int | None = None) -> Founded:
        """Found the cluster."""
        return found(
            self.session("founder"),
            self.storage(),
            self.cluster,
            uuid.uuid4().hex,
            schema,
            by=OPERATOR,
        )

    def acknowledge(self) -> list[str]:
        """Let an operator account for the raw-id files that are there."""
        return acknowledge(self.observer(), None, OPERATOR)

    def uses(self, node: str, **uses: list[str]) -> None:
        """Write a node's uses file."""
        path = self.root / f"{node}.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(uses))
        fresh.rename(path)

    def stopping_host(self) -> SystemdHost:
        """Make a host that is being stopped, as its systemd tells it."""
        script = self.root / "systemctl"
        script.write_text(
            "#!/bin/sh\n"
            "case $1 in\n"
            "is-system-running) echo stopping ;;\n"
            "show) echo LoadState=loaded; echo ActiveState=inactive ;;\n"
            "esac\n"
        )
        script.chmod(0o755)
        proc = self.root / "proc"
        boot_id = Path("sys/kernel/random/boot_id")
        for folder in (proc / "1", proc / "self" / "ns", (proc / boot_id).parent):
            folder.mkdir(parents=True, exist_ok=True)
        (proc / boot_id).write_text((Path("/proc") / boot_id).read_text())
        (proc / "1" / "comm").write_text("systemd\n")
        (proc / "1" / "cmdline").write_text("/sbin/init\0")
        # The number of the first PID namespace is fixed by the kernel.
        (proc / "self" / "ns" / "pid").symlink_to("pid:[4026531836]")
        return SystemdHost(proc=str(proc), systemctl=str(script))

    def agent(
        self,
        node: str,
        *,
        host: SystemdHost | None = None,
        sources: Sequence[Source] | None = None,
        **policy: object,
    ) -> NodeService:
        """Start an agent; its uses file is empty unless written before.

        ``sources`` are asked in place of the uses file.
        """
        if not (self.root / f"{node}.json").exists():
            self.uses(node)
        locks = NovaNameLocks(str(self.locks))
        self.stack.callback(locks.close)
        clock = self.stack.enter_context(SystemClock())
        settings = {
            "report_interval_s": 0.01,
            "session_timeout_s": SESSION_TIMEOUT_S,
            **policy,
        }
        world = World(
            policy=AgentPolicy(node, **settings),  # type: ignore[arg-type]
            storage=self.storage(),
            coordination=self.session(node),
            locks=locks,
            sources=sources or [UsesFileSource(str(self.root / f"{node}.json"))],
            clock=clock,
            tokens=RandomTokens(),
            host=host or SystemdHost(base=str(self.base), hypervisors=["libvirtd"]),
            journal=Told(),
        )
        return NodeService(world, start(world, self.cluster))

    def old_agent(self, node: str, **policy: object) -> NodeService:
        """Start an agent of the old release, which joins whatever is finalized."""
        old = {"schema_version": 1, "kernel_naming": KernelNaming.RAW_ID}
        return self.agent(node, **old, **policy)

    def cleaner(self, name: str, policy: CleanerPolicy = FAST) -> CleanerService:
        """Make a cleaner; it stands for election at its first step."""
        locks = NovaNameLocks(str(self.locks))
        self.stack.callback(locks.close)
        clock = self.stack.enter_context(SystemClock())
        return CleanerService(
            CleanerWorld(
                name=name,
                policy=policy,
                storage=self.storage(),
                coordination=self.session(name),
                locks=locks,
                clock=clock,
                tokens=RandomTokens(),
                journal=Told(),
            )
        )

    def observer(self) -> Observer:
        """Make a read-only observer."""
        return Observer(self.session("observer"), self.storage())
