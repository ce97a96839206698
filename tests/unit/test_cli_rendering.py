"""What people see: a thousand nodes, narrow terminals, columns, colours, watching."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from sharedcache.cleaner.observe import Counters, Observed
from sharedcache.cli import data, explained, output, views
from sharedcache.cli.commands import plan as plan_command
from sharedcache.cli.commands import status as status_command
from sharedcache.cli.failure import Failure, SettingsFailure
from sharedcache.cli.main import cli
from sharedcache.core.explain import explain
from sharedcache.core.inventory import Inventory, OldName
from sharedcache.core.model import Authorisation, ManifestBatch, Rollout, Unreadable
from sharedcache.core.plan import Observation
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import CleanerPolicy
from sharedcache.core.ports import DisconnectedError
from sharedcache.ledger import Versioned
from tests.property.strategies import (
    D1,
    D2,
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

NODES = 1000
POLICY = CleanerPolicy()


def big() -> Observation:
    """Build a thousand nodes: a tenth missing, a twentieth degraded, one user."""
    nodes = []
    for number in range(NODES):
        name = f"compute-{number:04d}.cell-1.example.net"
        failures = FAILED if number % 20 == 1 else ()
        now = uses_of(D2) if number == 5 else uses_of()
        said = report(name, failures=failures, now=now)
        nodes.append(view(said, member=number % 10 != 0))
    batch = ManifestBatch("b", (entry(D1, 1, size=7_000_000), entry(D2, 2)))
    return observation(
        *nodes, files=table((D1, file_facts()), (D2, file_facts())), manifest=(batch,)
    )


def observed(seen: Observation) -> Observed:
    """Put versions around an observation, as a connection gives it."""
    return Observed(
        seen=seen,
        counters=Counters(1, 1),
        roster_changes=0,
        epoch=Versioned(3, 3),
        round=Versioned(seen.round, 1),
        authorisation=Authorisation(),
        rollout=Rollout(2),
        rollout_version=0,
        leader="host-7",
    )


def rendered(columns: int, said: data.Data, show: Any) -> list[str]:
    """Render what a terminal of this width shows."""
    written = io.StringIO()
    console = Console(
        file=written, width=columns, force_terminal=True, color_system=None
    )
    show(console, said)
    return written.getvalue().splitlines()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_thousand_nodes_fit_a_screen(columns: int) -> None:
    """Nodes are grouped, the first few named; nothing runs over the edge."""
    seen = big()
    said = data.status(observed(seen), make_plan(POLICY, seen), "demo", 0.0)
    lines = rendered(columns, said, views.status)
    assert max(len(line.rstrip()) for line in lines) <= columns
    assert len(lines) < 100, f"{len(lines)} lines for {NODES} nodes"
    text = " ".join(" ".join(lines).split())
    assert "1000: 850 live, 0 sealed, 100 missing, 50 degraded" in text
    assert "and 97 more" in text
    assert "compute-0000" in text
    assert "more (-f json has all)" in text
    assert len(said["nodes_not_live"]) == 150
    assert len(said["held_back_by_node"]) == 151


def test_a_cluster_without_a_leader_says_what_to_do() -> None:
    """Start a cleaner; or, where one could not take office, mend what hinders it."""
    seen = big()
    plan, of = make_plan(POLICY, seen), replace(observed(seen), leader=None)
    said = data.status(of, plan, "demo", 0.0)
    assert said["no_leader_can"] is None
    assert "start sharedcache-cleaner" in " ".join(rendered(200, said, views.status))
    said = data.status(of, plan, "demo", 0.0, "the manifest is damaged")
    assert said["no_leader_can"] == "the manifest is damaged"
    text = " ".join(rendered(200, said, views.status))
    assert "no cleaner can stand for election: the manifest is damaged" in text


def test_a_thousand_nodes_take_a_line_each_on_a_narrow_terminal() -> None:
    """A roster is read line by line; its end says how many are in which state."""
    rows = [data.node_row(node) for node in big().facts.nodes]
    for row in rows:
        row["node"] = row["node"].replace(".cell-1.example.net", ".az1.example.org")
    lines = [line.rstrip() for line in rendered(80, rows, views.nodes)]  # type: ignore[arg-type]
    assert max(len(line) for line in lines) <= 80
    assert sum(line.lstrip().startswith("compute-") for line in lines) == NODES
    assert lines[-1] == "1000 nodes: 100 missing, 50 degraded, 850 live"


@pytest.mark.parametrize("columns", [80, 120])
def test_names_of_files_stay_whole(columns: int) -> None:
    """A name is there to be copied: what does not fit goes below it."""
    seen = big()
    made = make_plan(POLICY, seen)
    planned = data.plan(observed(seen), made, everything=True)
    listed = data.quarantine(observed(seen), made)
    for lines in (
        rendered(columns, planned, views.plan),
        rendered(columns, listed, views.quarantine),  # type: ignore[arg-type]
    ):
        assert max(len(line.rstrip()) for line in lines) <= columns
        assert {D1, D2} <= {line.split()[0] for line in lines if line.strip()}
    text = " ".join(" ".join(rendered(80, planned, views.plan)).split())
    assert "verdict keep, reason" in text


def test_who_holds_back_is_told_by_node_and_bytes() -> None:
    """A missing node holds everything back, a user what it uses."""
    seen = big()
    said = data.status(observed(seen), make_plan(POLICY, seen), "demo", 0.0)
    by_node = {one["node"].partition(".")[0]: one for one in said["held_back_by_node"]}
    gone = by_node["compute-0000"]
    assert (gone["state"], gone["files"]) == ("missing", 2)
    assert gone["bytes"] == 7_004_096
    assert {"awaited", "gate"} == set(gone["why"])
    user = by_node["compute-0005"]
    assert (user["why"], user["files"], user["bytes"]) == (["uses"], 1, 4096)
    assert by_node["compute-0001"]["state"] == "degraded"


@pytest.mark.parametrize("columns", [80, 120])
def test_an_explanation_fits_its_terminal(columns: int) -> None:
    """A file with a thousand nodes: who bears on it is named, the rest counted."""
    seen = big()
    made = make_plan(POLICY, seen)
    told = explain(POLICY, seen, made, D2)
    said = explained.explanation(told, explained.Evidence(), made.gate, 0.0)
    lines = rendered(columns, said, explained.show)
    assert max(len(line.rstrip()) for line in lines) <= columns
    assert len(lines) < 80
    assert len(said["nodes"]) == NODES
    text = " ".join(" ".join(lines).split())
    assert "Nodes that do not name it: 999." in text
    assert "in the cache and in quarantine" in text


@pytest.mark.parametrize("instant", [1e30, float(2**63), -1.0])
def test_a_time_that_no_calendar_has_breaks_nothing(instant: float) -> None:
    """Absurd times of files keep them, and are shown as that."""
    assert explained._when(instant)


class Fake:
    """A connection whose looks are given one after the other."""

    def __init__(self, *looks: Observation | Exception) -> None:
        self._looks = list(looks)
        self.settings = type("S", (), {"cluster": "demo"})()

    def look(self, *, scan: bool = True, quietly: bool = False) -> Any:
        """Give the next look; Ctrl-C comes after the last one."""
        del scan, quietly
        if not self._looks:
            raise KeyboardInterrupt
        found = self._looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return observed(found), make_plan(POLICY, found)


def run(
    monkeypatch: pytest.MonkeyPatch, fake: Fake, *arguments: str, **env: str
) -> Result:
    """Run one command over given looks."""

    @contextmanager
    def connected(*_: object) -> Iterator[Fake]:
        yield fake

    for module in (status_command, plan_command):
        monkeypatch.setattr(module, "connected", connected)
    return CliRunner().invoke(cli, arguments, env=env)


def test_watching_in_a_pipe_gives_a_line_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trouble in between is told and waited out, and Ctrl-C is a good end."""
    seen = observation()
    fake = Fake(seen, DisconnectedError("no answer"), seen)
    result = run(monkeypatch, fake, "status", "--watch", "0.1", "-f", "json")
    assert result.exit_code == 0, result.output
    looks = [json.loads(line) for line in result.stdout.splitlines()]
    assert [look["cluster"] for look in looks] == ["demo", "demo"]
    assert "no answer" in result.stderr
    tables = run(monkeypatch, Fake(seen, seen), "status", "--watch", "0.1")
    assert tables.stdout.count("Gate: open") == 2


