"""``explain`` and ``quarantine restore`` with real processes and a real ZooKeeper."""

from __future__ import annotations

import fcntl
import json
import os
import struct

import pytest
from click.testing import CliRunner, Result
from kazoo.client import KazooClient

from sharedcache.cleaner import operator
from sharedcache.cli.base import Connection
from sharedcache.cli.main import cli
from tests.support.cluster import Cluster, cache_name, image_id

USED, UNUSED, OTHER = image_id(1), image_id(2), image_id(3)

pytestmark = pytest.mark.timeout(180)


def test_a_used_file_is_explained_with_its_nodes(cluster: Cluster) -> None:
    """Every node, who uses it, since when it is untouched, and every rule at once."""
    cluster.clean_by(min_age_image_s=30 * 86400)
    path = cluster.put(cache_name(USED), age_s=3 * 86400.0)
    cluster.init()
    cluster.agent("n1", uses={"images": [USED]}, touch_interval_s=9e6)
    cluster.agent("n2")
    cluster.wait_live("n1", "n2")
    held = cluster.ask("hold", "add", cache_name(USED), "--why", "golden")
    assert held["where"] == ["cache"]
    told = cluster.ask("explain", cache_name(USED))
    assert (told["where"], told["verdict"], told["reason"]) == (
        ["cache"],
        "keep",
        "held",
    )
    assert told["hold"] == "golden"
    assert {n["node"]: (n["state"], n["uses"], n["bears"]) for n in told["nodes"]} == {
        "n1": ("live", "now", True),
        "n2": ("live", None, False),
    }
    words = {node["node"]: node["sources"] for node in told["nodes"]}
    assert words["n2"] is None
    (source,) = words["n1"]
    assert (source["source"], source["by_family"], source["until"]) == (
        "uses-file",
        False,
        None,
    )
    assert source["since"] <= told["time"] + 60
    assert source["since_at_least"]
    (referrer,) = source["referrers"]
    assert (referrer["kind"], referrer["path"]) == (
        "file",
        str(cluster.root / "uses/n1.json"),
    )
    assert all(
        node["sources"] is None
        for node in cluster.ask("explain", cache_name(USED), "--wait", "0")["nodes"]
    )
    rules = {one["rule"]: one for one in told["file"]["obstacles"]}
    assert set(rules) == {"held", "used", "too-young"}
    assert rules["used"]["nodes"] == ["n1"]
    assert 26 * 86400 < rules["too-young"]["passes_in_s"] <= 27 * 86400
    assert told["locks"] == {"nova": "free", "qemu": "free"}
    by_path = cluster.ask("explain", str(path))
    assert by_path["name"] == cache_name(USED)
    by_image = cluster.run("explain", USED)
    assert cache_name(USED) in by_image.err
    shown = cluster.run("explain", cache_name(USED)).out
    assert "sharedcache hold remove" in shown
    assert "uses it now" in shown
    assert "uses/n1.json" in shown
    assert "UTC or before" in shown
    assert "Nodes that do not name it: 1." in shown


def test_a_name_that_is_nowhere_is_told_so(cluster: Cluster) -> None:
    """Not there, no cache name, and in use but nowhere: three answers, exit code 1."""
    cluster.put("notes.txt")
    cluster.init()
    cluster.agent("n1", uses={"names": [cache_name(OTHER)]})
    cluster.wait_live("n1")
    nowhere = cluster.run("explain", cache_name(UNUSED))
    assert nowhere.code == 1
    assert "neither in the cache directory nor in quarantine" in nowhere.err
    strange = cluster.run("explain", "no-such.txt")
    assert strange.code == 1
    assert "is no cache name" in strange.err
    lost = cluster.run("explain", cache_name(OTHER))
    assert lost.code == 1
    assert "in use, as n1 says" in lost.err
    assert "finds it nowhere" in lost.out
    kept = cluster.ask("explain", "notes.txt")
    assert (kept["kind"], kept["reason"]) == ("unrecognised", "unrecognised")


def test_locks_are_told_and_nothing_is_made(cluster: Cluster) -> None:
    """Nova's lock and a guest's locks are asked for, not taken."""
    name = cache_name(UNUSED)
    path = cluster.put(name)
    cluster.init()
    cluster.agent("n1")
    cluster.wait_live("n1")
    locks = cluster.root / "instances" / "locks"
    assert cluster.ask("explain", name)["verdict"] == "quarantine"
    assert not locks.exists()
    locks.mkdir()
    nova = (locks / f"nova-{name}").open("wb")
    fcntl.lockf(nova, fcntl.LOCK_EX)
    guest = os.open(path, os.O_RDONLY)
    qemu = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
    fcntl.fcntl(guest, fcntl.F_OFD_SETLK, qemu)
    told = cluster.ask("explain", name)
    assert told["locks"] == {"nova": "held", "qemu": "held"}
    rules = [one["rule"] for one in told["file"]["obstacles"]]
    assert rules == ["lock-busy", "qemu-lock"]
    os.close(guest)
    nova.close()


