"""A rollout of three nodes as a state machine over the core: every order of events.

What is decided, is decided by the shipped core: the gate, planner and checker say
whether a pass removes, the rollout whether it may be finalized, and the table
whether an agent may start.  The machine only moves agents, reports and looks.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from sharedcache.core import rollout
from sharedcache.core.checker import check_plan
from sharedcache.core.gate import NodeView
from sharedcache.core.model import Incarnation, KernelNaming, ManifestBatch, Witness
from sharedcache.core.plan import Observation
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import CleanerPolicy
from sharedcache.core.schema import SCHEMAS
from tests.property.strategies import (
    D1,
    K1,
    NOW_NS,
    entry,
    facts,
    file_facts,
    observation,
    report,
    table,
)

POLICY = CleanerPolicy()


class Agent(enum.Enum):
    """What is installed on a node when its agent starts."""

    OLD = "old"
    """The old release, or this one told to be at schema 1: it is let in."""
    RAW = "raw"
    """This release, told to write raw-id names."""
    NEW = "new"

    @property
    def told(self) -> tuple[int, KernelNaming]:
        """The schema version and the naming that it is told, and reports."""
        return {
            Agent.OLD: (1, KernelNaming.RAW_ID),
            Agent.RAW: (2, KernelNaming.RAW_ID),
            Agent.NEW: (2, KernelNaming.SHA1),
        }[self]

    def refused(self, finalized: int) -> bool:
        """Whether it refuses to run under the finalized schema."""
        return SCHEMAS.refusal(finalized, *self.told) is not None


class Node(NamedTuple):
    """One node.

    ``started`` is what wrote its witness, ``said`` what its last durable report
    told, ``fresh`` that both are of one incarnation; ``member`` outlives a crash
    for as long as the session does.
    """

    started: Agent | None = None
    running: bool = False
    said: Agent | None = None
    fresh: bool = False
    sealed: bool = False
    member: bool = False

    def plain(self) -> Node:
        """Return the same node without what makes no difference any more.

        Which agent wrote a witness says nothing once it runs no more and never
        reported, nor does the seal of an incarnation that is over.
        """
        started = self.started
        if self.fresh:
            started = self.said
        elif started is not None and not self.running:
            started = Agent.OLD
        return self._replace(started=started, sealed=self.sealed and self.fresh)

    @property
    def seen(self) -> Node:
        """The node as a leader and an operator see it."""
        return self._replace(
            started=None if self.started is None else Agent.OLD, running=False
        )


Nodes = tuple[Node, ...]


class State(NamedTuple):
    """The cluster; ``nodes`` are numbers of ``Machine.nodes``, in their order.

    ``asked`` is an operator who looked, found all ready, and has not committed;
    ``acting`` a leader within a pass whose plan removes files.  Either ends when
    the roster counter is raised, which its next step would find.
    """

    nodes: tuple[int, ...]
    finalized: int = 1
    asked: bool = False
    acting: bool = False


@cache
def observed(nodes: Nodes, finalized: int) -> Observation:
    """Return what a leader observes: an unused file, and one to be purged."""
    views, strangers = [], []
    for number, node in enumerate(nodes):
        name = f"n{number}"
        if node.said is None:
            if node.started is not None:
                strangers.append(name)
            continue
        version, naming = node.said.told
        said = report(
            name, schema_version=version, kernel_naming=naming, sealed=node.sealed
        )
        bears = said.incarnation if node.fresh else Incarnation("boot", 2)
        views.append(NodeView(name, node.member, said, Witness(name, bears, NOW_NS)))
    return observation(
        facts=facts(*views, strangers=tuple(strangers), finalized_schema=finalized),
        files=table((K1, file_facts())),
        manifest=(ManifestBatch("b", (entry(D1),)),),
    )


@cache
def removes(nodes: Nodes, finalized: int) -> bool:
    """Whether a checked plan would take a name away, or unlink a file."""
    looked = observed(nodes, finalized)
    plan = make_plan(POLICY, looked)
    check_plan(POLICY, looked, plan)
    return bool(plan.take or plan.purge or plan.renew)


@cache
def ready(nodes: Nodes, finalized: int) -> bool:
    """Whether finalizing would be tried, as the command judges it."""
    told = observed(nodes, finalized).facts
    found = rollout.status(finalized, told.nodes)
    return found.stage is rollout.Stage.READY and not told.strangers


@dataclass(frozen=True)
class Rules:
    """What decides; a test may take one rule out to see that it is missed."""

    removes: Callable[[Nodes, int], bool] = removes
    ready: Callable[[Nodes, int], bool] = ready
    counted: bool = True
    """Whether a report that changes what a node is raises the roster counter."""


def node_moves(node: Node, finalized: int) -> Iterator[tuple[str, Node, bool]]:
    """Tell every event of one node, what it becomes, and whether it is counted."""
    if not node.running:
        for agent in Agent:
            refused = agent.refused(finalized)
            again = node._replace(started=agent, running=not refused, fresh=False)
            yield f"start {agent.value}", again, False
    if node.member:
        yield "its session ends", node._replace(member=False), False
    if not node.running or node.started is None:
        return
    yield "crash", node._replace(running=False), False
    if not node.fresh and node.started.refused(finalized):
        yield "refused at its report", node._replace(running=False), False
        return
    said = node._replace(said=node.started, fresh=True, sealed=False, member=True)
    yield "report", said, not node.fresh
    if node.fresh and node.member:
        gone = node._replace(running=False, member=False, sealed=True)
        yield "seal and stop", gone, True


class Machine:
    """All moves of all nodes, by number, so that a long search is quick."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.nodes: list[Node] = [Node()]
        number = {Node(): 0}
        self.moves: dict[tuple[int, int], list[tuple[str, int, bool]]] = {}
        for place, node in enumerate(self.nodes):
            for finalized in (1, 2):
                found = self.moves.setdefault((place, finalized), [])
                for what, moved, counted in node_moves(node, finalized):
                    after = moved.plain()
                    if after not in number:
                        number[after] = len(self.nodes)
                        self.nodes.append(after)
                    if number[after] != place:
                        found.append((what, number[after], counted))
        self.seen = [node.seen for node in self.nodes]

    @property
    def start(self) -> State:
        """Nobody has joined, at schema 1."""
        return State((0,) * self.count)

    def nodes_of(self, state: State) -> Nodes:
        """Return the nodes of a state."""
        return tuple(self.nodes[number] for number in state.nodes)

    def seen_of(self, state: State) -> Nodes:
        """Return the nodes of a state as others see them, in one order."""
        seen = [self.seen[number] for number in state.nodes]
        return tuple(sorted(seen, key=str))

    def after(self, state: State, rules: Rules) -> Iterator[tuple[str, State]]:
        """Tell every event, and the state after it."""
        nodes, finalized, asked, acting = state
        for place, number in enumerate(nodes):
            for what, moved, counted in self.moves[number, finalized]:
                changed = tuple(sorted((*nodes[:place], moved, *nodes[place + 1 :])))
                ends = counted and rules.counted
                yield (
                    what,
                    State(changed, finalized, asked and not ends, acting and not ends),
                )
        if asked:
            yield "finalize", State(nodes, SCHEMAS.newest, acting=acting)
        elif rules.ready(self.seen_of(state), finalized):
            yield "an operator looks", State(nodes, finalized, True, acting)
        if acting:
            yield "a file is removed", State(nodes, finalized, asked)
        elif rules.removes(self.seen_of(state), finalized):
            yield "a pass begins", State(nodes, finalized, asked, True)


