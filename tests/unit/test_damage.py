"""Orders of damaged files: their record, whom they reach, and when they are spent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sharedcache import ledger
from sharedcache.core import codec
from sharedcache.core.checker import PlanRejectedError, check_plan
from sharedcache.core.damage import (
    MAX_ORDERS,
    orders_from_record,
    orders_to_record,
)
from sharedcache.core.digests import (
    Digest,
    Published,
    from_record,
    parse_record_name,
    record_name,
    to_record,
)
from sharedcache.core.holders import users_of
from sharedcache.core.model import Baseline, EntryState, ManifestBatch, Unreadable
from sharedcache.core.names import MAX_NAME_LENGTH
from sharedcache.core.plan import Observation, Plan, Why
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import CleanerPolicy
from sharedcache.core.ports import Record
from sharedcache.core.remains import orphans, spent
from tests.property.strategies import (
    D1,
    D2,
    K1,
    NOW_NS,
    SECOND,
    damage,
    entry,
    file_facts,
    observation,
    report,
    table,
    uses_of,
    view,
)

POLICY = CleanerPolicy()
YOUNG = file_facts(mtime_ns=NOW_NS - 10 * SECOND)
ORDER = damage(mtime_ns=YOUNG.mtime_ns)


def _seen(*nodes: Any, **changes: Any) -> Observation:
    fields: dict[str, Any] = {"files": table((D1, YOUNG)), "damaged": {D1: ORDER}}
    return observation(*nodes, **{**fields, **changes})


def _plan(seen: Observation) -> Plan:
    plan = make_plan(POLICY, seen)
    check_plan(POLICY, seen, plan)
    return plan


def test_a_damaged_file_is_taken_before_its_minimum_age() -> None:
    """An order of this very file stands in for its age, and for nothing else."""
    assert Why(_plan(_seen(damaged={})).whys[0]) is Why.TOO_YOUNG
    plan = _plan(_seen())
    assert Why(plan.whys[0]) is Why.DAMAGED
    assert [taking.name for taking in plan.take] == [D1]


def test_what_is_wrong_is_told_by_digests_or_by_the_size() -> None:
    """A file of another size need not be read to be known as damaged."""
    assert (
        damage(found="sha256:b", recorded="sha256:a").what
        == "sha256:b and not sha256:a"
    )
    assert damage(found="", size=7).what.startswith("7 bytes, and not as many")


@pytest.mark.parametrize("field", ["inode", "size", "mtime_ns"])
def test_an_order_is_about_one_state_of_one_file(field: str) -> None:
    """Another inode, size or time of last use: the file was replaced, or used."""
    other = replace(ORDER, **{field: getattr(ORDER, field) + 1})
    seen = _seen(damaged={D1: other})
    assert Why(_plan(seen).whys[0]) is Why.TOO_YOUNG
    with pytest.raises(PlanRejectedError, match="only 10 s old"):
        check_plan(POLICY, seen, make_plan(POLICY, _seen()))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"holds": frozenset({D1})}, Why.HELD),
        ({"files": table((D1, replace(YOUNG, links=2)))}, Why.LINKED),
        ({"files": table((D1, replace(YOUNG, regular=False)))}, Why.NOT_REGULAR),
    ],
)
def test_no_other_rule_is_lifted(changes: dict[str, Any], why: Why) -> None:
    """Held, linked, no regular file: kept, whatever its content."""
    assert Why(_plan(_seen(**changes)).whys[0]) is why


def test_a_damaged_file_that_is_used_is_kept() -> None:
    """A use keeps it, and so does a report that is older than its last touch."""
    used = view(report(now=uses_of(D1)))
    assert Why(_plan(_seen(used)).whys[0]) is Why.USED
    late = view(report(storage_time_ns=YOUNG.mtime_ns))
    assert Why(_plan(_seen(late)).whys[0]) is Why.REPORT_OLDER


def test_the_end_of_a_use_is_asked_for_at_once() -> None:
    """A young damaged file that was used a while ago needs new rounds, too."""
    over = view(report(since=uses_of(D1)))
    assert _plan(_seen(over)).fresh_reports
    assert not _plan(_seen(over, damaged={})).fresh_reports


def test_orders_round_trip_and_fit_one_record() -> None:
    """As many as may stand, with the longest of everything, fit one znode."""
    assert orders_from_record(codec.unpack(codec.pack(orders_to_record([ORDER])))) == {
        D1: ORDER
    }
    longest = [
        damage(
            f"{number:06d}".ljust(MAX_NAME_LENGTH, "x"),
            inode=2**64 - 1,
            size=2**63 - 1,
            recorded="sha512:" + "0" * 128,
            found="sha512:" + "1" * 128,
            by="o" * 500,
        )
        for number in range(MAX_ORDERS)
    ]
    assert len(codec.pack(orders_to_record(longest))) < 800_000


def test_what_a_later_release_adds_is_carried_along() -> None:
    """To an order, and to a record of a digest that is marked or mended."""
    later = {**orders_to_record([ORDER])}
    later["orders"] = [{**one, "host": 7} for one in later["orders"]]  # type: ignore[attr-defined]
    read = orders_from_record({"schema": 1, **later})
    assert orders_to_record(read.values()) == later
    written = to_record(Published(D1, 7, 9, Digest("md5", "0" * 32)))
    record = from_record({"schema": 1, "tree": "x", **written})
    assert to_record(replace(record, damage="spoilt")) == {
        **written,
        "tree": "x",
        "damage": "spoilt",
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        codec.pack({"orders": 7}),
        codec.pack({"orders": [7]}),
        codec.pack({"orders": [{"name": D1}]}),
    ],
)
def test_orders_that_cannot_be_read_order_nothing(data: bytes) -> None:
    """A damaged record lets no file be taken sooner; an empty one is none."""
    found = ledger.damaged_of(Record(data, 0))
    assert found == {} if not data else isinstance(found, Unreadable)


def test_an_order_is_spent_when_its_file_is_nowhere() -> None:
    """One in quarantine can be restored; one of another inode is another file."""
    assert spent(_seen()) == frozenset()
    assert spent(_seen(files=table())) == {D1}
    assert spent(_seen(files=table((D1, replace(YOUNG, inode=7))))) == {D1}
    taken = entry(D1, baseline=Baseline.of(YOUNG))
    there = (ManifestBatch("b", (taken,)),)
    assert spent(_seen(files=table(), manifest=there)) == frozenset()
    doubt = entry(D1, state=EntryState.INTENDED, baseline=None)
    unclear = (ManifestBatch("b", (doubt,)),)
    assert spent(_seen(files=table(), manifest=unclear)) == frozenset()


def test_records_of_files_that_are_nowhere_are_dropped_when_they_are_old() -> None:
    """A writer records before it publishes: a young record may be its."""
    old, young = NOW_NS - 100 * SECOND, NOW_NS - 10 * SECOND
    taken = entry(D2, baseline=Baseline.of(file_facts(inode=5)))
    seen = _seen(manifest=(ManifestBatch("b", (taken,)),))
    records = {
        (D1, YOUNG.inode): old,
        (D1, 7): old,
        (D2, 5): old,
        (D2, 6): old,
        (K1, 1): young,
    }
    assert orphans(seen, records, 50 * SECOND) == sorted([(D1, 7), (D2, 6)])


def test_users_are_named() -> None:
    """Every node whose last report names the file, or its original."""
    seen = observation(
        view(report("a", now=uses_of(f"{D1}_20"))),
        view(report("b", since=uses_of(families=(D1,)))),
        view(report("c")),
        view(Unreadable("cut short"), node="d"),
    )
    assert users_of(seen, [f"{D1}_20", D2]) == {f"{D1}_20": ("a", "b"), D2: ()}


@pytest.mark.parametrize("name", [D1, K1, f"{D1}_20", "swap_1"])
def test_names_of_records(name: str) -> None:
    """A record's name is a cache name and an inode; all else is none of ours."""
    assert parse_record_name(record_name(name, 2**64 - 1)) == (name, 2**64 - 1)
    for other in (name, f"{name}.0", f"{name}.x", f".{name}.7", f"{name}.7.part"):
        assert parse_record_name(other) is None, other
