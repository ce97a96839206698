"""The compose file's services, run as processes, through the rollout in its head.

The commands, options, variables and contents are those of the file; only the
volume's path, ZooKeeper's addresses and the configs' paths are this machine's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharedcache.adapters.zookeeper_server import PrivateEnsemble
from sharedcache.core.names import digest_of
from tests.support.cluster import clean_environment
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(180)

COMPOSE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docker-compose.yml").read_text()
)
PROGRAMS = {
    "sharedcache": "sharedcache.cli.main",
    "sharedcache-agent": "agents.node",
    "sharedcache-cleaner": "agents.cleaner",
}


class Composed:
    """Runs services of the compose file on this machine."""

    def __init__(self, root: Path, servers: str, cluster: str) -> None:
        self.root, self.servers, self.cluster = root, servers, cluster
        self.node_3_schema = "1"
        self.stack = ExitStack()
        (root / "cache" / "_base").mkdir(parents=True)
        (root / "cache" / "locks").mkdir()

    def here(self, word: str, service: str) -> str:
        """Put this machine's paths in, and what the shell's variables hold."""
        for config in COMPOSE["services"][service].get("configs", ()):
            path = self.root / f"{config['source']}.json"
            path.write_text(COMPOSE["configs"][config["source"]]["content"])
            word = word.replace(config["target"], str(path))
        word = re.sub(r"(?<!\$)\$\{NODE_3_SCHEMA:-1\}", self.node_3_schema, word)
        return word.replace("$$", "$").replace("/cache", f"{self.root}/cache")

    def environment(self, service: str) -> dict[str, str]:
        """Return a service's variables, with this machine's values."""
        where = dict(COMPOSE["services"][service]["environment"])
        where["SHAREDCACHE_BASE"] = self.here(where["SHAREDCACHE_BASE"], service)
        where["SHAREDCACHE_ZOOKEEPER"] = self.servers
        where["SHAREDCACHE_CLUSTER"] = self.cluster
        return clean_environment(**where)

    def words(self, service: str, *instead: str) -> list[str]:
        """Return the command line of a service's process."""
        words = list(instead) or COMPOSE["services"][service]["command"]
        words = [self.here(word, service) for word in words]
        if words[0] in PROGRAMS:
            words[:1] = [sys.executable, "-m", PROGRAMS[words[0]]]
        return words

    def run(self, service: str, *instead: str) -> str:
        """Run a service that ends, or another command in its place."""
        done = subprocess.run(
            self.words(service, *instead),
            env=self.environment(service),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self, service: str) -> subprocess.Popen[bytes]:
        """Start a service that stays; its log is shown when the test fails."""
        log = self.root / f"{service}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.words(service),
                env=self.environment(service),
                stdout=output,
                stderr=output,
            )
        self.stack.callback(lambda: sys.stdout.write(f"{service}\n{log.read_text()}"))
        self.stack.callback(process.wait, 20)
        self.stack.callback(process.terminate)
        return process

    def ask(self, *words: str) -> Any:
        """Ask as the operator's service does, for JSON."""
        return json.loads(self.run("ask", "sharedcache", *words, "-f", "json"))


@pytest.fixture
def composed(
    tmp_path: Path, ensemble: PrivateEnsemble, zk_cluster_name: str
) -> Iterator[Composed]:
    """Make the volume; every process ends with the test."""
    made = Composed(tmp_path, ensemble.addresses, zk_cluster_name)
    with made.stack:
        yield made


def test_the_rollout_in_the_head(composed: Composed) -> None:
    """Closed while node-3 is old; after its upgrade the unused files go."""
    composed.run("filler")
    base = composed.root / "cache" / "_base"
    names = {path.name for path in base.iterdir()}
    assert len(names) == 4
    composed.run("founder")
    daemons = {n: composed.up(n) for n in ("cleaner-1", "cleaner-2")}
    daemons |= {n: composed.up(n) for n in ("node-1", "node-2", "node-3")}
    eventually(
        lambda: composed.ask("status")["nodes"]["live"] == 3, 60, "three live nodes"
    )
    closed = {
        (reason["code"], reason["subject"])
        for reason in composed.ask("status")["gate"]["reasons"]
    }
    assert ("node-old-kernel-naming", "node-3") in closed
    assert ("rollout-not-finalized", "rollout") in closed

    daemons["node-3"].terminate()
    assert daemons["node-3"].wait(20) == 0
    composed.node_3_schema = "2"
    composed.up("node-3")
    eventually(
        lambda: composed.ask("rollout", "status")["state"] == "ready", 60, "ready"
    )
    composed.ask("rollout", "finalize", "--yes")
    eventually(
        lambda: len(composed.ask("quarantine", "list")) == 2,
        60,
        "what nobody uses is in quarantine",
    )
    eventually(
        lambda: not composed.ask("quarantine", "list"), 60, "the quarantine is purged"
    )
    left = names & {path.name for path in base.iterdir()}
    uses = "".join(str(config["content"]) for config in COMPOSE["configs"].values())
    image, kernel = sorted(left, key=len, reverse=True)
    assert kernel in uses
    assert any(
        digest_of(word).hex() == image for word in re.findall(r"[0-9a-f-]{36}", uses)
    )
