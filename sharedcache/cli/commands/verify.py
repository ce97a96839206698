"""``sharedcache verify``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.progress import Progress

from sharedcache import ledger
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.adapters.storage import WriterDirectory
from sharedcache.cache.binding import require_bound
from sharedcache.cache.verify import Finding, State, Task, Verifier, tasks
from sharedcache.cleaner import damage
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cli import amounts, output
from sharedcache.cli.base import (
    Connection,
    Given,
    common_options,
    connected,
    pass_given,
)
from sharedcache.cli.data import Data
from sharedcache.cli.failure import Failure
from sharedcache.cli.signing import signature
from sharedcache.core.damage import Damage
from sharedcache.core.holders import users_of
from sharedcache.core.model import NANOSECONDS, Unreadable
from sharedcache.core.names import Kind, classify, digest_of, is_image_id
from sharedcache.core.plan import Verdict, Why
from sharedcache.core.ports import CoordinationError, OutcomeUnknownError

RATE = "50M"
"""Bytes a second that are read unless another rate is given."""

_GOOD = frozenset({State.WHOLE, State.RECORDED})
_BAD = frozenset({State.DAMAGED, State.UNREADABLE, State.BAD_RECORD})


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--rate",
    default=RATE,
    show_default=True,
    callback=amounts.bytes_of,
    metavar="BYTES",
    help="Most bytes to read a second: 4096, 500k, 50M; 0: no limit.",
)
@click.option(
    "--older-than",
    callback=amounts.seconds,
    metavar="TIME",
    help="Leave out what was found whole within this time: 12h, 7d.",
)
@click.option(
    "--record", is_flag=True, help="Record a first digest of files that have none."
)
@click.option(
    "--offline", is_flag=True, help="Only tell: no ZooKeeper, no users, no orders."
)
@click.option("--all", "everything", is_flag=True, help="Show whole files, too.")
@common_options
@pass_given
def verify(
    given: Given,
    *,
    names: tuple[str, ...],
    rate: float,
    older_than: float | None,
    record: bool,
    offline: bool,
    everything: bool,
) -> None:
    """Read cache files again, and compare them with their recorded digests.

    NAME is a cache name, a path to it, or an image id; all files without one, what
    was verified longest ago first, so that a run which was cut short is gone on
    with by the next. A damaged file that nobody uses is quarantined by the leader;
    a damaged one that is used is kept, and told with its users. Nothing is
    concluded from a file that changes while it is read. Exits with 1 if a file is
    damaged or cannot be read.

    \b
      sharedcache verify --rate 100M --older-than 7d
      sharedcache verify da39a3ee5e6b4b0d3255bfef95601890afd80709 -f json
      sharedcache verify --record
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with ExitStack() as stack:
        to = None if offline else stack.enter_context(connected(given))
        settings = given.settings() if to is None else to.settings
        base = settings.require_base()
        storage = stack.enter_context(WriterDirectory(base))
        require_bound(storage, base, settings.cluster)
        locks = stack.enter_context(NovaNameLocks(settings.lock_path))
        run = _Run(Verifier(storage, locks, rate, record), to)
        run.begin(_chosen(names), older_than)
        run.go_on()
        said = run.told(everything=everything or bool(names))
    given.emit(said, lambda console: _show(console, said), rows_in="files")
    _judge(said, named=bool(names))


def _chosen(names: Sequence[str]) -> dict[str, str]:
    """Return the cache names that may be meant, each with the word it came from."""
    chosen: dict[str, str] = {}
    for word in names:
        name = word.rstrip("/").rpartition("/")[2]
        if classify(name) in (Kind.UNRECOGNISED, Kind.PARTIAL):
            raise click.UsageError(f"{word}: not the name of a cache file")
        chosen[name] = name
        if is_image_id(name):
            chosen[digest_of(name).hex()] = name
    return chosen


