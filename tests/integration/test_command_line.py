"""The command line and the daemons as an operator meets them: real processes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from sharedcache import __version__
from tests.support.cluster import Cluster, cache_name, clean_environment, image_id

USED, UNUSED = image_id(1), image_id(2)
KERNEL = image_id(3)


def _gate_shape(gate: dict[str, object]) -> None:
    assert isinstance(gate["open"], bool)
    assert isinstance(gate["purge_open"], bool)
    assert isinstance(gate["reasons"], list)
    for reason in gate["reasons"]:
        assert set(reason) >= {"code", "closes", "subject", "message"}
        assert reason["closes"] in {"all", "purge"}


def test_a_cluster_from_its_beginning_to_a_purge(cluster: Cluster) -> None:
    """Init, an agent, plan, and one pass that waits until all it took is purged."""
    cluster.put(cache_name(USED))
    cluster.put(cache_name(UNUSED), b"y" * 500)
    cluster.put("notes.txt")
    founded = cluster.init()
    assert founded["cluster"] == cluster.name
    assert founded["finalized_schema"] == 2
    assert cluster.init() == founded | {"created": False}
    cluster.agent("compute-1", uses={"images": [USED]})
    cluster.wait_live("compute-1")

    plan = cluster.ask("plan", "--all")
    _gate_shape(plan["gate"])
    judged = {f["name"]: (f["verdict"], f["reason"]) for f in plan["files"]}
    assert judged == {
        cache_name(USED): ("keep", "used"),
        cache_name(UNUSED): ("quarantine", "unused"),
        "notes.txt": ("keep", "unrecognised"),
    }
    (only,) = cluster.ask("plan")["files"]
    assert set(only) >= {"name", "kind", "bytes", "verdict", "reason"}
    assert (only["kind"], only["bytes"]) == ("image", 500)

    done = cluster.ask("clean", "--once", "--wait")
    _gate_shape(done["gate"])
    assert done["epoch"] == 1
    assert done["quarantined"] == [cache_name(UNUSED)]
    assert done["purged"] == [cache_name(UNUSED)]
    assert cluster.names() == {cache_name(USED), "notes.txt"}
    assert cluster.quarantined() == set()


def test_status_and_node_list_have_the_promised_keys(cluster: Cluster) -> None:
    """Scripts rely on these keys; more are welcome, fewer are not."""
    cluster.put(cache_name(USED))
    cluster.put("notes.txt")
    cluster.init()
    cluster.agent("compute-1", uses={"images": [USED], "kernels": [KERNEL]})
    cluster.agent("compute-0", schema_version=1, start=False)
    cluster.wait_live("compute-1")
    status = cluster.ask("status")
    assert set(status) >= {
        *("cluster", "leader", "epoch", "round", "gate", "rollout", "nodes"),
        *("cache", "quarantine", "held_back", "time"),
    }
    _gate_shape(status["gate"])
    assert status["gate"]["open"] is True
    assert status["leader"] is None
    assert status["no_leader_can"] is None
    assert status["rollout"] == {"state": "finalized", "finalized_schema": 2}
    assert status["nodes"] == {
        "total": 1,
        "live": 1,
        "sealed": 0,
        "missing": 0,
        "degraded": 0,
    }
    assert (status["cache"]["files"], status["cache"]["bytes"]) == (1, 1000)
    assert status["quarantine"] == {"files": 0, "bytes": 0}
    assert abs(status["time"] - time.time()) < 60

    (node,) = cluster.ask("node", "list")
    assert node == {
        "node": "compute-1",
        "state": "live",
        "schema_version": 2,
        "kernel_naming": "sha1",
        "uses": 3,
        "round": 1,
        "complete": True,
    }
    shown = cluster.ask("node", "show", "compute-1")
    assert shown["release"] == __version__
    assert sorted(shown["uses_now"]) == sorted(
        [cache_name(USED), cache_name(KERNEL), KERNEL]
    )
    missing = cluster.run("node", "show", "compute-9")
    assert missing.code == 1
    assert "compute-9 is not on the roster" in missing.err


def test_status_says_why_no_cleaner_can_stand(cluster: Cluster) -> None:
    """A cleaner that waits tells only its log; whoever looks at the cluster sees it."""
    cluster.init()
    (cluster.base / ".sharedcache" / "epochs" / "9").mkdir()
    assert "sharedcache recover" in cluster.ask("status")["no_leader_can"]
    assert "no cleaner can stand for election" in cluster.run("status").out


def test_what_is_quarantined_is_listed_with_what_it_waits_for(
    cluster: Cluster,
) -> None:
    """An entry under grace says so, to the operator and in the sums of status."""
    cluster.clean_by(grace_s=3600)
    cluster.put(cache_name(UNUSED))
    cluster.init()
    cluster.agent("compute-1")
    cluster.wait_live("compute-1")
    done = cluster.ask("clean", "--once")
    assert (done["quarantined"], done["purged"]) == ([cache_name(UNUSED)], [])
    (entry,) = cluster.ask("quarantine", "list")
    assert set(entry) >= {"name", "entry", "epoch", "round", "bytes", "waiting_for"}
    assert entry["name"] == cache_name(UNUSED)
    assert (entry["epoch"], entry["bytes"]) == (1, 1000)
    assert any(why.startswith("grace: ") for why in entry["waiting_for"])
    status = cluster.ask("status")
    assert status["quarantine"] == {"files": 1, "bytes": 1000}
    held = {one["by"]: one["bytes"] for one in status["held_back"]}
    assert held["grace"] == 1000
    cut_short = cluster.run("clean", "--once", "--wait", "--timeout", "4")
    assert cut_short.code == 0, "it took nothing itself, so it waits for nothing"


def test_a_second_run_purges_what_the_first_one_took(cluster: Cluster) -> None:
    """Every takeover starts the rounds anew, and a run without --wait still ends."""
    cluster.clean_by(grace_s=3)
    cluster.put(cache_name(UNUSED))
    cluster.init()
    cluster.agent("compute-1")
    cluster.wait_live("compute-1")
    first = cluster.ask("clean", "--once")
    assert (first["quarantined"], first["purged"]) == ([cache_name(UNUSED)], [])
    time.sleep(3)
    second = cluster.ask("clean", "--once")
    assert (second["quarantined"], second["purged"]) == ([], [cache_name(UNUSED)])
    assert second["epoch"] == 2


def test_a_rollout_is_refused_until_every_node_is_upgraded(cluster: Cluster) -> None:
    """A node of the old release is named, nothing is removed, finalizing is refused."""
    cluster.put(KERNEL)
    cluster.put(cache_name(UNUSED))
    assert cluster.init()["finalized_schema"] == 1
    cluster.agent("compute-1")
    old = cluster.agent("compute-2", schema_version=1)
    cluster.wait_live("compute-1", "compute-2")
    assert {n["node"]: n["kernel_naming"] for n in cluster.ask("node", "list")} == {
        "compute-1": "sha1",
        "compute-2": "raw-id",
    }
    reasons = cluster.ask("status")["gate"]["reasons"]
    assert {(r["code"], r["subject"]) for r in reasons} == {
        ("rollout-not-finalized", "rollout"),
        ("node-old-kernel-naming", "compute-2"),
    }
    assert cluster.ask("rollout", "status")["state"] == "mixed"
    refused = cluster.run("rollout", "finalize", "--yes")
    assert refused.code == 3
    assert "compute-2 supports schema 1 only" in refused.err
    closed = cluster.ask("clean", "--once", code=3)
    assert (closed["gate"]["open"], closed["quarantined"]) == (False, [])

    assert old.stop() == 0
    cluster.agent("compute-2")
    cluster.wait(
        lambda: cluster.ask("rollout", "status")["state"] == "ready", "rollout ready"
    )
    unanswered = cluster.run("rollout", "finalize")
    assert unanswered.code == 3
    assert "--yes" in unanswered.err
    done = cluster.ask("rollout", "finalize", "--yes")
    assert (done["state"], done["finalized_schema"]) == ("finalized", 2)
    assert cluster.ask("rollout", "finalize", "--yes")["changed"] is False
    cluster.wait(lambda: cluster.gate_codes() == set(), "the gate to open")

    late = cluster.agent("compute-3", kernel_naming="raw-id")
    assert late.wait() == 1
    assert "schema 2 is finalized" in late.tail()


def test_the_daemons_clean_by_themselves_and_stop_in_order(cluster: Cluster) -> None:
    """A cleaner daemon takes and purges; a one-shot run is refused and names it."""
    cluster.put(cache_name(USED))
    cluster.put(cache_name(UNUSED))
    cluster.init()
    agent = cluster.agent("compute-1", uses={"images": [USED]})
    cleaner = cluster.cleaner()
    cluster.wait(lambda: cluster.names() == {cache_name(USED)}, "the file to go")
    cluster.wait(lambda: not cluster.quarantined(), "the quarantine to be purged")
    leader = cluster.ask("status")["leader"]
    assert leader.endswith(f"-{cleaner.pid}")
    refused = cluster.run("clean", "--once")
    assert refused.code == 3
    assert leader in refused.err
    assert cleaner.stop() == 0
    assert cluster.ask("status")["leader"] is None
    assert agent.stop() == 0
    assert {n["state"] for n in cluster.ask("node", "list")} == {"missing"}
    assert re.search(r"\bpurged file=" + cache_name(UNUSED), cleaner.tail())


def test_a_killed_agent_starts_again_as_a_later_incarnation(cluster: Cluster) -> None:
    """While its old registration lives it waits, and then reports as before."""
    cluster.init()
    agent = cluster.agent("compute-1", session_timeout_s=2)
    cluster.wait_live("compute-1")
    first = cluster.ask("node", "show", "compute-1")["incarnation"]
    agent.kill()
    agent.start()

    def again() -> bool:
        shown = cluster.ask("node", "show", "compute-1")
        return shown["state"] == "live" and shown["incarnation"] != first

    cluster.wait(again, "a later incarnation")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("clean",), 2, "--once"),
        (("status", "-f", "xml"), 2, "xml"),
        (("init", "--schema", "3"), 2, "--schema"),
        (("nonsense",), 2, "nonsense"),
        (("status",), 1, "sharedcache init"),
        (("status", "--base", "/does/not/exist"), 1, "/does/not/exist"),
        (("status", "--zookeeper", "127.0.0.1:1"), 1, "127.0.0.1:1"),
        (("status", "--zookeeper", "no port:x"), 2, "ZooKeeper"),
        (("status", "--config-file", "/does/not/exist"), 2, "/does/not/exist"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    cluster: Cluster, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """No traceback, what is wrong is named, and the code tells usage from failure."""
    began = time.monotonic()
    answer = cluster.run(*arguments)
    assert answer.code == code, answer
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert time.monotonic() - began < 15


def test_formats_and_options_work_before_and_after_the_command(
    cluster: Cluster,
) -> None:
    """``-f`` may stand anywhere; a piped table cuts nothing off."""
    cluster.init()
    cluster.agent("compute-with-a-rather-long-name." + "x" * 120)
    cluster.wait(lambda: cluster.live_nodes() != set(), "the agent")
    before = cluster.run("-f", "value", "node", "list")
    after = cluster.run("node", "list", "-f", "value")
    assert before.out == after.out != ""
    assert before.out.split()[1:5] == ["live", "2", "sha1", "0"]
    table = cluster.run("node", "list").out
    assert "x" * 120 in table
    assert "\x1b" not in table
    assert cluster.run("status", "-f", "yaml").out.startswith("cluster: test-")
    assert "Gate: open" in cluster.run("status").out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sources": ""}, "no source of use"),
        ({"sources": "libvirtt"}, "libvirtt"),
        ({"report_interval_s": -1}, "report_interval_s = -1"),
        ({"schema_version": 3}, "schema_version"),
        ({"node": "two words"}, "node"),
        ({"uses_fil": "/x"}, "did you mean uses_file"),
    ],
)
def test_an_agent_with_wrong_settings_does_not_start(
    cluster: Cluster, settings: dict[str, object], words: str
) -> None:
    """One line and exit code 2: an agent that guesses might report no use at all."""
    daemon = cluster.agent("compute-1", **settings)
    assert daemon.wait() == 2
    assert words in daemon.tail()
    assert len(daemon.tail().splitlines()) == 1


def test_an_agent_refuses_a_directory_that_is_not_initialised(
    cluster: Cluster,
) -> None:
    """An empty mount has no marker: nothing starts on it."""
    daemon = cluster.agent("compute-1")
    assert daemon.wait() == 1
    assert "sharedcache init" in daemon.tail()
    assert not (cluster.base / ".sharedcache").exists()


def test_guests_may_start_while_zookeeper_is_out_of_reach(cluster: Cluster) -> None:
    """The witness is written and systemd told READY; stopping works as well."""
    cluster.init()
    agent = cluster.agent("compute-1", start=False)
    config = agent.config.read_text().replace(cluster.zookeeper, "127.0.0.1:1")
    agent.config.write_text(config)
    path = cluster.root / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(20)
        agent.environ["NOTIFY_SOCKET"] = str(path)
        agent.start()
        assert b"READY=1" in systemd.recv(4096)
    witness = cluster.base / ".sharedcache" / "nodes" / "compute-1"
    assert json.loads(witness.read_bytes()[:-5])["node"] == "compute-1"
    cluster.wait(lambda: "127.0.0.1:1" in agent.tail(), "a word on ZooKeeper")
    assert agent.stop() == 0


def test_an_operators_words_by_the_command_line(cluster: Cluster) -> None:
    """Pause, resume, hold, approve, expect and expunge: each does what it says."""
    name = cache_name(image_id(1))
    cluster.put(name)
    cluster.init()
    agent = cluster.agent("n1")
    cluster.wait_live("n1")
    assert cluster.ask("pause", "--why", "maintenance") == {"paused": "maintenance"}
    assert cluster.gate_codes() == {"paused"}
    cluster.ask("resume")
    assert cluster.gate_codes() == set()
    cluster.ask("hold", "add", name, "--why", "golden")
    assert cluster.ask("hold", "list") == [{"name": name, "why": "golden"}]
    files = {f["name"]: f["reason"] for f in cluster.ask("plan", "--all")["files"]}
    assert files[name] == "held"
    assert cluster.run("hold", "add", "README.txt").code == 3
    cluster.ask("hold", "remove", name)
    assert cluster.run("hold", "remove", name).code == 3
    assert cluster.run("approve", "0123456789").code == 3
    # Nor the plan as it is: no brake holds it.
    vain = cluster.run("approve", cluster.ask("plan")["digest"])
    assert (vain.code, "nothing to approve" in vain.err) == (3, True)
    assert cluster.ask("history", "--act", "approved") == []
    assert cluster.ask("node", "expect", "n2", "n1")["new"] == ["n2"]
    assert "node-unreported" in cluster.gate_codes()
    assert cluster.run("node", "expunge", "n2").code == 3
    assert cluster.run("node", "expect", "bad/name").code == 2
    done = cluster.ask("node", "expunge", "n2", "--yes")
    assert (done["expunged"], done["changed"]) == ("n2", True)
    assert cluster.gate_codes() == set()
    # Nobody is asked again.
    assert cluster.ask("node", "expunge", "n2") == {**done, "changed": False}
    told = cluster.run("node", "expunge", "n2")
    assert re.search(r"n2 is expunged already, since 20.* UTC, by .*@", told.out)
    assert len(cluster.ask("history", "--act", "expunged")) == 1
    assert cluster.run("node", "expunge", "n1", "--yes").code == 3
    agent.kill()


def test_a_brake_is_released_by_the_digest_that_it_names(cluster: Cluster) -> None:
    """The gate's message names the command that opens it, and that one works."""
    for number in range(4):
        cluster.put(cache_name(image_id(number)))
    cluster.clean_by(max_share_percent=10, max_share_floor=2)
    cluster.init()
    cluster.agent("n1")
    cluster.wait_live("n1")
    status = cluster.ask("status")
    (reason,) = status["gate"]["reasons"]
    assert reason["code"] == "brake"
    digest = reason["message"].split("sharedcache approve ")[1].split("`")[0]
    cluster.ask("approve", digest)
    assert cluster.gate_codes() == set()
    # It may be given for longer.
    cluster.ask("approve", digest)
    assert len(cluster.ask("plan")["files"]) == 4


