"""``sharedcache clean``."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from sharedcache.adapters.clock import SystemClock
from sharedcache.adapters.settings import Settings
from sharedcache.cleaner.service import CleanerService
from sharedcache.cli import data, output, views
from sharedcache.cli.base import CONNECT_S, Given, common_options, pass_given
from sharedcache.cli.failure import Failure, RefusedFailure, debugging
from sharedcache.cli.once import LastTrouble, OneShot, Outcome
from sharedcache.cli.signals import heard
from sharedcache.core.gate import Gate

TIMEOUT_S = 60.0

SHOWN = 2
"""How many things the progress bar names that are waited for."""


@click.command()
@click.option("--once", is_flag=True, required=True, help="Make one pass, then end.")
@click.option("--wait", is_flag=True, help="Go on until what it took is purged.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Longest time to take. Default: 60; with --wait the grace time and 60.",
)
@common_options
@pass_given
def clean(given: Given, *, once: bool, wait: bool, timeout_s: float | None) -> None:
    """Make one pass as the leader: stand for election, clean, stand down.

    Unused files go into quarantine. Files that lie there, and that every node has
    confirmed, are purged; those of this very pass only with --wait. For a cleaner
    that goes on for ever, start sharedcache-cleaner instead; while one leads,
    this is refused.

    \b
      sharedcache clean --once
      sharedcache clean --once --wait --timeout 7200
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    del once
    settings = given.settings()
    if timeout_s is not None and not math.isfinite(timeout_s):
        raise click.BadParameter("a number of seconds", param_hint="--timeout")
    if timeout_s is None:
        timeout_s = TIMEOUT_S + (settings.cleaner.grace_s if wait else 0.0)
    with SystemClock() as clock, output.bar("Standing for election") as bar:
        trouble = LastTrouble(output.note if debugging() else bar.text)
        outcome, run = _clean(
            settings, clock, bar, trouble, wait=wait, timeout_s=timeout_s
        )
    if outcome is Outcome.NOT_LEADER:
        raise RefusedFailure(
            f"{run.leader} leads: it cleans by itself, or stop it first"
        )
    said = _said(run.service, run.gate or Gate())
    given.emit(said, lambda console: views.cleaned(console, said))
    _judge(outcome, run, trouble, timeout_s)


def _clean(
    settings: Settings,
    clock: SystemClock,
    bar: output.Bar,
    trouble: LastTrouble,
    *,
    wait: bool,
    timeout_s: float,
) -> tuple[Outcome, OneShot]:
    from sharedcache.cli.wiring import (  # noqa: PLC0415 - costs half a second
        CleanerParts,
        cleaner_name,
    )

    with _stop_flag(clock) as stop:
        parts = CleanerParts(settings, cleaner_name("-once"), clock, trouble, stop)
        service = CleanerService(parts.world)
        try:
            parts.session.start(CONNECT_S)
            run = OneShot(
                service,
                clock,
                clock.boottime() + timeout_s,
                stop,
                to_the_end=wait,
                show=lambda run: _show(bar, run),
            )
            return run.run(), run
        finally:
            service.stand_down()
            parts.close()


def _show(bar: output.Bar, run: OneShot) -> None:
    """Say how far the run is, and what the rest waits for."""
    harvest = run.service.harvest
    if not harvest.epoch:
        return
    taken, waits = len(harvest.taken.names), run.waits()
    if not run.to_the_end or not taken:
        bar.text(f"Leading, epoch {harvest.epoch}")
        return
    left = len(run.pending())
    bar.reach(max(0, taken - left), taken)
    more = f" and {len(waits) - SHOWN} more" if len(waits) > SHOWN else ""
    bar.text(f"Waiting for {', '.join(waits[:SHOWN]) or 'the purge'}{more}")


def _said(service: CleanerService, gate: Gate) -> data.Data:
    harvest = service.harvest
    return {
        "epoch": harvest.epoch,
        "gate": data.gate(gate),
        "quarantined": harvest.taken.names,
        "purged": harvest.purged.names,
        "kept": harvest.taken.kept,
        "quarantined_bytes": harvest.taken.size,
        "purged_bytes": harvest.purged.size,
    }


def _judge(
    outcome: Outcome, run: OneShot, trouble: LastTrouble, timeout_s: float
) -> None:
    """End with the code that fits the outcome."""
    pending = run.pending()
    if outcome is Outcome.GATE_CLOSED:
        codes = [] if run.gate is None else [r.code.value for r in run.gate.reasons]
        raise RefusedFailure(
            f"the gate is closed ({', '.join(dict.fromkeys(codes))}): `sharedcache "
            "status` says what to do"
        )
    if outcome is Outcome.STOPPED:
        raise Failure("stopped before its end")
    if outcome is Outcome.OUT_OF_TIME and not run.service.harvest.passes:
        why = trouble.text or "the office could not be taken"
        raise Failure(f"no pass in {timeout_s:g} s: {why}")
    if run.to_the_end and pending:
        latest = run.service.harvest.latest
        waits = latest.waiting if latest is not None else {}
        why = "; ".join(sorted({why for one in waits.values() for why in one}))
        raise RefusedFailure(
            f"{len(pending)} files are not purged after {timeout_s:g} s; they wait "
            f"for: {why}"
        )
    if outcome is Outcome.OUT_OF_TIME:
        output.note(
            f"The pass was made; some files still wait for reports after "
            f"{timeout_s:g} s: see `sharedcache quarantine list`"
        )


@contextmanager
def _stop_flag(clock: SystemClock) -> Iterator[Callable[[], bool]]:
    """End in order at the first signal: what was begun is finished and recorded."""
    asked: list[int] = []

    def ask(number: int) -> None:
        asked.append(number)
        clock.wake()

    with heard((signal.SIGINT, signal.SIGTERM), ask):
        yield lambda: bool(asked)
