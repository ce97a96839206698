"""``sharedcache standalone`` as an operator runs it: real processes, real files."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from sharedcache.adapters.zookeeper_server import (
    ZooKeeperUnavailable,
    find_installation,
    is_free,
)
from sharedcache.cli.failure import SettingsFailure
from sharedcache.cli.standalone import parts
from sharedcache.cli.standalone.backoff import Backoff
from sharedcache.cli.standalone.logs import LogFile
from sharedcache.cli.standalone.parts import Daemon
from sharedcache.cli.standalone.supervisor import Supervisor
from tests.support import eventually
from tests.support.cluster import OLD_S, cache_name, clean_environment, image_id

if TYPE_CHECKING:
    from collections.abc import Iterator

_FAST = (
    "agent.report_interval_s=0.3",
    "agent.session_timeout_s=4",
    "cleaner.pass_interval_s=0.5",
    "cleaner.session_timeout_s=4",
    "cleaner.round_interval_s=0.2",
    "cleaner.grace_s=0.2",
)
"""Times that a test can wait for; the minimum ages stay as shipped."""

_READY_S = 60.0
_MEND_S = 60.0
_STOP_S = 40.0
_PROGRAM = "import sys; from sharedcache.cli.main import main; sys.exit(main())"


@pytest.fixture
def _private_zookeeper() -> None:
    """Skip where no ZooKeeper can be started: standalone uses nobody else's."""
    try:
        find_installation(os.environ)
    except ZooKeeperUnavailable as error:
        pytest.skip(str(error))


