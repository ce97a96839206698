"""What the doctor says of what it finds, and that it never waits for ever."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.storage.mountinfo import Mount
from sharedcache.adapters.storage.trial import Trial
from sharedcache.adapters.zookeeper.probe import ServerWord, ask
from sharedcache.cli.doctor import helper, judge
from sharedcache.cli.doctor.findings import Level, ok
from sharedcache.cli.doctor.servers import ask_all
from sharedcache.core.ports import StorageError


def _levels(*options: str, kind: str = "nfs4") -> dict[str, Level]:
    found = judge.mount(Mount(kind, ("rw", *options)))
    return {one.message: one.level for one in found}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("vers=3",), "NFS version 3"),
        (("vers=4.0",), "NFS version 4.0"),
        ((), "NFS version unknown"),
        (("vers=4.1", "nolock"), "nolock"),
        (("vers=4.2", "local_lock=all"), "local_lock=all"),
        (("vers=3", "local_lock=posix"), "local_lock=posix"),
        (("vers=4.2", "soft"), "soft mount"),
        (("vers=4.2", "acdirmax=300"), "300 s"),
    ],
)
def test_a_mount_that_weakens_a_rule_is_told(
    options: tuple[str, ...], words: str
) -> None:
    """Each option that matters has its warning, with what it breaks."""
    warned = [m for m, level in _levels(*options).items() if level is Level.WARN]
    assert any(words in message for message in warned), warned


def test_a_good_mount_is_good() -> None:
    """NFS 4.1 and later with locks, and a local file system."""
    for found in (
        _levels("vers=4.1", "hard", "local_lock=none"),
        _levels("vers=4.2", "noac"),
        _levels("vers=4.2", "local_lock=flock"),
        _levels(kind="ext4"),
    ):
        assert set(found.values()) == {Level.OK}, found


def test_a_read_only_mount_and_an_unknown_one() -> None:
    """Read-only cannot work; no telling is a warning, never ok."""
    readonly = list(judge.mount(Mount("ext4", ("ro",))))
    assert Level.FAIL in {one.level for one in readonly}
    assert [one.level for one in judge.mount(None)] == [Level.WARN]


@pytest.mark.parametrize(
    ("total", "free", "level"),
    [(100, 50, Level.OK), (100, 9, Level.WARN), (100, 1, Level.FAIL), (0, 0, Level.OK)],
)
def test_space_is_judged_by_its_share(total: int, free: int, level: Level) -> None:
    """Below a tenth a warning, below a fiftieth a failure; no size, no judgement."""
    assert judge.space(total, free).level is level


def test_clocks_apart_are_a_warning_only_beyond_doubt() -> None:
    """A slow storage blurs the comparison, and is not blamed for it."""
    assert judge.clock(Trial(30.0, 0.1)).level is Level.WARN
    assert judge.clock(Trial(-30.0, 0.1)).level is Level.WARN
    assert judge.clock(Trial(3.0, 2.0)).level is Level.OK


def test_one_silent_server_is_a_warning_and_all_are_a_failure() -> None:
    """An ensemble bears the loss of one; two that run alone are two truths."""
    silent = ServerWord("zk1:2181", 1.0, error="refused")
    assert judge.server(silent, others_answer=True).level is Level.WARN
    assert judge.server(silent, others_answer=False).level is Level.FAIL
    alone = [ServerWord(f"zk{n}:2181", 0.1, "3.8.0", "standalone") for n in (1, 2)]
    assert [one.level for one in judge.modes(alone)] == [Level.FAIL]
    assert list(judge.modes(alone[:1])) == []
    two = [ServerWord(f"zk{n}:2181", 0.1, "3.8.0", "leader") for n in (1, 2)]
    assert [one.level for one in judge.modes(two)] == [Level.FAIL]


def test_a_timeout_that_was_cut_and_open_access_are_told() -> None:
    """What the servers grant decides, and whoever may write is named."""
    assert judge.session({"cleaner": 60.0}, 10.0).level is Level.WARN
    assert judge.session({"cleaner": 10.0}, 10.0).level is Level.OK
    assert judge.access(["world:anyone"]).level is Level.WARN
    assert judge.access(["digest:cache:x"]).level is Level.OK


@pytest.mark.parametrize(
    ("load", "active", "file", "level"),
    [
        ("not-found", "inactive", "", Level.OK),
        ("loaded", "active", "enabled", Level.OK),
        ("loaded", "failed", "enabled", Level.WARN),
        ("loaded", "active", "disabled", Level.WARN),
    ],
)
def test_a_unit_must_run_and_start_at_boot(
    load: str, active: str, file: str, level: Level
) -> None:
    """One that runs and is disabled is gone after the next boot."""
    states = {"LoadState": load, "ActiveState": active, "UnitFileState": file}
    unit = judge.Unit("x.service", states, ok("unit", "not needed"))
    assert judge.unit(unit).level is level


def _script(*lines: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(("import json, sys, time", *lines))]


def _say(**said: Any) -> str:
    return f"print({str(said).replace(chr(39), chr(34))!r}, flush=True)"


OK_LINE = _say(check="base", result="ok", message="/x", what_to_do="")


def test_a_helper_that_hangs_is_left_with_what_it_found() -> None:
    """The check that hung is named; what came before it is kept."""
    began = time.monotonic()
    found = helper.run(
        _script(OK_LINE, _say(begins="rights"), "time.sleep(600)"), patience_s=0.5
    )
    assert time.monotonic() - began < 10
    assert [(one.check, one.level) for one in found.findings] == [
        ("base", Level.OK),
        ("rights", Level.FAIL),
    ]
    assert "does the storage hang" in found.findings[1].advice


def test_a_helper_that_dies_is_told_with_its_last_word() -> None:
    """A defect in a check is a failure like any other."""
    found = helper.run(_script(_say(begins="lock"), "raise KeyError('why')"), 20.0)
    (only,) = found.findings
    assert (only.check, only.level) == ("lock", Level.FAIL)
    assert "KeyError" in only.message


def test_a_helper_tells_facts() -> None:
    """What the storage says is compared with ZooKeeper's word."""
    found = helper.run(_script(_say(fact="identity", value="4b0c"), OK_LINE), 20.0)
    assert found.facts == {"identity": "4b0c"}
    assert [one.check for one in found.findings] == ["base"]


