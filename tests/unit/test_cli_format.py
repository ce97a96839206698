"""What the commands print, in every format, over observations built by hand."""

from __future__ import annotations

import importlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner, Result

from sharedcache.adapters.settings import SettingsError
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.cleaner.brake import as_the_leader_tells
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.observe import Counters, Observed
from sharedcache.cli import data, output
from sharedcache.cli.base import Given, own_name
from sharedcache.cli.failure import RefusedFailure
from sharedcache.cli.main import cli
from sharedcache.core.brakecodec import BrakeNote
from sharedcache.core.gate import Closes, Code, Reason
from sharedcache.core.model import (
    Authorisation,
    ManifestBatch,
    Rollout,
    Unreadable,
)
from sharedcache.core.plan import Observation, Plan, Why
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import CleanerPolicy, PolicyError
from sharedcache.core.ports import DisconnectedError, StorageError
from sharedcache.ledger import Versioned
from tests.property.strategies import (
    D1,
    D2,
    D3,
    FAILED,
    K1,
    entry,
    file_facts,
    observation,
    report,
    table,
    uses_of,
    view,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = ("status", "node", "plan", "quarantine", "rollout")
LONG = "e" * 150


def _observed(
    seen: Observation, rollout: Rollout | Unreadable, brake: BrakeNote | None = None
) -> Observed:
    return Observed(
        seen=seen,
        counters=Counters(1, 1),
        roster_changes=0,
        epoch=Versioned(3, 3),
        round=Versioned(seen.round, 1),
        authorisation=Authorisation(),
        rollout=rollout,
        rollout_version=0,
        leader="host-7",
        brake=brake,
    )


@dataclass
class FakeSettings:
    """Only what commands read of them."""

    cluster: str = "demo"


@dataclass
class FakeConnection:
    """A connection that has looked already."""

    observed: Observed
    settings: FakeSettings
    session: ZooKeeperSession

    def look(
        self, *, scan: bool = True, quietly: bool = False
    ) -> tuple[Observed, Plan]:
        """Return what was built."""
        del scan, quietly
        return self.observed, make_plan(CleanerPolicy(), self.observed.seen)


class Operator:
    """Runs commands over one built observation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.see(observation(files=table((D1, file_facts()))))

    def see(
        self,
        seen: Observation,
        rollout: Rollout | Unreadable = Rollout(2),  # noqa: B008 - immutable
        brake: BrakeNote | None = None,
    ) -> None:
        """Let the commands see this."""

        @contextmanager
        def connected(*_: object) -> Iterator[FakeConnection]:
            session = ZooKeeperSession("127.0.0.1:1", "demo", "never-started")
            observed = _observed(seen, rollout, brake)
            yield FakeConnection(observed, FakeSettings(), session)

        self._connect_with(connected)

    def fail(self, error: Exception) -> None:
        """Let the commands meet this error."""

        @contextmanager
        def connected(*_: object) -> Iterator[FakeConnection]:
            raise error
            yield

        self._connect_with(connected)

    def _connect_with(self, connected: object) -> None:
        for name in COMMANDS:
            module = importlib.import_module(f"sharedcache.cli.commands.{name}")
            self._monkeypatch.setattr(module, "connected", connected)

    def run(self, *arguments: str) -> Result:
        """Run one command."""
        return CliRunner().invoke(cli, arguments)

    def json(self, *arguments: str) -> Any:
        """Run one command and read its JSON."""
        result = self.run(*arguments, "-f", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Make an operator over a healthy cluster with one unused file."""
    monkeypatch.delenv("SHAREDCACHE_DEBUG", raising=False)
    return Operator(monkeypatch)


def test_status_counts_files_nodes_and_bytes(operator: Operator) -> None:
    """Every number is the observation's own; strange names are counted apart."""
    waiting = entry(D2)
    operator.see(
        observation(
            view(report("n1")),
            view(report("n2", failures=FAILED)),
            view(report("n3"), member=False),
            files=table((D1, file_facts(size=7)), ("README", file_facts(size=5))),
            manifest=(ManifestBatch("b", (waiting,)),),
        )
    )
    said = operator.json("status")
    assert said["nodes"] == {
        "total": 3,
        "live": 1,
        "sealed": 0,
        "missing": 1,
        "degraded": 1,
    }
    assert said["cache"] == {"files": 1, "bytes": 7, "unrecognised_files": 1}
    assert said["quarantine"] == {"files": 1, "bytes": waiting.size}
    assert (said["leader"], said["epoch"]) == ("host-7", 3)
    assert said["gate"]["open"] is True
    assert said["gate"]["purge_open"] is False
    codes = {reason["code"] for reason in said["gate"]["reasons"]}
    assert codes == {"node-degraded", "node-missing"}
    held = {one["by"]: one["bytes"] for one in said["held_back"]}
    assert held["gate: node-missing n3"] == waiting.size
    shown = operator.run("status").stdout
    assert "Gate: open for quarantine, closed for purging" in shown
    assert "node-missing" in shown


def test_status_tells_of_free_space(operator: Operator) -> None:
    """Size and free bytes; what the storage did not say is null and not low."""
    operator.see(observation(space=(4096, 1024)))
    said = operator.json("status")["space"]
    assert said == {"bytes": 4096, "free_bytes": 1024, "low": False}
    assert "1.0 KiB of 4.0 KiB" in operator.run("status").stdout
    operator.see(observation())
    said = operator.json("status")["space"]
    assert said == {"bytes": None, "free_bytes": None, "low": False}
    assert "not known" in operator.run("status").stdout


def test_status_tells_of_the_leaders_brake_alone(operator: Operator) -> None:
    """A brake that an earlier epoch's leader told of is nobody's now."""
    why = (Reason(Code.BRAKE, Closes.ALL, "n1", "too few"),)
    note = BrakeNote(3, "d1d2d3", 4, why, 5.0)
    operator.see(observation(), brake=note)
    assert operator.json("status")["brake"] == {
        "digest": "d1d2d3",
        "epoch": 3,
        "files": 4,
        "subjects": ["n1"],
        "since": 5.0,
    }
    operator.see(observation(), brake=replace(note, epoch=2))
    assert operator.json("status")["brake"] is None
    operator.see(observation())
    assert operator.json("status")["brake"] is None


def test_an_onlooker_speaks_of_the_leaders_plan() -> None:
    """The leader's brake closes the gate of whoever looks on, by its digest."""
    seen = observation(
        files=table((D1, file_facts())), manifest=(ManifestBatch("b", (entry(D2),)),)
    )
    own = make_plan(CleanerPolicy(), seen)
    assert (len(own.take), len(own.purge)) == (1, 1)
    why = (Reason(Code.BRAKE, Closes.ALL, "plan", "too much"),)
    note = BrakeNote(3, "d1d2d3", 4, why, 5.0)
    observed = _observed(seen, Rollout(2), note)
    told = as_the_leader_tells(observed, own)
    assert (told.digest, told.gate.reasons) == ("d1d2d3", why)
    assert (told.take, told.purge) == ((), ())
    assert told.whys[0] == Why.BRAKE
    assert told.waiting == {entry(D2).entry: ("gate: brake plan",)}
    # Approved, without a leader, or of another epoch: its own plan counts.
    approved = replace(observed, seen=replace(seen, approved="d1d2d3"))
    gone, old = replace(observed, leader=None), replace(note, epoch=2)
    for other in (approved, gone, replace(observed, brake=old)):
        assert as_the_leader_tells(other, own) == own


def test_a_rollout_that_cannot_be_read_is_not_finalized(operator: Operator) -> None:
    """Doubt is the careful state, and the number is unknown."""
    operator.see(observation(), Unreadable("cut short"))
    assert operator.json("status")["rollout"] == {
        "state": "mixed",
        "finalized_schema": None,
    }


def test_a_node_without_a_readable_report_has_no_values(operator: Operator) -> None:
    """What is not known is null, a dash in tables, and never a zero."""
    operator.see(observation(view(Unreadable("cut short")), view(report("n2"))))
    first, second = operator.json("node", "list")
    assert first["state"] == "degraded"
    assert {first[key] for key in ("schema_version", "uses", "round", "complete")} == {
        None
    }
    assert (second["kernel_naming"], second["complete"]) == ("sha1", True)
    assert operator.run("node", "list", "-f", "value").stdout.startswith(
        f"{first['node']} degraded - - - - -\n"
    )
    assert "cut short" in operator.json("node", "show", first["node"])["problem"]


def test_plan_shows_only_what_is_not_kept_unless_asked(operator: Operator) -> None:
    """Each file has one verdict with one reason; waiting entries are kept."""
    operator.see(
        observation(
            view(report("n1", now=uses_of(K1))),
            files=table((D1, file_facts()), (K1, file_facts())),
            manifest=(
                ManifestBatch("b", (entry(D2, restoring=True), entry(D3, number=3))),
            ),
        )
    )
    files = operator.json("plan")["files"]
    assert [(f["name"], f["verdict"], f["reason"]) for f in files] == [
        (D1, "quarantine", "unused"),
        (D3, "purge", "confirmed"),
    ]
    assert files[1]["entry"] == entry(D3, number=3).entry
    every = {f["name"]: f for f in operator.json("plan", "--all")["files"]}
    assert (every[K1]["kind"], every[K1]["reason"]) == ("kernel", "used")
    assert every[D2]["verdict"] == "keep"
    assert every[D2]["reason"] == "waiting"
    assert every[D2]["waiting_for"]
    assert set(operator.json("plan")["gate"]) == {"open", "purge_open", "reasons"}


def test_quarantine_list_tells_what_each_entry_waits_for(operator: Operator) -> None:
    """One row an entry."""
    one = entry(D2, restoring=True)
    operator.see(observation(manifest=(ManifestBatch("b", (one,)),)))
    (row,) = operator.json("quarantine", "list")
    assert row["entry"] == one.entry
    assert (row["name"], row["bytes"]) == (D2, one.size)
    assert "restore under way" in row["waiting_for"]
    assert one.entry in operator.run("quarantine", "list").stdout


def test_an_entry_counts_with_each_thing_that_it_waits_for() -> None:
    """Seconds are left out of the sums, or each entry would be one of its own."""
    entries = [entry(D1, 1, size=10), entry(D2, 2, size=5)]
    waiting = {
        entries[0].entry: ("grace: 31 s", "used by n1"),
        entries[1].entry: ("grace: 7 s",),
    }
    assert data.held_back(entries, waiting) == [
        {"by": "grace", "files": 2, "bytes": 15},
        {"by": "used by n1", "files": 1, "bytes": 10},
    ]


def test_piped_tables_are_whole_and_plain(operator: Operator) -> None:
    """A name is never cut off, and no colours get into a pipe."""
    name = f"ephemeral_1_{LONG[:40]}"
    operator.see(observation(files=table((name, file_facts()))))
    shown = operator.run("plan").stdout
    assert name in shown
    assert "\x1b" not in shown
    assert "empty" in operator.run("quarantine", "list").stdout


def test_yaml_says_what_json_says(operator: Operator) -> None:
    """The same data in the same order."""
    said = operator.json("node", "list")
    listed = yaml.safe_load(operator.run("node", "list", "-f", "yaml").stdout)
    assert listed == said
    assert list(listed[0]) == list(said[0])


def test_finalizing_too_early_is_refused_with_the_list(operator: Operator) -> None:
    """Exit code 3; who is not ready is on both streams."""
    operator.see(
        observation(view(report("n1", schema_version=1)), view(report("n2"))),
        Rollout(1),
    )
    result = operator.run("rollout", "finalize", "--yes", "-f", "json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["waiting_for"][0]["node"] == "n1"
    assert "n1 supports schema 1 only" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("no base"), 2),
        (PolicyError("[cleaner] batch"), 2),
        (RefusedError("no"), 3),
        (DisconnectedError("cannot connect\nto it"), 1),
        (StorageError("not mounted"), 1),
        (ZeroDivisionError("a defect"), 1),
    ],
)
def test_every_error_is_one_line(
    operator: Operator, error: Exception, code: int
) -> None:
    """A defect, too, says how to get its traceback."""
    operator.fail(error)
    result = operator.run("status")
    assert result.exit_code == code
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert " ".join(str(error).split()) in line
    if isinstance(error, ZeroDivisionError):
        assert "SHAREDCACHE_DEBUG=1" in line


