"""Asking agents which of their sources names a file, over a real ZooKeeper."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sharedcache import ledger
from sharedcache.cleaner import ask
from sharedcache.core import codec, questions
from sharedcache.core.model import Uses
from sharedcache.core.ports import (
    Between,
    Create,
    DisconnectedError,
    Set,
    SourceError,
)
from sharedcache.core.questions import Answer
from sharedcache.core.referrers import Referrer, Referrers
from sharedcache.node import answer
from tests.support.inprocess import Site, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sharedcache.node.service import NodeService

X, Y = "a" * 40, "b" * 40
DISK = Referrer("disk", path="/i/1/disk")


class Seeing:
    """A source that sees one disk on X, and is told of another on Y."""

    name = "seeing"

    def __init__(self) -> None:
        self.fails = False

    def look(self) -> Uses:
        """See X in use."""
        if self.fails:
            raise SourceError("no")
        return Uses.of_names([X])

    def referrers(self) -> Referrers:
        """Say by what."""
        told = Referrers()
        told.add([X], DISK)
        return told

    def between(self) -> Between:
        """Say that Y was used."""
        told = Referrers()
        told.add([Y], Referrer("domain", "g"))
        return Between(Uses.of_names([Y]), unbroken=True, referrers=told)


def asked(
    site: Site, name: str, *agents: NodeService, nodes: Sequence[str] = ()
) -> Mapping[str, ask.Word]:
    """Ask, while the agents make steps."""
    tries = iter(range(40))

    def steps(_: float) -> None:
        for agent in agents:
            agent.step()

    return ask.ask(
        site.session("operator"),
        [*(agent.world.policy.node for agent in agents), *nodes],
        name,
        "0123456789abcdef",
        left_s=lambda: 39 - next(tries),
        pause=steps,
    )


@pytest.fixture
def agent(site: Site) -> NodeService:
    """Return an agent that has reported."""
    site.file(X)
    made = site.agent("n1", sources=[Seeing()])
    publish(made)
    return made


def left(site: Site, node: str = "n1") -> list[str]:
    """List the questions that are still there."""
    return site.session("looker").children(ledger.questions_path(node))


def test_what_refers_to_a_name(site: Site, agent: NodeService) -> None:
    """Source, thing and time come back from another node, and nothing stays behind."""
    other = site.agent("n2", sources=[Seeing()])
    publish(other)
    before = time.time()
    words = asked(site, X, agent, other)
    assert set(words) == {"n1", "n2"}
    for word in words.values():
        assert isinstance(word, Answer)
        (sighting,) = word.sightings
        assert (sighting.source, sighting.span.at_least) == ("seeing", True)
        assert sighting.span.since_s <= before
        assert [referrer for referrer, _ in sighting.referrers] == [DISK]
    assert left(site) == []


def test_what_events_told(site: Site, agent: NodeService) -> None:
    """A use between two looks is answered with what events named."""
    word = asked(site, Y, agent)["n1"]
    assert isinstance(word, Answer)
    ((referrer, span),) = word.sightings[0].referrers
    assert referrer == Referrer("domain", "g")
    assert span.until_s is not None


def test_a_source_that_fails_keeps_its_word(site: Site, agent: NodeService) -> None:
    """What a silent source said last is still in use, and still explained."""
    source = agent.world.sources[0]
    assert isinstance(source, Seeing)
    source.fails = True
    agent._next_look = 0.0
    agent.step()
    assert agent.publisher.published is not None
    assert not agent.publisher.published.complete
    word = asked(site, X, agent)["n1"]
    assert isinstance(word, Answer)
    assert word.sightings[0].span.until_s is None


def test_nodes_that_do_not_answer(
    site: Site, agent: NodeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that hangs, an old one, and one too many are told apart."""
    monkeypatch.setattr(ask, "MOST", 2)
    words = asked(site, X, nodes=["n1", "old", "third"])
    assert words == {"n1": ask.LATE, "old": ask.CANNOT, "third": ask.TOO_MANY}
    assert left(site) == []
    # What nobody waits for any more hinders nobody.
    agent.step()
    assert isinstance(asked(site, X, agent)["n1"], Answer)


def test_a_session_that_is_gone(site: Site) -> None:
    """Asking fails in words: the rest of an explanation does not need it."""
    session = site.session("operator")
    session.stop()
    words = ask.ask(session, ["n1"], X, "t", left_s=lambda: 0.0, pause=lambda _: None)
    word = words["n1"]
    assert isinstance(word, ask.Silence)
    assert "could not be asked" in word.why