def test_one_file_with_an_absurd_time_stops_nothing(cluster: Cluster) -> None:
    """A year that does not fit 64 bits is far in the future: the file is kept."""
    strange, stray = cluster.put(cache_name(image_id(1))), cluster.put("README")
    unused = cluster.put(cache_name(image_id(2)))
    for path in (strange, stray):
        os.utime(path, ns=(2**63 + 10**18, 2**63 + 10**18))
    cluster.init()
    cluster.agent("n1")
    cluster.wait_live("n1")
    files = {f["name"]: f["reason"] for f in cluster.ask("plan", "--all")["files"]}
    assert files[strange.name] == "too-young"
    assert files[unused.name] == "unused"
    cluster.cleaner()
    cluster.wait(lambda: cluster.names() == {strange.name, "README"}, "it is purged")


def test_output_that_nobody_reads_ends_quietly(cluster: Cluster) -> None:
    """A closed pipe is no error of ours, and a directory is no settings file."""
    cluster.init()
    environment = clean_environment(SHAREDCACHE_CONFIG=str(cluster.operator_config))
    command = [sys.executable, "-m", "sharedcache.cli.main", "plan", "--all"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command,
        env=environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writer)
    assert b"unexpected" not in done.stderr
    assert b"Traceback" not in done.stderr
    wrong = cluster.run("--config-file", str(cluster.root), "status")
    assert wrong.code == 2
    assert "directory" in wrong.err
    assert cluster.run("clean", "--once", "--timeout", "nan").code == 2
