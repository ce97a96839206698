"""``sharedcache history``, and logs as JSON, as an operator meets them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache import audit
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.core.acts import Act, By, Deed, Doer, Subject
from sharedcache.core.ports import Append, Delete
from tests.support.cluster import Cluster, cache_name, image_id

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)

KEYS = {
    *("number", "act", "when", "by", "who", "epoch", "name", "entry", "bytes"),
    *("last_use", "plan", "round", "asked", "why"),
}
UNUSED = cache_name(image_id(2))


@pytest.fixture
def word(cluster: Cluster) -> Iterator[ZooKeeperSession]:
    """Give a session of the cluster's."""
    session = ZooKeeperSession(cluster.zookeeper, cluster.name, "word")
    session.start()
    yield session
    session.stop()


def acts(rows: list[dict[str, Any]]) -> list[str]:
    """Name the acts of rows."""
    return [row["act"] for row in rows]


def test_the_life_of_a_file_and_of_a_cluster(cluster: Cluster) -> None:
    """From founding to purge, chosen by name, act, time and number."""
    nothing = cluster.run("history")
    assert nothing.code == 1
    assert f"ZooKeeper has no cluster {cluster.name}" in nothing.err

    cluster.put(UNUSED, b"y" * 500)
    cluster.init()
    (founded,) = cluster.ask("history")
    assert set(founded) == KEYS
    assert (founded["act"], founded["by"]) == ("founded", "operator")
    assert "@" in founded["who"]
    assert abs(founded["when"] - time.time()) < 60

    cluster.agent("compute-1")
    cluster.wait_live("compute-1")
    cluster.ask("clean", "--once", "--wait")
    cluster.ask("pause", "--why", "storage work")
    told = cluster.ask("history")
    assert acts(told) == [
        *("founded", "took-office", "quarantined", "purged", "paused")
    ]
    assert [row["number"] for row in told] == [0, 1, 2, 3, 4]
    purged = told[3]
    assert (purged["name"], purged["bytes"], purged["epoch"]) == (UNUSED, 500, 1)
    assert purged["why"] == f"confirmed by every node, round {purged['round']}"

    assert cluster.ask("history", UNUSED) == told[2:4]
    assert cluster.ask("history", purged["entry"]) == told[2:4]
    assert cluster.ask("history", "--act", "purged", "--act", "paused") == told[3:]
    assert cluster.ask("history", "--limit", "2") == told[3:]
    assert cluster.ask("history", "--limit", "1", UNUSED) == told[3:4]
    assert cluster.ask("history", "--since", "1h") == told
    assert cluster.ask("history", "--since", "0s") == []
    assert cluster.run("history", "--since", "soon").code == 2
    assert cluster.run("history", "--act", "purge").code == 2
    assert cluster.run("history", "no-such-file").out == "none\n"

    head, rule, *lines = cluster.run("history").out.splitlines()
    assert head.split() == ["when", "(UTC)", "act", "by", "size", "name", "why"]
    assert set(rule) == {"-", " "}
    assert len(lines) == len(told)
    assert lines[3].split()[2:5] == ["purged", "epoch", "1"]
    assert UNUSED in lines[3]
    assert lines[4].endswith("storage work")


def test_what_was_refused_is_on_record_once(cluster: Cluster) -> None:
    """Asked again and again, an hour knows it once; another asking is another."""
    cluster.init()
    cluster.agent("compute-1")
    cluster.agent("compute-2")
    cluster.wait_live("compute-1", "compute-2")
    for _ in range(2):
        assert cluster.run("node", "expunge", "compute-1", "--yes").code == 3
    assert cluster.run("node", "expunge", "compute-2", "--yes").code == 3
    assert cluster.run("approve", "0123456789").code == 3
    told = cluster.ask("history", "--act", "refused")
    assert [(row["asked"], row["name"]) for row in told] == [
        ("expunge", "compute-1"),
        ("expunge", "compute-2"),
        ("approve", None),
    ]
    assert "compute-1 is live" in told[0]["why"]


