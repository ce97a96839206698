"""Stories of news that shuts the gate in the middle of a leader's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.cleaner.observe import Observer
from sharedcache.core.ports import CoordinationError, Create
from tests.simulation.desk import OPERATOR, Desk
from tests.simulation.stage import Hold, authorises, writes
from tests.simulation.story import Story, otherwise

LEARNS_S = 1.0
"""Within how many seconds a leader knows of a node of the old naming."""


def announces(args: tuple[Any, ...]) -> bool:
    """Tell the transaction that announces a quarantine."""
    return any(
        isinstance(one, Create) and one.path.startswith("manifest/") for one in args[0]
    )


class NewsInBetween(Story):
    """The gate's reason comes after the leader has read, and before it writes."""

    title = "news-in-between"

    def tell(self) -> None:
        """See ``Story``."""
        self.feed(but=[])
        self.pause(0.3, 2.0)
        purging = self.chance(0.5)
        slow = self.stage.hold(
            self.leader(), "commit", when=authorises if purging else announces
        )
        self.caught(slow)
        self.world.scheduler.random.choice(self.news(purging=purging))()
        slow.release()
        self.pause(0.5, 1.0)

    def news(self, *, purging: bool) -> list[Callable[[], None]]:
        """Return what may happen."""
        return [self.paused, self.old_node, *[self.degraded] * purging]

    def paused(self) -> None:
        """Let an operator pause, and resume later."""
        self.operator(
            lambda at: operator.pause(at.zookeeper, "simulated", OPERATOR),
            lambda at: operator.resume(at.zookeeper, OPERATOR),
            wait_s=1.0,
        )
        self.until("no pause", lambda: self.read("pause"))

    def old_node(self) -> None:
        """Let a node of the old naming start and report."""
        self.do(lambda _: self.world.add_node("n3", schema=1))
        self.until("no report", lambda: self._durable("n3"))

    def degraded(self) -> None:
        """Let a source fail, and be reported to."""
        host = self.two_hosts()[0]
        if host.source is not None:
            host.source.fails = True
        self.until(
            "no report", lambda: (self._durable(host.name) or {}).get("failures")
        )

    def _durable(self, node: str) -> Any:
        record = self.read(f"roster/{node}")
        return record and record["report"]


class ExpectedInBetween(NewsInBetween):
    """The reason is a node that an operator expects, and that has not spoken yet."""

    title = "expected-in-between"

    def news(self, *, purging: bool) -> list[Callable[[], None]]:
        """See ``NewsInBetween``."""
        del purging
        return [self.expected]

    def expected(self) -> None:
        """Let an operator expect a node, and give it up later."""
        self.operator(
            lambda at: operator.expect(at.zookeeper, "n9", OPERATOR),
            lambda at: operator.expunge(at.zookeeper, at.storage, "n9", OPERATOR),
            wait_s=1.0,
        )
        self.until("not expected", lambda: self.read("roster/n9"))


class OldNodeMidway(NewsInBetween):
    """A node of the old naming starts while a batch is renamed or unlinked."""

    title = "old-node-midway"
    changes = otherwise(batch=10, images=6, lag_s=0.0)

    def tell(self) -> None:
        """See ``Story``."""
        self.pause(0.01, 0.2)
        call = "purge" if self.chance(0.5) else "quarantine"
        slow = self.stage.hold(self.leader(), call)
        self.caught(slow)
        self.old_node()
        self.pause(LEARNS_S, LEARNS_S + 0.5)
        before = self._steps(slow.title)
        slow.release()
        self.pause(0.5, 1.0)
        # One step was under way.
        if self._steps(slow.title) > before + 1:
            self.world.oracle.say(
                f"{slow.title} went on {LEARNS_S:.0f} s after a node of the old naming "
                "had reported"
            )

    def _steps(self, leader: str) -> int:
        made = self.stage.made
        return made[leader, "quarantine"] + made[leader, "purge"]


class OldNodeAsFinalized(NewsInBetween):
    """A node of the old naming reports while an operator finalizes the rollout."""

    title = "old-node-as-finalized"
    changes = otherwise(founding_schema=1)

    def tell(self) -> None:
        """See ``Story``."""
        self.until("no report", lambda: all(self._durable(h.name) for h in self.hosts))
        slow = self.finalizes()
        self.caught(slow)
        self.old_node()
        slow.release()
        self.pause(0.3, 0.6)
        self.world.schemas["n3"] = 2
        self.kill(self.world.hosts["n3"])
        self.finalizes().release()
        self.until(
            "not finalized", lambda: self.read("rollout")["finalized_schema"] == 2, 20.0
        )

    def finalizes(self) -> Hold:
        """Let an operator finalize until it is done; hold him right before."""

        def word(at: Desk) -> None:
            seen = Observer(at.zookeeper, at.storage).observe(scan=False)
            try:
                finalize(at.zookeeper, at.storage, seen, "operator", 0.0)
            except RefusedError as error:
                raise CoordinationError(str(error)) from error

        return self.stage.hold(self.operator(word), "commit", when=writes("rollout"))


ALL: tuple[type[Story], ...] = (
    NewsInBetween,
    ExpectedInBetween,
    OldNodeMidway,
    OldNodeAsFinalized,
)