def test_watching_ends_if_it_cannot_even_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails at the first look is a wrong setting more often than a storm."""
    result = run(monkeypatch, Fake(DisconnectedError("no answer")), "status", "--watch")
    assert result.exit_code == 1
    assert "no answer" in result.stderr


def test_columns_are_chosen_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a list, keys of a mapping, keys of keys, and the rows of a plan."""
    seen = observation(files=table((D1, file_facts(size=7))))
    one = run(
        monkeypatch,
        Fake(seen),
        *("status", "-f", "value", "-c", "gate.open", "-c", "cluster"),
    )
    assert one.stdout == "true\ndemo\n"
    rows = run(
        monkeypatch, Fake(seen), *("plan", "-f", "value", "-c", "bytes", "-c", "name")
    )
    assert rows.stdout == f"7 {D1}\n"
    both = run(monkeypatch, Fake(seen), "plan", "-f", "json", "-c", "digest")
    assert set(json.loads(both.stdout)) == {"digest"}
    shown = run(monkeypatch, Fake(seen), "plan", "-c", "verdict").stdout
    assert "quarantine" in shown
    assert D1 not in shown
    nothing = Fake(observation())
    empty = run(monkeypatch, nothing, *("plan", "-f", "value", "-c", "name"))
    assert (empty.exit_code, empty.stdout) == (0, "")
    again = Fake(observation())
    bare = run(monkeypatch, again, *("plan", "-f", "json", "-c", "gate.open"))
    assert set(json.loads(bare.stdout)) == {"gate.open"}
    wrong = run(monkeypatch, Fake(seen), "status", "-c", "gait")
    assert wrong.exit_code == 2
    assert "no column gait" in wrong.stderr
    assert "rollout" in wrong.stderr


