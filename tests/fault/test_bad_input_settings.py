"""Settings that cannot be: exit code 2, one line on what to do, nothing written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.support.cluster import Cluster, cache_name, clean_environment, image_id

pytestmark = pytest.mark.timeout(90)

USED, UNUSED = image_id(1), image_id(2)


@dataclass(frozen=True)
class Bad:
    """A line that replaces or joins a section, and what is said of it."""

    module: str
    section: str
    line: str
    words: tuple[str, ...]


AGENT, CLEANER = "agents.node", "agents.cleaner"
KNOWN = ("sharedcache", "agent", "cleaner")

BAD = {
    "unknown-key": Bad(
        AGENT, "agent", "uses_fille = /x", ("no setting uses_fille", "uses_file?")
    ),
    "unknown-section": Bad(
        CLEANER, "cleaners", "grace_s = 1", ("no section [cleaners]", "[cleaner]?")
    ),
    "wrong-type": Bad(
        CLEANER, "cleaner", "grace_s = soon", ("[cleaner] grace_s = soon",)
    ),
    "negative-time": Bad(
        CLEANER, "cleaner", "min_age_image_s = -1", ("min_age_image_s = -1", "0")
    ),
    "contradiction-source-without-its-file": Bad(
        AGENT,
        "agent",
        "uses_file =\nsources = uses-file",
        ("source uses-file needs [agent] uses_file",),
    ),
    "contradiction-no-source": Bad(
        AGENT, "agent", "uses_file =", ("set [agent] uses_file or instances_path",)
    ),
    "contradiction-no-session": Bad(
        CLEANER,
        "cleaner",
        "session_timeout_s = 0",
        ("session_timeout_s must be above 0",),
    ),
    "contradiction-schema-of-no-release": Bad(
        AGENT, "agent", "schema_version = 3", ("schema_version must be from 1 to 2",)
    ),
    "contradiction-share-above-all": Bad(
        CLEANER,
        "cleaner",
        "max_share_percent = 150",
        ("max_share_percent must be in (0, 100]",),
    ),
    "contradiction-cluster-of-two-words": Bad(
        AGENT, "sharedcache", "cluster = my cloud", ("cannot name a cluster: letters",)
    ),
}


def _write(cluster: Cluster, bad: Bad) -> str:
    """Write settings that are right but for one thing; return their path."""
    uses = cluster.root / "uses" / "n1.json"
    uses.write_text("{}")
    sections = {
        "agent": {"node": "n1", "uses_file": uses},
        **({} if bad.section in KNOWN else {bad.section: {}}),
    }
    path = cluster.write_config("bad", sections)
    text = path.read_text()
    for line in bad.line.splitlines():
        key = line.partition("=")[0]
        kept = [one for one in text.splitlines() if one.partition("=")[0] != key]
        text = "\n".join(kept)
    text = text.replace(f"[{bad.section}]", f"[{bad.section}]\n{bad.line}")
    path.write_text(text + "\n")
    return str(path)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_bad_settings_are_refused(cluster: Cluster, bad: Bad) -> None:
    """The daemon ends at once; neither storage nor ZooKeeper was touched."""
    for ident in (USED, UNUSED):
        cluster.put(cache_name(ident))
    done = subprocess.run(
        [sys.executable, "-m", bad.module, "--config-file", _write(cluster, bad)],
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    for word in bad.words:
        assert word in done.stderr
    assert cluster.names() == {cache_name(USED), cache_name(UNUSED)}
    assert not (cluster.base / ".sharedcache").exists()


def test_an_unknown_key_of_novas_is_left_alone(cluster: Cluster) -> None:
    """nova.conf has hundreds of keys that are none of ours: nothing is said."""
    for ident in (USED, UNUSED):
        cluster.put(cache_name(ident))
    nova = cluster.root / "nova.conf"
    nova.write_text("[DEFAULT]\nunheard_of = 1\n[libvirt]\nuses_fille = /x\n")
    cluster.init(
        "--config-file", str(nova), "--config-file", str(cluster.operator_config)
    )
    cluster.agent("compute-1", uses={"images": [USED]})
    cluster.wait_live("compute-1")
    done = cluster.ask(
        *("clean", "--once", "--wait", "--config-file", str(nova)),
        *("--config-file", str(cluster.operator_config)),
    )
    assert done["purged"] == [cache_name(UNUSED)]
    assert cluster.names() == {cache_name(USED)}


def test_a_contradiction_with_the_rollout_is_refused(cluster: Cluster) -> None:
    """A writer of raw ids under a finalized schema: exit code 1, and what to set."""
    for ident in (USED, UNUSED):
        cluster.put(cache_name(ident))
    cluster.init()
    agent = cluster.agent("compute-1", uses={"images": [USED]}, kernel_naming="raw-id")
    assert agent.wait() == 1
    assert "set [agent] kernel_naming to auto or sha1" in agent.tail()
    # Its guests may run all the same: nothing is removed until it reports.
    assert cluster.gate_codes() == {"no-nodes", "unrostered-node"}
    assert cluster.ask("plan")["files"] == []
    assert cluster.names() == {cache_name(USED), cache_name(UNUSED)}


def test_a_base_that_is_not_novas_removes_nothing_of_novas(cluster: Cluster) -> None:
    """A base elsewhere than below instances_path: Nova's own _base is not touched."""
    for ident in (USED, UNUSED):
        cluster.put(cache_name(ident))
    elsewhere = cluster.root / "local"
    (elsewhere / "_base").mkdir(parents=True)
    for ident in (USED, UNUSED):
        (elsewhere / "_base" / cache_name(ident)).write_bytes(b"raw")
    cluster.init()
    cluster.agent("compute-1", uses={"images": [USED]}, instances_path=elsewhere)
    cluster.wait_live("compute-1")
    done = cluster.ask("clean", "--once", "--wait")
    assert done["purged"] == [cache_name(UNUSED)]
    left = {path.name for path in (elsewhere / "_base").iterdir()}
    assert left == {cache_name(USED), cache_name(UNUSED)}
    assert cluster.names() == {cache_name(USED)}
