"""The agent's socket: declared uses are reported, restored, and then over."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.uses_socket import (
    AgentLink,
    UsesSocket,
    UsesSocketError,
    server,
)
from sharedcache.cache import NotCachedError, Partial
from sharedcache.core.model import Uses
from sharedcache.core.names import digest_of
from sharedcache.core.ports import SourceError
from tests.support import eventually
from tests.support.writers import CONTENT, bound_base, giving, names_in, writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Cluster

NAME = digest_of("an image").hex()
OTHER = "swap_5"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a short path: a socket's is bounded by 107 bytes."""
    return tmp_path / "s"


@pytest.fixture
def served(path: Path) -> Iterator[UsesSocket]:
    """Serve."""
    server = UsesSocket(str(path))
    server.start()
    yield server
    server.close()


def _link(path: Path) -> closing[AgentLink]:
    return closing(AgentLink(str(path), answer_s=10.0, retry_s=0.0))


def test_a_use_lasts_as_long_as_it_is_declared(served: UsesSocket, path: Path) -> None:
    """Declared twice, released twice; a use that is over is in one more look."""
    with _link(path) as link:
        assert link.use(NAME)
        assert link.use(NAME)
        assert link.use(OTHER)
        assert served.look() == Uses.of_names([NAME, OTHER])
        link.release(NAME)
        link.release(OTHER)
        assert served.look() == Uses.of_names([NAME, OTHER])
        assert served.look() == Uses.of_names([NAME])
    eventually(lambda: served.look() == Uses(), 10, "the end of what hung up")


def test_a_program_that_ends_uses_nothing(served: UsesSocket, path: Path) -> None:
    """Its end is in the next look still, like every end."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        raw.sendall(json.dumps({"use": NAME}).encode() + b"\n")
        assert raw.recv(100) == b'{"ok": true}\n'
    eventually(lambda: not served._declared, 10, "the hang-up")
    assert served.look() == Uses.of_names([NAME])
    assert served.look() == Uses()


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"{",
        b"[]",
        b"{}",
        b'{"use": 1}',
        b'{"use": "../x"}',
        b'{"use": "README"}',
        b'{"release": "swap_1"}',
        b'{"use": "swap_1", "release": "swap_2"}',
        b'{"drop": "swap_1"}',
        b"[" * 1000,
        b"\xff",
    ],
)
def test_what_is_not_understood_is_refused(
    served: UsesSocket, path: Path, line: bytes
) -> None:
    """An answer says why, and the next line is served."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(path))
        raw.sendall(line + b"\n")
        assert "error" in json.loads(raw.recv(4096))
        raw.sendall(b'{"ping": true}\n')
        assert json.loads(raw.recv(4096)) == {"ok": True}
    assert served.look() == Uses()


def test_a_program_that_never_ends_its_line(served: UsesSocket, path: Path) -> None:
    """What it may keep in the agent is bounded, and others are served meanwhile."""
    with socket.socket(socket.AF_UNIX) as raw, _link(path) as link:
        raw.connect(str(path))
        raw.settimeout(10)
        raw.sendall(b"x" * 2000)
        assert link.use(NAME)
        assert raw.recv(100) == b""
    assert NAME in set(served.look().cache_names())


