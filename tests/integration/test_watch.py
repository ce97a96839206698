"""``status --watch`` as a real process: in a pipe, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.support.cluster import Cluster, cache_name, clean_environment, image_id

pytestmark = pytest.mark.timeout(120)


def _start(cluster: Cluster, output: int, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sharedcache.cli.main", "status", *arguments]
    config = str(cluster.operator_config)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        env=clean_environment(SHAREDCACHE_CONFIG=config, TERM="xterm", COLUMNS="100"),
    )


def _interrupted(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def test_a_pipe_gets_a_line_for_each_look(cluster: Cluster) -> None:
    """A script sees changes as they come; Ctrl-C ends it with 0 and no word."""
    cluster.init()
    process = _start(cluster, subprocess.PIPE, "--watch", "0.2", "-f", "json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["cache"]["files"] == 0
    cluster.put(cache_name(image_id(1)))
    until = time.monotonic() + 30
    while json.loads(process.stdout.readline())["cache"]["files"] != 1:
        assert time.monotonic() < until, "the new file is never seen"
    assert _interrupted(process) == (0, b"")


def test_a_terminal_is_redrawn_in_place(cluster: Cluster) -> None:
    """The page is drawn over the last one, and what is left is readable."""
    cluster.init()
    ours, theirs = pty.openpty()
    ready = select.poll()
    ready.register(ours, select.POLLIN)
    process = _start(cluster, theirs, "--watch", "0.2")
    os.close(theirs)
    shown = b""
    until = time.monotonic() + 30
    try:
        while shown.count(b"Gate: ") < 3:
            assert time.monotonic() < until, shown
            if ready.poll(1000):
                shown += os.read(ours, 65536)
        assert cluster.name.encode() in shown
        assert b"\x1b[" in shown
        assert b"\x1b[1A" in shown, "it goes up to draw over the last page"
        code, errors = _interrupted(process)
        assert (code, errors) == (0, b"")
    finally:
        os.close(ours)
        process.kill()
        process.communicate()
