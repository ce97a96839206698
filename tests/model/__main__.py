"""``python -m tests.model`` runs the whole catalogue, the long runs too.

It prints the rows of the tables of ``docs/model.md``; ``--short`` leaves out the
long runs, and a word given selects the runs whose name contains it.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.model import spin
from tests.model.catalogue import RUNS


def main() -> int:
    """Run the catalogue; fail if anything is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="leave out long runs")
    parser.add_argument("--trail", action="store_true", help="print counterexamples")
    parser.add_argument("word", nargs="?", default="", help="select runs by name")
    chosen = parser.parse_args()
    lacking = spin.missing()
    if lacking is not None:
        sys.stderr.write(f"the package {lacking} is missing\n")
        return 2
    wrong, began = 0, time.monotonic()
    for what in RUNS:
        if chosen.word not in what.name or (chosen.short and what.long):
            continue
        result = spin.run(what, with_trail=chosen.trail)
        sys.stdout.write(spin.row(what, result) + "\n" + result.trail)
        sys.stdout.flush()
        if result.outcome is not what.expected:
            wrong += 1
            sys.stdout.write(f"UNEXPECTED: {result.output[-2000:]}\n")
    minutes = (time.monotonic() - began) / 60
    sys.stdout.write(f"{minutes:.0f} minutes, {wrong} not as expected\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