@dataclass
class Host:
    """One host: an instances directory, a data directory, and an operator."""

    root: Path
    mark: str = field(default_factory=lambda: f"TEST_MARK={uuid.uuid4().hex}")
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        """Make the directories and a uses file that names nothing."""
        self.base.mkdir(parents=True)
        self.use()

    @property
    def base(self) -> Path:
        """The cache directory."""
        return self.root / "instances" / "_base"

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    @property
    def output(self) -> Path:
        """What the running standalone printed."""
        return self.root / "output.txt"

    @property
    def sources(self) -> list[str]:
        """The options that name the sources of use."""
        return [
            f"--instances={self.root / 'instances'}",
            f"--uses-file={self.root / 'uses.json'}",
        ]

    def use(self, *images: str) -> None:
        """Say which images are in use."""
        fresh = self.root / "uses.new"
        fresh.write_text(json.dumps({"images": list(images)}))
        fresh.replace(self.root / "uses.json")

    def put(self, number: int) -> Path:
        """Put an old file into the cache."""
        path = self.base / cache_name(image_id(number))
        path.write_bytes(b"x" * 1000)
        then = time.time() - OLD_S
        os.utime(path, (then, then))
        return path

    def environ(self) -> dict[str, str]:
        """Return the environment, with a mark by which processes are found."""
        name, _, value = self.mark.partition("=")
        return clean_environment(**{name: value})

    def start(self, *arguments: str, sources: bool = True) -> None:
        """Start it with times that a test can wait for; wait until it says so."""
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _PROGRAM, "standalone"),
                    *(f"--data={self.data}", *(f"--set={one}" for one in _FAST)),
                    *(self.sources if sources else []),
                    *arguments,
                ],
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self.await_text("sharedcache status", _READY_S)

    def await_text(self, text: str, deadline_s: float) -> None:
        """Wait until it has printed something."""

        def printed() -> bool:
            said = self.output.read_text()
            assert text in said, said
            return True

        eventually(printed, deadline_s, f"{text!r} is printed")

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send it a signal, as a terminal does: to its group; return its exit code."""
        assert self.process is not None
        os.killpg(self.process.pid, number)
        return self.process.wait(_STOP_S)

    def part(self, name: str) -> int:
        """Return the process of a part."""
        noted = json.loads((self.data / "parts.json").read_text())
        return int(noted[name].split()[1])

    def left(self) -> list[str]:
        """Name the processes that are left of every run."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environ.read_bytes().split(b"\0"):
                    found.append(environ.parent.name)
            except OSError:
                # Another user's process, or one that has just ended.
                continue
        return found

    def nothing_left(self) -> None:
        """Wait until no process of any run is left."""
        eventually(lambda: not self.left(), 10.0, "every process is gone")

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-c", _PROGRAM, *arguments],
            env=self.environ() | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=90,
            check=False,
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an operator's command, with the settings as the operator is told."""
        settings = str(self.data / "sharedcache.conf")
        return self.run(*arguments, SHAREDCACHE_CONFIG=settings)

    def status(self) -> Any:
        """Ask as the operator is told to."""
        done = self.command("status", "-f", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def awaits_purge(self, path: Path) -> None:
        """Wait until a file is gone, from quarantine too."""

        def purged() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.output.read_text()
            epochs = self.base / ".sharedcache" / "epochs"
            kept = [one.name for one in epochs.glob("*/*")]
            return not path.exists() and not any(path.name in one for one in kept)

        eventually(purged, _MEND_S, f"{path.name} is purged")


@pytest.fixture
def host(tmp_path: Path, _private_zookeeper: None) -> Iterator[Host]:
    """Make a host; whatever runs on it ends with the test."""
    made = Host(tmp_path / "host")
    try:
        yield made
    finally:
        if made.process is not None:
            made.process.kill()
            made.process.wait()
        if made.output.exists():
            print(made.output.read_text())  # noqa: T201 - pytest shows it on a failure
        made.nothing_left()


@pytest.mark.zookeeper
class TestRunning:
    """One command looks after one host's cache, whatever ends meanwhile."""

    def test_unused_file_goes_and_used_one_stays(self, host: Host) -> None:
        """It begins by itself, removes what nobody uses, keeps what is used."""
        used, unused = host.put(1), host.put(2)
        host.use(image_id(1))
        host.start()
        assert "Begun: cluster standalone-" in host.output.read_text()
        host.awaits_purge(unused)
        assert used.exists()
        status = host.status()
        assert status["gate"]["open"]
        assert status["nodes"]["live"] == 1
        assert status["cache"]["files"] == 1
        host.await_text("cleaner: purged file=", 10.0)

    def test_young_file_stays(self, host: Host) -> None:
        """Minimum ages are those of production unless the operator says other."""
        young = host.put(1)
        os.utime(young)
        old = host.put(2)
        host.start()
        host.awaits_purge(old)
        assert young.exists()

    @pytest.mark.parametrize("part", ["zookeeper", "agent", "cleaner"])
    def test_part_that_is_killed_is_started_again(self, host: Host, part: str) -> None:
        """An end is told in a line and mended, and the work goes on after it."""
        host.start()
        host.awaits_purge(host.put(1))
        before = host.part(part)
        os.kill(before, signal.SIGKILL)
        host.await_text(f"{part} was killed by SIGKILL", _MEND_S)
        host.await_text(f"{part} was started again", _MEND_S)
        assert host.part(part) != before
        host.awaits_purge(host.put(2))
        assert host.stop() == 0

    def test_interrupt_stops_all_in_order_and_the_next_start_goes_on(
        self, host: Host
    ) -> None:
        """Ctrl-C leaves no process and claims no seal; what is known is kept."""
        host.start()
        host.awaits_purge(host.put(1))
        first = host.status()
        assert host.stop() == 0
        said = host.output.read_text()
        stopped = [
            line.split()[2] for line in said.splitlines() if line.endswith(" stopped")
        ]
        assert stopped == ["cleaner", "agent", "zookeeper"]
        host.nothing_left()
        log = (host.data / "logs" / "agent.log").read_text()
        assert "agent-stopped" in log
        assert " sealed " not in log
        assert is_free(_port(host))

        # No options but the data directory: the sources are those of last time.
        host.start(sources=False)
        assert "Going on with cluster" in host.output.read_text()
        host.awaits_purge(host.put(2))
        second = host.status()
        assert second["cluster"] == first["cluster"]
        assert second["epoch"] > first["epoch"]
        assert second["nodes"]["total"] == 1
        assert host.stop(signal.SIGTERM) == 0
        host.nothing_left()

    def test_killed_standalone_takes_all_along_and_starts_again(
        self, host: Host
    ) -> None:
        """SIGKILL ends every part; neither lock nor port keep the next start off."""
        host.start()
        host.awaits_purge(host.put(1))
        port = _port(host)
        assert host.stop(signal.SIGKILL) == -signal.SIGKILL
        host.start()
        assert _port(host) == port
        host.awaits_purge(host.put(2))
        assert host.stop() == 0

    def test_taken_port_is_left_to_its_owner(self, host: Host) -> None:
        """If somebody else has the port now, another one is taken and told."""
        host.start()
        assert host.stop() == 0
        port = _port(host)
        with socket.create_server(("127.0.0.1", port)):
            host.start()
            assert _port(host) != port
            assert "is somebody else's now" in host.output.read_text()
            host.awaits_purge(host.put(1))
            assert host.stop() == 0

    def test_lost_zookeeper_data_can_be_recovered(self, host: Host) -> None:
        """A ZooKeeper that lost all removes nothing, and waits for an operator."""
        host.start()
        host.awaits_purge(host.put(1))
        assert host.stop() == 0
        (host.data / "zookeeper").rename(host.root / "lost")
        kept = host.put(2)
        host.start(sources=False)
        assert "Nothing is removed:" in host.output.read_text()
        assert "sharedcache recover" in host.output.read_text()
        codes = {one["code"] for one in host.status()["gate"]["reasons"]}
        assert "cluster-mismatch" in codes
        assert kept.exists()
        done = host.command("recover", "--yes")
        assert done.returncode == 0, done.stderr
        host.awaits_purge(kept)
        assert host.stop() == 0

    def test_second_start_is_refused_with_who_runs(self, host: Host) -> None:
        """Two on one data directory never run; the second names the first."""
        host.start()
        assert host.process is not None
        done = host.run("standalone", f"--data={host.data}", *host.sources)
        assert done.returncode == 3
        assert f"process {host.process.pid} since" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert host.status()["nodes"]["live"] == 1

    def test_others_on_this_host_read_nothing(self, host: Host) -> None:
        """ZooKeeper's nodes are for the password, which its user alone can read."""
        host.start()
        client = KazooClient(hosts=f"127.0.0.1:{_port(host)}")
        client.start(timeout=15)
        try:
            with pytest.raises(NoAuthError):
                client.get_children("/sharedcache")
            cluster = host.status()["cluster"]
            with pytest.raises(NoAuthError):
                client.set(f"/sharedcache/{cluster}/pause", b"")
        finally:
            client.stop()
            client.close()
        readable = [
            one
            for one in host.data.iterdir()
            if one.is_file() and one.stat().st_mode & 0o77
        ]
        assert host.data.stat().st_mode & 0o77 == 0
        assert {one.name for one in readable} <= {"lock"}

    def test_terminal_shows_a_table(self, host: Host) -> None:
        """Somebody who watches sees gate, files, quarantine, parts and last acts."""
        terminal, inside = os.openpty()
        host.put(1)
        host.process = subprocess.Popen(
            [
                *(sys.executable, "-c", _PROGRAM, "standalone", f"--data={host.data}"),
                *(*host.sources, *(f"--set={one}" for one in _FAST)),
            ],
            env=host.environ() | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=subprocess.DEVNULL,
            stdout=inside,
            stderr=inside,
            process_group=0,
        )
        os.close(inside)
        seen = ""

        def shown() -> bool:
            nonlocal seen
            seen += os.read(terminal, 65536).decode("utf-8", "replace")
            words = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
            table = words.rpartition("sharedcache standalone\r\n")[2]
            return (
                re.search(r"gate +open\b", table) is not None
                and re.search(r"in quarantine +0 files", table) is not None
                and re.search(r"cleaner +process \d+", table) is not None
                and "purged file=" in table
            )

        try:
            eventually(shown, _MEND_S, "the table shows an open gate and a purge")
            assert host.stop() == 0
        finally:
            os.close(terminal)


@pytest.mark.zookeeper
class TestRefusals:
    """What must not be started is refused in one line, and nothing is changed."""

    def test_base_of_another_cluster_is_refused(self, host: Host) -> None:
        """A directory that was begun with another data directory is not taken over."""
        host.start()
        assert host.stop() == 0
        kept = sorted(host.base.rglob("*"))
        other = host.root / "other"
        done = host.run("standalone", f"--data={other}", *host.sources)
        assert done.returncode == 3
        assert "belongs to cluster standalone-" in done.stderr
        assert sorted(host.base.rglob("*")) == kept
        assert not (other / "zookeeper").exists()

    def test_other_base_than_last_time_is_refused(self, host: Host) -> None:
        """One data directory serves one cache directory."""
        host.start()
        assert host.stop() == 0
        elsewhere = host.root / "elsewhere" / "_base"
        elsewhere.mkdir(parents=True)
        done = host.run(
            *("standalone", f"--data={host.data}"),
            *(f"--base={elsewhere}", host.sources[1]),
        )
        assert done.returncode == 3
        assert "is the data directory of" in done.stderr
        assert list(elsewhere.iterdir()) == []

    def test_base_without_a_source_is_refused(self, host: Host) -> None:
        """Where nothing says what is in use nothing is started."""
        done = host.run("standalone", f"--data={host.data}", f"--base={host.base}")
        assert done.returncode == 2
        assert "--uses-file" in done.stderr
        assert not (host.base / ".sharedcache").exists()

    def test_missing_java_is_said_with_its_package(self, host: Host) -> None:
        """Without Java there is one line with what to install, and nothing is made."""
        done = host.run(
            *("standalone", f"--data={host.data}", *host.sources),
            PATH="/nonexistent",
            JAVA_HOME="",
        )
        assert done.returncode == 1
        assert "default-jre-headless" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not host.data.exists()

    @pytest.mark.parametrize("option", ["--zookeeper=zk1:2181", "--cluster=prod"])
    def test_cluster_options_are_refused(self, host: Host, option: str) -> None:
        """An operator who means a cluster is told what to use for one."""
        done = host.run(option, "standalone", *host.sources, f"--data={host.data}")
        assert done.returncode == 2
        assert "sharedcache-agent" in done.stderr
        assert not host.data.exists()


def _port(host: Host) -> int:
    return int(json.loads((host.data / "standalone.json").read_text())["port"])


class TestSupervisor:
    """What goes on failing is shown, and what cannot mend ends the whole."""

    @staticmethod
    def _supervised(
        tmp_path: Path, code: str
    ) -> tuple[Supervisor, list[str], list[dict[str, int]]]:
        told: list[str] = []
        noted: list[dict[str, int]] = []
        supervisor = Supervisor(
            told.append,
            lambda running: noted.append(dict(running)),
            backoff=lambda: Backoff(first_s=0.01, longest_s=0.01),
        )
        command = [sys.executable, "-c", code]
        log = LogFile(tmp_path / "agent.log")
        supervisor.start(Daemon("agent", command, tmp_path, log))
        return supervisor, told, noted

    def test_part_that_goes_on_failing_is_shown_with_its_log(
        self, tmp_path: Path
    ) -> None:
        """The third end in a row shows the log's last lines."""
        code = "print('my last words'); raise SystemExit(1)"
        supervisor, told, _ = self._supervised(tmp_path, code)

        def shown() -> bool:
            supervisor.tend()
            return "    my last words" in told

        eventually(shown, 30.0, "the log is shown")
        ends = [line for line in told if "ended with exit code 1" in line]
        assert len(ends) == 3
        assert any(str(tmp_path / "agent.log") in line for line in told)
        assert supervisor.standing[0].restarts == 2

    def test_wrong_settings_end_the_whole(self, tmp_path: Path) -> None:
        """A daemon that calls its settings wrong is not started for ever."""
        code = "print('no such section'); raise SystemExit(2)"
        supervisor, told, _ = self._supervised(tmp_path, code)

        def ended() -> bool:
            with pytest.raises(SettingsFailure, match="no such section"):
                supervisor.tend()
            return True

        def tended() -> bool:
            try:
                return ended()
            except pytest.fail.Exception:
                return False

        eventually(tended, 30.0, "the supervisor gives up")
        assert told == []

    def test_part_that_does_not_stop_is_killed_in_a_hurry(self, tmp_path: Path) -> None:
        """A second Ctrl-C waits for nobody, and says who did not stop in order."""
        code = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "print('deaf', flush=True); time.sleep(600)"
        )
        supervisor, told, noted = self._supervised(tmp_path, code)
        log = tmp_path / "agent.log"
        eventually(lambda: "deaf" in log.read_text(), 30.0, "it is deaf")
        began = time.monotonic()
        assert not supervisor.stop(lambda: True)
        assert time.monotonic() - began < parts.STOP_S / 2
        assert "did not stop in order: it was killed by SIGKILL" in told[0]
        assert not Path(f"/proc/{noted[0]['agent']}").exists()