def test_what_is_no_utf8_is_a_wrong_argument(operator: Operator) -> None:
    """Bytes that no record can hold are the operator's to change, no defect."""
    operator.fail(UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"))
    result = operator.run("status")
    assert result.exit_code == 2
    assert "write it in UTF-8" in result.stderr


@pytest.mark.parametrize("why", ["two\nlines", "\x1b[2J", "\udcff", "x" * 501])
@pytest.mark.parametrize(
    "order", [("pause",), ("hold", "add", "f" * 40), ("rollout", "hold")]
)
def test_a_reason_is_one_line_that_can_be_shown(
    order: tuple[str, ...], why: str
) -> None:
    """A reason that nobody could read is refused before the order is given."""
    result = CliRunner().invoke(cli, [*order, "--why", why])
    assert result.exit_code == 2
    assert "500 characters at most" in result.stderr


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "\udcff", "a\nb"])
def test_what_cannot_name_a_node_is_not_expunged(name: str) -> None:
    """It is refused as a wrong word, before anything is asked of ZooKeeper."""
    result = CliRunner().invoke(cli, ["node", "expunge", name, "--yes"])
    assert result.exit_code == 2
    assert "cannot name a node" in result.stderr


def test_an_order_about_a_path_is_about_that_file(tmp_path: Path) -> None:
    """A path into the cache names its file; one out of it is refused."""
    base, other = tmp_path / "_base", tmp_path / "other"
    (base / ".sharedcache/epochs/1").mkdir(parents=True)
    other.mkdir()
    (tmp_path / "link").symlink_to(base)
    settings = Given(words={"base": str(base)}).settings()
    assert own_name(settings, "abc") == "abc"
    assert own_name(settings, f"{base}/abc") == "abc"
    assert own_name(settings, f"{tmp_path}/link/abc/") == "abc"
    assert own_name(settings, f"{base}/.sharedcache/epochs/1/abc.e.1") == "abc.e.1"
    for path in (f"{other}/abc", f"{base}/../abc", f"{base}x/abc", "/abc", "/"):
        with pytest.raises(RefusedFailure, match="give the file's name alone"):
            own_name(settings, path)


def test_debugging_shows_the_traceback(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For whoever looks for a defect."""
    monkeypatch.setenv("SHAREDCACHE_DEBUG", "1")
    operator.fail(StorageError("not mounted"))
    assert isinstance(operator.run("status").exception, StorageError)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB")],
)
def test_sizes_are_readable(count: int, shown: str) -> None:
    """Powers of 1024, as disks of guests are measured."""
    assert output.size(count) == shown


@pytest.mark.parametrize(
    "command", [(), ("status",), ("clean",), ("node", "show"), ("rollout", "finalize")]
)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    """``--help`` needs neither settings nor a cluster."""
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    assert "sharedcache" in result.stdout
