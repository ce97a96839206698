"""``make simulate``: it refuses what has no meaning, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.simulation.__main__ import again
from tests.simulation.command import Strike, asked
from tests.simulation.farm import workers
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutants.registry import Mutant
from tests.simulation.progress import EVERY_S, Lines
from tests.support.polling import eventually

PROGRAM = (sys.executable, "-m", "tests.simulation")
PATIENCE_S = 60.0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--strike clean:1:bogus", "no mode 'bogus'; there are before, after"),
        ("--strike clean:1", "no mode ''"),
        ("--strike nope:1:before", "no operation 'nope'; there are clean,"),
        ("--strike foo", "no operation 'foo'"),
        ("--strike clean:x:before", "OPERATION:CHANGE:MODE"),
        ("--strike clean:-1:before", "OPERATION:CHANGE:MODE"),
        ("--seed nostory:3", "no story 'nostory'; there are look-across-a-raise,"),
        ("--seed two-moves:x", "STORY:NUMBER"),
        ("--seed abc", "STORY:NUMBER"),
        ("--seed=-3", "STORY:NUMBER"),
        ("--first=-3", "from 0"),
        ("--schedules 0", "from 1"),
        ("--schedules=-5", "from 1"),
        ("--bases 0 --table", "from 1"),
        ("--minutes=-1", "above 0"),
        ("--minutes 0", "above 0"),
        ("--minutes nan", "above 0"),
        ("--story nope", "choose from 'look-across-a-raise'"),
        ("--mutant nope", "choose from"),
        ("--seed 5 --story two-moves", "--story has no meaning beside --seed"),
        ("--strike clean:1:late --story two-moves", "no meaning beside --strike"),
        ("--strike clean:1:late --seed 5", "--seed has no meaning beside --strike"),
        ("--seed 5 --schedules 9", "--schedules has no meaning beside --seed"),
        ("--seed 5 --minutes 9", "--minutes has no meaning beside --seed"),
        ("--table --seed 5", "--seed has no meaning beside --table"),
        ("--table --story two-moves", "--story has no meaning beside --table"),
        ("--bases 2", "--bases has no meaning without --table"),
    ],
)
def test_what_has_no_meaning_is_refused(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that is asked is ignored, and the error names what there is."""
    with pytest.raises(SystemExit) as ended:
        asked(line.split())
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_what_has_a_meaning_is_taken() -> None:
    """A seed may belong to a story, and is the same with zeros before it."""
    assert asked([]).schedules == 100_000
    assert asked(["--seed", "007"]).seed == 7
    assert asked(["--seed", "two-moves:07"]).seed == "two-moves:7"
    struck = asked(["--strike", "clean:3:late", "--mutant", "no-seal"])
    assert (struck.strike, struck.mutant) == (Strike("clean", 3, "late"), "no-seal")


def test_a_strike_that_hits_nothing_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A crash point that is never reached is no good news, but an error."""
    assert again(asked(["--strike", "pause:9999:before"])) == 2
    told = capsys.readouterr()
    assert told.err.startswith("pause:9999:before: nothing was struck; the changes of")
    assert not told.out


@pytest.mark.parametrize("what", ["--strike=pause:0:before", "--seed=3"])
def test_a_mutant_is_applied_to_what_is_run_again(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One crash point, or one seed, may be run again without a protection."""
    applied: list[object] = []
    noted = Mutant("noted", "a rule", "I1", "", applied.append)
    monkeypatch.setitem(MUTANTS, "noted", noted)
    assert again(asked([what, "--mutant", "noted"])) == 0
    assert len(applied) == 1
    assert capsys.readouterr().out.endswith(": nothing wrong\n")


def test_without_a_terminal_a_line_is_written_now_and_then() -> None:
    """The line says how many are done and failed, how fast, and what is left."""
    now, lines = [50.0], list[str]()
    shown = Lines(lines.append, 1000, 900.0, lambda: now[0])
    with shown:
        shown.told(1, 0)
        assert not lines
        now[0] += EVERY_S
        shown.told(240, 1)
        shown.told(241, 1)
        now[0] += 4 * EVERY_S
        shown.told(300, 2)
    assert lines == [
        "240 of 1000 schedules, 1 failed; 2.0 a second, 7 min left",
        "300 of 1000 schedules, 2 failed; 0.5 a second, 5 min left",
    ]


@pytest.fixture
def running() -> Iterator[subprocess.Popen[str]]:
    """Many schedules in a session of their own, with workers and their tracker."""
    with subprocess.Popen(
        [*PROGRAM, "--schedules", "100000"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            eventually(
                lambda: len(_workers(process)) > workers(), PATIENCE_S, "workers"
            )
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _workers(process: subprocess.Popen[str]) -> list[str]:
    """Return all that a process has started and that is still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = stat.read_text().partition(" ")
            state, _, group, *_ = rest.rpartition(")")[2].split()
            if group == str(process.pid) != pid and state != "Z":
                found.append(pid)
    return found


def _deaf(pid: str) -> bool:
    """Whether a process blocks or ignores a terminal's interrupt."""
    lines = Path("/proc", pid, "status").read_text(encoding="utf-8").splitlines()
    told = dict(line.split(":\t") for line in lines)
    masks = int(told["SigBlk"], 16) | int(told["SigIgn"], 16)
    return bool(masks & 1 << signal.SIGINT - 1)


def test_workers_leave_an_interrupt_to_their_parent(
    running: subprocess.Popen[str],
) -> None:
    """A terminal interrupts them too, at any moment of their lives."""
    eventually(
        lambda: all(_deaf(pid) for pid in _workers(running)), 10.0, "deaf workers"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_at_once(
    number: signal.Signals, running: subprocess.Popen[str]
) -> None:
    """It says what was done, blames nobody, and leaves no process behind.

    A terminal interrupts the workers too, others signal the parent alone.
    """
    if number == signal.SIGINT:
        os.killpg(running.pid, number)
    else:
        running.send_signal(number)
    told = running.communicate(timeout=PATIENCE_S)[1]
    assert running.returncode == 128 + number, told
    assert "schedules in" in told
    assert "stopped with" in told
    assert "Traceback" not in told
    eventually(lambda: not _workers(running), PATIENCE_S, "no worker is left")


def test_workers_end_with_their_parent(running: subprocess.Popen[str]) -> None:
    """A parent that is killed cannot end its workers; they end by themselves."""
    running.kill()
    eventually(lambda: not _workers(running), PATIENCE_S, "no worker is left")


def test_a_reader_may_leave() -> None:
    """``| head`` ends a replay without a word."""
    with subprocess.Popen(
        [*PROGRAM, "--seed", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Profile(")
        process.stdout.close()
        told = process.stderr.read() if process.stderr else ""
        assert process.wait(PATIENCE_S) == -signal.SIGPIPE
    assert not told


def test_many_tell_what_failed_and_how_to_see_it_again() -> None:
    """A schedule that fails is told with the command that replays it."""
    line = "--schedules 2 --first 1 --story two-moves --mutant no-events"
    ended = subprocess.run(
        [*PROGRAM, *line.split()], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "replay: make simulate SEED=two-moves:" in ended.stderr
    assert " MUTANT=no-events\n" in ended.stderr
    assert "2 schedules in" in ended.stderr
