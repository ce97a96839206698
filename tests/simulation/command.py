"""What may be asked of ``python -m tests.simulation``, and what is refused.

Nothing that is asked is ignored: what has no meaning, alone or beside the rest, is
an error that names what there is.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.crash_points import MODES
from tests.simulation.mutants import MUTANTS
from tests.simulation.operations import OPERATIONS
from tests.simulation.stories import STORIES

SCHEDULES = 100_000
BASES = 3

_GOES_WITH = {
    "table": {"schedules", "bases", "mutant"},
    "strike": {"mutant"},
    "seed": {"mutant"},
}
"""What else may be asked beside each; of them at most one."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A crash point: which change of an operation is struck, and how."""

    operation: str
    at: int
    mode: str

    def __str__(self) -> str:
        return f"{self.operation}:{self.at}:{self.mode}"


@dataclass(slots=True)
class Asked(argparse.Namespace):
    """What was asked, all of it valid.  ``minutes`` is infinite without a limit."""

    schedules: int = SCHEDULES
    first: int = 1
    minutes: float = math.inf
    seed: int | str | None = None
    strike: Strike | None = None
    story: str = ""
    mutant: str = ""
    table: bool = False
    bases: int = BASES


def asked(arguments: Sequence[str] | None = None) -> Asked:
    """Read the command line.  Raise ``SystemExit(2)`` for what has no meaning."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    for one, others in _GOES_WITH.items():
        if one in given:
            for other in sorted(given.keys() - others - {one}):
                parser.error(f"--{other} has no meaning beside --{one}")
            return Asked(**given)
    if "bases" in given:
        parser.error("--bases has no meaning without --table")
    return Asked(**given)


def _parser() -> argparse.ArgumentParser:
    """Return a parser that tells only of what was given."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run many schedules, or replay one.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--schedules", type=_count, metavar="N", help="how many (100,000)")
    add("--first", type=_number, metavar="N", help="the first seed (1)")
    add("--minutes", type=_minutes, metavar="N", help="stop after so long")
    add(
        "--seed",
        type=_seed,
        metavar="N|STORY:N",
        help="replay this one, with its trace",
    )
    add(
        "--strike",
        type=_strike,
        metavar="OPERATION:CHANGE:MODE",
        help="replay one crash point, with its trace",
    )
    add("--story", choices=STORIES, metavar="NAME", help="tell this story only")
    add("--mutant", choices=MUTANTS, metavar="NAME", help="take this rule out")
    add("--table", action="store_true", help="hunt every mutant")
    add("--bases", type=_count, metavar="N", help="hunts for each mutant (3)")
    return parser


def _refuse(text: str, why: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r}: {why}")


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]+", text):
        raise _refuse(text, "a whole number from 0 is wanted")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]+", text) or int(text) == 0:
        raise _refuse(text, "a whole number from 1 is wanted")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise _refuse(text, "a number of minutes above 0 is wanted")
    return minutes


def _known(what: str, name: str, names: Sequence[str], text: str) -> None:
    if name not in names:
        raise _refuse(text, f"no {what} {name!r}; there are {', '.join(names)}")


def _seed(text: str) -> int | str:
    story, colon, number = text.rpartition(":")
    if colon:
        _known("story", story, tuple(STORIES), text)
    if not re.fullmatch("[0-9]+", number):
        raise _refuse(text, "a seed is a whole number from 0, or STORY:NUMBER")
    return f"{story}:{int(number)}" if colon else int(number)


def _strike(text: str) -> Strike:
    operation, _, rest = text.partition(":")
    at, _, mode = rest.partition(":")
    _known("operation", operation, tuple(OPERATIONS), text)
    if not re.fullmatch("[0-9]+", at):
        raise _refuse(text, "a crash point is OPERATION:CHANGE:MODE, changes from 0")
    _known("mode", mode, MODES, text)
    return Strike(operation, int(at), mode)
