"""The table of bad inputs and their tests name each other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_line_of_the_table_has_its_test_and_every_test_its_line() -> None:
    """A test that is renamed must not leave a promise without proof behind."""
    table = (ROOT / "docs" / "bad-input.md").read_text()
    named = re.findall(r"`(test_\w+)` \|$", table, re.MULTILINE)
    there = [
        name
        for path in (ROOT / "tests" / "fault").glob("test_bad_input_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    assert sorted(named) == sorted(there)
    assert len(named) == len(set(named))
    files = re.findall(r"^In `(tests/\S+)`\.$", table, re.MULTILINE)
    assert all((ROOT / file).exists() for file in files)