def test_questions_that_make_no_sense(site: Site, agent: NodeService) -> None:
    """Whatever lies there, the agent reports on, and sweeps it away in time."""
    session = site.session("stranger")
    place = ledger.questions_path("n1")
    for number, data in enumerate((b"", b"\xff", codec.pack({"name": "notes.txt"}))):
        session.commit([Create(f"{place}/q{number}", data), Set(place, b"", None)])
    assert isinstance(asked(site, X, agent)["n1"], Answer)
    assert left(site) == ["q0", "q1", "q2"]


def test_answers_that_nobody_fetches(
    site: Site, agent: NodeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are deleted after a while, also those of an earlier run."""
    session = site.session("stranger")
    place = ledger.questions_path("n1")
    data = codec.pack(questions.question_to_record(X))
    session.commit([Create(f"{place}/q", data), Set(place, b"", None)])
    agent.step()
    record = session.get(f"{place}/q")
    assert record is not None
    assert questions.answer_from_record(codec.unpack(record.data)) is not None
    agent.answerer = answer.Answerer(agent.world)
    agent.step()
    assert left(site) == ["q"]
    monkeypatch.setattr(answer, "KEEP_S", 0.0)
    agent.step()
    assert left(site) == []


def test_many_at_once(
    site: Site, agent: NodeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More questions than are answered in one step are answered in the next ones."""
    monkeypatch.setattr(answer, "AT_ONCE", 3)
    session = site.session("stranger")
    place = ledger.questions_path("n1")
    data = codec.pack(questions.question_to_record(X))
    for number in range(7):
        session.commit([Create(f"{place}/q{number}", data), Set(place, b"", None)])
    for _ in range(4):
        agent.step()
    records = session.get_many([f"{place}/q{number}" for number in range(7)])
    assert all(
        record is not None and questions.answer_from_record(codec.unpack(record.data))
        for record in records
    )


def failing(error: Exception) -> Callable[..., None]:
    """Make a call that fails."""

    def fail(*_: object) -> None:
        raise error

    return fail


def test_trouble_with_answers_is_no_trouble_with_reports(
    site: Site, agent: NodeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that cannot answer tells it once, goes on reporting, answers later."""
    session = agent.world.coordination
    with monkeypatch.context() as patch:
        patch.setattr(session, "session_id", failing(DisconnectedError("away")))
        for _ in range(3):
            agent.answerer.step(agent.looker.sightings)
    names = agent.world.journal.names()  # type: ignore[attr-defined]
    assert names.count("questions-unanswered") == 1
    assert isinstance(asked(site, X, agent)["n1"], Answer)


def test_a_source_that_says_nonsense_of_itself(site: Site) -> None:
    """What it says of itself is for people: the report is complete all the same."""

    class Odd(Seeing):
        def referrers(self) -> Referrers:
            raise OSError("no words")

    class Odder(Seeing):
        name = "odder"

        def referrers(self) -> Referrers:
            return 7  # type: ignore[return-value]

    site.file(X)
    agent = site.agent("n1", sources=[Odd(), Odder()])
    publish(agent)
    assert agent.publisher.published is not None
    assert agent.publisher.published.complete
    word = asked(site, X, agent)["n1"]
    assert isinstance(word, Answer)
    assert [one.source for one in word.sightings] == ["odder", "seeing"]
    assert all(one.referrers == () for one in word.sightings)


def test_a_new_run_says_what_its_last_report_stands_for(site: Site) -> None:
    """Until a source has answered, the last report is what names the file."""
    site.file(X)
    first = site.agent("n1", sources=[Seeing()])
    publish(first)
    first.world.coordination.leave()
    source = Seeing()
    source.fails = True
    second = site.agent("n1", sources=[source])
    publish(second)
    word = asked(site, X, second)["n1"]
    assert isinstance(word, Answer)
    assert [one.source for one in word.sightings] == ["last report"]


def test_nothing_is_asked_of_an_agent_before_its_first_report(site: Site) -> None:
    """An agent that is blind answers nothing: it knows nothing yet."""
    source = Seeing()
    source.fails = True
    agent = site.agent("n1", sources=[source])
    agent.step()
    assert asked(site, X, agent) == {"n1": ask.CANNOT}
