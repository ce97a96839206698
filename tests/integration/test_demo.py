"""The demo as a viewer runs it: what it shows, what it exits with, what it leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from sharedcache.adapters.zookeeper_server import (
    ZooKeeperUnavailable,
    find_installation,
)
from tests.support import eventually

DEMO_S = 240.0
"""How long a demo may take on a busy machine, in seconds."""

pytestmark = [
    pytest.mark.zookeeper,
    pytest.mark.qemu,
    pytest.mark.usefixtures("_private_zookeeper"),
    pytest.mark.timeout(DEMO_S + 60),
]

_DEMO = "import sys; from sharedcache.cli.main import main; sys.exit(main())"

_IMPATIENT = """
import sys
from sharedcache.cli.demo.pace import Pace
from sharedcache.cli.demo.show import Show, run_show

# A grace that outlasts the demo: nothing can be purged, and it must say so.
sys.exit(run_show(Show(Pace(grace_s=86400.0, patience_s=8.0))))
"""


@pytest.fixture
def _private_zookeeper() -> None:
    """Skip where no ZooKeeper can be started: the demo uses nobody else's."""
    try:
        find_installation(os.environ)
    except ZooKeeperUnavailable as error:
        pytest.skip(str(error))


class Viewer:
    """Starts demos whose processes and directories can be told from all others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._mark = f"DEMO_TEST_MARK={uuid.uuid4().hex}"

    def start(
        self, code: str, *arguments: str, path: str | None = None
    ) -> subprocess.Popen[str]:
        """Start a demo in a process group of its own."""
        name, _, value = self._mark.partition("=")
        environ = {**os.environ, name: value, "TMPDIR": str(self.directory)}
        if path is not None:
            environ["PATH"] = path
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run(
        self, code: str, *arguments: str, path: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a demo to its end."""
        with self.start(code, *arguments, path=path) as process:
            try:
                out, err = process.communicate(timeout=DEMO_S)
            finally:
                # Children of the demo end with it, by the kernel's hand.
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def left(self) -> list[str]:
        """Tell what is left of all demos: processes, and entries of the directory."""
        found = [path.name for path in self.directory.iterdir()]
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self._mark.encode() in environ.read_bytes().split(b"\0"):
                    found.append(f"process {environ.parent.name}")
            except OSError:
                # Another user's process, or one that has just ended.
                continue
        return found


@pytest.fixture
def viewer(tmp_path: Path) -> Viewer:
    """Give a viewer with an empty temporary directory."""
    return Viewer(tmp_path)


def nothing_left(viewer: Viewer) -> None:
    """Check that every process and the directory are gone.

    Helpers of a process that was killed end a moment after it.
    """

    def gone() -> bool:
        assert viewer.left() == []
        return True

    eventually(gone, 5.0, "no process and no directory left")


def test_every_claim_is_observed(viewer: Viewer) -> None:
    """The demo names the gate's reason and the bytes, exits 0, leaves nothing."""
    done = viewer.run(_DEMO, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every claim was observed." in done.stdout
    assert re.search(r"node-old-kernel-naming\b.*\bcompute-3\b", done.stdout)
    assert "rollout-not-finalized" in done.stdout
    freed = re.search(r"Bytes freed: ([\d,]+) ", done.stdout)
    assert freed is not None
    assert int(freed[1].replace(",", "")) > 0
    nothing_left(viewer)


def test_missing_qemu_img_is_said_at_once(viewer: Viewer, tmp_path: Path) -> None:
    """Without qemu-img there is one message, with the package to install."""
    java = shutil.which("java")
    programs = tmp_path / "programs"
    programs.mkdir()
    if java is not None:
        (programs / "java").symlink_to(java)
    viewer.directory = tmp_path / "temporary"
    viewer.directory.mkdir()
    done = viewer.run(_DEMO, "demo", path=str(programs))
    assert done.returncode == 1
    assert "qemu-img is not installed" in done.stderr
    assert "qemu-utils" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    nothing_left(viewer)


def test_claim_that_is_not_observed_fails_the_demo(viewer: Viewer) -> None:
    """What did not happen is named, with the logs, and the exit status is 1."""
    done = viewer.run(_IMPATIENT)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Not observed: all of them were purged after that" in done.stderr
    assert "then the leader purges: not seen within 8 s" in done.stderr
    assert "the end of cleaner-1's log" in done.stdout
    # What came before it was observed all the same.
    assert "Not observed: finalizing opened the gate" not in done.stderr
    nothing_left(viewer)


def test_interrupt_leaves_nothing(viewer: Viewer) -> None:
    """Ctrl-C in the midst of the story ends every process and the directory."""
    with viewer.start(_DEMO, "demo") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "two cleaners stand for election" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=DEMO_S)
    assert process.returncode == 128 + signal.SIGINT
    nothing_left(viewer)
