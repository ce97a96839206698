"""When the faults stop, unused files go and used ones stay: a small simulation.

Agents keep the shipped windows and publish only what changed; the leader uses
the shipped planner, checker and rounds.  One tick is one second.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sharedcache.core.checker import check_plan
from sharedcache.core.gate import NodeView
from sharedcache.core.model import (
    NANOSECONDS,
    Baseline,
    EntryState,
    FileFacts,
    Incarnation,
    ManifestBatch,
    ManifestEntry,
    Report,
    Uses,
    Witness,
)
from sharedcache.core.names import Kind, leaf_of
from sharedcache.core.plan import Observation
from sharedcache.core.planner import make_plan, voices
from sharedcache.core.policy import CleanerPolicy
from sharedcache.core.rounds import Confirmation, may_raise, raise_helps
from sharedcache.core.window import Look, Windows
from tests.property.strategies import (
    D1,
    D2,
    FAILED,
    K1,
    facts,
    file_facts,
    report,
    table,
)

AGE_S = 3
GRACE_S = 4
CACHE_S = 1.0
TROUBLE_S = 12
"""Ticks in which faults happen and uses begin and end."""

ROUNDS = 8
"""Bound: two rounds until a use that is over is out of every window, one for
younger reports, two to confirm, and one each for what a fault left half way."""

BOUND_S = TROUBLE_S + AGE_S + GRACE_S + int(2 * CACHE_S) + ROUNDS

FILES = (D1, D2, f"{D1}_20", K1, "swap_1", "notes.txt")
ALWAYS = 10**6


@dataclass(frozen=True)
class Guest:
    """A guest that uses a file on one node, from one tick to another."""

    name: str
    node: int
    begins: int
    ends: int

    def runs(self, tick: int) -> bool:
        """Whether it uses the file at this tick."""
        return self.begins <= tick < self.ends


@dataclass
class Agent:
    """A node with its agent."""

    windows: Windows = field(default_factory=Windows)
    start: int = 1
    up: bool = True
    looked: int = -1
    good: Uses = field(default_factory=Uses)
    said: Report | None = None


@dataclass
class Cluster:
    """The whole small world."""

    agents: list[Agent]
    guests: list[Guest]
    tick: int = 100
    round: int = 1
    files: dict[str, FileFacts] = field(default_factory=dict)
    entries: list[ManifestEntry] = field(default_factory=list)
    taken: int = 0
    purged: list[str] = field(default_factory=list)

    @property
    def now_ns(self) -> int:
        """The storage's time."""
        return self.tick * NANOSECONDS

    def uses(self, number: int, since: int) -> Uses:
        """Tell what ran on a node at any tick after ``since``, events included."""
        ticks = range(since + 1, self.tick + 1)
        return Uses.of_names(
            guest.name
            for guest in self.guests
            if guest.node == number and any(guest.runs(tick) for tick in ticks)
        )

    def look(self, number: int, *, degraded: bool) -> None:
        """Let an agent look, touch what it uses, and publish what changed."""
        agent = self.agents[number]
        first = agent.looked < 0
        now = self.uses(number, self.tick - 1)
        seen = now if first else self.uses(number, agent.looked)
        if degraded:
            now, seen = agent.good, agent.good
        agent.good = now
        look = Look(self.round, self.round, seen, unbroken=not (first or degraded))
        agent.windows = agent.windows.after(look)
        # A look that failed has seen nothing: the next one is broken too.
        agent.looked = -1 if degraded else self.tick
        for name in now.cache_names():
            if name in self.files:
                self.touch(name)
        self.publish(number, now, degraded=degraded)

    def publish(self, number: int, now: Uses, *, degraded: bool) -> None:
        """Write the report, unless only its time changed."""
        agent = self.agents[number]
        said = agent.windows.coverage()
        fresh = report(
            f"n{number}",
            incarnation=Incarnation("boot", agent.start),
            upto=self.round,
            since_round=said.since_round,
            unbroken=said.unbroken,
            now=now,
            since=said.since,
            storage_time_ns=self.now_ns,
            name_cache_s=CACHE_S,
            failures=FAILED if degraded else (),
        )
        old = agent.said
        if old is None or replace(old, storage_time_ns=self.now_ns) != fresh:
            agent.said = fresh

    def touch(self, name: str) -> None:
        """Set a file's time to now."""
        self.files[name] = replace(self.files[name], mtime_ns=self.now_ns)

    def observe(self) -> Observation:
        """Look at everything, as a leader does."""
        nodes = []
        for number, agent in enumerate(self.agents):
            witness = Witness(f"n{number}", Incarnation("boot", agent.start), 0)
            nodes.append(NodeView(f"n{number}", agent.up, agent.said, witness))
        return Observation(
            facts=facts(*nodes),
            files=table(*self.files.items()),
            storage_now_ns=self.now_ns,
            round=self.round,
            manifest=(ManifestBatch("b1", tuple(self.entries)),),
        )

    def lead(self, policy: CleanerPolicy) -> None:
        """Make one pass: observe, plan, check, execute; then perhaps a round."""
        seen = self.observe()
        plan = make_plan(policy, seen)
        check_plan(policy, seen, plan)
        for purging in plan.purge:
            self.entries.remove(purging.entry)
            self.purged.append(purging.entry.name)
        for taking in plan.take:
            self.take(taking.name)
        heard = voices(seen.facts)
        helps = raise_helps(self.entries, heard, Confirmation.of(heard))
        if (helps or plan.fresh_reports) and may_raise(self.round, heard):
            self.round += 1

    def take(self, name: str) -> None:
        """Quarantine a file: it belongs to the next round."""
        self.taken += 1
        token = f"{self.taken:016x}"
        found = self.files.pop(name)
        self.entries.append(
            ManifestEntry(
                name,
                token,
                3,
                leaf_of(name, token, 3),
                EntryState.TAKEN,
                self.round + 1,
                self.now_ns,
                self.now_ns,
                found.size,
                Baseline.of(found),
            )
        )

    def used(self, name: str) -> list[Guest]:
        """Guests that really use a file now."""
        return [g for g in self.guests if g.name == name and g.runs(self.tick)]


