"""Runs Spin on the models of the protocol, and reads what it says."""

from __future__ import annotations

import enum
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
COMPILE_S = 120.0
"""How long spin and gcc may take, in seconds."""
_NICE = ("nice", "-n", "10")


class Search(enum.Enum):
    """How the states are searched: what gcc defines, and what pan is told."""

    EXHAUST = (("-DSAFETY", "-DCOLLAPSE"), ("-E", "-m2000000", "-w26"))
    """Depth first, every state kept: no error means that there is none."""
    SHORTEST = (("-DSAFETY", "-DBFS"), ("-E", "-m100000", "-w23"))
    """Breadth first, so that the first counterexample is a shortest one."""
    FAIR = (("-DNFAIR=3", "-DCOLLAPSE"), ("-a", "-f", "-m1000000", "-w22"))
    """Acceptance cycles under weak fairness, every state kept."""
    BITSTATE = (("-DSAFETY", "-DBITSTATE"), ("-E", "-m1000000", "-w34", "-k3"))
    """Some bits a state: much is seen, and no error is no proof."""


class Outcome(enum.Enum):
    """What a run ended with."""

    HOLDS = "no error"
    FAILS = "counterexample"
    SEEN = "no error in what was seen"
    OUT_OF_BOUNDS = "out of time or memory"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of Spin on one configuration.

    ``expected`` is the outcome that the tests demand; ``limit_s`` bounds the
    processor's time for the search, in seconds, ``memory_mb`` its megabytes.
    ``long`` runs are left out of the ordinary test run.
    """

    name: str
    model: str
    rule: str
    search: Search = Search.EXHAUST
    flags: tuple[str, ...] = ()
    expected: Outcome = Outcome.HOLDS
    serves: str = "I1"
    limit_s: float = 120.0
    memory_mb: int = 4000
    long: bool = False

    @property
    def mutant(self) -> bool:
        """Whether a rule was taken out."""
        return any(flag.startswith("M_") for flag in self.flags)


@dataclass(frozen=True, slots=True)
class Result:
    """What Spin said.

    ``depth`` is the counterexample's length in steps, ``seconds`` the processor's
    time.
    """

    outcome: Outcome
    states: int
    depth: int
    seconds: float
    violated: str
    trail: str
    output: str


def missing() -> str | None:
    """Name the package that is missing; ``None`` if Spin can run."""
    for program, package in (("spin", "spin"), ("gcc", "gcc")):
        if shutil.which(program) is None:
            return package
    return None


def run(what: Run, *, with_trail: bool = False) -> Result:
    """Generate the verifier, compile it, and let it search.

    Raises ``RuntimeError`` if the model does not compile.
    """
    with tempfile.TemporaryDirectory(prefix="sharedcache-model-") as place:
        where = Path(place)
        defines = [f"-D{flag}" for flag in what.flags]
        for source in HERE.glob("*.pml"):
            shutil.copy(source, where)
        _must(["spin", *defines, "-a", what.model], where)
        compiling, searching = what.search.value
        bound = f"-DMEMLIM={what.memory_mb}"
        _must(["gcc", "-O2", "-w", bound, *compiling, "-o", "pan", "pan.c"], where)
        output, seconds = _search([*_NICE, "./pan", *searching], where, what.limit_s)
        trail = ""
        if with_trail and (where / f"{what.model}.trail").exists():
            command = ["spin", *defines, "-t", "-p", "-g", what.model]
            trail = subprocess.run(
                command, cwd=where, capture_output=True, text=True, check=False
            ).stdout
    return _read(output, trail, what.search, seconds)


def _must(command: list[str], where: Path) -> None:
    done = subprocess.run(
        command,
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMPILE_S,
    )
    if done.returncode != 0 or "Error:" in done.stdout:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _search(command: list[str], where: Path, limit_s: float) -> tuple[str, float]:
    """Return what pan printed, and the processor's time that it took, in seconds.

    The bound is on that time, so that a busy machine searches no less.  At its
    end pan is asked to sum up.
    """
    used_s, stopped = 0.0, False
    with subprocess.Popen(
        command,
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    used_s = _processor_s(process.pid, used_s)
                if used_s >= limit_s and not stopped:
                    process.send_signal(signal.SIGINT)
                    stopped = True
        except BaseException:
            process.kill()
            raise
    if stopped:
        output += "\nout of time"
    if process.returncode < 0:
        # Whoever ended it: what it printed is no result.
        output += f"\nout of time: ended by signal {-process.returncode}"
    return output, used_s


def _processor_s(pid: int, before_s: float) -> float:
    """Read a process's time on the processors; as before if it has just ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return before_s
    fields = text.rpartition(")")[2].split()
    # utime and stime, the fields 14 and 15 of proc(5).
    ticks = int(fields[11]) + int(fields[12])
    return max(before_s, ticks / os.sysconf("SC_CLK_TCK"))


def _read(output: str, trail: str, search: Search, seconds: float) -> Result:
    states = _number(r"^\s*([0-9.e+]+) states, stored", output)
    unfinished = re.search("Search not completed|too small|out of time", output)
    if _number(r"errors: (\d+)", output):
        outcome = Outcome.FAILS
    elif "errors: 0" in output and search is Search.BITSTATE:
        outcome = Outcome.SEEN
    elif "errors: 0" in output and not unfinished:
        outcome = Outcome.HOLDS
    else:
        outcome = Outcome.OUT_OF_BOUNDS
    found = re.search(r"pan:\d+: (.*) \(at depth (\d+)\)", output)
    return Result(
        outcome,
        int(states),
        int(found[2]) if found else 0,
        seconds,
        found[1] if found else "",
        trail,
        output,
    )


def _number(pattern: str, output: str) -> float:
    found = re.search(pattern, output, re.MULTILINE)
    return float(found[1]) if found else 0.0


def heading(what: Run) -> str:
    """Build the cells of a row that say what is searched, before any result."""
    flags = " ".join(flag for flag in what.flags if not flag.startswith("M_"))
    if not what.mutant:
        return f"| `{what.name}`: {what.rule} | {flags or 'defaults'} | "
    mutant = ", ".join(f"`{flag}`" for flag in what.flags if flag.startswith("M_"))
    where = f"`{what.model}`" + (f" {flags}" if flags else "")
    return f"| {what.rule} | {what.serves} | {mutant} | {where} | "


def row(what: Run, result: Result) -> str:
    """One row of the tables of ``docs/model.md``."""
    if not what.mutant:
        return (
            f"{heading(what)}{_searched(what, result)} | {result.outcome.value}"
            f"{', as expected' if result.outcome is Outcome.FAILS else ''} | "
            f"{result.states:,} | {result.seconds:.0f} |"
        )
    first = "" if what.search is Search.SHORTEST else " `*`"
    said = {
        Outcome.FAILS: f"{result.depth} steps{first}",
        Outcome.HOLDS: f"none within bounds ({result.states:,} states, exhausted)",
        Outcome.SEEN: f"none in what was seen ({result.states:,} states, bitstate)",
        Outcome.OUT_OF_BOUNDS: f"none within {result.states:,} states, not exhausted",
    }[result.outcome]
    return f"{heading(what)}{said} |"


def _searched(what: Run, result: Result) -> str:
    """Say how far the search went."""
    if result.outcome is Outcome.FAILS:
        return "until the counterexample"
    if what.search is Search.BITSTATE:
        stopped = "out of time" in result.output
        return "bitstate, ended by its time" if stopped else "bitstate, to its end"
    return "exhausted, fair" if what.search is Search.FAIR else "exhausted"
