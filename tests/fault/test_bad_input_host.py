"""Hosts that are not as they should be: names, clocks, directories without end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharedcache.adapters.instances.source import MAX_INSTANCES, InstancesSource
from sharedcache.core.gate import Code
from tests.support.cluster import Cluster, Daemon, cache_name, image_id
from tests.support.disks import mounted
from tests.support.images import qcow2
from tests.support.inprocess import Site, gate_codes, publish, settle
from tests.support.stake import Stake, degraded, look_on, told

pytestmark = pytest.mark.timeout(120)

USED, UNUSED = image_id(1), image_id(2)
SHARE = "another agent has the same [agent] node"


def test_two_agents_under_one_node_name_close_the_gate(site: Site) -> None:
    """The second one says so and waits; what either uses is kept."""
    stake = Stake.of(site, "n1")
    first = site.agent("n1")
    publish(first)
    second, cleaner = site.agent("n1"), site.cleaner("c1")
    look_on(cleaner, first, second)
    assert gate_codes(cleaner) == {(Code.NODE_UNREPORTED, "n1")}
    gate = cleaner.harvest.gate
    assert gate is not None
    assert SHARE in gate.reasons[0].message
    (message,) = told(second, "waiting-for-old-registration")
    assert "two agents share this node name, so set [agent] node" in message
    assert stake.untouched()
    first.finish()
    settle(second, cleaner, until=stake.gone, what="one of them alone goes on")


@pytest.mark.parametrize(
    "name", ["rack/1", "nœud", "-n1", "a b", "n" * 201], ids=lambda name: name[:6]
)
def test_a_node_name_that_tooz_cannot_take_is_refused(
    cluster: Cluster, name: str
) -> None:
    """Exit code 2 and what a name may be, before anything is written."""
    for ident in (USED, UNUSED):
        cluster.put(cache_name(ident))
    agent = cluster.agent("compute-1", start=False)
    text = agent.config.read_text().replace("node = compute-1", f"node = {name}")
    agent.config.write_text(text)
    agent.start()
    assert agent.wait() == 2
    assert "cannot name a node: set letters, digits, dot, dash" in agent.tail()
    assert cluster.names() == {cache_name(USED), cache_name(UNUSED)}
    assert not (cluster.base / ".sharedcache").exists()


def _faked(offset: str) -> dict[str, str]:
    """Return what puts a process's wall clock off; the storage keeps its own."""
    places = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not places:
        pytest.skip("libfaketime is missing: install the package faketime")
    return {
        "LD_PRELOAD": str(places[0]),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # Times of files are the storage's, those that it sets by itself too.
        "NO_FAKE_STAT": "1",
        "FAKE_UTIME": "1",
    }


def _offset_s(daemon: Daemon) -> float:
    """How far a daemon's wall clock is ahead, as its log's first line tells."""
    line = daemon.log.read_text().partition(".")[0]
    told_s = time.mktime(time.strptime(line, "%Y-%m-%d %H:%M:%S"))
    return told_s - daemon.log.stat().st_mtime


@pytest.mark.parametrize(
    ("of_agent", "of_cleaner"),
    [("+1h", "-1h"), ("-1h", "+1h")],
    ids=["ahead", "behind"],
)
def test_clocks_an_hour_apart_cost_no_file(
    cluster: Cluster, of_agent: str, of_cleaner: str
) -> None:
    """Ages compare times of the storage alone: young files stay, old ones go."""
    cluster.clean_by(min_age_image_s=1800)
    young = cache_name(image_id(3))
    for ident in (USED, UNUSED):
        cluster.put(cache_name(ident))
    cluster.put(young, age_s=60)
    # Old enough by half an hour: by a clock that is an hour behind it would not be.
    cluster.put(cache_name(image_id(4)), age_s=3600)
    cluster.init()
    agent = cluster.agent("compute-1", uses={"images": [USED]}, start=False)
    agent.environ = _faked(of_agent)
    cleaner = cluster.cleaner(start=False)
    cleaner.environ = _faked(of_cleaner)
    agent.start()
    cleaner.start()
    cluster.wait(
        lambda: (
            cluster.names() == {cache_name(USED), young} and not cluster.quarantined()
        ),
        "the old files are purged",
        60,
    )
    assert cluster.gate_codes() == set()
    for daemon, offset in ((agent, of_agent), (cleaner, of_cleaner)):
        asked_s = 3600 if offset == "+1h" else -3600
        assert abs(_offset_s(daemon) - asked_s) < 120
    # They are not asked to stop: libfaketime lets sleeps to an absolute time fail,
    # by which Python waits for a child.
    assert agent.running
    assert cleaner.running
    assert cluster.names() == {cache_name(USED), young}


_MILLION = """
import os, sys
there = os.open(sys.argv[1], os.O_RDONLY)
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    {make}
"""
_LINKS = "os.link('seed', f'n{number}', src_dir_fd=there, dst_dir_fd=there)"
_NO_LINKS = "os.unlink(f'n{number}', dir_fd=there)"

# Not by getrusage: a process has the peak of the one that started it for its own.
_LOOK = """
import json, re, sys
from sharedcache.adapters.instances.source import InstancesSource
from sharedcache.core.ports import SourceError
try:
    told = str(InstancesSource(sys.argv[1], sys.argv[2]).look())
except SourceError as error:
    told = str(error)
status = open("/proc/self/status").read()
print(json.dumps([told, int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])]))
"""
_PEAK_KIB = 128 * 1024


def _run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.root
def test_an_instances_directory_with_a_million_entries_is_bounded(site: Site) -> None:
    """So many entries are told, in bounded memory, and keep every file."""
    stake = Stake.of(site)
    with mounted(site.root / "million", "size=64m", "nr_inodes=1200000") as crowd:
        disk = crowd / "guest" / "disk"
        disk.parent.mkdir()
        disk.write_bytes(qcow2(str(stake.used)))
        agent = site.agent("n1", sources=[InstancesSource(str(crowd), str(site.base))])
        publish(agent)
        (crowd / "seed").write_bytes(b"")
        _run(_MILLION.format(make=_LINKS), crowd, 0, 1_000_000)
        told, peak_kib = json.loads(_run(_LOOK, crowd, site.base))
        assert f"holds more than {MAX_INSTANCES} entries" in told
        assert "correct the setting 'instances_path'" in told
        assert peak_kib < _PEAK_KIB
        agent._next_look = 0.0
        cleaner = site.cleaner("c1")
        assert told in degraded(agent, cleaner, "instances")
        assert stake.whole()
        _run(_MILLION.format(make=_NO_LINKS), crowd, 0, 1_000_000)
        settle(agent, cleaner, until=stake.gone, what="it goes on by itself")
