"""The journal's lines can be read by people and by grep, whatever is in them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.journal import JsonLines, LogJournal
from sharedcache.core.model import KernelNaming

if TYPE_CHECKING:
    from sharedcache.core.ports import Journal


def _line(
    caplog: pytest.LogCaptureFixture, journal: Journal, /, **fields: object
) -> str:
    with caplog.at_level(logging.INFO, logger="sharedcache"):
        journal.event("pass", **fields)
    (record,) = caplog.records
    return record.getMessage()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain-1.2/x%s", "plain-1.2/x%s"),
        ("two words", '"two words"'),
        ("", '""'),
        ('say "x"', '"say \\"x\\""'),
        ("a=b", '"a=b"'),
        ("line\nend", '"line\\nend"'),
        ("grün", '"gr\\u00fcn"'),
        ("\udce9", '"\\udce9"'),
        (7, "7"),
        (0, "0"),
        (None, "null"),
        (True, "true"),
        (1.23456, "1.235"),
        ([1, "a b"], '[1,"a b"]'),
        (frozenset({"b", "a"}), '["a","b"]'),
        ({"k": 1}, '{"k":1}'),
        (b"\x01\xff", '"01ff"'),
        (KernelNaming.SHA1, '"sha1"'),
        (ValueError("no: x"), '"no: x"'),
    ],
)
def test_values_are_quoted_when_needed(
    caplog: pytest.LogCaptureFixture, value: object, text: str
) -> None:
    """A value is one word of the line, or quoted; no line ever becomes two."""
    assert _line(caplog, LogJournal(), value=value) == f"pass value={text}"


def test_fields_keep_their_order(caplog: pytest.LogCaptureFixture) -> None:
    """The teller decides what is read first."""
    line = _line(caplog, LogJournal(), z=1, epoch=2, a=3)
    assert line == "pass z=1 epoch=2 a=3"


@pytest.mark.parametrize(
    ("event", "level"), [("expunged-node-returned", "WARNING"), ("pass", "INFO")]
)
def test_alarms_are_warnings(
    caplog: pytest.LogCaptureFixture, event: str, level: str
) -> None:
    """What somebody should look at now stands out from the rest of the log."""
    with caplog.at_level(logging.INFO, logger="sharedcache"):
        LogJournal().event(event, node="n1")
    (record,) = caplog.records
    assert record.levelname == level


def test_json_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Each line is an object; no field hides the event, the time or the level."""
    with caplog.at_level(logging.INFO, logger="sharedcache"):
        LogJournal().event("pass", epoch=2, names={"b", "a"}, event="x", level=None)
    (record,) = caplog.records
    record.created = 1_700_000_000.25
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "INFO",
        "logger": "sharedcache",
        "event": "pass",
        "epoch": 2,
        "names": ["a", "b"],
    }


def test_other_lines_are_json_too(caplog: pytest.LogCaptureFixture) -> None:
    """What libraries say, and errors with their tracebacks, are objects as well."""
    try:
        int("one\ntwo")
    except ValueError:
        logging.getLogger("kazoo").exception("lost %s", "it")
    (record,) = caplog.records
    line = JsonLines().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["logger"]) == ("ERROR", "kazoo")
    assert told["message"] == "lost it"
    assert told["traceback"].startswith("Traceback")


def test_fields_may_have_any_name(caplog: pytest.LogCaptureFixture) -> None:
    """A field called name does not collide with the event's."""
    assert _line(caplog, LogJournal(), name="x", self=1) == "pass name=x self=1"


def test_another_logger(caplog: pytest.LogCaptureFixture) -> None:
    """The logger may be given, and what it does not want costs nothing."""
    logger = logging.getLogger("sharedcache.test_journal")
    with caplog.at_level(logging.WARNING, logger=logger.name):
        LogJournal(logger).event("pass", value=object())
    assert caplog.records == []
