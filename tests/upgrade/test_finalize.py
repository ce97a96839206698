"""Finalizing: once, whoever presses it; waited for, held, and by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache import ledger
from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.core.ports import Delete
from tests.support.cluster import clean_environment
from tests.support.inprocess import FAST, OPERATOR, Site, publish, settle
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.timeout(120)

OPERATORS = 4


@pytest.fixture
def old_site(tmp_path: Path, zookeeper: Any, zk_cluster_name: str) -> Iterator[Site]:
    """Found a cluster at schema 1."""
    with Site(tmp_path / "site", zookeeper.address, zk_cluster_name) as made:
        made.found(1)
        yield made


def begin(cluster: Cluster, *arguments: str) -> subprocess.Popen[str]:
    """Start an operator's command, and go on."""
    return subprocess.Popen(
        [sys.executable, "-m", "sharedcache.cli.main", "rollout", *arguments],
        env=clean_environment(SHAREDCACHE_CONFIG=str(cluster.operator_config)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command; return its exit code and all that it said."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def state(cluster: Cluster) -> str:
    """Ask where the rollout stands."""
    found: str = cluster.ask("rollout", "status")["state"]
    return found


def test_waited_for_interrupted_and_pressed_by_many_at_once(cluster: Cluster) -> None:
    """Nobody is refused who was a moment later, and it is on record once."""
    cluster.init("--schema", "1")
    old = cluster.agent("n1", schema_version=1)
    cluster.agent("n2")
    cluster.wait_live("n1", "n2")
    assert cluster.run("rollout", "finalize", "--yes").code == 3
    late = cluster.run("rollout", "finalize", "--yes", "--when-ready", "--timeout", "0")
    assert (late.code, "n1, which supports schema 1 only" in late.err) == (3, True)
    waiting = [
        begin(cluster, "finalize", "--when-ready", "--yes") for _ in range(OPERATORS)
    ]
    for process in waiting:
        assert process.stderr is not None
        assert "Waiting for n1" in process.stderr.readline()
    impatient = waiting.pop()
    impatient.send_signal(signal.SIGINT)
    code, words = said(impatient)
    assert (code, "interrupted while waiting" in words) == (1, True), words
    assert state(cluster) == "mixed"
    old.stop()
    cluster.agent("n1")
    for process in waiting:
        code, words = said(process)
        assert (code, "finalized" in words) == (0, True), words
    assert state(cluster) == "finalized"
    history = cluster.ask("history")
    assert [one["act"] for one in history].count("finalized") == 1


def test_a_held_rollout_is_finalized_by_nobody(old_site: Site) -> None:
    """Not by a leader that may do it by itself, nor by hand, until it is released."""
    agent = old_site.agent("n1")
    publish(agent)
    word = old_site.session("operator")
    operator.hold_rollout(word, "rack 7 is off", OPERATOR)
    cleaner = old_site.cleaner("c1", replace(FAST, auto_finalize=True))
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes > 2, what="passes")
    observer, storage = old_site.observer(), old_site.storage()
    with pytest.raises(RefusedError, match="rack 7 is off"):
        finalize(word, storage, observer.observe(scan=False), "me", 1.0)
    operator.release_rollout(word, OPERATOR)
    settle(
        agent,
        cleaner,
        until=lambda: (
            storage.read_schema() is not None
            and b'"finalized_schema": 2' in (storage.read_schema() or b"")
        ),
        what="finalized by itself",
    )


def test_a_hold_that_comes_between_look_and_word_wins(old_site: Site) -> None:
    """The transaction checks it, in a tree of an earlier release too."""
    agent = old_site.agent("n1")
    publish(agent)
    word, storage, observer = (
        old_site.session("operator"),
        old_site.storage(),
        old_site.observer(),
    )
    for earlier in (False, True):
        if earlier:
            word.commit([Delete(ledger.ROLLOUT_HOLD, None)])
        seen = observer.observe(scan=False)
        operator.hold_rollout(word, "wait", OPERATOR)
        with pytest.raises(RefusedError, match="changed meanwhile"):
            finalize(word, storage, seen, "me", 1.0)
        operator.release_rollout(word, OPERATOR)
    finalize(word, storage, observer.observe(scan=False), "me", 1.0)
    # Releasing again is harmless.
    operator.release_rollout(word, OPERATOR)
    eventually(
        lambda: observer.observe(scan=False).held is None, 5.0, "the hold is gone"
    )
