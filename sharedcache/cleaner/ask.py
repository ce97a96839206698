"""Asking agents about one name: a question for each, answered within a while.

A question is a node below its agent's own, which the agent has a watch on. So
what it costs does not grow with the cluster but with the nodes that are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sharedcache import ledger
from sharedcache.core import codec, questions
from sharedcache.core.ports import (
    ConflictError,
    Coordination,
    CoordinationError,
    Create,
    Delete,
    Operation,
    OutcomeUnknownError,
    Set,
)
from sharedcache.core.questions import Answer

MOST = 100
"""Nodes that are asked for one explanation."""

PAUSE_S = 0.05
"""Between two looks for answers (seconds)."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A node that said nothing of its sources, and why."""

    why: str


Word = Answer | Silence
TOO_MANY = Silence(f"was not asked: only the first {MOST} are")
CANNOT = Silence("takes no questions: its agent is of an older release")
LATE = Silence("did not answer in time")


def ask(
    coordination: Coordination,
    nodes: Sequence[str],
    name: str,
    token: str,
    *,
    left_s: Callable[[], float],
    pause: Callable[[float], None],
) -> Mapping[str, Word]:
    """Ask nodes what refers to a name; raises nothing.

    ``token`` makes the questions this caller's own.  ``left_s`` tells how long
    answers are waited for still, ``pause`` waits; both in seconds.
    """
    words: dict[str, Word] = dict.fromkeys(nodes[MOST:], TOO_MANY)
    asked: list[str] = []
    try:
        asked = _put(coordination, nodes[:MOST], name, token)
        words |= dict.fromkeys(set(nodes[:MOST]) - set(asked), CANNOT)
        words |= _wait(coordination, asked, token, left_s, pause)
    except (CoordinationError, OutcomeUnknownError) as error:
        failed = Silence(f"could not be asked: {error}")
        words |= {node: failed for node in nodes if node not in words}
    _take_back(coordination, asked, token)
    return words


def _put(
    coordination: Coordination, nodes: Sequence[str], name: str, token: str
) -> list[str]:
    """Put the question to every node that takes any; return those."""
    paths = [ledger.questions_path(node) for node in nodes]
    places = coordination.get_many(paths)
    found = [n for n, place in zip(nodes, places, strict=True) if place is not None]
    data = codec.pack(questions.question_to_record(name))
    operations: list[Operation] = []
    for node in found:
        operations.append(Create(_question(node, token), data))
        # This is what the agent's watch tells of.
        operations.append(Set(ledger.questions_path(node), b"", None))
    if operations:
        coordination.commit(operations)
    return found


def _wait(
    coordination: Coordination,
    asked: Sequence[str],
    token: str,
    left_s: Callable[[], float],
    pause: Callable[[float], None],
) -> dict[str, Word]:
    words: dict[str, Word] = {}
    while waiting := [node for node in asked if node not in words]:
        records = coordination.get_many([_question(node, token) for node in waiting])
        for node, record in zip(waiting, records, strict=True):
            if record is None:
                words[node] = Silence("had its question taken away: ask again")
                continue
            try:
                answer = questions.answer_from_record(codec.unpack(record.data))
            except codec.RecordError as error:
                words[node] = Silence(f"gave an answer that cannot be read ({error})")
                continue
            if answer is not None:
                words[node] = answer
        if left_s() <= 0:
            words |= {node: LATE for node in asked if node not in words}
        elif len(words) < len(asked):
            pause(PAUSE_S)
    return words


def _take_back(coordination: Coordination, asked: Sequence[str], token: str) -> None:
    """Delete the questions; what cannot be deleted now the agents delete later."""
    for node in asked:
        try:
            coordination.commit([Delete(_question(node, token), None)])
        except ConflictError:
            continue
        except (CoordinationError, OutcomeUnknownError):
            return


def _question(node: str, token: str) -> str:
    return f"{ledger.questions_path(node)}/{token}"
