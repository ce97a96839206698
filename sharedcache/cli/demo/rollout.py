"""The first half of the story: from a mixed cluster to an open gate."""

from __future__ import annotations

import re

from sharedcache.cli.demo.claims import Claim
from sharedcache.cli.demo.evidence import digest_base, list_base, measure
from sharedcache.cli.demo.pace import in_words
from sharedcache.cli.demo.screen import Column, Waiting, in_bytes
from sharedcache.cli.demo.stage import Stage, Start, reasons_of, spelled
from sharedcache.cli.demo.world import CLEANERS, FILES, NODES, OLD_NODE
from sharedcache.core.names import classify

OLD_NAMING = ("node-old-kernel-naming", OLD_NODE)
NOT_FINALIZED = "rollout-not-finalized"
REFUSED_CODE = 3
"""The exit code of a command that was refused."""
REFUSED_EXIT = 1
"""The exit code of an agent that refuses to start."""

_CLOSED_PASS = re.compile(r"\bpass epoch=\d+ gate=closed\b")
_PASSES = 2


def show_cache(stage: Stage) -> Start:
    """Step 1: what lies in the cache directory, and who uses it."""
    screen, base = stage.screen, stage.world.base
    screen.step(1, "What lies in _base")
    start = Start(list_base(base), digest_base(base), measure(base))
    screen.table(
        (
            Column("Name", long=True),
            Column("Kind", whole=True),
            Column("What"),
            Column("Bytes", right=True),
            Column("Age", right=True),
            Column("Used by"),
        ),
        (
            (
                file.name,
                classify(file.name).label,
                file.what,
                in_bytes(start.files[file.name].size),
                in_words(file.age_s),
                ", ".join(file.users) or "-",
            )
            for file in FILES
        ),
    )
    return start


def show_closed_gate(stage: Stage, start: Start) -> None:
    """Step 2: the cluster is mixed, so the gate is closed and nothing is taken."""
    screen, fleet = stage.screen, stage.fleet
    screen.step(2, f"A mixed cluster: {OLD_NODE} still writes the old kernel names")
    stage.command("init", "--schema", "1")
    for node in NODES:
        fleet.start_agent(node, **({"schema_version": 1} if node == OLD_NODE else {}))
    stage.wait_for("three agents start and report", lambda w: _live(stage, w))
    for cleaner in CLEANERS:
        fleet.start_cleaner(cleaner)
    stage.wait_for("two cleaners stand for election", lambda w: _elected(stage, w))
    stage.wait_for("the gate names the old node", lambda w: _closed(stage, w))
    status = stage.status()
    leader = fleet.named(status["leader"])
    others = {*CLEANERS} & {*fleet.running} - {leader}
    stage.claims.check(
        Claim.ELECTED,
        leader in CLEANERS and len(others) == 1 and status["epoch"] >= 1,
        f"{leader}, epoch {status['epoch']}; {', '.join(others)} runs too",
    )
    screen.say(f"{leader} was elected, epoch {status['epoch']}.")
    stage.show_gate(status)
    reasons = reasons_of(status)
    stage.claims.check(
        Claim.CLOSED,
        not status["gate"]["open"]
        and {r for r in reasons if r[0] == OLD_NAMING[0]} == {OLD_NAMING},
        spelled(reasons),
    )
    standing = stage.fleet.ask("rollout", "status")
    waiting = [one["node"] for one in standing["waiting_for"]]
    early = standing["early_writers"]
    stage.claims.check(
        Claim.STAGES,
        waiting == [OLD_NODE] and set(early) == {*NODES} - {OLD_NODE},
        f"not ready: {', '.join(waiting)}; early: {', '.join(early)}",
    )
    answer = stage.command("rollout", "finalize", "--yes")
    stage.claims.check(
        Claim.REFUSED,
        answer.code == REFUSED_CODE and OLD_NODE in answer.complaint,
        f"exit code {answer.code}; {answer.complaint}",
    )
    stage.wait_for("the leader passes over it", lambda w: _passed(stage, w))
    _check_untouched(stage, start)


def _live(stage: Stage, waiting: Waiting) -> bool:
    nodes = stage.status()["nodes"]
    waiting.tell(f"{nodes['live']} of {len(NODES)} nodes live")
    return bool(nodes["live"] == len(NODES))


def _elected(stage: Stage, waiting: Waiting) -> bool:
    status = stage.status()
    leader = stage.fleet.named(status["leader"])
    waiting.tell(f"leader: {leader or 'none yet'}, epoch {status['epoch']}")
    return leader is not None and status["epoch"] >= 1


def _closed(stage: Stage, waiting: Waiting) -> bool:
    reasons = reasons_of(stage.status())
    waiting.tell(spelled(reasons))
    return OLD_NAMING in reasons


