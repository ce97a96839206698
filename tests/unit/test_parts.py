"""What lies in several records is read whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest

from sharedcache import inventory, ledger
from sharedcache.core import codec
from sharedcache.core.inventory import Inventory
from sharedcache.core.model import Report, RosterRecord, Unreadable, Uses
from sharedcache.core.ports import Record
from tests.property.strategies import report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sharedcache.core.ports import Coordination

MANY = Uses(images=frozenset(number.to_bytes(20, "big") for number in range(50_000)))
REPORT = report("n1", now=MANY)
PACKED = ledger.pack_report(REPORT, "token")


class _Tree:
    """Records by path, to read."""

    def __init__(self, records: dict[str, bytes]) -> None:
        self.records = records

    def get_many(self, paths: Sequence[str]) -> list[Record | None]:
        """Read them."""
        found = [self.records.get(path) for path in paths]
        return [None if data is None else Record(data, 3, 0) for data in found]


def _tree(records: dict[str, bytes]) -> Coordination:
    return cast("Coordination", _Tree(records))


def _read(parts: dict[str, bytes], head: object = None) -> Report | Unreadable:
    head = PACKED.capabilities if head is None else head
    return ledger.read_reports(_tree(parts), {"n1": head})["n1"]


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_report_in_parts_is_read_back() -> None:
    """Every use that it names is in it again."""
    assert len(PACKED.parts) > 1
    assert _read(dict(PACKED.parts)) == REPORT


@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize("how", [None, _cut, _changed])
def test_a_report_with_a_bad_part_is_unreadable(
    which: int, how: Callable[[bytes], bytes] | None
) -> None:
    """I4: a part that is missing or damaged could have named any file."""
    parts = dict(PACKED.parts)
    path = list(parts)[which]
    data = parts.pop(path)
    if how is not None:
        parts[path] = how(data)
    found = _read(parts)
    assert isinstance(found, Unreadable)
    record = Record(ledger.roster_data("n1", PACKED), 0, 0)
    assert ledger.durable_report(record, "n1", _tree(parts)) == found


def test_a_report_whose_parts_are_swapped_is_unreadable() -> None:
    """Their lengths may fit, what they say together does not."""
    first, second, *others = PACKED.parts
    head = {**PACKED.capabilities, "parts": [second, first, *others]}
    assert isinstance(_read(dict(PACKED.parts), head), Unreadable)


@pytest.mark.parametrize("where", ["manifest", f"{ledger.PARTS}/..", "holds"])
def test_a_report_whose_parts_lie_elsewhere_is_unreadable(where: str) -> None:
    """A head names parts of reports and nothing else, whatever lies there."""
    parts = {f"{where}/{n}": data for n, data in enumerate(PACKED.parts.values())}
    head = {**PACKED.capabilities, "parts": list(parts)}
    assert isinstance(_read(parts, head), Unreadable)


@pytest.mark.parametrize("values", [PACKED.capabilities, report("n1")])
def test_a_report_of_another_node_is_unreadable(values: Any) -> None:
    """What stands under a node's name and speaks for another protects nobody."""
    if isinstance(values, Report):
        values = codec.report_to_record(values)
    found = ledger.read_reports(_tree(dict(PACKED.parts)), {"n2": values})["n2"]
    assert found == Unreadable("the report is n1's")


def test_a_whole_report_is_read_with_its_roster_record() -> None:
    """In parts or not, the durable half says the same."""
    record = Record(ledger.roster_data("n1", PACKED), 0, 0)
    found = ledger.durable_report(record, "n1", _tree(dict(PACKED.parts)))
    assert found == RosterRecord("n1", REPORT)


def test_a_roster_record_that_went_meanwhile_is_none() -> None:
    """It was listed, and is not there to be read."""
    roster = ledger.roster_of([("n1", None), ("n2", Record(b"\xc1", 1, 0))])
    assert roster.versions == {"n2": 1}
    assert set(roster.unreadable) == {"n2"}


@pytest.mark.parametrize("how", [None, _cut, _changed])
def test_an_inventory_with_a_bad_part_is_unreadable(
    how: Callable[[bytes], bytes] | None,
) -> None:
    """The gate closes on it: any raw-id file may be one that appeared."""
    names = {f"{n:08x}-0000-4000-8000-000000000000": n for n in range(60_000)}
    data = inventory.data_of(Inventory(names, settled=True))
    size = ledger.PART_BYTES
    mark = hashlib.sha256(data).hexdigest()
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    assert len(pieces) > 1
    parts = {f"{inventory.PATH}/{mark}.{i}": piece for i, piece in enumerate(pieces)}
    head = Record(codec.pack({"sha256": mark, "parts": len(pieces)}), 7, 0)
    whole = inventory.read(_tree(parts), head)
    assert isinstance(whole, Inventory)
    assert (len(whole.inodes), whole.version) == (60_000, 7)
    path, last = parts.popitem()
    if how is not None:
        parts[path] = how(last)
    assert isinstance(inventory.read(_tree(parts), head), Unreadable)


def test_the_authorisation_is_never_just_missing() -> None:
    """A tree without its record is broken, and says nothing of what is authorised."""
    with pytest.raises(codec.RecordError):
        ledger.authorisation_of(None)
