"""Who holds back how much of the quarantine: for each node, files and bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sharedcache.core import names
from sharedcache.core.model import (
    EntryState,
    ManifestEntry,
    NodeState,
    Report,
    UseIndex,
)
from sharedcache.core.plan import Observation, Plan
from sharedcache.core.planner import proof_of, voices
from sharedcache.core.rounds import lagging


@dataclass(frozen=True, slots=True)
class Holder:
    """One node, and what waits for it; an entry counts with each that it waits for.

    ``whys`` are of ``gate`` (the node closes it), ``uses``, ``sees``,
    ``restores`` and ``awaited`` (its report of a round is missing).
    """

    node: str
    state: NodeState
    whys: tuple[str, ...]
    files: int
    size: int


@dataclass(slots=True)
class _Load:
    """The entries that one node holds back, by why."""

    whys: set[str] = field(default_factory=set)
    entries: dict[str, int] = field(default_factory=dict)

    def add(self, why: str, entries: Iterable[ManifestEntry]) -> None:
        for entry in entries:
            self.whys.add(why)
            self.entries[entry.entry] = entry.size


def holders(seen: Observation, plan: Plan) -> tuple[Holder, ...]:
    """Tell which nodes hold quarantined files back, most bytes first."""
    entries = [
        entry
        for entry in seen.entries
        if entry.state is EntryState.TAKEN and entry.baseline is not None
    ]
    if not entries:
        return ()
    loads: dict[str, _Load] = defaultdict(_Load)
    _add_gate(loads, seen, plan, entries)
    _add_words(loads, seen, entries)
    _add_awaited(loads, seen, entries)
    states = {view.node: view.state for view in seen.facts.nodes}
    found = [
        Holder(
            node,
            states[node],
            tuple(sorted(load.whys)),
            len(load.entries),
            sum(load.entries.values()),
        )
        for node, load in loads.items()
        if load.entries
    ]
    return tuple(sorted(found, key=lambda one: (-one.size, -one.files, one.node)))


def _add_gate(
    loads: dict[str, _Load],
    seen: Observation,
    plan: Plan,
    entries: list[ManifestEntry],
) -> None:
    rostered = {view.node for view in seen.facts.nodes}
    for node in {r.subject for r in plan.gate.reasons} & rostered:
        loads[node].add("gate", entries)


def _add_words(
    loads: dict[str, _Load], seen: Observation, entries: list[ManifestEntry]
) -> None:
    """Look entries up in each report, not each report for every entry."""
    by_name: dict[str, list[ManifestEntry]] = defaultdict(list)
    by_family: dict[str, list[ManifestEntry]] = defaultdict(list)
    by_id = {entry.entry: entry for entry in entries}
    for entry in entries:
        by_name[entry.name].append(entry)
        hashed = names.hashed_name(entry.name)
        if hashed is not None:
            by_name[hashed].append(entry)
        family = names.family_of(entry.name)
        if family is not None:
            by_family[family].append(entry)
    heard = voices(seen.facts)
    for report in (*heard.speaking, *heard.final):
        used = UseIndex.over((report.now, report.since))
        load = loads[report.node]
        for name in used.exact & by_name.keys():
            load.add("uses", by_name[name])
        for name in used.families & by_family.keys():
            load.add("uses", by_family[name])
        load.add("sees", _of(by_id, report.sees | report.saw))
        load.add("restores", _of(by_id, report.intents))


def _of(
    by_id: dict[str, ManifestEntry], ids: frozenset[str]
) -> Iterable[ManifestEntry]:
    return [by_id[one] for one in ids & by_id.keys()]


def _add_awaited(
    loads: dict[str, _Load], seen: Observation, entries: list[ManifestEntry]
) -> None:
    heard = voices(seen.facts)
    proof = proof_of(seen, heard)
    by_round: dict[int, list[ManifestEntry]] = defaultdict(list)
    for entry in entries:
        if proof.proven < entry.round and not proof.wanted(entry):
            by_round[entry.round].append(entry)
    for number, waiting in by_round.items():
        for node in lagging(max(seen.round, number), heard):
            loads[node].add("awaited", waiting)


def users_of(seen: Observation, wanted: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Tell for each cache name which nodes' last reports name it, in their window.

    A node without a readable report is not named: it says nothing.
    """
    found: dict[str, list[str]] = {name: [] for name in wanted}
    for view in seen.facts.nodes if found else ():
        if not isinstance(view.report, Report):
            continue
        used = UseIndex.over((view.report.now, view.report.since))
        for name, nodes in found.items():
            if used.covers(name):
                nodes.append(view.node)
    return {name: tuple(nodes) for name, nodes in found.items()}
