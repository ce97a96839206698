"""What ``sharedcache standalone`` decides before and between its processes."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sharedcache.adapters.journal import JsonLines, LogJournal
from sharedcache.adapters.settings import SettingsError
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cli.failure import Failure, RefusedFailure
from sharedcache.cli.standalone import choice as choice_module
from sharedcache.cli.standalone import guard, processes
from sharedcache.cli.standalone.backoff import Backoff
from sharedcache.cli.standalone.choice import (
    Choice,
    base_of,
    chain,
    parse_changes,
    render,
    settle,
)
from sharedcache.cli.standalone.logs import LogFile, acts
from sharedcache.cli.standalone.place import (
    Place,
    State,
    default_directory,
    new_state,
)
from sharedcache.cli.standalone.supervisor import Supervisor
from sharedcache.core import codec
from sharedcache.core.model import Cluster


class TestBackoff:
    """A part that ends is started again, ever more slowly while it goes on so."""

    def test_waits_double_up_to_the_longest(self) -> None:
        """The first end is mended soon, and no wait is longer than the longest."""
        backoff = Backoff(first_s=0.5, longest_s=3.0)
        assert [backoff.ended(0.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]

    def test_a_thousand_ends_are_no_overflow(self) -> None:
        """However often a part ends, the wait is a number."""
        backoff = Backoff(longest_s=60.0)
        assert {backoff.ended(0.0) for _ in range(1100)} >= {60.0}

    def test_a_calm_run_begins_the_counting_anew(self) -> None:
        """A part that ran for long before it ended is mended soon again."""
        backoff = Backoff(first_s=0.5, calm_s=100.0)
        for _ in range(4):
            backoff.ended(99.9)
        assert backoff.ended(99.9) == 8.0
        assert backoff.ended(100.0) == 0.5
        assert backoff.failures == 1

    def test_log_is_shown_now_and_then(self) -> None:
        """The log is shown for the third end in a row, then ever more rarely."""
        backoff = Backoff()
        shown = []
        for number in range(1, 30):
            backoff.ended(0.0)
            if backoff.show_log:
                shown.append(number)
        assert shown == [3, 6, 12, 24]


STATE = State(
    base="/srv/instances/_base",
    cluster="standalone-1",
    port=12345,
    password="pa-ss",  # noqa: S106
)


class TestChoice:
    """Options, what was kept, and the settings that come of both."""

    def test_instances_have_their_base_inside(self) -> None:
        """``--instances`` alone names the cache too; ``--base`` wins over it."""
        assert base_of(Choice(instances="/i"), None) == "/i/_base"
        assert base_of(Choice(instances="/i", base="/b"), None) == "/b"

    def test_kept_base_is_the_last_resort(self) -> None:
        """A later start needs no options; a first one without any is told what."""
        assert base_of(Choice(), STATE) == STATE.base
        with pytest.raises(SettingsError, match="--instances DIRECTORY"):
            base_of(Choice(), None)

    def test_kept_sources_stand_until_others_are_named(self) -> None:
        """Sources are those of the last start, or those of this one, never a mix."""
        kept = replace(STATE, instances="/i", uses_file="/u", config_files=("/c",))
        after = Choice(base="/b").after(kept)
        assert (after.instances, after.uses_file, after.config_files) == (
            "/i",
            "/u",
            ("/c",),
        )
        assert Choice(uses_file="/v").after(kept) == Choice(uses_file="/v")

    @pytest.mark.parametrize(
        "word",
        ["grace_s=1", "cleaner.grace_s", "cleaner.=1", "sharedcache.base=/x", "a\nb=c"],
    )
    def test_set_that_is_none_is_refused(self, word: str) -> None:
        """``--set`` names a section of agent or cleaner, a setting and a value."""
        with pytest.raises(SettingsError, match="--set"):
            parse_changes([word])

    def test_set_keeps_equal_signs_of_the_value(self) -> None:
        """Only the first equal sign parts name and value; the last word counts."""
        changes = parse_changes(["agent.node=a=b", "cleaner.grace_s=1", "agent.node=c"])
        assert changes == {"agent": {"node": "c"}, "cleaner": {"grace_s": "1"}}
        assert parse_changes(["agent.node=a=b"]) == {"agent": {"node": "a=b"}}

    def test_password_and_port_are_in_the_settings(self, tmp_path: Path) -> None:
        """The settings file alone leads other commands to this ZooKeeper."""
        path = tmp_path / "sharedcache.conf"
        settings, _ = settle(Choice(instances="/srv/instances"), STATE, path)
        assert settings.zookeeper == "zookeeper://sharedcache:pa-ss@127.0.0.1:12345"
        assert (settings.base, settings.cluster) == (STATE.base, STATE.cluster)
        assert settings.agent.sources == ("instances",)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [one.name for one in tmp_path.iterdir()] == [path.name]

    def test_defaults_are_those_of_production(self, tmp_path: Path) -> None:
        """Without ``--set`` every age and the grace are as shipped."""
        path = tmp_path / "c.conf"
        settings, _ = settle(Choice(instances="/i"), STATE, path)
        assert min(settings.cleaner.min_age_s.values()) == 3600
        assert max(settings.cleaner.min_age_s.values()) == 86400
        assert settings.cleaner.grace_s == 3600

    def test_set_wins_over_files_and_files_over_defaults(self, tmp_path: Path) -> None:
        """Files of the operator's come first, what this start says comes last."""
        own = tmp_path / "own.conf"
        own.write_text("[cleaner]\ngrace_s = 5\npass_interval_s = 6\n")
        choice = Choice(
            instances="/i",
            config_files=(str(own),),
            changes=parse_changes(["cleaner.grace_s=7"]),
        )
        settings, state = settle(choice, STATE, tmp_path / "c.conf")
        assert settings.cleaner.grace_s == 7
        assert settings.cleaner.pass_interval_s == 6
        assert state.config_files == (str(own),)

    def test_misspelt_set_is_told_as_such(self, tmp_path: Path) -> None:
        """What is wrong with ``--set`` is told by that name, and nothing is left."""
        choice = Choice(instances="/i", changes=parse_changes(["cleaner.grace=7"]))
        with pytest.raises(SettingsError, match=r"^--set: .*did you mean grace_s\?"):
            settle(choice, STATE, tmp_path / "c.conf")
        assert list(tmp_path.iterdir()) == []

    def test_no_source_is_refused(self, tmp_path: Path) -> None:
        """A base without a source of use would look all unused: no start."""
        with pytest.raises(SettingsError, match="--uses-file FILE"):
            settle(Choice(base="/b"), STATE, tmp_path / "c.conf")
        assert list(tmp_path.iterdir()) == []

    def test_named_source_that_is_off_is_refused(self, tmp_path: Path) -> None:
        """A source that the operator names is never left out by a file."""
        own = tmp_path / "own.conf"
        own.write_text("[agent]\nsources = uses-file\nuses_file = /u\n")
        choice = Choice(instances="/i", config_files=(str(own),))
        with pytest.raises(SettingsError, match="leaves out instances"):
            settle(choice, STATE, tmp_path / "c.conf")

    def test_environment_names_no_other_cluster(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What leads other commands to a cluster does not lead standalone there."""
        monkeypatch.setenv("SHAREDCACHE_ZOOKEEPER", "zk1:2181")
        monkeypatch.setenv("SHAREDCACHE_CONFIG", "/nonexistent")
        settings, _ = settle(Choice(instances="/i"), STATE, tmp_path / "c.conf")
        assert "127.0.0.1" in settings.zookeeper

    def test_file_of_a_cluster_is_refused(self, tmp_path: Path) -> None:
        """Settings with a ZooKeeper of their own are a cluster's."""
        own = tmp_path / "own.conf"
        own.write_text("[sharedcache]\nzookeeper = zk1:2181\n")
        choice = Choice(instances="/i", config_files=(str(own),))
        with pytest.raises(SettingsError, match="private one"):
            settle(choice, STATE, tmp_path / "c.conf")

    def test_node_keeps_its_name_when_the_host_is_renamed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A renamed host is the same node; another would make the old one missing."""
        path = tmp_path / "c.conf"
        for module in (choice_module, choice_module.ini_files.reading):
            monkeypatch.setattr(module, "host_name", lambda: "new")
        kept = replace(STATE, node="old")
        settings, state = settle(Choice(instances="/i"), kept, path)
        named = Choice(instances="/i", changes=parse_changes(["agent.node=mine"]))
        said, _ = settle(named, kept, path)
        assert (settings.agent.node, state.node) == ("old", "old")
        assert said.agent.node == "mine"

    def test_dollars_in_paths_are_no_references(self, tmp_path: Path) -> None:
        """A path with a dollar sign comes back as it was given."""
        path = tmp_path / "c.conf"
        settings, _ = settle(Choice(instances="/srv/$x"), STATE, path)
        assert settings.agent.instances_path == "/srv/$x"

    def test_file_says_that_it_is_written_anew(self) -> None:
        """Nobody edits the settings file and wonders where the change went."""
        assert "Written anew at every start" in render(Choice(), STATE)


class TestPlace:
    """The data directory is one user's, one run's, and nothing else's."""

    def test_default_is_the_systems_or_the_users(self) -> None:
        """Root has /var/lib; others what XDG says, absolute paths only."""
        assert default_directory({}, root=True) == Path("/var/lib/sharedcache")
        home = {"HOME": "/home/op"}
        kept = Path("/home/op/.local/state/sharedcache")
        assert default_directory(home, root=False) == kept
        relative = home | {"XDG_STATE_HOME": "state"}
        assert default_directory(relative, root=False) == kept
        absolute = home | {"XDG_STATE_HOME": "/s"}
        assert default_directory(absolute, root=False) == Path("/s/sharedcache")

    def test_directory_is_for_its_user_alone(self, tmp_path: Path) -> None:
        """A directory that was open to others is closed: a password lies in it."""
        place = Place(tmp_path / "data")
        place.path.mkdir(mode=0o755)
        place.make()
        assert stat.S_IMODE(place.path.stat().st_mode) == 0o700

    def test_somebody_elses_directory_is_refused(self, tmp_path: Path) -> None:
        """A directory with other things in it is not taken over, nor closed."""
        (tmp_path / "letter.txt").write_text("dear")
        tmp_path.chmod(0o755)
        with pytest.raises(RefusedFailure, match=r"letter\.txt"):
            Place(tmp_path).make()
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755

    def test_what_a_first_start_left_unfinished_is_no_obstacle(
        self, tmp_path: Path
    ) -> None:
        """A first start that was killed leaves files of ours only."""
        (tmp_path / ".sharedcache.conf.new").touch()
        (tmp_path / "lock").touch()
        Place(tmp_path).make()

    def test_one_at_a_time(self, tmp_path: Path) -> None:
        """A second holder is told who the first is; after it the place is free."""
        place = Place(tmp_path)
        place.make()
        who = rf"process {os.getpid()} since"
        with place.held(), pytest.raises(RefusedFailure, match=who), place.held():
            pass
        with place.held():
            pass

    def test_state_comes_back(self, tmp_path: Path) -> None:
        """What is kept is read back whole; before the first start there is none."""
        place = Place(tmp_path)
        assert place.load() is None
        state = replace(new_state("/b", 1), node="n", config_files=("/a", "/b"))
        place.keep(state)
        assert place.load() == state

    @pytest.mark.parametrize("text", ["", "[]", '{"version": 99}', '{"version": 1}'])
    def test_state_that_cannot_be_read_is_an_error(
        self, tmp_path: Path, text: str
    ) -> None:
        """Doubt about the state never begins a new cluster."""
        place = Place(tmp_path)
        (tmp_path / "standalone.json").write_text(text)
        with pytest.raises(Failure, match=r"standalone\.json"):
            place.load()

    def test_data_is_no_part_of_the_cache(self, tmp_path: Path) -> None:
        """Nothing of standalone's own is made in the directory that it cleans."""
        base = tmp_path / "_base"
        base.mkdir()
        (tmp_path / "link").symlink_to(base)
        for path in (base, base / "data", tmp_path / "link/data"):
            with pytest.raises(RefusedFailure, match="outside of it"):
                Place(path).check_outside(str(base))
        Place(tmp_path / "_base-data").check_outside(str(base))

    def test_place_that_cannot_be_used_says_what_to_do(self, tmp_path: Path) -> None:
        """A file in the way is no defect of ours: the error names it and --data."""
        (tmp_path / "file").touch()
        place = Place(tmp_path / "file/data")
        for use in (place.load, place.make, lambda: place.keep(new_state("/b", 1))):
            with pytest.raises(Failure, match=r"Not a directory.*file.*--data"):
                use()
        with pytest.raises(Failure, match="--data"), place.held():
            pass

    def test_clusters_have_names_of_their_own(self) -> None:
        """Two data directories never share a cluster's name, nor a password."""
        one, other = new_state("/b", 1), new_state("/b", 1)
        assert one.cluster != other.cluster
        assert one.password != other.password


class Idle:
    """A part that does nothing."""

    name, exit_code, log = "agent", 1, LogFile(Path("/nonexistent/log"))

    def __init__(self) -> None:
        self.pid: int | None = None

    def start(self) -> None:
        """Start it."""
        self.pid = 7

    def stop(self, hurry: Callable[[], bool]) -> bool:
        """Stop it."""
        del hurry
        self.pid = None
        return True


class TestSupervisor:
    """What happens to the parts, without any."""

    def test_full_disk_does_not_end_the_parts(self) -> None:
        """What cannot be noted is told once, and noted as soon as there is room."""
        told: list[str] = []
        noted: list[dict[str, int]] = []
        room = False

        def note(running: Mapping[str, int]) -> None:
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            noted.append(dict(running))

        supervisor = Supervisor(told.append, note)
        supervisor.start(Idle())
        supervisor.tend()
        supervisor.tend()
        assert noted == []
        (line,) = told
        assert "No space left on device" in line
        assert "make room" in line
        room = True
        supervisor.tend()
        supervisor.tend()
        assert noted == [{"agent": 7}]


class TestProcesses:
    """A process is told from a later one with the same number."""

    def test_this_process_is_known(self) -> None:
        """What was noted of a process finds it as long as it runs."""
        assert processes.pid_of(processes.identity(os.getpid())) == os.getpid()

    def test_same_number_at_another_time_is_another(self) -> None:
        """A number that was given again names nobody that we know."""
        boot, pid, started = processes.identity(os.getpid()).split()
        assert processes.pid_of(f"{boot} {pid} {int(started) + 1}") is None
        assert processes.pid_of(f"other {pid} {started}") is None
        assert processes.pid_of("") is None


class TestLogs:
    """Logs are bounded, and followed without losing or repeating lines."""

    def test_follows_whole_lines_from_where_it_began(self, tmp_path: Path) -> None:
        """What was there before, and a line that is not whole yet, are not told."""
        path = tmp_path / "a.log"
        path.write_text("before\n")
        log = LogFile(path)
        with path.open("a") as out:
            out.write("one\ntw")
            out.flush()
            assert log.follow() == ["one"]
            assert log.follow() == []
            out.write("o\n")
        assert log.follow() == ["two"]

    def test_large_log_begins_anew_under_its_writer(self, tmp_path: Path) -> None:
        """The writer goes on in the same file; one older piece is kept."""
        log = LogFile(tmp_path / "a.log", limit_bytes=100)
        writer = log.open()
        try:
            os.write(writer, b"x" * 99 + b"\n")
            log.trim()
            assert log.path.stat().st_size == 100
            os.write(writer, b"last\n")
            log.trim()
            assert log.path.stat().st_size == 0
            os.write(writer, b"first\n")
        finally:
            os.close(writer)
        assert log.path.read_text() == "first\n"
        assert log.follow() == ["first"]
        older = tmp_path / "a.log.1"
        assert older.read_text().endswith("last\n")
        assert stat.S_IMODE(older.stat().st_mode) == 0o600
        assert stat.S_IMODE(log.path.stat().st_mode) == 0o600

    def test_log_without_room_for_a_copy_stays(self, tmp_path: Path) -> None:
        """What would be lost is kept in place until it can be copied."""
        log = LogFile(tmp_path / "a.log", limit_bytes=3)
        log.path.write_text("long\n")
        (tmp_path / "a.log.1").mkdir()
        log.trim()
        assert log.path.read_text() == "long\n"
        (tmp_path / "a.log.1").rmdir()
        log.trim()
        assert log.path.read_text() == ""

    def test_tail_of_no_log_is_empty(self, tmp_path: Path) -> None:
        """A part that never wrote has nothing to show."""
        assert LogFile(tmp_path / "none.log").tail(3) == ""

    def test_acts_are_events_and_warnings_of_ours(self) -> None:
        """Removals, restores and trouble are told; routine and kazoo are not."""
        head = "2026-01-02 03:04:05.678 99"
        lines = [
            f"{head} INFO sharedcache [-] quarantined file=abc epoch=1",
            f"{head} INFO sharedcache [-] reported round=1 uses=5 complete=true",
            f"{head} WARNING sharedcache [-] no such server; trying on",
            f"{head} WARNING sharedcache.zookeeper.kazoo [-] Connection dropped",
            "Traceback (most recent call last):",
        ]
        assert list(acts(lines)) == [
            "03:04:05 quarantined file=abc epoch=1",
            "03:04:05 no such server; trying on",
        ]

    def test_acts_are_told_from_a_log_of_json_too(self) -> None:
        """`log_form = json` is for programs, and nobody watches less for it."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines())
        logger = logging.Logger("sharedcache")  # noqa: LOG001 - one of its own
        logger.addHandler(handler)
        LogJournal(logger).event("quarantined", file="abc", epoch=1, why="not used")
        LogJournal(logger).event("reported", round=1)
        logger.warning("no such server; trying on")
        lines = [*stream.getvalue().splitlines(), "{", "{}", '{"time": 1}', "[]"]
        told = [one.partition(" ") for one in acts(lines)]
        assert [text for _, _, text in told] == [
            'quarantined file=abc epoch=1 why="not used"',
            "no such server; trying on",
        ]
        assert all(re.fullmatch(r"\d\d:\d\d:\d\d", at) for at, _, _ in told)


def _mark(base: Path, name: str) -> None:
    with DirectoryStorage(str(base)) as storage:
        record = codec.cluster_to_record(Cluster(name, "0" * 32))
        storage.create_marker(codec.to_text(record))


def test_parts_find_the_settings_wherever_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is the operator's, and the parts run elsewhere."""
    monkeypatch.chdir(tmp_path)
    files = chain(Choice(config_files=("my.conf", "/etc/nova.conf")), Path("/d/s.conf"))
    assert files == [str(tmp_path / "my.conf"), "/etc/nova.conf", "/d/s.conf"]


class TestGuard:
    """A directory that others may use is not looked after by one host alone."""

    def test_missing_base_is_told(self, tmp_path: Path) -> None:
        """A directory that is not there, or not mounted, is never made."""
        with pytest.raises(Failure, match="is it mounted"):
            guard.check_base(tmp_path / "_base", "x")
        assert list(tmp_path.iterdir()) == []

    def test_marker_of_another_cluster_is_refused(self, tmp_path: Path) -> None:
        """The cluster that a directory belongs to is named; one's own is welcome."""
        guard.check_base(tmp_path, "standalone-1")
        _mark(tmp_path, "prod")
        with pytest.raises(RefusedFailure, match="cluster prod"):
            guard.check_base(tmp_path, "standalone-1")
        guard.check_base(tmp_path, "prod")

    @pytest.mark.parametrize("text", ['{"a": 1, "b": 2}', "not JSON", "[]"])
    def test_register_with_others_or_in_doubt_is_refused(
        self, tmp_path: Path, text: str
    ) -> None:
        """Several hosts in Nova's register, or one that cannot be read, say no."""
        base = tmp_path / "_base"
        base.mkdir()
        (tmp_path / "compute_nodes").write_text(text)
        with pytest.raises(RefusedFailure, match="--only-host"):
            guard.check_alone(base)

    def test_register_with_one_host_is_fine(self, tmp_path: Path) -> None:
        """A single Nova host registers itself."""
        base = tmp_path / "_base"
        base.mkdir()
        (tmp_path / "compute_nodes").write_text(json.dumps({"here": 1.0}))
        guard.check_alone(base)

    def test_storage_of_others_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mount that caches names may be others' too."""
        monkeypatch.setattr(DirectoryStorage, "name_cache_s", lambda _: 60.0)
        with pytest.raises(RefusedFailure, match="other hosts mount"):
            guard.check_alone(tmp_path)
