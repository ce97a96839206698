"""Golden records: what any release wrote is read, and no form changes unnoticed."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import sharedcache.core
from tests.upgrade.golden_records import FOLDER, KINDS, NEXT, OTHERWISE, golden

FILES = sorted(path for path in FOLDER.glob("*/*") if path.is_file())


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_what_a_release_wrote_is_read_as_it_was_meant(path: Path) -> None:
    """Each golden file of each release is read to the value that it was made of."""
    kind, release = KINDS[path.stem], path.parent.name
    expected = OTHERWISE.get(release, {}).get(path.stem, kind.value)
    assert kind.read(path.read_bytes()) == expected


@pytest.mark.parametrize("name", KINDS)
def test_no_form_changes_without_a_new_golden_file(name: str) -> None:
    """What is written today is what ``golden/next`` holds, byte for byte.

    If it was meant: does an older release still read it, or must it stand back
    (docs/decisions/0027)?  Then `python -m tests.upgrade.golden_records`.
    """
    assert KINDS[name].write() == golden(NEXT, name).read_bytes()


def test_every_golden_file_is_of_a_known_kind_and_no_release_lost_any() -> None:
    """A kind that is not written any more is still read, so its file stays."""
    names = {path.stem for path in FILES}
    assert names == set(KINDS)
    assert len([path for path in FILES if path.parent.name == "0.1.0"]) == 18


def _written() -> set[str]:
    """Name every function of the core that turns a value into a record."""
    found = set()
    for module in pkgutil.iter_modules(sharedcache.core.__path__, "sharedcache.core."):
        for name, function in vars(importlib.import_module(module.name)).items():
            own = getattr(function, "__module__", "") == module.name
            if own and name.endswith("to_record"):
                found.add(f"{module.name.rpartition('.')[2]}.{name}")
    return found


def test_every_record_of_the_core_has_a_golden_file() -> None:
    """Whoever adds a kind of record adds its golden file, and names it here."""
    of_codec = (
        *("report", "batch", "authorisation", "cluster", "rollout", "witness"),
        "counter",
    )
    # Not written by itself: the ledger puts a report into its roster record.
    beside = {"codec.roster_to_record"}
    assert _written() - beside == {
        *(f"codec.{kind}_to_record" for kind in of_codec),
        *("brakecodec.memory_to_record", "brakecodec.brake_to_record"),
        *("acts.act_to_record", "digests.to_record", "inventory.to_record"),
        *("questions.question_to_record", "questions.answer_to_record"),
        "damage.orders_to_record",
    }
