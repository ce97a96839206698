"""Windows and rounds: no entry that a guest uses is ever confirmed.

The world is a step machine.  A file is quarantined at the start, in round 1,
and one guest uses it, on one node or another: it migrates between any two
steps.  Agents read the round, look, read it again and publish, as separate
steps; rounds are raised at any time, which is more than any leader does.  The
oracle is where the guest really is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedcache.core.model import Report, Uses
from sharedcache.core.rounds import Confirmation, Voices
from sharedcache.core.window import Coverage, Look, Window, Windows
from tests.property.strategies import D1, entry, report, uses_of

ENTRY = entry(D1, round=1)
USED = uses_of(D1)


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its agent's memory, and what lies between its steps.

    ``lost`` until the agent has looked once and as soon as it lost events;
    ``said`` is ``None`` while the witness's incarnation has not reported.
    """

    windows: Windows
    upto: int | None = None
    look: Look | None = None
    again: bool = False
    here: bool = False
    events: bool = False
    lost: bool = True
    said: Report | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Everything there is; ``guest`` is the node that it is on."""

    round: int
    guest: int
    nodes: tuple[Node, Node]

    def with_node(self, number: int, node: Node) -> World:
        """Put a node in its place."""
        nodes = (node, self.nodes[1]) if number == 0 else (self.nodes[0], node)
        return replace(self, nodes=nodes)


def begin(empty: Windows) -> World:
    """Return the world after the rename: the guest is on node 0, nobody looked."""
    return World(1, 0, (Node(empty), Node(empty)))


def higher(world: World, number: int) -> World:
    """Raise the round."""
    del number
    return replace(world, round=world.round + 1)


def migrate(world: World, number: int) -> World:
    """Migrate the guest to the other node; agents that listen notice."""
    del number
    world = replace(world, guest=1 - world.guest)
    for one, node in enumerate(world.nodes):
        world = world.with_node(one, replace(node, events=not node.lost))
    return world


def lose(world: World, number: int) -> World:
    """Lose the events of a node since its last look."""
    node = replace(world.nodes[number], events=False, lost=True)
    return world.with_node(number, node)


def restart(world: World, number: int) -> World:
    """Start a new incarnation of a node's agent, which has not reported."""
    return world.with_node(number, Node(type(world.nodes[number].windows)()))


def read(world: World, number: int) -> World:
    """Let an agent read the round."""
    return world.with_node(number, replace(world.nodes[number], upto=world.round))


def see(world: World, number: int) -> World:
    """Let an agent look at every source, and take what the events told."""
    node = world.nodes[number]
    here = world.guest == number
    uses = USED if here or node.events else Uses()
    look = Look(node.upto or 0, 0, uses, unbroken=not node.lost)
    node = replace(node, look=look, here=here, events=False, lost=False)
    return world.with_node(number, node)


def reread(world: World, number: int) -> World:
    """Let an agent read the round again."""
    node = world.nodes[number]
    if node.look is None:
        raise AssertionError("an agent looks before it reads the round again")
    look = replace(node.look, reread=world.round)
    after = node.windows.after(look)
    return world.with_node(number, replace(node, look=look, again=True, windows=after))


def publish(world: World, number: int) -> World:
    """Let an agent publish its report."""
    node = world.nodes[number]
    said = _report(number, node.upto or 0, node.here, node.windows.coverage())
    node = replace(node, said=said, upto=None, look=None, again=False)
    return world.with_node(number, node)


@cache
def _report(number: int, upto: int, here: bool, said: Coverage) -> Report:  # noqa: FBT001 - a column of the cache
    return report(
        f"n{number}",
        upto=upto,
        since_round=said.since_round,
        unbroken=said.unbroken,
        now=USED if here else Uses(),
        since=said.since,
    )


def advance(world: World, number: int) -> World:
    """Let an agent make its next step."""
    node = world.nodes[number]
    if node.upto is None:
        return read(world, number)
    if node.look is None:
        return see(world, number)
    return publish(world, number) if node.again else reread(world, number)


def finish(world: World, number: int) -> World:
    """Let an agent go on until it has published."""
    world = advance(world, number)
    while world.nodes[number].upto is not None:
        world = advance(world, number)
    return world


@cache
def _confirm(first: Report, second: Report) -> bool:
    return Confirmation.of(Voices((first, second), (), ())).confirms(ENTRY)


def confirmed(world: World) -> bool:
    """Whether the last reports confirm the entry that the guest uses."""
    first, second = (node.said for node in world.nodes)
    return first is not None and second is not None and _confirm(first, second)


