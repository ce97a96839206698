"""``doctor`` against a real ZooKeeper, a real directory and a real agent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster

pytestmark = pytest.mark.timeout(180)


def _by_check(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["check"]: row["result"] for row in rows}


def test_a_host_that_is_set_up_well(cluster: Cluster) -> None:
    """Every check that this machine can pass is ok, and nothing is left behind."""
    cluster.init()
    agent = cluster.agent("n1")
    cluster.wait_live("n1")
    before = cluster.names(), set((cluster.base / ".sharedcache").iterdir())
    rows = cluster.ask("doctor", "--config-file", str(agent.config))
    assert (cluster.names(), set((cluster.base / ".sharedcache").iterdir())) == before
    found = _by_check(rows)
    good = {
        *("settings", "base", "mount", "marker", "rights", "space", "clock", "lock"),
        *("witness", "source uses-file", "zookeeper session", "cluster", "agent n1"),
        f"zookeeper {cluster.zookeeper}",
    }
    assert {check for check in good if found.get(check) == "ok"} == good, rows
    assert found["zookeeper access"] == "warn"
    assert found["leader"] == "warn"
    assert all(set(row) == {"check", "result", "message", "what_to_do"} for row in rows)
    assert all(row["what_to_do"] for row in rows if row["result"] != "ok")
    table = cluster.run("doctor", "--config-file", str(agent.config))
    assert "0 fail" in table.out


def test_what_is_wrong_is_a_failure_with_what_to_do(cluster: Cluster) -> None:
    """Not initialised, the wrong cluster, no server, a wrong setting: exit code 1."""
    bare = _by_check(cluster.ask("doctor", code=1))
    assert bare["marker"] == "fail"
    assert bare["cluster"] == "fail"
    cluster.init()
    other = _by_check(cluster.ask("doctor", "--cluster", "elsewhere", code=1))
    assert (other["marker"], other["cluster"]) == ("fail", "fail")
    down = _by_check(cluster.ask("doctor", "--zookeeper", "127.0.0.1:1", code=1))
    assert down["zookeeper 127.0.0.1:1"] == "fail"
    assert down["rights"] == "ok", "the directory is checked all the same"
    nowhere = _by_check(cluster.ask("doctor", "--base", "/does/not/exist", code=1))
    assert nowhere["base"] == "fail"
    assert nowhere["zookeeper session"] == "ok"
    typo = cluster.write_config("typo", {"cleaner": {"grase_s": 1}})
    said = cluster.ask("doctor", "--config-file", str(typo), code=1)
    assert "did you mean grace_s" in said[-1]["message"]


def test_an_agent_that_is_gone_is_told(cluster: Cluster) -> None:
    """Its node is missing, which holds purging back: that is a failure here."""
    cluster.init()
    agent = cluster.agent("n1")
    cluster.wait_live("n1")
    agent.stop()
    arguments = ("doctor", "--config-file", str(agent.config))
    rows = cluster.ask(*arguments, code=1)
    (row,) = [row for row in rows if row["check"] == "agent n1"]
    assert row["result"] == "fail"
    assert "start sharedcache-agent" in row["what_to_do"]


def test_a_source_that_hangs_is_given_up(cluster: Cluster) -> None:
    """A look that never returns ends the helper, not the doctor."""
    cluster.init()
    agent = cluster.agent("n1", start=False)
    hanging = cluster.root / "hanging"
    package = hanging / "hanging_source-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Name: hanging-source\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[sharedcache.sources]\nhanging = hanging_source:Hanging\n"
    )
    (hanging / "hanging_source.py").write_text(
        "import time\n"
        "class Hanging:\n"
        "    name = 'hanging'\n"
        "    def __init__(self, settings): pass\n"
        "    def look(self): time.sleep(3600)\n"
    )
    config = agent.config.read_text().replace(
        "[agent]", "[agent]\nsources = uses-file,hanging"
    )
    agent.config.write_text(config)
    cluster.environ = {"PYTHONPATH": f"{hanging}{os.pathsep}{Path.cwd()}"}
    rows = cluster.ask(
        "doctor", "--config-file", str(agent.config), "--patience", "8", code=1
    )
    found = _by_check(rows)
    assert found["source uses-file"] == "ok"
    assert found["source hanging"] == "fail"
    assert found["zookeeper session"] == "ok"