@dataclass(slots=True)
class _Run:
    """One run: what is to be looked at, what was found, and what was ordered.

    ``asked`` maps the names that may be meant to what was asked for.
    """

    verifier: Verifier
    to: Connection | None
    asked: dict[str, str] = field(default_factory=dict)
    left: list[Task] = field(default_factory=list)
    skipped: int = 0
    findings: list[Finding] = field(default_factory=list)
    ordered: dict[str, bool] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    interrupted: bool = False
    began: float = field(default_factory=time.monotonic)

    def begin(self, asked: dict[str, str], older_s: float | None) -> None:
        """List what is to be looked at."""
        storage, self.asked = self.verifier.storage, asked
        before_ns = None
        if older_s is not None:
            before_ns = storage.digest_time() - int(older_s * NANOSECONDS)
        files, records = storage.scan(), storage.digest_list()
        everything = tasks(files, records, chosen=asked)
        self.left = tasks(files, records, before_ns=before_ns, chosen=asked)
        self.skipped = len(everything) - len(self.left)
        found = {asked[one.name] for one in everything if asked}
        for word in dict.fromkeys(asked.values()):
            if word not in found:
                self.findings.append(
                    Finding(word, State.GONE, "it is not in the cache directory")
                )
        if not self.verifier.record:
            # Nothing is read of them, so that they are told at once.
            self.findings += [
                Finding(one.name, State.UNRECORDED, size=one.size)
                for one in self.left
                if one.verified_ns is None
            ]
            self.left = [one for one in self.left if one.verified_ns is not None]

    def go_on(self) -> None:
        """Look at each file; Ctrl-C ends it with what was found until then."""
        standing = self._standing()
        try:
            with _bar(sum(one.size for one in self.left)) as watch:
                self.verifier.watch = watch
                while self.left:
                    finding = self.verifier.check(self.left[0].name)
                    del self.left[0]
                    self.findings.append(finding)
                    self._speak(finding, ordered=finding.name in standing)
        except KeyboardInterrupt:
            self.interrupted = True

    def _standing(self) -> frozenset[str]:
        """Names of which an order stands."""
        if self.to is None:
            return frozenset()
        found = ledger.damaged_of(self.to.session.get(ledger.DAMAGED))
        return frozenset() if isinstance(found, Unreadable) else frozenset(found)

    def _speak(self, finding: Finding, *, ordered: bool) -> None:
        """Order at once, so that a run which is cut short has ordered, too."""
        if self.to is None:
            return
        session, by = self.to.session, signature()
        try:
            if finding.state is State.DAMAGED:
                damage.order(session, _damage(finding, by.who, by.when), by)
                self.ordered[finding.name] = True
            elif finding.state is State.WHOLE and ordered:
                damage.withdraw(session, finding.name, by)
        except (CoordinationError, OutcomeUnknownError, RefusedError) as error:
            self.ordered[finding.name] = False
            trouble = f"{finding.name} is not ordered away: {error}"
            self.troubles.append(" ".join(trouble.split()))

    def told(self, *, everything: bool) -> Data:
        """Tell what was found; the users of what is damaged are asked for last."""
        rows = {one.name: self._row(one) for one in self.findings}
        damaged = [o.name for o in self.findings if o.state is State.DAMAGED]
        if self.to is not None and damaged:
            try:
                self._add_plan(self.to, rows, damaged)
            except (CoordinationError, OutcomeUnknownError) as error:
                self.troubles.append(f"the users are not known: {error}")
        states = Counter(one.state.value for one in self.findings)
        return {
            "files": [
                row
                for row in rows.values()
                if everything or row["state"] not in (State.WHOLE, State.RECORDED)
            ],
            "counts": {state.value: states[state.value] for state in State},
            "left_out": self.skipped,
            "not_reached": len(self.left),
            "read_bytes": sum(one.read for one in self.findings),
            "seconds": round(time.monotonic() - self.began, 3),
            "troubles": self.troubles,
        }

    def _row(self, one: Finding) -> Data:
        record = one.record
        return {
            "name": one.name,
            "kind": classify(one.name).label,
            "bytes": one.size,
            "state": one.state.value,
            "why": one.why,
            "digest": None if record is None else str(record.digest),
            "recorded_later": None if record is None else record.later,
            "found": one.found or None,
            "ordered": self.ordered.get(one.name),
            "users": None,
            "verdict": None,
            "reason": None,
        }

    @staticmethod
    def _add_plan(to: Connection, rows: dict[str, Data], damaged: list[str]) -> None:
        observed, plan = to.look()
        seen = observed.seen
        where = {name: row for row, name in enumerate(seen.files.names)}
        for name, users in users_of(seen, damaged).items():
            rows[name]["users"] = list(users)
            row = where.get(name)
            if row is not None:
                rows[name]["verdict"] = Verdict(plan.verdicts[row]).label
                rows[name]["reason"] = Why(plan.whys[row]).label