def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None in a pipe; NO_COLOR takes them from a terminal too, errors included."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    red = "\x1b[31m"
    shown: dict[str, str] = {}
    for setting in ("", "1"):
        if setting:
            monkeypatch.setenv("NO_COLOR", setting)
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        gate = {"open": False, "purge_open": False, "reasons": []}
        views.gate(output.stdout(), gate)
        shown[setting] = terminal.getvalue()
    assert red in shown[""]
    assert red not in shown["1"]
    piped = io.StringIO()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr("sys.stdout", piped)
    views.gate(output.stdout(), gate)
    assert "\x1b" not in piped.getvalue()


def test_ten_thousand_names_that_appeared_are_counted_as_such() -> None:
    """The gate names fifty and sums up the rest; what is shown counts them all."""
    alike = [
        {"closes": "all", "code": "old-name-appeared", "subject": s, "message": "m"}
        for s in (*(f"k{number}" for number in range(50)), "9950 more")
    ]
    told = {"open": False, "purge_open": False, "reasons": alike}
    text = " ".join(" ".join(rendered(120, told, views.gate)).split())
    assert "k0, k1, k2 and 9997 more" in text
    assert "m (and 9999 more like it)" in text


@pytest.mark.parametrize("columns", [80, 120])
def test_the_rollout_of_a_thousand_nodes_names_those_that_matter(columns: int) -> None:
    """Grouped by reason, counted, the first few named, and one sentence."""
    nodes = []
    for number in range(NODES):
        name = f"compute-{number:04}.region-one.example.net"
        if number % 50 == 0:
            nodes.append(view(report(name, schema_version=1)))
        elif number % 333 == 1:
            nodes.append(view(report=None, node=name))
        else:
            nodes.append(view(report(name)))
    seen = observation(*nodes)
    made = replace(observed(seen), rollout=Rollout(1), held="rack 7 (me@desk)")
    said = data.rollout_state(made)
    lines = rendered(columns, said, views.rollout)
    assert max(len(line.rstrip()) for line in lines) <= columns
    assert len(lines) < 35, f"{len(lines)} lines for {NODES} nodes"
    text = " ".join(" ".join(lines).split())
    assert "1000: 977 ready, 23 not" in text
    assert "supports schema 1 only" in text
    assert "is expected and never reported" in text
    assert "and 17 more" in text
    assert "rack 7 (me@desk)" in text
    assert "early writers 997: compute-" in text.replace("│", " ")
    assert "Upgrade compute-0000" in text
    assert "to report; then finalize schema 2." in text
    assert len(said["waiting_for"]) == 23
    assert [group["count"] for group in said["groups"]] == [20, 3]


def test_what_is_urgent_is_the_advice() -> None:
    """A name that appeared, then who is not rostered, then a hold."""
    strange = OldName(K1, 7)
    ready = observation(view(report()))
    facts = replace(ready.facts, inventory=Inventory(), old_names=(strange,))
    appeared = observed(replace(ready, facts=facts))
    assert data.rollout_state(appeared)["appeared"] == [K1]
    assert f"Find who wrote {K1}" in data.rollout_state(appeared)["advice"]
    old = replace(observed(ready), rollout=Rollout(1))
    assert "run `sharedcache rollout finalize`" in data.rollout_state(old)["advice"]
    held = replace(old, held="not today")
    assert "rollout release" in data.rollout_state(held)["advice"]
    unrostered = replace(ready, facts=replace(ready.facts, strangers=("n9",)))
    stranger = replace(held, seen=unrostered)
    assert data.rollout_state(stranger)["advice"].startswith("n9 left a trace")
    done = data.rollout_state(observed(unrostered))["advice"]
    assert done.startswith("n9 left a trace")
    assert not done.endswith("then finalize.")


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (Unreadable("9", newer=True), "upgrade sharedcache here"),
        (Unreadable("9"), "recover"),
    ],
)
def test_nothing_is_ready_under_a_rollout_that_cannot_be_read(
    record: Unreadable, word: str
) -> None:
    """Finalizing would be refused, so the sentence must not send anybody there."""
    ready = observed(observation(view(report())))
    said = data.rollout_state(replace(ready, rollout=record))
    assert (said["state"], said["finalized_schema"]) == ("mixed", None)
    assert "the rollout's record cannot be read (9)" in said["advice"].lower()
    assert word in said["advice"]