Step = tuple[Callable[[World, int], World], int]

_STEPS: list[Step] = [
    (step, number)
    for step, weight in (
        (finish, 5),
        (advance, 4),
        (migrate, 3),
        (higher, 2),
        (lose, 1),
        (restart, 1),
    )
    for number in (0, 1)
    for _ in range(weight)
]


@settings(max_examples=1500)
@given(st.binary(min_size=8, max_size=40))
def test_no_entry_that_a_guest_uses_is_confirmed(script: bytes) -> None:
    """I1, by reports alone: whatever the interleaving, even of the raises."""
    world = begin(Windows())
    for byte in script:
        step, number = _STEPS[byte % len(_STEPS)]
        world = step(world, number)
        assert not confirmed(world)


def test_two_looks_about_one_raise_confirm() -> None:
    """The property is not empty: an entry that nobody uses is confirmed."""
    windows = Windows()
    for step in (1, 2):
        windows = windows.after(Look(step, step, Uses(), unbroken=step > 1))
    said = [
        _report(number, 2, here=False, said=windows.coverage()) for number in (0, 1)
    ]
    assert _confirm(*said)


@dataclass(frozen=True, slots=True)
class Budget:
    """How often each disturbance may still happen."""

    raises: int = 1
    moves: int = 3
    breaks: int = 1


def _followers(world: World, left: Budget) -> Iterator[tuple[World, Budget]]:
    """Every world one step on; an agent looks and publishes in one step."""
    if left.raises:
        yield higher(world, 0), replace(left, raises=left.raises - 1)
    if left.moves:
        yield migrate(world, 0), replace(left, moves=left.moves - 1)
    for number in (0, 1):
        if world.nodes[number].upto is None:
            yield read(world, number), left
        else:
            yield finish(world, number), left
        if left.breaks:
            yield lose(world, number), replace(left, breaks=left.breaks - 1)
            yield restart(world, number), replace(left, breaks=left.breaks - 1)


def first_wrong(empty: Windows) -> int | None:
    """Search every interleaving within the budget, breadth first.

    Returns the number of steps to the nearest world in which the entry is
    confirmed while the guest uses it, ``None`` if there is none.
    """
    layer = {(begin(empty), Budget())}
    known = set(layer)
    depth = 0
    while layer:
        if any(confirmed(world) for world, _ in layer):
            return depth
        layer = {after for one in layer for after in _followers(*one)} - known
        known |= layer
        depth += 1
    return None


def test_every_interleaving_within_a_budget_is_safe() -> None:
    """I1, by reports alone: exhaustively, for one raise, three moves, one loss."""
    assert first_wrong(Windows()) is None


class NoSince(Windows):
    """Mutant: the report says only what is used now."""

    def after(self, look: Look) -> Windows:
        """Take one more look into account."""
        return _as(NoSince, Windows.after(self, look))

    def coverage(self) -> Coverage:
        """Forget everything used since the window began."""
        return replace(Windows.coverage(self), since=Uses())


class BrokenCounts(Windows):
    """Mutant: a look after lost events continues the window."""

    def after(self, look: Look) -> Windows:
        """Take one more look into account, as if it were unbroken."""
        return _as(BrokenCounts, Windows.after(self, replace(look, unbroken=True)))


class RoundReadBefore(Windows):
    """Mutant: ``since_round`` is the round read before the looks."""

    def after(self, look: Look) -> Windows:
        """Take one more look into account, without the round read again."""
        look = replace(look, reread=look.upto)
        return _as(RoundReadBefore, Windows.after(self, look))


class SinceEndsEarly(Windows):
    """Mutant: ``since`` is only what the latest report of the round before said."""

    def after(self, look: Look) -> Windows:
        """Let every look forget the others of its round."""
        fresh = Window(look.upto, look.reread, look.uses)
        present = self.present
        if not look.unbroken or present is None or look.upto < present.upto:
            return SinceEndsEarly(None, fresh)
        if look.upto == present.upto:
            kept = Window(present.upto, present.reread, look.uses)
            return SinceEndsEarly(self.before, kept)
        return SinceEndsEarly(present, fresh)


def _as(mutant: type[Windows], windows: Windows) -> Windows:
    return mutant(windows.before, windows.present)


@pytest.mark.parametrize(
    "mutant", [NoSince, BrokenCounts, RoundReadBefore, SinceEndsEarly]
)
def test_the_search_finds_every_mutant_of_the_window(mutant: type[Windows]) -> None:
    """The property can fail: each rule of the window is needed."""
    assert first_wrong(mutant()) is not None
