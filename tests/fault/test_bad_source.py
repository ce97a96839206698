"""A source that somebody else wrote fails in ways of its own: doubt, never an end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache import ledger
from sharedcache.core import codec
from sharedcache.core.model import Uses
from sharedcache.core.ports import Between, Set
from sharedcache.core.referrers import Referrers
from tests.support.inprocess import Site, image_id, publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from sharedcache.core.model import Report
    from sharedcache.node.service import NodeService

pytestmark = pytest.mark.timeout(60)


@dataclass
class Strange:
    """A source whose answers a test chooses."""

    uses: Uses
    name: str = "strange"
    looked: Callable[[], Any] | None = None
    told: Callable[[], Any] = field(
        default_factory=lambda: lambda: Between(Uses(), unbroken=True)
    )
    refers: Callable[[], Any] = field(default_factory=lambda: Referrers)

    def look(self) -> Any:
        """Answer as a source, or as the test has it."""
        return self.uses if self.looked is None else self.looked()

    def between(self) -> Any:
        """Answer as a source of events, or as the test has it."""
        return self.told()

    def referrers(self) -> Any:
        """Answer as a source that tells what refers, or as the test has it."""
        return self.refers()


def _failing() -> None:
    raise ZeroDivisionError("by somebody else")


BAD = [_failing, lambda: None, lambda: {"names": []}]


@pytest.fixture
def source(site: Site) -> Strange:
    """Give a source that knows one used file."""
    return Strange(Uses.of_names([site.image(image_id()).name]))


def _report(agent: NodeService) -> Report:
    """Let the agent look and report once more."""
    agent.publisher.published = None
    publish(agent)
    assert agent.publisher.published is not None
    return agent.publisher.published


def _covered(site: Site, source: Strange) -> NodeService:
    """Start an agent whose windows reach back over a raise of the round."""
    agent = site.agent("n1", sources=[source])
    publish(agent)
    data = codec.pack(codec.counter_to_record(2))
    site.session("leader").commit([Set(ledger.ROUND, data, None)])
    report = _report(agent)
    assert report.complete
    assert report.unbroken
    return agent


@pytest.mark.parametrize("bad", BAD)
def test_a_look_that_fails_keeps_the_last_good_uses(
    site: Site, source: Strange, bad: Callable[[], Any]
) -> None:
    """I4: whatever it raises or answers, the report is degraded and no use is lost."""
    agent = site.agent("n1", sources=[source])
    assert _report(agent).complete
    source.looked = bad
    report = _report(agent)
    assert [failure.source for failure in report.failures] == ["strange"]
    assert report.now == source.uses
    source.looked = None
    assert _report(agent).complete


@pytest.mark.parametrize("bad", BAD)
def test_a_first_look_that_fails_is_no_report(
    site: Site, source: Strange, bad: Callable[[], Any]
) -> None:
    """An agent that knows nothing says nothing, and goes on asking."""
    source.looked = bad
    agent = site.agent("n1", sources=[source])
    for _ in range(3):
        agent.look_soon()
        agent.step()
    assert agent.publisher.published is None
    source.looked = None
    assert _report(agent).now == source.uses


@pytest.mark.parametrize("bad", BAD)
def test_events_that_cannot_be_told_prove_nothing(
    site: Site, source: Strange, bad: Callable[[], Any]
) -> None:
    """The report is degraded, and the next one's window begins anew."""
    agent = _covered(site, source)
    source.told = bad
    report = _report(agent)
    assert [failure.source for failure in report.failures] == ["strange"]
    assert not report.unbroken
    assert report.now == source.uses


def test_events_that_were_lost_prove_nothing(site: Site, source: Strange) -> None:
    """It is no failure; but what was used since the look before, nobody knows."""
    agent = _covered(site, source)
    source.told = lambda: Between(Uses(), unbroken=False)
    report = _report(agent)
    assert report.complete
    assert not report.unbroken
    assert "events-lost" in agent.world.journal.names()  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", BAD)
def test_what_refers_is_for_people_only(
    site: Site, source: Strange, bad: Callable[[], Any]
) -> None:
    """Whatever becomes of that, the uses stand and the report is whole."""
    source.refers = bad
    agent = site.agent("n1", sources=[source])
    report = _report(agent)
    assert report.complete
    assert report.now == source.uses