def test_a_forked_child_says_nothing(
    served: UsesSocket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over its parent's connection it would take back what its parent uses."""
    with _link(path) as link:
        assert link.use(NAME)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            link.release(NAME)
            assert not link.use(OTHER)
            assert not link.refresh()
            link.close()
        assert link.refresh()
        assert served.look() == Uses.of_names([NAME])


def test_more_names_or_programs_than_there_may_be(
    served: UsesSocket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused by an answer, or not let in; those before them stay."""
    monkeypatch.setattr(server, "MAX_NAMES", 2)
    monkeypatch.setattr(server, "MAX_CLIENTS", 1)
    with _link(path) as link, _link(path) as other:
        assert link.use(NAME)
        assert link.use(NAME)
        assert not link.use(OTHER)
        assert not other.use(OTHER)
        assert served.look() == Uses.of_names([NAME])


def test_a_program_that_reads_late_gets_every_answer(
    served: UsesSocket, path: Path
) -> None:
    """An answer that finds no room waits for it; nobody else waits meanwhile."""
    count = 19_000
    with socket.socket(socket.AF_UNIX) as raw, _link(path) as link:
        raw.settimeout(10.0)
        raw.connect(str(path))
        raw.sendall((json.dumps({"ping": True}) + "\n").encode() * count)
        assert link.use(NAME)
        got = b""
        while got.count(b"\n") < count:
            got += raw.recv(65536)
    assert served.look() == Uses.of_names([NAME])


def test_the_socket_itself(path: Path) -> None:
    """Mode 0660; what a run that was killed left is replaced; two agents are not."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    one, two = UsesSocket(str(path)), UsesSocket(str(path))
    one.start()
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    with pytest.raises(UsesSocketError, match="another agent"):
        two.start()
    two.close()
    with _link(path) as link:
        assert link.use(NAME)
    one.close()
    assert not path.exists()
    with pytest.raises(SourceError):
        one.look()
    path.write_text("precious")
    three = UsesSocket(str(path))
    with pytest.raises(UsesSocketError, match="not a socket"):
        three.start()
    three.close()
    assert path.read_text() == "precious"


def test_an_agent_that_is_started_again_is_told_anew(path: Path) -> None:
    """What is held while the agent is away is declared to its successor."""
    one = UsesSocket(str(path))
    one.start()
    with _link(path) as link:
        assert link.use(NAME)
        one.close()
        assert not link.use(OTHER)
        again = UsesSocket(str(path))
        again.start()
        assert link.refresh()
        assert again.look() == Uses.of_names([NAME, OTHER])
        again.close()


def test_an_agent_that_does_not_answer_costs_a_stated_time(path: Path) -> None:
    """A socket that accepts and says nothing: no error, and no second wait."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(5)
        link = AgentLink(str(path), answer_s=0.05, retry_s=1000.0)
        assert not link.use(NAME)
        accepted, _ = silent.accept()
        assert not link.use(OTHER)
        accepted.close()
        silent.settimeout(0.05)
        with pytest.raises(TimeoutError):
            silent.accept()
        link.close()


def test_a_declared_use_is_reported_and_kept(cluster: Cluster) -> None:
    """From the declaration to its end the cleaner finds the name used."""
    cluster.init()
    where = cluster.root / "s"
    cluster.agent("n1", socket=where, report_interval_s=1000)
    cluster.wait_live("n1")
    cluster.put(NAME)

    def used() -> int:
        (node,) = cluster.ask("node", "list")
        return int(node["uses"])

    assert used() == 0
    with writer(cluster.base, where) as cache, cache.use("an image"):
        # The interval is long: the declaration itself makes the agent look.
        cluster.wait(lambda: used() == 1, "the declared use", 30)


def test_a_use_is_declared_once_its_file_is_there(
    served: UsesSocket, path: Path, tmp_path: Path
) -> None:
    """The agent sounds an alarm of a used name that is nowhere: not of a fetch."""

    def fetch(partial: Partial) -> None:
        assert served.look() == Uses()
        partial.write(CONTENT)

    with writer(bound_base(tmp_path), path) as cache:
        with cache.use("an image", fetch=fetch):
            assert served.look() == Uses.of_names([NAME])
        assert served.look() == Uses.of_names([NAME])
        assert served.look() == Uses()


def test_a_use_brings_back_what_lies_in_quarantine(cluster: Cluster) -> None:
    """The agent restores at once; nothing is downloaded."""
    cluster.init()
    where = cluster.root / "s"
    agent = cluster.agent("n1", socket=where, report_interval_s=0.5)
    cluster.wait_live("n1")
    cluster.cleaner(grace_s=1000)
    (cluster.base.parent / "locks").mkdir(exist_ok=True)
    inode = cluster.put(NAME, CONTENT).stat().st_ino
    cluster.wait(lambda: cluster.quarantined() == {NAME}, "the quarantine", 60)
    calls: list[str] = []
    with writer(cluster.base, where) as cache:
        with cache.use("an image", fetch=giving(b"new", calls)) as path:
            assert path.stat().st_ino == inode
            assert path.read_bytes() == CONTENT
            # Stays while it is held, however short the minimum age.
            held = threading.Event()
            assert not held.wait(2.0)
            assert path.stat().st_ino == inode
        assert calls == []
        cluster.wait(lambda: NAME not in names_in(cluster.base), "its end", 60)
        agent.kill()
        # Without an agent nobody may link it back: it is downloaded.
        with pytest.raises(NotCachedError), cache.use("an image"):
            pass
        with cache.use("an image", fetch=giving(b"new", calls)) as path:
            assert path.read_bytes() == b"new"
    assert len(calls) == 1