def test_a_rollout_that_is_refused_too_early_is_on_record(cluster: Cluster) -> None:
    """A refusal with many words, which are cut, is recognised all the same."""
    cluster.init("--schema", "1")
    # The first three are named, and are too much already.
    names = [f"compute-{n:03d}-" + "with-a-long-name" * 11 for n in range(4)]
    cluster.ask("node", "expect", *names)
    for _ in range(2):
        assert cluster.run("rollout", "finalize", "--yes").code == 3
    (refused,) = cluster.ask("history", "--act", "refused")
    assert refused["asked"] == "finalize"
    assert len(refused["why"]) == 500
    assert acts(cluster.ask("history", "--act", "expected")) == ["expected"] * 4


def test_an_old_cluster_has_no_history_and_no_error(
    cluster: Cluster, word: ZooKeeperSession
) -> None:
    """One that an older release founded has no trail until something happens."""
    cluster.init()
    names = [f"{audit.TRAIL}/{name}" for name in word.children(audit.TRAIL)]
    word.commit([Delete(name, None) for name in [*names, audit.TRAIL]])
    assert cluster.ask("history") == []
    assert cluster.run("history").out == "none\n"
    cluster.ask("pause")
    assert acts(cluster.ask("history")) == ["paused"]


def test_damaged_and_newer_acts_are_shown_as_such(
    cluster: Cluster, word: ZooKeeperSession
) -> None:
    """What cannot be read is a row that says why, in its place among the others."""
    cluster.init()
    word.commit([Append("audit/act-", b"\xc1"), Append("audit/act-", b"\x81\xa6")])
    word.commit([Append("audit/act-", b"\x82\xa6schema\x09\xa1x\x01")])
    cluster.ask("pause")
    told = cluster.ask("history")
    assert acts(told) == [*("founded", "unreadable", "unreadable", "newer", "paused")]
    assert {tuple(sorted(row)) for row in told} == {tuple(sorted(KEYS))}
    assert "schema 9 is newer" in told[3]["why"]
    assert acts(cluster.ask("history", "--limit", "3")) == acts(told[2:])
    assert "schema 9 is newer" in cluster.run("history").out


def test_a_long_history_is_whole(cluster: Cluster, word: ZooKeeperSession) -> None:
    """Ten thousand acts, as many as are kept, in order, in any direction."""
    cluster.init()
    doer = Doer(By.CLEANER, "c1", 1)
    for batch in range(100):
        subjects = tuple(
            Subject(f"{batch:020x}{n:020x}", f"{n:016x}", 1, 1) for n in range(100)
        )
        act = Act(Deed.PURGED, doer, float(batch), "unused", subjects)
        word.commit(audit.operations([act]))
    told = cluster.ask("history")
    assert len(told) == 10_001
    assert [row["number"] for row in told] == [
        0,
        *(1 + n // 100 for n in range(10_000)),
    ]
    names = [row["name"] for row in told[1:]]
    assert names == [f"{n // 100:020x}{n % 100:020x}" for n in range(10_000)]
    assert cluster.ask("history", "--limit", "250") == told[-250:]
    assert len(cluster.run("history", "-f", "value").out.splitlines()) == 10_001


def json_lines(path: Any) -> list[dict[str, Any]]:
    """Read a log in which every line is an object."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_of_json_has_one_object_a_line(cluster: Cluster) -> None:
    """The keys of an act in the log are those of history; all else is JSON too."""
    cluster.put(UNUSED)
    cluster.init()
    agent = cluster.agent("compute-1", start=False)
    cleaner = cluster.cleaner(start=False)
    for daemon in (agent, cleaner):
        text = daemon.config.read_text()
        given = text.replace("[sharedcache]", "[sharedcache]\nlog_form = json")
        daemon.config.write_text(given)
        daemon.start()
    cluster.wait(lambda: UNUSED not in cluster.names(), "quarantined")
    cluster.wait(lambda: UNUSED not in cluster.quarantined(), "purged")
    cluster.wait(lambda: cluster.ask("history", "--act", "purged"), "on record")
    (line,) = [
        told
        for told in json_lines(cleaner.log)
        if told.get("event") == "audit" and told["act"] == "purged"
    ]
    (row,) = cluster.ask("history", "--act", "purged")
    assert line.items() >= {k: v for k, v in row.items() if k != "number"}.items()
    assert set(line) == (KEYS - {"number"}) | {"time", "level", "logger", "event"}
    told = [told.get("event") for told in json_lines(agent.log)]
    assert {"agent-started", "reported"} <= set(told)
