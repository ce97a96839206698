"""Rounds: when one may be raised, what it confirms, whether it would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sharedcache.core.model import EntryState, Report
from sharedcache.core.rounds import (
    Confirmation,
    Voices,
    lagging,
    may_raise,
    raise_helps,
)
from tests.property.strategies import D1, FAILED, entry, report, uses_of

ENTRY = entry(D1, round=9)


def _voices(
    *speaking: Report, final: Sequence[Report] = (), silent: Sequence[str] = ()
) -> Voices:
    return Voices(speaking, final, silent)


def _confirms(voices: Voices, **changes: Any) -> bool:
    return Confirmation.of(voices).confirms(replace(ENTRY, **changes))


def test_a_round_is_raised_when_all_have_reported_it() -> None:
    """One node behind, silent, or ahead of the present round: no raise."""
    assert may_raise(10, _voices(report(upto=10), report("n2", upto=10)))
    assert not may_raise(10, _voices(report(upto=10), report("n2", upto=9)))
    assert not may_raise(10, _voices(report(upto=10), silent=["n2"]))
    assert not may_raise(10, _voices(report(upto=11)))


def test_final_reports_are_not_waited_for() -> None:
    """A sealed node's old round holds nobody back."""
    assert may_raise(10, _voices(report(upto=10), final=[report("n2", upto=2)]))


def test_those_behind_are_named() -> None:
    """Nodes that report late and nodes that cannot report, sorted."""
    voices = _voices(report("b", upto=9), report("c"), silent=["a"])
    assert lagging(10, voices) == ["a", "b"]


def test_one_common_instant_confirms() -> None:
    """One round R has r <= since_round < R <= upto at every node."""
    voices = _voices(
        report(since_round=9, upto=12), report("n2", since_round=11, upto=12)
    )
    assert Confirmation.of(voices).proven == 9
    assert _confirms(voices, round=9)
    assert not _confirms(voices, round=10)


def test_windows_without_a_common_instant_confirm_nothing() -> None:
    """Two windows that follow each other prove nothing together."""
    voices = _voices(
        report(since_round=9, upto=10), report("n2", since_round=10, upto=11)
    )
    assert Confirmation.of(voices).proven == 0
    assert not _confirms(voices, round=1)


@pytest.mark.parametrize(
    "voices",
    [
        _voices(),
        _voices(final=[report()]),
        _voices(report(), silent=["n2"]),
        _voices(report(unbroken=False)),
        _voices(report(failures=FAILED)),
        _voices(report(), final=[report("n2", failures=FAILED)]),
        _voices(report(since_round=10)),
        _voices(report(now=uses_of(D1))),
        _voices(report(since=uses_of(D1))),
        _voices(report(), final=[report("n2", now=uses_of(D1))]),
        _voices(report(), final=[report("n2", since=uses_of(D1))]),
        _voices(report(sees=frozenset({ENTRY.entry}))),
        _voices(report(intents=frozenset({ENTRY.entry}))),
    ],
)
def test_doubt_or_use_confirms_nothing(voices: Voices) -> None:
    """Nobody looking, silence, broken coverage, a failed source, a use, a sight."""
    assert not _confirms(voices)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": EntryState.INTENDED},
        {"restoring": True},
        {"asked": True},
        {"round": 0},
    ],
)
def test_an_entry_under_way_is_not_confirmed(changes: dict[str, Any]) -> None:
    """Only a taken entry of a round, of which no restore can land, is confirmed."""
    assert _confirms(_voices(report()))
    assert not _confirms(_voices(report()), **changes)


def test_a_final_report_confirms_however_old() -> None:
    """A sealed node starts nothing, so its old round is no objection."""
    final = report("n2", upto=2, since_round=1, unbroken=False)
    assert _confirms(_voices(report(), final=[final]))


def _helps(voices: Voices, **changes: Any) -> bool:
    confirmation = Confirmation.of(voices)
    return raise_helps([replace(ENTRY, **changes)], voices, confirmation)


def test_when_a_raise_helps() -> None:
    """It helps an entry that waits for a round, not one that is confirmed."""
    assert _helps(_voices(report()), round=10)
    assert not _helps(_voices(report()))
    assert not raise_helps([], _voices(report()), Confirmation.of(_voices(report())))


def test_when_a_raise_would_not_help() -> None:
    """A use of now, a final use, a restore, an open outcome, nobody to look."""
    assert not _helps(_voices(report(now=uses_of(D1))), round=10)
    kept = report("n2", since=uses_of(D1))
    assert not _helps(_voices(report(), final=[kept]), round=10)
    assert not _helps(_voices(report()), round=10, restoring=True)
    assert not _helps(_voices(report()), round=10, asked=True)
    assert not _helps(_voices(report()), round=10, state=EntryState.INTENDED)
    wanted = report(intents=frozenset({ENTRY.entry}))
    assert not _helps(_voices(wanted), round=10)
    assert not _helps(_voices(final=[report()]), round=10)


def test_a_raise_helps_after_a_use_is_over() -> None:
    """A use that only the window still holds ends with new looks."""
    assert _helps(_voices(report(since=uses_of(D1))))


def test_a_raise_does_not_help_while_the_entry_is_seen() -> None:
    """A name that bears the entry's inode is no matter of rounds."""
    assert not _helps(_voices(report(sees=frozenset({ENTRY.entry}))), round=10)


def test_an_entry_that_was_seen_in_a_window_waits_for_the_next_one() -> None:
    """Seen a while ago refuses a confirmation, and a new round brings it."""
    looked = report(saw=frozenset({ENTRY.entry}))
    voices, waiting = _voices(looked), ENTRY
    proof = Confirmation.of(voices)
    assert proof.proven == ENTRY.round
    assert not proof.confirms(waiting)
    assert raise_helps([waiting], voices, proof)
    assert _confirms(_voices(report()))
    final = _voices(report(), final=[replace(looked, node="n2")])
    assert not raise_helps([waiting], final, Confirmation.of(final))
