"""Thousands of schedules of the shipped services, each judged by the oracle."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.run import simulate

SCHEDULES = int(os.environ.get("SCHEDULES", "2500"))
"""At 0.11 to 0.13 s of processor time each, under three minutes on two processors."""

FIRST = 1
PARTS = 12
"""In how many parts they run: pytest's own processes take one after the other."""

SHOWN = 5
ENOUGH = 100
"""Of fewer schedules nothing is said about how much happens in them."""

LEAST = {
    "renamed": 5.0,
    "unlinked": 4.0,
    "restored": 0.05,
    "leading": 1.0,
    "sealed-epoch": 0.2,
    "purge-refused": 0.004,
}
"""How often each must happen, per schedule: a world that stands still shows nothing.

``renamed`` into quarantine and ``unlinked`` from it are what the oracle saw on the
storage, the others what the daemons say.
"""


def _seeds(part: int) -> range:
    return range(FIRST + part, FIRST + SCHEDULES, PARTS)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_schedule_loses_a_file(part: int) -> None:
    """Whatever the schedule, nothing used goes and all that is unused does."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    for seed in _seeds(part):
        result = simulate(seed)
        counts.update(result.counts)
        if result.violations:
            failures.append(
                f"seed {seed}: {result.violations[0]}\n"
                f"    replay: make simulate SEED={seed}"
            )
            if len(failures) == SHOWN:
                break
    assert not failures, "\n".join(failures)
    if len(_seeds(part)) < ENOUGH:
        return
    for what, least in LEAST.items():
        assert counts[what] >= least * len(_seeds(part)), (what, counts[what])


def _digest(seed: int) -> str:
    trace = "\n".join(simulate(seed, tracing=True).trace)
    return hashlib.sha256(trace.encode()).hexdigest()


@pytest.mark.parametrize("seed", [3, 12, 29])
def test_a_seed_is_replayed_exactly(seed: int) -> None:
    """A seed alone decides all that happens, in another process too."""
    program = (
        f"from tests.simulation.test_schedules import _digest; print(_digest({seed}))"
    )
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "42", "PYTHONPATH": "."},
    )
    assert other.stdout.strip() == _digest(seed) == _digest(seed)