def test_servers_that_never_answer_are_given_up() -> None:
    """One that takes the connection and is silent, and one that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        words = ask_all(f"127.0.0.1:{port},127.0.0.1:1", 0.5)
        assert time.monotonic() - began < 10
    assert [bool(word.error) for word in words] == [True, True]


def test_a_server_may_keep_its_version_to_itself() -> None:
    """A whitelist without `srvr` is an answer too: the server is there."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4)
                connection.sendall(
                    b"srvr is not executed because it is not in the whitelist.\n"
                )

        thread = threading.Thread(target=answer)
        thread.start()
        port = server.getsockname()[1]
        word = ask(f"127.0.0.1:{port}", f"127.0.0.1:{port}", 5.0)
        thread.join()
    assert (word.error, word.version, word.mode) == ("", "", "")


def test_a_trial_that_fails_names_its_step_and_leaves_nothing(tmp_path: Path) -> None:
    """A directory in which nothing may be renamed, and one that is whole."""
    base = tmp_path / "_base"
    base.mkdir()
    with DirectoryStorage(str(base)) as storage:
        with pytest.raises(StorageError, match="not mounted here, or `init`"):
            storage.trial()
        assert list(base.iterdir()) == []
        control = base / ".sharedcache"
        control.mkdir()
        found = storage.trial()
        assert abs(found.offset_s) < 60
        assert list(base.iterdir()) == [control]
        assert list(control.iterdir()) == []
        control.rmdir()
        control.write_text("not a directory")
        storage.refresh()
        with pytest.raises(StorageError, match="not a directory"):
            storage.trial()
        assert list(base.iterdir()) == [control]
