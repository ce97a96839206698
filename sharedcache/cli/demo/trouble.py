"""What goes wrong in a cluster's life: a host lost, a leader killed, a guest back.

The order makes the outcome certain: while a host is lost nothing is purged, so
that what is wanted again can always be restored.
"""

from __future__ import annotations

import hashlib

from sharedcache.cli.demo.claims import Claim
from sharedcache.cli.demo.evidence import (
    list_base,
    list_quarantine,
    quarantined_by,
    read_chain,
    sealed_epochs,
)
from sharedcache.cli.demo.fleet import nodes_of
from sharedcache.cli.demo.rollout import REFUSED_CODE
from sharedcache.cli.demo.screen import Waiting
from sharedcache.cli.demo.stage import NotSeenError, Stage, Start, reasons_of, spelled
from sharedcache.cli.demo.world import (
    AWAY,
    CLEANERS,
    FILES,
    LEFT_NODES,
    LOST_NODE,
)

MISSING = ("node-missing", LOST_NODE)


def show_loss(stage: Stage) -> None:
    """Step 5: a host and the leader are lost, with a file in quarantine."""
    screen, fleet, world = stage.screen, stage.fleet, stage.world
    screen.step(5, f"{LOST_NODE} and the leader are lost: nothing is purged any more")
    before = stage.status()
    leader, epoch = fleet.named(before["leader"]), before["epoch"]
    if leader is None:
        raise NotSeenError("nobody leads")
    world.put_away(AWAY)
    screen.say(
        f"{AWAY.name}'s directory was moved off {AWAY.node}: nobody uses ubuntu, "
        f"{AWAY.base_name}."
    )
    stage.wait_for("the leader quarantines it", lambda _: _is_away(stage))
    # At once, before its agent has looked again: without it nothing is confirmed.
    for name in (LOST_NODE, leader):
        code = fleet.kill(name)
        screen.say(f"{name} was killed with SIGKILL (exit code {code}).")
    stage.wait_for("their sessions end", lambda w: _missing(stage, w))
    status = stage.status()
    stage.show_gate(status)
    gate = status["gate"]
    stage.claims.check(
        Claim.LOST,
        gate["open"] and not gate["purge_open"] and reasons_of(status) == {MISSING},
        f"{spelled(reasons_of(status))}; quarantine open, purging closed",
    )
    _check_takeover(stage, leader, epoch)


def _is_away(stage: Stage) -> bool:
    base, name = stage.world.base, AWAY.base_name
    return name in list_quarantine(base) and name not in list_base(base)


def _missing(stage: Stage, waiting: Waiting) -> bool:
    nodes = stage.status()["nodes"]
    waiting.tell(f"{nodes['live']} live, {nodes['missing']} missing")
    return bool(nodes["missing"])


def _check_takeover(stage: Stage, leader: str, epoch: int) -> None:
    """Wait for the other cleaner to take over, and look at what it sealed."""
    screen, fleet, base = stage.screen, stage.fleet, stage.world.base
    stage.wait_for("the other cleaner leads", lambda w: _taken_over(stage, epoch, w))
    after = stage.status()
    successor = fleet.named(after["leader"])
    stage.claims.check(
        Claim.TAKEN_OVER,
        successor in CLEANERS and successor != leader and after["epoch"] > epoch,
        f"{leader}, epoch {epoch}; then {successor}, epoch {after['epoch']}",
    )
    holders = quarantined_by(base, AWAY.base_name)
    stage.claims.check(
        Claim.SEALED,
        epoch in sealed_epochs(base) and holders == {after["epoch"]},
        f"epochs/{epoch} is a regular file now, the quarantined file lies in epochs/"
        f"{', '.join(map(str, sorted(holders)))}",
    )
    screen.say(
        f"{successor} leads, epoch {after['epoch']}; epoch {epoch} is sealed on the "
        "storage."
    )


def _taken_over(stage: Stage, epoch: int, waiting: Waiting) -> bool:
    status = stage.status()
    leader = stage.fleet.named(status["leader"])
    waiting.tell(f"leader: {leader or 'none'}, epoch {status['epoch']}")
    # The successor acts once it has moved what lay in quarantine to its own epoch.
    moved = status["epoch"] in quarantined_by(stage.world.base, AWAY.base_name)
    return leader is not None and status["epoch"] > epoch and moved


def show_restore(stage: Stage, start: Start) -> None:
    """Step 6: the guest is back; its node's agent gives the file its name again."""
    world, name = stage.world, AWAY.base_name
    stage.screen.step(6, "The quarantined file is wanted again")
    world.bring_back(AWAY)
    stage.screen.say(f"{AWAY.name}'s directory is back on {AWAY.node}.")
    stage.wait_for(
        f"{AWAY.node}'s agent restores the file",
        lambda _: name in list_base(world.base),
    )
    found = list_base(world.base).get(name)
    with (world.base / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    chain = read_chain(world, AWAY, start.digests)
    restored = f" restored name={name} " in stage.fleet.log_of(AWAY.node)
    stage.claims.check(
        Claim.RESTORED,
        found == start.files[name]
        and digest == start.digests[name]
        and restored
        and not chain.trouble,
        chain.trouble
        or f"by {AWAY.node}'s agent, size, time and content as before; {AWAY.name}'s "
        f"disk opens, {chain.layers} layers",
    )
    stage.screen.say(f"ubuntu is in _base again, as it was; {AWAY.name}'s disk opens.")


def show_expunge(stage: Stage) -> None:
    """Step 7: an operator says that the lost host is gone for good."""
    screen = stage.screen
    screen.step(7, f"An operator gives {LOST_NODE} up")
    _check_protected(stage)
    live = LEFT_NODES[0]
    answer = stage.command("node", "expunge", live, "--yes")
    stage.claims.check(
        Claim.LIVE_STAYS,
        answer.code == REFUSED_CODE and live in answer.complaint,
        f"exit code {answer.code}; {answer.complaint}",
    )
    answer = stage.command("node", "expunge", LOST_NODE, "--yes")
    alone = {file.name for file in FILES if file.users == (LOST_NODE,)}
    also = {f.name for f in FILES if LOST_NODE in f.users and f.name not in alone}
    stage.wait_for(
        "what that host alone used is quarantined",
        lambda _: alone <= list_quarantine(stage.world.base).keys(),
    )
    status = stage.status()
    nodes = nodes_of(stage.fleet.ask("node", "list"))
    stage.show_gate(status)
    left = list_base(stage.world.base).keys()
    stage.claims.check(
        Claim.EXPUNGED,
        answer.code == 0
        and tuple(nodes) == LEFT_NODES
        and bool(status["gate"]["purge_open"])
        and bool(alone)
        and not alone & left
        and also <= left,
        f"nodes: {', '.join(nodes)}; purging open; {len(alone)} file quarantined, "
        f"{len(also)} that others use kept",
    )


def _check_protected(stage: Stage) -> None:
    """Look whether all that the lost host used is there until the last."""
    names = {file.name for file in FILES if LOST_NODE in file.users}
    kept = names & list_base(stage.world.base).keys()
    stage.claims.check(
        Claim.PROTECTED,
        bool(names) and kept == names,
        f"{len(kept)} of its {len(names)} files in _base until it was expunged",
    )
