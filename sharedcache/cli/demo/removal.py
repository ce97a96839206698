"""The second half of the story: quarantine, confirmation, purge, and the sums."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from sharedcache.cli.demo.claims import Claim
from sharedcache.cli.demo.evidence import (
    list_base,
    list_quarantine,
    measure,
    read_chains,
)
from sharedcache.cli.demo.fleet import nodes_of
from sharedcache.cli.demo.pace import YEAR_S, in_words
from sharedcache.cli.demo.screen import Column, Waiting, in_bytes
from sharedcache.cli.demo.stage import Stage, Start
from sharedcache.cli.demo.world import (
    CLEANERS,
    FILES,
    LOST_NODE,
    NODES,
    OLD_IN_USE,
    UNKNOWN,
    YOUNG,
    removable,
)

_NANOSECONDS = 1_000_000_000
_LONG_AGO_S = 2 * YEAR_S
_PURGED = re.compile(r"(?m)^(\S+ \S+) .* purged file=")
_REPORTED = re.compile(r"(?m)^(\S+ \S+) .* reported round=(\d+) ")


def show_removal(stage: Stage, start: Start) -> None:
    """Step 4: unused files are quarantined, confirmed, and purged."""
    stage.screen.step(4, "Unused files: quarantined, confirmed, purged")
    stage.wait_for("the leader quarantines", lambda w: _quarantined(stage, w))
    _check_quarantined(stage, start)
    entries = stage.fleet.ask("quarantine", "list")
    _show_entries(stage, entries)
    watch = _Watch(stage, max((entry["round"] for entry in entries), default=0))
    stage.wait_for("every node looks twice, then the leader purges", watch.look)
    _check_purged(stage, start)
    _show_kept(stage, start)


def _quarantined(stage: Stage, waiting: Waiting) -> bool:
    found = list_quarantine(stage.world.base)
    waiting.tell(f"{len(found)} of {len(removable())} unused files are in quarantine")
    return removable() <= found.keys()


def _check_quarantined(stage: Stage, start: Start) -> None:
    base = stage.world.base
    found, left = list_quarantine(base), list_base(base)
    gone = start.files.keys() - left.keys()
    sizes = {name: start.files[name].size for name in removable()}
    stage.claims.check(
        Claim.QUARANTINED,
        gone == removable() and found == sizes,
        f"{len(gone)} files renamed out of _base, {in_bytes(sum(found.values()))} "
        "bytes, whole in quarantine",
    )


def _show_entries(stage: Stage, entries: list[dict[str, Any]]) -> None:
    what = {file.name: file.what for file in FILES}
    stage.screen.table(
        (
            Column("Quarantined", long=True),
            Column("What"),
            Column("Bytes", right=True),
            Column("Round", right=True),
        ),
        (
            (
                entry["name"],
                what.get(entry["name"], "?"),
                in_bytes(entry["bytes"]),
                str(entry["round"]),
            )
            for entry in entries
        ),
    )
    waits = {why: None for entry in entries for why in entry["waiting_for"]}
    stage.screen.say(f"They wait for: {'; '.join(waits) or 'nothing'}.")


class _Watch:
    """Watches the rounds rise while the files still lie in quarantine.

    ``entry_round`` is the last round to which a quarantined file was assigned:
    a node that reports a higher one has looked after the rename, and again.
    """

    def __init__(self, stage: Stage, entry_round: int) -> None:
        self._stage = stage
        self._entry_round = entry_round
        self._looked_twice: Mapping[str, int] = {}

    def look(self, waiting: Waiting) -> bool:
        """Look at the nodes' rounds first, and at the disk after that."""
        nodes = nodes_of(self._stage.fleet.ask("node", "list"))
        rounds = {name: int(node["round"]) for name, node in nodes.items()}
        left = list_quarantine(self._stage.world.base)
        shown = ", ".join(f"{name} {number}" for name, number in rounds.items())
        waiting.tell(f"rounds reported: {shown}; {len(left)} files in quarantine")
        if (
            rounds
            and min(rounds.values()) > self._entry_round
            and not (removable() - left.keys())
        ):
            # Everything still lay there after these reports had been read.
            self._looked_twice = rounds
        if left:
            return False
        self._check()
        return True

    def _check(self) -> None:
        """Record what was seen of the rounds."""
        looked, how = self._looked_twice, "while all of them still lay there"
        if not looked:
            # On a busy machine `node list` takes longer than the files lay there.
            looked = _logged_before_purge(self._stage, self._entry_round)
            how = "logged before the first was purged"
        shown = ", ".join(f"{name} {n}" for name, n in looked.items())
        self._stage.claims.check(
            Claim.CONFIRMED,
            looked.keys() == {*NODES},
            f"files of round {self._entry_round}, reports of {shown or 'nobody'} {how}",
        )


def _logged_before_purge(stage: Stage, entry_round: int) -> dict[str, int]:
    """Tell from the logs which nodes reported a later round before any unlink.

    All run on this host, so that the times in their logs compare.
    """
    logs = [stage.fleet.log_of(name) for name in CLEANERS]
    purged = [when for log in logs for when in _PURGED.findall(log)]
    if not purged:
        return {}
    return {
        node: int(number)
        for node in NODES
        for when, number in _REPORTED.findall(stage.fleet.log_of(node))
        if int(number) > entry_round and when < min(purged)
    }