def _passed(stage: Stage, waiting: Waiting) -> bool:
    """Wait for passes: that nothing was taken means little before there is one."""
    passes = sum(
        len(_CLOSED_PASS.findall(stage.fleet.log_of(name))) for name in CLEANERS
    )
    waiting.tell(f"{passes} passes over a closed gate")
    return passes >= _PASSES


def _check_untouched(stage: Stage, start: Start) -> None:
    now = list_base(stage.world.base)
    same = now == start.files
    changed = sorted({*now.items()} ^ {*start.files.items()})
    seen = f"{len(now)} files, names, sizes and times as before"
    evidence = seen if same else f"changed: {changed[0][0]}"
    stage.claims.check(Claim.UNTOUCHED, same, evidence)
    stage.screen.say(f"_base was listed again: {evidence}.")


def show_rollout(stage: Stage) -> None:
    """Step 3: the last node is upgraded, and an operator finalizes."""
    screen, fleet = stage.screen, stage.fleet
    screen.step(3, f"The rollout: {OLD_NODE} is upgraded, then finalize")
    codes = fleet.stop(OLD_NODE)
    screen.say(
        f"{OLD_NODE}'s agent stopped (exit code {codes[OLD_NODE]}); "
        "the new release starts."
    )
    stage.claims.check(
        Claim.STOPPED, codes[OLD_NODE] == 0, f"{OLD_NODE}: exit code {codes[OLD_NODE]}"
    )
    fleet.start_agent(OLD_NODE)
    stage.wait_for("the rollout becomes ready", lambda w: _ready(stage, w))
    status = stage.status()
    stage.claims.check(
        Claim.READY, status["rollout"]["state"] == "ready", _state(status["rollout"])
    )
    reasons = reasons_of(status)
    stage.claims.check(
        Claim.NOT_YET,
        not status["gate"]["open"] and {code for code, _ in reasons} == {NOT_FINALIZED},
        spelled(reasons),
    )
    stage.show_gate(status)
    answer = stage.command("rollout", "finalize", "--yes")
    status = stage.status()
    stage.show_gate(status)
    stage.claims.check(
        Claim.OPENED,
        answer.code == 0
        and bool(status["gate"]["open"])
        and status["rollout"]["state"] == "finalized",
        f"{_state(status['rollout'])}, gate {spelled(reasons_of(status))}",
    )


def show_downgrade(stage: Stage) -> None:
    """Tell the node to write the old names again: it refuses, and holds everything."""
    screen, fleet = stage.screen, stage.fleet
    screen.say(f"What if {OLD_NODE} is told to write the old kernel names again now?")
    fleet.stop(OLD_NODE)
    fleet.start_agent(OLD_NODE, kernel_naming="raw-id")
    with screen.waiting("its agent reads the finalized schema on the storage"):
        code = fleet.await_end(OLD_NODE)
    why = _refusal(fleet.log_of(OLD_NODE))
    screen.lines(why)
    stage.wait_for(
        "the gate closes, since guests there would be seen by nobody",
        lambda w: _reasons_name(stage, w, OLD_NODE),
    )
    stage.claims.check(
        Claim.DOWNGRADE,
        code == REFUSED_EXIT and bool(why),
        f"exit code {code}; {spelled(reasons_of(stage.status()))}",
    )
    fleet.start_agent(OLD_NODE)
    stage.wait_for("it is upgraded again", lambda w: _open(stage, w))


def _refusal(log: str) -> str:
    """Find the line in which an agent says why it does not start."""
    found = [line for line in log.splitlines() if "finalized for good" in line]
    return found[-1].strip() if found else ""


def _reasons_name(stage: Stage, waiting: Waiting, node: str) -> bool:
    status = stage.status()
    reasons = reasons_of(status)
    waiting.tell(spelled(reasons))
    return not status["gate"]["open"] and node in {subject for _, subject in reasons}


def _open(stage: Stage, waiting: Waiting) -> bool:
    status = stage.status()
    waiting.tell(f"gate: {spelled(reasons_of(status))}")
    return bool(status["gate"]["purge_open"])


def _state(rollout: dict[str, object]) -> str:
    return f"rollout {rollout['state']}, schema {rollout['finalized_schema']} finalized"


def _ready(stage: Stage, waiting: Waiting) -> bool:
    status = stage.status()
    waiting.tell(
        f"rollout {status['rollout']['state']}; gate: {spelled(reasons_of(status))}"
    )
    # The upgraded node is there again once its new report is in.
    return bool(
        status["rollout"]["state"] == "ready" and status["nodes"]["live"] == len(NODES)
    )