@pytest.mark.parametrize("found", [None, Unreadable("cut short")])
def test_a_missing_inventory_is_something_to_do(found: Unreadable | None) -> None:
    """It closes the gate: finalized is not the end of it."""
    ready = observation(view(report()))
    seen = replace(ready, facts=replace(ready.facts, inventory=found))
    advice = data.rollout_state(observed(seen))["advice"]
    assert "inventory of raw-id names" in advice
    assert "nothing to do" not in advice


def test_a_result_that_cannot_be_printed_is_told_from_a_failure() -> None:
    """A full disk behind standard output must not look like an order not taken."""

    def full(_: Console) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(Failure, match=r"No space left on device.*was done"):
        output.emit({}, "table", full)


def test_a_wrong_key_below_a_column_names_the_keys_there() -> None:
    """`gate.opne` is answered with what the gate has."""
    row = {"gate": {"open": True, "reasons": []}, "epoch": 1}
    with pytest.raises(SettingsFailure, match="there are in gate: open, reasons"):
        output.emit(row, "table", print, columns=["gate.opne"])
    with pytest.raises(SettingsFailure, match="epoch has no keys"):
        output.emit(row, "table", print, columns=["epoch.open"])
    with pytest.raises(SettingsFailure, match="there are: gate, epoch"):
        output.emit(row, "table", print, columns=["gat"])


@pytest.mark.parametrize(
    "odd", ["\x1b]0;x\x07", "\x9b2J", "a\nb", "\u202ex", "[red]x[/b]"]
)
def test_what_an_agent_wrote_moves_no_cursor(odd: str) -> None:
    """A terminal gets no control sequence, and no line more, out of an answer."""
    span = {"since": 1.0, "since_at_least": False, "until": None}
    one = {"kind": odd, "name": odd, "path": odd, **span}
    sources = [
        {"source": odd, "referrers": [one], "more": 1, **span},
        {"source": odd, "referrers": [], "more": 0, **span},
    ]
    said = {"node": "n1", "sources": sources, "sources_unknown": odd}

    def show(console: Console, nodes: Any) -> None:
        explained._show_sources(console, nodes)

    lines = rendered(300, [said], show)  # type: ignore[arg-type]
    plain = {"node": "n1", "sources": None, "sources_unknown": "word"}
    assert all(line.isprintable() for line in lines)
    assert sum("n1" in line for line in lines) == len(sources) + 2
    assert len(lines) > len(rendered(300, [plain], show))  # type: ignore[arg-type]


STRANGE = "esc\x1b[31m\nline\udcff"
"""A name of a file that somebody left in the directory."""


@pytest.mark.parametrize("form", ["table", "value"])
def test_no_name_acts_on_the_terminal(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters of what others wrote are shown as question marks."""
    output.emit([{"name": STRANGE}], form, print, columns=["name"])
    shown = capsys.readouterr().out
    assert "esc?[31m" in shown
    assert "\x1b" not in shown


def test_a_value_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A row of `-f value` is one line, whatever the file is called."""
    output.emit([{"name": STRANGE, "bytes": 7}], "value", print)
    assert capsys.readouterr().out == "esc?[31m?line? 7\n"


def test_a_reason_of_the_gate_does_nothing_to_the_terminal() -> None:
    """An older release let an operator pause with any text."""
    reason = {"code": "paused", "closes": "all", "subject": "operator"}
    console = Console(file=io.StringIO(), width=80)
    gate = {"open": False, "purge_open": False}
    told = reason | {"message": "paused: \x1b[2J"}
    for block in views.gate_parts(gate | {"reasons": [told]}):
        console.print(block)
    assert isinstance(console.file, io.StringIO)
    assert "paused: ?[2J" in console.file.getvalue()
