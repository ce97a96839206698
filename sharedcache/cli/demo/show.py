"""The demo from its first process to the last file that it removes."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.zookeeper_server import (
    ServerFailedError,
    ZooKeeperUnavailable,
    find_installation,
)
from sharedcache.cli.children import environment
from sharedcache.cli.demo import removal, rollout, trouble
from sharedcache.cli.demo.fleet import Fleet, FleetError
from sharedcache.cli.demo.pace import Pace, in_words, scaled
from sharedcache.cli.demo.screen import Column, Screen
from sharedcache.cli.demo.stage import NotSeenError, Stage
from sharedcache.cli.demo.world import World, WorldError
from sharedcache.cli.signals import heard

DONE, FAILED = 0, 1
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Show:
    """What the viewer asked for."""

    pace: Pace = field(default_factory=Pace)
    servers: int = 1
    keep: bool = False
    pause: bool = False


class EndedError(BaseException):
    """A signal asked the demo to end; not an error that a step could handle."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def missing_programs() -> str:
    """Say what must be installed before the demo can run; empty if nothing."""
    missing: list[str] = []
    try:
        find_installation(environment())
    except ZooKeeperUnavailable as error:
        missing.append(str(error))
    if shutil.which("qemu-img") is None:
        missing.append(
            "qemu-img is not installed: run `sudo apt-get install -y qemu-utils`"
        )
    return "; ".join(missing)


def run_show(show: Show) -> int:
    """Run the demo; return its exit status, 0 if every claim was observed.

    Leaves no process behind, and no directory unless ``keep`` asks for it,
    however it ends.
    """
    screen = Screen(pause=show.pause)
    missing = missing_programs()
    if missing:
        screen.complain(f"The demo cannot run here: {missing}.")
        return FAILED
    with _ended_by_signals(), _directory(screen, keep=show.keep) as root:
        world = World(root)
        pace = _fitting(show.pace, root, screen)
        fleet = Fleet(world, pace, show.servers)
        stage = Stage(world, fleet, pace, screen)
        try:
            return _run(stage)
        finally:
            with _undisturbed():
                fleet.close()


def _fitting(pace: Pace, root: Path, screen: Screen) -> Pace:
    """Allow for a file system whose clients cache names: purging waits for that."""
    with DirectoryStorage(str(root)) as storage:
        cache_s = storage.name_cache_s()
    if not cache_s:
        return pace
    wait_s = 2 * cache_s
    screen.say(
        f"The temporary directory may be on network storage, so purging waits "
        f"{wait_s:g} s longer: set TMPDIR to a local directory to avoid that."
    )
    return replace(pace, patience_s=pace.patience_s + wait_s)


def _run(stage: Stage) -> int:
    """Tell the story, then say what of it was observed."""
    why = ""
    try:
        _introduce(stage)
        _story(stage)
    except (
        FleetError,
        NotSeenError,
        ServerFailedError,
        WorldError,
        OSError,
        LookupError,
        ValueError,
    ) as error:
        # Whatever it was, the claims that were not reached fail the demo.
        why = str(error) or type(error).__name__
    _conclude(stage, why)
    return FAILED if why or stage.claims.failed else DONE


def _introduce(stage: Stage) -> None:
    screen = stage.screen
    screen.say("sharedcache demo", style="bold")
    screen.say(
        "Three compute nodes share one image cache.  Everything is real: ZooKeeper, "
        "agents, cleaners, disk images.  Only waiting times are other than shipped:"
    )
    screen.table(
        (
            Column("Setting"),
            Column("Shipped", right=True),
            Column("Here", right=True),
            Column("What it is"),
        ),
        (
            (one.setting, in_words(one.production_s), in_words(one.demo_s), one.why)
            for one in scaled(stage.pace)
        ),
    )
    screen.say(
        "Minimum ages are as shipped, 24 h (1 h for resized copies): the files bear "
        "old times."
    )
    with screen.waiting("Making disk images and starting ZooKeeper"):
        stage.world.make()
        stage.fleet.start_zookeeper()


def _story(stage: Stage) -> None:
    start = rollout.show_cache(stage)
    rollout.show_closed_gate(stage, start)
    rollout.show_rollout(stage)
    removal.show_removal(stage, start)
    rollout.show_downgrade(stage)
    trouble.show_loss(stage)
    trouble.show_restore(stage, start)
    trouble.show_expunge(stage)
    removal.show_sums(stage, start)


def _conclude(stage: Stage, why: str) -> None:
    screen = stage.screen
    screen.table(
        (Column("Claim"), Column("Observed"), Column("By")),
        (
            (claim.value, "yes" if found.observed else "NO", found.evidence)
            for claim, found in stage.claims
        ),
        title="What was claimed, and what was observed",
    )
    failed = stage.claims.failed
    if not failed and not why:
        screen.say("Every claim was observed.", style="bold green")
        return
    for name, tail in stage.fleet.tails():
        screen.say(f"--- the end of {name}'s log", style="bold")
        screen.lines(tail)
    for claim in failed:
        screen.complain(f"Not observed: {claim.value}")
    if why:
        screen.complain(f"The demo stopped: {why}")


@contextmanager
def _directory(screen: Screen, *, keep: bool) -> Iterator[Path]:
    """Make the private directory; remove it however the block ends."""
    root = Path(tempfile.mkdtemp(prefix="sharedcache-demo-")).resolve()
    try:
        yield root
    finally:
        with _undisturbed():
            if keep:
                screen.say(f"Kept: {root}")
            else:
                shutil.rmtree(root)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let the signals that end a program end the story first, in order."""

    def end(number: int) -> None:
        raise EndedError(number)

    with heard(_SIGNALS, end):
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off what would interrupt the clearing away, which takes seconds only."""
    numbers = (signal.SIGINT, *_SIGNALS)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