POLICY = CleanerPolicy(
    grace_s=GRACE_S,
    min_age_s={kind: AGE_S for kind in Kind if kind is not Kind.UNRECOGNISED},
    max_share_percent=100,
)

FAULTS = ("none", "none", "none", "silent", "degraded", "crash", "slow")


@st.composite
def _stories(draw: st.DrawFn) -> tuple[int, list[Guest], list[list[str]]]:
    count = draw(st.integers(1, 3))
    guests = []
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(FILES[:5]))
        begins = 100 + draw(st.integers(0, TROUBLE_S - 1))
        ends = draw(st.sampled_from((0, 1, 3, 6, ALWAYS)))
        node = draw(st.integers(0, count - 1))
        moved = draw(st.one_of(st.none(), st.integers(begins, 100 + TROUBLE_S)))
        end = ALWAYS if ends == ALWAYS else min(begins + ends, 100 + TROUBLE_S)
        if moved is None or moved >= end:
            guests.append(Guest(name, node, begins, end))
        else:
            other = draw(st.integers(0, count - 1))
            guests.append(Guest(name, node, begins, moved))
            guests.append(Guest(name, other, moved, end))
    fault = st.lists(st.sampled_from(FAULTS), min_size=count, max_size=count)
    return count, guests, [draw(fault) for _ in range(TROUBLE_S)]


def _suffer(cluster: Cluster, number: int, fault: str) -> None:
    """Let one node live through one tick."""
    agent = cluster.agents[number]
    if fault == "silent":
        # The agent is gone, with its memory; its guests run on.
        agent.up, agent.looked, agent.windows = False, -1, Windows()
    elif not agent.up or fault == "crash":
        # A new incarnation: its witness first, its report a tick later.
        agent.up, agent.looked, agent.windows = True, -1, Windows()
        agent.start += 1
        agent.good = cluster.uses(number, cluster.tick - 1)
    elif fault != "slow":
        cluster.look(number, degraded=fault == "degraded")


def _begin_guests(cluster: Cluster, wanted: list[Guest]) -> None:
    """Start what begins now: a first start needs the file, and touches it."""
    for guest in wanted:
        if guest.begins != cluster.tick:
            continue
        goes_on = any(
            g.name == guest.name and g.ends == guest.begins for g in cluster.guests
        )
        if goes_on or guest.name in cluster.files:
            cluster.guests.append(guest)
        if guest.name in cluster.files:
            cluster.touch(guest.name)


@settings(max_examples=250)
@given(_stories())
def test_unused_files_go_and_used_ones_stay(
    story: tuple[int, list[Guest], list[list[str]]],
) -> None:
    """Every unused file is purged within the bound; no used file ever is."""
    count, guests, faults = story
    cluster = Cluster([Agent() for _ in range(count)], [])
    for number, name in enumerate(FILES):
        cluster.files[name] = file_facts(inode=number + 1, mtime_ns=NANOSECONDS)
    last_round = 0
    for passed in range(BOUND_S):
        _begin_guests(cluster, guests)
        for number in range(count):
            fault = faults[passed][number] if passed < TROUBLE_S else "none"
            _suffer(cluster, number, fault)
        gone = len(cluster.purged)
        cluster.lead(POLICY)
        for name in cluster.purged[gone:]:
            assert not cluster.used(name), "a used file was purged"
        if passed == TROUBLE_S:
            last_round = cluster.round
        cluster.tick += 1
    assert "notes.txt" in cluster.files
    for name in FILES[:5]:
        there = name in cluster.files or any(e.name == name for e in cluster.entries)
        assert there == bool(cluster.used(name)), name
    assert cluster.round - last_round <= ROUNDS


def test_a_use_that_is_over_is_forgotten() -> None:
    """A window begins a round back: the leader raises rounds until it is over."""
    cluster = Cluster([Agent()], [Guest(D1, 0, 100, 101)])
    cluster.files[D1] = file_facts(inode=1, mtime_ns=NANOSECONDS)
    for _ in range(BOUND_S - TROUBLE_S):
        cluster.look(0, degraded=False)
        cluster.lead(POLICY)
        cluster.tick += 1
    assert cluster.purged == [D1]
    settled = cluster.round
    for _ in range(5):
        cluster.look(0, degraded=False)
        cluster.lead(POLICY)
        cluster.tick += 1
    assert cluster.round == settled, "an idle cluster raises no rounds"
