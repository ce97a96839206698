"""What is at stake in every test of bad input: a file in use, and one that is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharedcache.cleaner.service import CleanerService
from sharedcache.core.names import digest_of
from sharedcache.node.service import NodeService
from tests.support.inprocess import Site, Told, gate_codes, image_id, settle


@dataclass(frozen=True)
class Stake:
    """Two old files: ``used`` by image ``ident``, ``unused`` by nobody."""

    base: Path
    ident: str
    used: Path
    unused: Path
    inodes: frozenset[int]

    @classmethod
    def of(cls, site: Site, *nodes: str) -> Stake:
        """Make both, and let the uses files of some nodes name the one."""
        ident = image_id()
        used, unused = site.image(ident), site.image(image_id())
        for node in nodes:
            site.uses(node, images=[ident])
        inodes = frozenset({used.stat().st_ino, unused.stat().st_ino})
        return cls(site.base, ident, used, unused, inodes)

    @property
    def name(self) -> str:
        """Cache name of the file in use."""
        return digest_of(self.ident).hex()

    def untouched(self) -> bool:
        """Whether both files lie where they lay."""
        found = [path.stat().st_ino for path in (self.used, self.unused)]
        return set(found) == self.inodes

    def whole(self) -> bool:
        """Whether the used file lies where it lay, and the other was not unlinked.

        It may have been quarantined, which can be undone.
        """
        entries = self.base.rglob("*")
        inodes = {path.stat().st_ino for path in entries if path.is_file()}
        return self.used.stat().st_ino in self.inodes and self.inodes <= inodes

    def gone(self) -> bool:
        """Whether the unused file was unlinked for good, and the used one was not."""
        assert self.used.exists()
        entries = self.base.rglob("*")
        inodes = {path.stat().st_ino for path in entries if path.is_file()}
        return len(self.inodes & inodes) == 1


def told(service: NodeService | CleanerService, event: str) -> list[str]:
    """Return what a service told of one kind of event, each as one text."""
    journal = service.world.journal
    assert isinstance(journal, Told)
    return [
        " ".join(str(value) for value in fields.values())
        for name, fields in journal.events
        if name == event
    ]


def failures_of(agent: NodeService) -> dict[str, str]:
    """Return the failures in an agent's published report, by source."""
    report = agent.publisher.published
    return {} if report is None else {f.source: f.message for f in report.failures}


def look_on(
    cleaner: CleanerService, *agents: NodeService, observations: int = 8
) -> None:
    """Let all go on until the cleaner has looked so many times more."""
    seen: set[int] = set()

    def looked() -> bool:
        seen.add(id(cleaner.harvest.observed))
        return len(seen) > observations

    first = cleaner.harvest.passes
    settle(
        *agents,
        cleaner,
        until=lambda: looked() or cleaner.harvest.passes >= first + observations,
        what=f"{observations} looks of the cleaner",
    )


def degraded(agent: NodeService, cleaner: CleanerService, source: str) -> str:
    """Wait until an agent's report is degraded and closes purging; return why."""
    node = agent.world.policy.node
    settle(
        agent,
        cleaner,
        until=lambda: (
            source in failures_of(agent)
            and {(c.value, s) for c, s in gate_codes(cleaner)}
            == {("node-degraded", node)}
        ),
        what=f"the report is degraded by {source}",
    )
    gate = cleaner.harvest.gate
    assert gate is not None
    message = failures_of(agent)[source]
    assert any(message in reason.message for reason in gate.reasons)
    assert not gate.purge_open
    return message


def steps(*services: NodeService | CleanerService, count: int = 20) -> None:
    """Let services make some steps, whatever comes of them."""
    for _ in range(count):
        for service in services:
            service.step()