@dataclass
class Search:
    """Every state that can be reached, and how.

    ``wrong`` holds for each rule that is broken the shortest way to break it.
    """

    machine: Machine
    rules: Rules = field(default_factory=Rules)
    came: dict[State, tuple[State, str] | None] = field(default_factory=dict)
    leads: dict[State, list[State]] = field(default_factory=dict)
    events: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def run(self) -> Search:
        """Walk through all of them, the nearest first."""
        start = self.machine.start
        self.came[start] = None
        waiting = deque([start])
        while waiting:
            state = waiting.popleft()
            for what, after in self.machine.after(state, self.rules):
                self.events += 1
                self.leads.setdefault(after, []).append(state)
                self._judge(state, what, after)
                if after not in self.came:
                    self.came[after] = state, what
                    waiting.append(after)
        return self

    def _judge(self, state: State, what: str, after: State) -> None:
        if after.finalized < state.finalized:
            self._tell("the finalized schema goes back", state, what)
        rule = _RULES.get(what)
        if rule is not None and any(map(rule[0], self.machine.nodes_of(state))):
            self._tell(rule[1], state, what)

    def _tell(self, wrong: str, state: State, last: str) -> None:
        if wrong not in self.wrong:
            self.wrong[wrong] = [*self.path(state), last]

    def path(self, state: State) -> list[str]:
        """Return the events that led to a state, the first one first."""
        words: list[str] = []
        step = self.came[state]
        while step is not None:
            state, what = step
            words.append(what)
            step = self.came[state]
        return words[::-1]

    def stuck(self) -> set[State]:
        """Return the states from which no events lead to removal at the newest."""
        good = {
            state
            for state in self.came
            if state.finalized == SCHEMAS.newest and state.acting
        }
        waiting = deque(good)
        while waiting:
            for before in self.leads.get(waiting.popleft(), ()):
                if before not in good:
                    good.add(before)
                    waiting.append(before)
        return self.came.keys() - good


def settled(node: Node) -> bool:
    """Whether a node's last start was a schema 2 agent's that has reported since."""
    if node.started is None:
        return True
    return node.fresh and node.said in {Agent.NEW, Agent.RAW}


def _unsafe(node: Node) -> bool:
    return not settled(node) or node.said is Agent.RAW


def _said_old(node: Node) -> bool:
    return node.said in {Agent.OLD, Agent.RAW}


def _said_schema_1(node: Node) -> bool:
    return node.said is Agent.OLD


_RULES: Mapping[str, tuple[Callable[[Node], bool], str]] = {
    "a pass begins": (_unsafe, "a plan removes beside an old or silent node"),
    "a file is removed": (_said_old, "a file is removed after an old node has spoken"),
    "finalize": (_said_schema_1, "finalized beside a node that does not support it"),
}
"""For an event, which node must not be there, and what is wrong if it is."""
