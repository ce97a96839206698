"""The rollout: where the cluster stands between two schema versions.

Three stages, in the order of the table's rows (``core/schema.py``): readers
first, writers once the version is finalized, the cleaner last.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sharedcache.core.gate import NodeView
from sharedcache.core.model import KernelNaming, NodeState, Report, Unreadable
from sharedcache.core.schema import SCHEMAS, SchemaTable, Writing

_NAMED = 5
"""How many nodes the advice names before it counts."""


class Stage(enum.Enum):
    """How far the rollout has come."""

    MIXED = "mixed"
    READY = "ready"
    FINALIZED = "finalized"


class Errand(enum.Enum):
    """What is to be done about a node, as part of a sentence."""

    UPGRADE = "upgrade {nodes}"
    REPORT = "look at the agent's log on {nodes} and get it to report"
    NAMING = (
        "set [agent] kernel_naming to auto or {naming} on {nodes} once Nova there "
        "writes such names, and restart the agent"
    )
    NEWER = "use the release of {nodes} here and for the cleaners"


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """One rostered node in the rollout.

    ``waits`` says why finalizing waits for it, ``None`` if it does not; ``lags``
    why the gate waits for it at the finalized schema, ``None`` if it does not.
    ``errand`` is what ends the one or, where nothing waits, the other.
    ``schema_version`` and ``kernel_naming`` are ``None`` without a report that can
    be read.
    """

    node: str
    state: NodeState
    schema_version: int | None
    kernel_naming: KernelNaming | None
    writing: Writing
    waits: str | None
    lags: str | None
    errand: Errand | None


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """The stage, and where every rostered node stands.

    ``target`` is the schema that finalizing would commit to now, or, while it is
    refused, the one that it waits for.  ``naming`` is the one that a node must use
    for files to be removed; ``None`` at a finalized schema that this release does
    not know.
    """

    stage: Stage
    finalized_schema: int
    target: int
    nodes: tuple[NodeStanding, ...]
    naming: KernelNaming | None

    @property
    def waiting_for(self) -> tuple[tuple[str, str], ...]:
        """Who is not ready for the target, and why."""
        return tuple((one.node, one.waits) for one in self.nodes if one.waits)

    @property
    def lagging(self) -> tuple[tuple[str, str], ...]:
        """Who keeps the gate closed at the finalized schema, and why."""
        return tuple((one.node, one.lags) for one in self.nodes if one.lags)

    @property
    def early_writers(self) -> tuple[str, ...]:
        """Who writes names already that become due by finalizing only.

        What protects their files meanwhile is that every old cleaner is off.
        """
        return tuple(one.node for one in self.nodes if one.writing is Writing.EARLY)

    @property
    def advice(self) -> str:
        """One sentence on what to do next."""
        if self.naming is None:
            return (
                f"Schema {self.finalized_schema} is finalized, which this release does "
                "not know: use one that does, here and for the cleaners."
            )
        if not self.nodes:
            return "No node is rostered yet: start sharedcache-agent on every node."
        if self.stage is Stage.READY:
            return (
                f"Every node is ready for schema {self.target}: run `sharedcache "
                "rollout finalize`."
            )
        errands = "; ".join(self._errands(self.naming))
        if self.stage is Stage.MIXED:
            first = f"{errands[:1].upper()}{errands[1:]}"
            return f"{first}; then finalize schema {self.target}."
        if errands:
            return (
                f"Schema {self.finalized_schema} is finalized, and nothing is removed "
                f"until this is done: {errands}."
            )
        return f"Schema {self.finalized_schema} is finalized; nothing to do."

    def _errands(self, naming: KernelNaming) -> Iterator[str]:
        """Say what is to be done about those who are waited for, with whom."""
        waited = self.waiting_for if self.stage is Stage.MIXED else self.lagging
        names = {node for node, _ in waited}
        for errand in Errand:
            those = [n.node for n in self.nodes if n.errand is errand]
            mine = [node for node in those if node in names]
            if mine:
                yield errand.value.format(nodes=_some(mine), naming=naming.value)


def _some(nodes: Sequence[str]) -> str:
    named = ", ".join(nodes[:_NAMED])
    more = len(nodes) - _NAMED
    return f"{named} and {more} more" if more > 0 else named


def status(
    finalized: int, nodes: Sequence[NodeView], schemas: SchemaTable = SCHEMAS
) -> RolloutStatus:
    """Judge the rollout.

    Sealed and missing nodes count: they come back as what they were.
    """
    target = _target(finalized, nodes, schemas)
    standings = tuple(_standing(view, finalized, target, schemas) for view in nodes)
    if finalized >= schemas.newest:
        stage = Stage.FINALIZED
    elif not nodes or any(one.waits for one in standings):
        stage = Stage.MIXED
    else:
        stage = Stage.READY
    known = finalized <= schemas.newest
    naming = schemas.cleaning_from(finalized).naming if known else None
    return RolloutStatus(stage, finalized, target, standings, naming)


def _target(finalized: int, nodes: Sequence[NodeView], schemas: SchemaTable) -> int:
    """Return the newest schema that all support, above the finalized one; or the next.

    A node without a report that can be read supports what is finalized, no more.
    """
    supported = [
        view.report.schema_version if isinstance(view.report, Report) else finalized
        for view in nodes
    ]
    most = min([schemas.newest, *supported])
    return max(most, min(finalized + 1, schemas.newest), finalized)


def _standing(
    view: NodeView, finalized: int, target: int, schemas: SchemaTable
) -> NodeStanding:
    report = view.report
    if not isinstance(report, Report):
        return NodeStanding(
            view.node,
            view.state,
            None,
            None,
            Writing.UNKNOWN,
            waits=_unready(view, target, schemas),
            lags="has no report that can be read",
            errand=_errand(view, target, schemas),
        )
    writing = schemas.writing(finalized, report.kernel_naming)
    return NodeStanding(
        view.node,
        view.state,
        report.schema_version,
        report.kernel_naming,
        writing,
        waits=_unready(view, target, schemas),
        lags=_lags(view, report, finalized, schemas),
        errand=_errand(view, target, schemas),
    )


def _errand(view: NodeView, target: int, schemas: SchemaTable) -> Errand | None:
    """Say what is to be done about a node that is waited for, or lags."""
    report = view.report
    if not isinstance(report, Report):
        newer = isinstance(report, Unreadable) and report.newer
        return Errand.NEWER if newer else Errand.REPORT
    if report.schema_version < target:
        return Errand.UPGRADE
    if schemas.row(report.schema_version) is None:
        return Errand.NEWER
    if not view.witnessed:
        return Errand.REPORT
    due = schemas.cleaning_from(target).naming
    return Errand.NAMING if report.kernel_naming is not due else None


def _unready(view: NodeView, target: int, schemas: SchemaTable) -> str | None:
    report = view.report
    if report is None:
        return "is expected and never reported"
    if not isinstance(report, Report):
        return f"has a report that cannot be read ({report.why})"
    if report.schema_version < target:
        return f"supports schema {report.schema_version} only"
    if schemas.row(report.schema_version) is None:
        return (
            f"is at schema {report.schema_version}, which this release does not know: "
            "use the newer one"
        )
    if not view.witnessed:
        return "restarted and has not reported since"
    return None


def _lags(
    view: NodeView, report: Report, finalized: int, schemas: SchemaTable
) -> str | None:
    """Say what keeps the gate closed for a node, once a schema that cleans is final."""
    if not schemas.may_clean(finalized):
        return None
    if schemas.row(report.schema_version) is None:
        return f"is at schema {report.schema_version}, which this release does not know"
    if report.schema_version < finalized:
        return f"is at schema {report.schema_version} only"
    if not view.witnessed:
        return "restarted and has not reported since"
    if schemas.writing(finalized, report.kernel_naming) is not Writing.DUE:
        return f"writes {report.kernel_naming.value} names"
    return None
