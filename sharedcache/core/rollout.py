"""The rollout: where the cluster stands between two schema versions."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from sharedcache.core import schema
from sharedcache.core.gate import NodeView
from sharedcache.core.model import Report


class Stage(enum.Enum):
    """How far the rollout of the newest schema has come."""

    MIXED = "mixed"
    READY = "ready"
    FINALIZED = "finalized"


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """The stage, and who stands in the way of finalizing."""

    stage: Stage
    finalized_schema: int
    waiting_for: tuple[tuple[str, str], ...]

    @property
    def advice(self) -> str:
        """One sentence on what to do next."""
        if self.stage is Stage.FINALIZED:
            return f"Schema {self.finalized_schema} is finalized; nothing to do."
        if self.stage is Stage.READY:
            return "Every node is ready: run `sharedcache rollout finalize`."
        if not self.waiting_for:
            return "No node is rostered yet: start sharedcache-agent on every node."
        names = ", ".join(node for node, _ in self.waiting_for[:5])
        more = len(self.waiting_for) - 5
        tail = f" and {more} more" if more > 0 else ""
        return f"Upgrade {names}{tail}, then finalize."


def status(finalized: int, nodes: Sequence[NodeView]) -> RolloutStatus:
    """Judge the rollout.

    Sealed and missing nodes count: they come back as what they were.
    """
    newest = schema.newest()
    waiting = tuple(
        (view.node, why)
        for view in nodes
        if (why := _unready(view, newest)) is not None
    )
    if finalized >= newest:
        stage = Stage.FINALIZED
    elif waiting or not nodes:
        stage = Stage.MIXED
    else:
        stage = Stage.READY
    return RolloutStatus(stage, finalized, waiting)


def _unready(view: NodeView, newest: int) -> str | None:
    report = view.report
    if report is None:
        return "is expected and never reported"
    if not isinstance(report, Report):
        return f"has a report that cannot be read ({report.why})"
    if report.schema_version < newest:
        return f"supports schema {report.schema_version} only"
    if not view.witnessed:
        return "restarted and has not reported since"
    return None
