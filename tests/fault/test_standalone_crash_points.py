"""``sharedcache standalone``: every effect of its own fails in turn, then it starts.

Its agent and its cleaner are the daemons whose crash points the simulation has.
Here it is what starts them: a data directory, settings, an identity, processes.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.crash import CrashedError
from tests.support.lonehost import (
    AFTER,
    BEFORE,
    OPENS,
    REFUSED,
    TORN,
    LoneHost,
    Strike,
)

if TYPE_CHECKING:
    from pathlib import Path

_LINGERS_S = 7.0
"""Longer than a start waits for its port, shorter than for processes it knows."""

_KEPT = {"lock", "logs", "parts.json", "sharedcache.conf", "standalone.json"}


def _struck(root: Path, strike: Strike, *, begun: bool) -> Strike:
    """Strike one effect of a start, then start again, and look."""
    host = LoneHost(root, lingers_s=_LINGERS_S)
    with host.installed():
        if begun:
            assert host.run() == 0
        before = host.marker()
        host.kills = True
        ended = host.run(strike)
        host.kills = False
        if strike.mode == REFUSED:
            # It says so and stops what it began; or it does without.
            assert ended == 0 or isinstance(ended, Exception), ended
            assert not host.alive, strike.log
        elif strike.struck:
            assert isinstance(ended, CrashedError), (ended, strike)
        middle = host.marker()
        again = host.run()
    point = (len(strike.log) - 1, strike.struck, strike.mode)
    said = host.said.getvalue()
    assert again == 0, (point, again, said)
    assert not host.wrong, (point, host.wrong, said)
    assert not host.alive, point
    after = host.marker()
    assert before in (None, middle), point
    assert middle in (None, after), point
    assert after is not None, point
    assert host.tree() == after, point
    state = json.loads((host.data / "standalone.json").read_text())
    assert state["cluster"] == after.name, point
    assert len(host.trees) == 1, point
    left = {one.name for one in host.data.iterdir()}
    assert left == {*_KEPT, "zookeeper"}, (point, left)
    private = (host.data / "sharedcache.conf", host.data / "standalone.json")
    assert {stat.S_IMODE(one.stat().st_mode) for one in private} == {0o600}
    there = {one.name: one.read_bytes() for one in host.base.glob("[!.]*")}
    assert there == host.files, point
    return strike


def _effects(root: Path, *, begun: bool) -> list[str]:
    """List the effects of a run that nothing disturbs."""
    return _struck(root, Strike(), begun=begun).log


_AUDITED = {
    "os.mkdir": {"mkdir"},
    "os.rename": {"rename", "replace"},
    "os.remove": {"unlink"},
    "os.rmdir": {"rmdir"},
    "os.link": {"link"},
    "os.symlink": {"symlink"},
    "os.chmod": {"chmod", "fchmod"},
    "os.truncate": {"truncate", "ftruncate"},
    "os.utime": {"utime"},
    "fcntl.flock": {"flock"},
}
"""What the interpreter itself tells of effects, and what is struck for each."""

_NEVER = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.kill", "shutil.copyfile"}
"""Effects that no run here may have without the host's knowing."""

_heard: Counter[str] | None = None


def _hear(event: str, given: tuple[object, ...]) -> None:
    if _heard is None:
        return
    if event == "open":
        path, _, flags = given
        assert isinstance(flags, int)
        # A descriptor that becomes a file object was counted as it was opened.
        made = bool(flags & (os.O_CREAT | os.O_TRUNC))
        _heard[event] += made and not isinstance(path, int)
    else:
        _heard[event] += event in _AUDITED or event in _NEVER


def test_no_effect_is_left_out(tmp_path: Path) -> None:
    """The interpreter tells of no effect in a run that is not struck in its turn."""
    global _heard  # noqa: PLW0603 - an audit hook cannot be taken back, only emptied.
    host = LoneHost(tmp_path, kills=True)
    sys.addaudithook(_hear)
    with host.installed():
        _heard = Counter()
        try:
            assert host.run() == 0
        finally:
            heard, _heard = +_heard, None
    struck = Counter(host.strike.log)
    for event, names in {**_AUDITED, "open": OPENS}.items():
        assert heard[event] == sum(struck[name] for name in names), event
    assert not _NEVER & heard.keys()
    assert heard["open"] > 10


@pytest.mark.parametrize("begun", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("mode", [BEFORE, AFTER, TORN, REFUSED])
def test_next_start_goes_on(tmp_path: Path, mode: str, *, begun: bool) -> None:
    """Whatever fails, the next start goes on: one identity, one ZooKeeper, all files.

    Between two effects nothing changes outside the process, so to die after one is
    to die before the next, but for an opened file, which may still be empty.
    """
    effects = _effects(tmp_path / "whole", begun=begun)
    wanted = {AFTER: OPENS, TORN: {"fsync"}}.get(mode, set(effects))
    struck = Counter[str]()
    for at, name in enumerate(effects):
        last = mode == AFTER and at == len(effects) - 1
        if name in wanted or last:
            strike = Strike(at, mode)
            _struck(tmp_path / str(at), strike, begun=begun)
            assert strike.struck == name
            struck[name] += 1
    assert struck["spawn"] == (4 if mode in {BEFORE, REFUSED} else 0)
    assert sum(struck.values()) > 5