def _damage(finding: Finding, who: str, when: float) -> Damage:
    facts, record = finding.facts, finding.record
    if facts is None or record is None:
        raise ValueError(f"{finding.name}: nothing was compared")
    return Damage(
        finding.name,
        facts.inode,
        facts.size,
        facts.mtime_ns,
        str(record.digest),
        finding.found,
        who,
        when,
    )


@contextmanager
def _bar(total: int) -> Iterator[Callable[[str, int], None]]:
    """Show on a terminal how many of the bytes were read."""
    if not sys.stderr.isatty():
        yield lambda _name, _size: None
        return
    columns = output.byte_columns()
    with Progress(*columns, console=output.stderr(), transient=True) as bars:
        task = bars.add_task("Verifying", total=total)
        yield lambda name, size: bars.update(task, advance=size, description=name[:24])


def _show(console: Console, said: Data) -> None:
    counts = ", ".join(f"{n} {state}" for state, n in said["counts"].items() if n)
    read = f"{output.size(said['read_bytes'])} in {said['seconds']:.1f} s"
    more = f", {said['left_out']} left out" if said["left_out"] else ""
    console.print(f"{counts or 'nothing to verify'}{more}; read {read}.")
    rows = [
        [
            one["name"],
            None if one["bytes"] is None else output.size(one["bytes"]),
            one["state"],
            one["why"],
            one["users"],
            _next(one),
        ]
        for one in said["files"]
    ]
    columns = ("name", "size", "state", "why", "users", "what next")
    if rows:
        output.rows(console, columns, rows)


_NEXT = {
    State.UNRECORDED: "`verify --record` records what lies there now",
    State.CHANGING: "verify it again later",
    State.UNREADABLE: "look at the storage",
    State.BAD_RECORD: "`verify --record` records what lies there now",
}


def _next(one: Data) -> str:
    if one["state"] != State.DAMAGED:
        return _NEXT.get(State(one["state"]), "")
    if one["verdict"] == Verdict.QUARANTINE.label:
        return "the leader quarantines it in its next pass"
    if one["users"]:
        return "kept while it is used: mend it in place, or move these guests off it"
    if one["reason"] is not None:
        return f"kept ({one['reason']}): `sharedcache explain` says why"
    if one["ordered"] is None:
        return "verify it without --offline, and the leader takes it once it is unused"
    return "see `sharedcache status`"


def _judge(said: Data, *, named: bool) -> None:
    """End with an error if anything is not as it should be, saying what to do."""
    for trouble in said["troubles"]:
        output.note(f"sharedcache: {trouble}")
    counts = {State(state): n for state, n in said["counts"].items()}
    total = sum(counts.values())
    if said["not_reached"]:
        raise Failure(
            f"interrupted, {said['not_reached']} files were not reached: the next run "
            "begins with those; --older-than leaves out what was verified by now"
        )
    if counts[State.DAMAGED]:
        raise Failure(f"{counts[State.DAMAGED]} of {total} files are damaged")
    wrong = sum(counts[state] for state in State if state in _BAD)
    if named:
        wrong = sum(counts[state] for state in State if state not in _GOOD)
    if wrong:
        raise Failure(f"{wrong} of {total} files could not be verified")
    if said["troubles"]:
        raise Failure("not everything that was found could be told")
