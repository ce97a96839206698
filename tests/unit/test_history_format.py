"""What ``history`` prints: rows as they come, in every format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
import yaml

from sharedcache import audit
from sharedcache.cli import output
from sharedcache.cli.commands import history
from sharedcache.cli.failure import SettingsFailure
from sharedcache.core.acts import Act, By, Deed, Doer, Subject
from sharedcache.core.model import Unreadable

ACTS: list[Act | Unreadable] = [
    Act(Deed.PURGED, Doer(By.CLEANER, "c1", 3), 0.0, "confirmed", (Subject("f", "e"),)),
    Unreadable("record schema 2 is newer than 1", newer=True),
    Unreadable("the record is empty"),
    Act(Deed.APPROVED, Doer(By.OPERATOR, "root@desk"), 90.0, plan="f" * 64),
    Act(Deed.REFUSED, Doer(By.NODE, "n1"), 1e300, "no\n\x1b[2J", asked="restore"),
]


def rows() -> list[dict[str, object]]:
    """Give all the rows."""
    told = (audit.Told(number, act) for number, act in enumerate(ACTS))
    return [row for one in told for row in history._rows(one)]


def printed(
    capsys: pytest.CaptureFixture[str],
    how: str,
    data: list[dict[str, object]],
) -> str:
    """Print rows as the command does."""
    output.stream(iter(data), how, history.head(), history.line)
    return capsys.readouterr().out


def test_every_row_has_the_same_keys() -> None:
    """Also one that could not be read."""
    made = rows()
    assert {tuple(row) for row in made} == {tuple(history._KEYS)}
    assert [row["act"] for row in made] == [
        *("purged", "newer", "unreadable", "approved", "refused")
    ]


def test_json_and_yaml_are_what_a_list_would_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A reader cannot tell that the rows were printed one by one."""
    made = rows()
    assert json.loads(printed(capsys, "json", made)) == made
    assert yaml.safe_load(printed(capsys, "yaml", made)) == made
    assert json.loads(printed(capsys, "json", [])) == []
    assert yaml.safe_load(printed(capsys, "yaml", [])) == []


def test_values_are_a_row_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """For shells: bare values, a dash for nothing."""
    first = printed(capsys, "value", rows()).splitlines()[0]
    assert first == "0 purged 0.0 cleaner c1 3 f e - - - - - confirmed"
    assert printed(capsys, "value", []) == ""


def test_the_table_says_who_did_what_and_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line a row, whatever is in it, and nothing of it reaches the terminal."""
    lines = printed(capsys, "table", rows()).splitlines()
    assert len(lines) == 2 + len(ACTS)
    assert lines[0].split() == ["when", "(UTC)", "act", "by", "size", "name", "why"]
    assert lines[2].startswith("1970-01-01 00:00:00  purged         epoch 3 (c1) ")
    assert lines[2].endswith("confirmed")
    assert lines[3].endswith("record schema 2 is newer than 1")
    assert lines[5].endswith("plan ffffffffffff")
    assert lines[6].endswith("restore: no??[2J")
    assert printed(capsys, "table", []) == "none\n"


def test_a_row_fits_a_narrow_terminal_in_two_lines() -> None:
    """What, when and who first; the name whole, to be copied, and why below it."""
    for row in rows():
        lines = history.narrow_line(row).splitlines()
        assert len(lines) == 1 + bool(row["name"] or row["why"] or row["plan"])
        assert row["name"] is None or lines[1].split()[0] == row["name"]
    assert max(len(line) for line in history.narrow_head().splitlines()) < 80
    name = {**rows()[0], "name": "a" * 40, "why": "confirmed by every node, round 1"}
    assert max(len(one) for one in history.narrow_line(name).splitlines()) < 80


def test_a_row_is_printed_before_the_next_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A long history is seen from its first row on."""
    seen: list[int] = []

    def reading() -> Iterator[Mapping[str, object]]:
        for row in rows():
            yield row
            seen.append(capsys.readouterr().out.count("number"))

    output.stream(reading(), "json", history.head(), history.line)
    assert seen == [1] * len(ACTS)


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (history.Wanted(None, frozenset(), 0.0), [0, 1, 2, 3, 4]),
        (history.Wanted("f", frozenset(), 0.0), [0]),
        (history.Wanted("e", frozenset(), 0.0), [0]),
        (history.Wanted("g", frozenset(), 0.0), []),
        (history.Wanted(None, frozenset({"approved", "refused"}), 0.0), [3, 4]),
        (history.Wanted(None, frozenset(), 60.0), [1, 2, 3, 4]),
    ],
)
def test_what_is_asked_for_is_shown(wanted: history.Wanted, numbers: list[int]) -> None:
    """Names, acts and times choose; damage is shown unless something else is asked."""
    assert [row["number"] for row in rows() if row in wanted] == numbers


@pytest.mark.parametrize(
    ("how", "out"),
    [("json", '[\n{"act": "purged", "bytes": null}\n]\n'), ("value", "purged -\n")],
)
def test_columns_choose_keys(
    capsys: pytest.CaptureFixture[str], how: str, out: str
) -> None:
    """As with any other command's rows; a key that is not there is named."""
    columns = ("act", "bytes")
    output.stream(rows()[:1], how, history.head(), history.line, columns=columns)
    assert capsys.readouterr().out == out
    output.stream(rows()[:1], "table", history.head(), history.line, columns=columns)
    assert capsys.readouterr().out == "act  bytes\npurged  -\n"
    with pytest.raises(SettingsFailure, match="no column colour"):
        output.stream(rows(), how, "", history.line, columns=["colour"])
