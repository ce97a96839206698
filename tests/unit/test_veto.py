"""Which reports must make an authorisation under way fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedcache.core.model import ManifestBatch, Report
from sharedcache.core.veto import Spoken
from tests.property.strategies import D1, D2, FAILED, entry, report, uses_of

OLD, OTHER = entry(D1), entry(D2, 2)
MANIFEST = (ManifestBatch("b", (OLD, OTHER)),)

QUIET = report()
SPEAKING = {
    "now": report(now=uses_of(D1)),
    "since": report(since=uses_of(D1)),
    "sees": report(sees=frozenset({OLD.entry})),
    "saw": report(saw=frozenset({OLD.entry})),
    "intents": report(intents=frozenset({OLD.entry})),
}


def _heard(said: Report, before: Report | None) -> bool:
    told = None if before is None else Spoken.of(before, MANIFEST)
    return Spoken.of(said, MANIFEST).must_be_heard(told)


@pytest.mark.parametrize("how", SPEAKING)
def test_the_first_word_against_an_entry_is_heard(how: str) -> None:
    """Whatever keeps an entry from being confirmed makes authorisations fail."""
    assert _heard(SPEAKING[how], None)
    assert _heard(SPEAKING[how], QUIET)


@pytest.mark.parametrize("how", SPEAKING)
def test_the_same_word_again_is_not(how: str) -> None:
    """The leader has read the report before: it says no less."""
    said = SPEAKING[how]
    assert not _heard(replace(said, upto=said.upto + 1), said)


def test_a_use_that_is_over_is_reported_as_one_that_was() -> None:
    """From `now` to `since` the entry is spoken against all the time."""
    assert not _heard(SPEAKING["since"], SPEAKING["now"])
    assert not _heard(SPEAKING["now"], SPEAKING["since"])


def test_a_word_that_was_dropped_is_heard_when_it_comes_back() -> None:
    """Only the report right before counts."""
    assert _heard(SPEAKING["now"], QUIET)
    assert not _heard(QUIET, SPEAKING["now"])


def test_a_new_intent_is_heard_though_the_name_was_in_use() -> None:
    """A restore is never done on the strength of an older word."""
    assert _heard(SPEAKING["intents"], SPEAKING["now"])


def test_another_entry_is_heard() -> None:
    """What was said of one file says nothing of another one."""
    both = report(now=uses_of(D1, D2))
    assert _heard(both, SPEAKING["now"])
    assert not _heard(SPEAKING["now"], both)


def test_an_entry_that_is_new_since_is_heard() -> None:
    """The name was reported before its file was taken: that says nothing of it."""
    said = SPEAKING["now"]
    told = Spoken.of(said, ())
    assert Spoken.of(said, MANIFEST).must_be_heard(told)


def test_a_source_that_fails_is_heard_once() -> None:
    """The first degraded report makes authorisations fail, the next ones need not."""
    failed = report(failures=FAILED)
    assert _heard(failed, QUIET)
    assert _heard(failed, None)
    assert not _heard(failed, failed)
    assert not _heard(QUIET, failed)