def test_a_quarantined_file_is_explained_and_restored(cluster: Cluster) -> None:
    """Its grace is told; restored it is back with its content, and stays."""
    cluster.clean_by(grace_s=3600, min_age_image_s=600)
    name = cache_name(UNUSED)
    path = cluster.put(name, b"y" * 500)
    cluster.init()
    cluster.agent("n1")
    cluster.wait_live("n1")
    assert cluster.ask("clean", "--once")["quarantined"] == [name]
    (entry,) = cluster.ask("quarantine", "list")
    told = cluster.ask("explain", entry["entry"])
    assert (told["name"], told["where"], told["file"]) == (name, ["quarantine"], None)
    rules = {one["rule"] for one in told["entries"][0]["obstacles"]}
    assert "grace" in rules
    cluster.ask("pause")
    done = cluster.ask("quarantine", "restore", name)
    assert (done["restored"], done["entry"], done["linked"]) == (
        name,
        entry["entry"],
        True,
    )
    assert path.read_bytes() == b"y" * 500
    cluster.ask("resume")
    told = cluster.ask("explain", name)
    assert told["where"] == ["cache", "quarantine"]
    assert told["file"]["links_in_quarantine"] == 1
    assert cluster.ask("clean", "--once")["quarantined"] == []
    assert path.exists()
    assert cluster.run("quarantine", "restore", cache_name(OTHER)).code == 3


ORDERS = (
    ("pause",),
    ("resume",),
    ("hold", "add", "0" * 40),
    ("hold", "remove", "0" * 40),
    ("approve", "0" * 12),
    ("node", "expect", "compute-9"),
    ("node", "expunge", "compute-9", "--yes"),
    ("rollout", "finalize", "--yes"),
    ("rollout", "hold"),
    ("rollout", "release"),
    ("rollout", "acknowledge", "--all", "--yes"),
    ("quarantine", "restore", "0" * 40),
)
"""Every order that an operator gives."""


def ask(cluster: Cluster, *command: str) -> Result:
    """Run a command in this process, which spares it a start."""
    environ = {"SHAREDCACHE_CONFIG": str(cluster.operator_config)}
    return CliRunner(env=environ).invoke(cli, command)


def test_an_order_does_not_reach_the_cluster_of_another_directory(
    cluster: Cluster,
) -> None:
    """Settings of one cluster and the directory of another: no order is taken.

    Above all the finalized schema is not told to the other directory's writers.
    """
    cluster.init()
    elsewhere = cluster.root / "elsewhere" / "_base"
    elsewhere.mkdir(parents=True)
    other = cluster.name + "-other"
    mixed = ("--base", str(elsewhere), "--cluster", other)
    assert ask(cluster, "init", "--schema", "1", *mixed).exit_code == 0
    wrong = ("--base", str(elsewhere), "--cluster", cluster.name)
    schema = (elsewhere / ".sharedcache" / "schema").read_bytes()
    before = cluster.ask("history")
    for command in ORDERS:
        answer = ask(cluster, *command, *wrong)
        assert answer.exit_code == 3, answer
        assert f"the directory belongs to cluster {other}" in answer.stderr, answer
    assert cluster.ask("history") == before
    assert (elsewhere / ".sharedcache" / "schema").read_bytes() == schema
    # A directory that is not mounted here hinders no order that is meant.
    (elsewhere / ".sharedcache" / "cluster").unlink()
    assert ask(cluster, "pause", *wrong).exit_code == 0
    assert cluster.gate_codes() >= {"paused"}
    assert ask(cluster, "rollout", "finalize", "--yes", *wrong).exit_code == 3


def test_a_hold_on_a_name_that_is_nowhere_is_told(cluster: Cluster) -> None:
    """A typing error would keep a file that is not there, and lose the one that is."""
    cluster.init()
    answer = ask(cluster, "hold", "add", cache_name(OTHER), "-f", "json")
    assert answer.exit_code == 0, answer
    assert json.loads(answer.stdout)["where"] == []
    assert "is it spelt right?" in answer.stderr


def test_an_order_that_is_interrupted_says_how_to_learn_of_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C nobody knows whether a pause took effect: history does."""
    cluster.init()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(operator, "pause", interrupted)
    answer = ask(cluster, "pause")
    assert answer.exit_code == 1
    assert "sharedcache history" in answer.stderr
    monkeypatch.setattr(Connection, "look", interrupted)
    answer = ask(cluster, "status")
    assert (answer.exit_code, answer.stderr) == (1, "sharedcache: interrupted\n")


def test_a_mistyped_cluster_leaves_no_trace(cluster: Cluster) -> None:
    """No command but a founding `init` creates anything in ZooKeeper."""
    cluster.init()
    typed = cluster.name + "-typo"
    for command in (
        ("status",),
        ("init",),
        ("doctor",),
        ("clean", "--once", "--timeout", "4"),
        *ORDERS,
        ("node", "list"),
        ("node", "show", "compute-1"),
        ("quarantine", "list"),
        ("hold", "list"),
        ("history",),
    ):
        answer = ask(cluster, *command, "--cluster", typed)
        assert "Traceback" not in answer.stderr
        assert answer.exit_code or command == ("status",), answer
        if command in ORDERS or "list" in command:
            assert answer.exit_code == 1, answer
            assert f"no cluster {typed}" in answer.stderr, answer
            assert f"belongs to cluster {cluster.name}" in answer.stderr, answer
    client = KazooClient(cluster.zookeeper)
    client.start()
    try:
        assert typed not in client.get_children("/sharedcache")
    finally:
        client.stop()
        client.close()
