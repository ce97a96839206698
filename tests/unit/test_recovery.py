"""Recovery, judged from what the storage and ZooKeeper say: numbers only go up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedcache.core.model import (
    Cluster,
    Incarnation,
    KernelNaming,
    Report,
    Unreadable,
    Uses,
    Witness,
)
from sharedcache.core.recovery import (
    DOUBT,
    CannotRecoverError,
    Standing,
    doubted,
    judge,
)

CLUSTER = Cluster("c", "f00d")
FIRST, SECOND = Incarnation("boot", 1), Incarnation("boot", 2)
STAMP = 1_700_000_000_000


def report(node: str, incarnation: Incarnation = FIRST, **more: object) -> Report:
    """Return a complete report of one node."""
    made = Report(
        node=node,
        incarnation=incarnation,
        schema_version=2,
        kernel_naming=KernelNaming.SHA1,
        upto=7,
        since_round=6,
        unbroken=True,
        now=Uses(),
        since=Uses(),
        storage_time_ns=1,
        name_cache_s=0.0,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def witness(node: str, incarnation: Incarnation = FIRST) -> Witness:
    """Return a node's witness."""
    return Witness(node, incarnation, 1)


HEALTHY = Standing(
    on_storage=CLUSTER,
    in_zookeeper=CLUSTER,
    storage_epoch=4,
    zookeeper_epoch=4,
    round=7,
    entry_rounds=(5, 8),
    storage_schema=2,
    zookeeper_schema=2,
    authorisation=None,
    witnesses={"n1": witness("n1")},
    reports={"n1": report("n1")},
    expunged=frozenset(),
    broken={},
    gaps=(),
)
LOST = replace(
    HEALTHY,
    in_zookeeper=None,
    zookeeper_epoch=None,
    round=None,
    entry_rounds=(),
    zookeeper_schema=None,
    reports={},
    gaps=("identity", "epoch"),
)


def test_two_sides_that_agree_need_nothing() -> None:
    """Without a problem nothing is to be changed."""
    assert judge(HEALTHY, "c", STAMP).problems == ()


def test_an_operator_may_know_more() -> None:
    """A copy of the same epoch shows nothing; the operator's word counts."""
    judged = judge(HEALTHY, "c", STAMP, anyway=True)
    assert len(judged.problems) == 1
    assert judged.doubt == ("n1",)


def test_data_that_was_lost_is_one_problem() -> None:
    """Its missing records are not listed one by one."""
    judged = judge(LOST, "c", STAMP)
    assert len(judged.problems) == 1
    assert judged.expect == ("n1",)
    assert judged.epoch == 5
    assert judged.schema == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"zookeeper_epoch": 3}, "epoch 3"),
        ({"zookeeper_epoch": None, "gaps": ("epoch",)}, "no record epoch"),
        ({"zookeeper_epoch": Unreadable("cut short")}, "cut short"),
        ({"round": Unreadable("cut short")}, "round"),
        ({"authorisation": Unreadable("cut short")}, "authorisation"),
        ({"zookeeper_schema": 1}, "schema 1"),
        ({"storage_schema": Unreadable("cut short")}, "storage's finalized"),
        ({"broken": {"b1": Unreadable("cut short")}}, "record b1"),
    ],
)
def test_each_disagreement_is_a_problem(changed: dict[str, object], says: str) -> None:
    """Each is named once, in words that tell what it is."""
    judged = judge(replace(HEALTHY, **changed), "c", STAMP)  # type: ignore[arg-type]
    assert len(judged.problems) == 1
    assert says in judged.problems[0]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"on_storage": None}, "mount it"),
        ({"on_storage": Unreadable("cut short")}, "put a copy back"),
        ({"on_storage": Unreadable("2", newer=True)}, "newer release"),
        ({"on_storage": Cluster("d", "f00d")}, "belongs to cluster d"),
        ({"in_zookeeper": Cluster("c", "beef")}, "two clusters"),
        ({"zookeeper_epoch": Unreadable("2", newer=True)}, "newer release"),
        ({"zookeeper_schema": Unreadable("2", newer=True)}, "newer release"),
        ({"storage_schema": Unreadable("2", newer=True)}, "newer release"),
        (
            {"storage_schema": 3},
            "storage knows schema 3.*remove .sharedcache/schema",
        ),
        ({"zookeeper_schema": 3}, "ZooKeeper knows schema 3.*up to 2: use one"),
        ({"broken": {"b1": Unreadable("2", newer=True)}}, "newer release"),
    ],
)
def test_nothing_is_guessed(changed: dict[str, object], says: str) -> None:
    """Doubt about whose directory it is, or a newer record, ends it."""
    with pytest.raises(CannotRecoverError, match=says):
        judge(replace(HEALTHY, **changed), "c", STAMP, anyway=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("stamp", [1, 9, STAMP])
def test_epoch_and_round_were_never_used(stamp: int) -> None:
    """They are above everything that either side, a report or an entry names."""
    late = replace(HEALTHY, reports={"n1": report("n1", upto=20)})
    for standing in (HEALTHY, late, LOST):
        judged = judge(standing, "c", stamp, anyway=True)
        assert judged.epoch == 5
        assert judged.round >= stamp
        assert judged.round > max([7, 8] if standing is HEALTHY else [0])
    assert judge(late, "c", 1, anyway=True).round == 21


def test_the_higher_schema_stays_finalized() -> None:
    """Finalizing is one way, whichever side knows of it."""
    assert judge(replace(HEALTHY, zookeeper_schema=1), "c", STAMP).schema == 2
    behind = replace(HEALTHY, storage_schema=None)
    assert judge(behind, "c", STAMP, anyway=True).schema == 2
    unknown = replace(LOST, storage_schema=None)
    assert judge(unknown, "c", STAMP).schema == 1


def test_a_witness_without_a_roster_record_is_expected_again() -> None:
    """Unless it was expunged, and no agent started there since."""
    standing = replace(
        LOST,
        witnesses={n: witness(n) for n in ("n1", "n2", "n3")},
        expunged=frozenset({"n2"}),
    )
    assert judge(standing, "c", STAMP).expect == ("n1", "n3")


def test_which_reports_may_not_be_the_last_word() -> None:
    """All but those of nodes that sealed and have not started since."""
    reports = {
        "live": report("live"),
        "slept": report("slept", sealed=True),
        "woke": report("woke", sealed=True),
        "lost": report("lost", sealed=True),
        "degraded": report("degraded", failures=(DOUBT,)),
        "broken": Unreadable("cut short"),
        "silent": None,
    }
    standing = replace(
        HEALTHY,
        reports=reports,
        witnesses={
            "live": witness("live"),
            "slept": witness("slept"),
            "woke": witness("woke", SECOND),
        },
    )
    judged = judge(standing, "c", STAMP, anyway=True)
    assert judged.doubt == ("live", "lost", "woke")


def test_a_doubted_report_keeps_its_uses_and_is_not_complete() -> None:
    """It goes on protecting, and no waiver completes it."""
    used = Uses(names=frozenset({"swap_1"}))
    made = doubted(report("n1", now=used))
    assert made.now == used
    assert not made.complete