def _check_purged(stage: Stage, start: Start) -> None:
    base = stage.world.base
    gone = start.files.keys() - list_base(base).keys()
    status = stage.status()
    files = status["quarantine"]["files"]
    stage.claims.check(
        Claim.PURGED,
        gone == removable() and not list_quarantine(base) and files == 0,
        f"{len(gone)} files gone, {files} left in quarantine",
    )


def _show_kept(stage: Stage, start: Start) -> None:
    """Show why files stayed, the very old one in use above all."""
    plan = stage.fleet.ask("plan", "--all")
    verdicts = {file["name"]: file for file in plan["files"]}
    what = {file.name: file.what for file in FILES}
    stage.screen.table(
        (
            Column("Kept", long=True),
            Column("What"),
            Column("Age", right=True),
            Column("Verdict"),
            Column("Reason"),
        ),
        (
            (
                name,
                what.get(name, "?"),
                in_words(_age_s(found.mtime_ns)),
                str(verdicts.get(name, {}).get("verdict", "?")),
                str(verdicts.get(name, {}).get("reason", "?")),
            )
            for name, found in list_base(stage.world.base).items()
        ),
    )
    users = _users_of(stage, OLD_IN_USE)
    stage.screen.say(
        f"debian-10 is years old and kept, because these nodes report that they use "
        f"it: {', '.join(users) or 'none'}."
    )
    expected = next(file.users for file in FILES if file.name == OLD_IN_USE)
    stage.claims.check(
        Claim.OLD_KEPT, users == expected, f"in the reports of {', '.join(users)}"
    )
    _check_kept(stage, start, verdicts)


def _users_of(stage: Stage, name: str) -> tuple[str, ...]:
    """Ask which nodes' last reports name a file."""
    shown = {node: stage.fleet.ask("node", "show", node) for node in NODES}
    return tuple(node for node, said in shown.items() if name in said["uses_now"])


def _age_s(mtime_ns: int) -> float:
    return max(0.0, time.time() - mtime_ns / _NANOSECONDS)


def _check_kept(
    stage: Stage, start: Start, verdicts: Mapping[str, Mapping[str, Any]]
) -> None:
    """Compare verdicts with what is on disk; a verdict alone keeps nothing."""
    left = list_base(stage.world.base)

    def judge(name: str) -> tuple[bool, str]:
        verdict = verdicts.get(name, {})
        there = name in left and verdict.get("verdict") == "keep"
        return there, str(verdict.get("reason", "no verdict"))

    kept, reason = judge(OLD_IN_USE)
    age_s = _age_s(left[OLD_IN_USE].mtime_ns) if OLD_IN_USE in left else 0.0
    stage.claims.check(
        Claim.OLD_KEPT,
        kept and reason.startswith("used") and age_s > _LONG_AGO_S,
        f"debian-10, not touched for {in_words(age_s)}: {reason}",
    )
    kept, reason = judge(YOUNG)
    stage.claims.check(
        Claim.YOUNG_KEPT, kept and reason.startswith("too-young"), f"rocky-9: {reason}"
    )
    kept, reason = judge(UNKNOWN)
    stage.claims.check(
        Claim.UNKNOWN_KEPT,
        kept
        and reason.startswith("unrecognised")
        and left[UNKNOWN] == start.files[UNKNOWN],
        f"{UNKNOWN}: {reason}, size and time as before",
    )
    used = [file for file in FILES if file.users]
    lost = [file.what for file in used if not judge(file.name)[0]]
    stage.claims.check(
        Claim.USED_KEPT,
        not lost,
        f"lost: {', '.join(lost)}" if lost else f"{len(used)} files in use, all there",
    )


def show_sums(stage: Stage, start: Start) -> None:
    """Step 8: guest disks, an orderly end, and bytes."""
    screen, base = stage.screen, stage.world.base
    screen.step(8, "The end: guest disks, and bytes freed")
    chains = read_chains(stage.world, start.digests)
    screen.table(
        (Column("Guest"), Column("Node"), Column("Backing chain"), Column("Opens")),
        (
            (
                chain.guest.name,
                chain.guest.node,
                chain.trouble or f"{chain.layers} layers, base unchanged",
                "NO" if chain.trouble else "yes",
            )
            for chain in chains
        ),
    )
    trouble = [f"{c.guest.name}: {c.trouble}" for c in chains if c.trouble]
    stage.claims.check(
        Claim.DISKS_OPEN,
        not trouble,
        trouble[0] if trouble else f"{len(chains)} disks, bases compared by content",
    )
    # Nobody removes anything any more, so that listing and measuring agree.
    _stop_all(stage)
    before, after = start.allocated, measure(base)
    was, remains = sum(before.values()), sum(after.values())
    gone = start.files.keys() - list_base(base).keys() - list_quarantine(base).keys()
    given_up = {file.name for file in FILES if file.users == (LOST_NODE,)}
    stage.claims.check(
        Claim.FREED,
        removable() <= gone <= removable() | given_up
        and was - remains == sum(before[name] for name in gone),
        f"{in_bytes(was - remains)} of {in_bytes(was)} bytes, {len(gone)} files",
    )
    screen.say(
        f"Bytes freed: {in_bytes(was - remains)} (the files took {in_bytes(was)} "
        f"bytes before, and take {in_bytes(remains)} now)."
    )


def _stop_all(stage: Stage) -> None:
    codes = stage.fleet.stop(*stage.fleet.running)
    told = ", ".join(f"{name}: {code}" for name, code in codes.items())
    stage.claims.check(Claim.STOPPED, not any(codes.values()), f"exit codes: {told}")
