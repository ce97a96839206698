"""``sharedcache recover``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from rich.console import Console

from sharedcache.adapters.clock import RandomTokens
from sharedcache.cleaner.recover import Recoverer, Survey, survey
from sharedcache.cli import output
from sharedcache.cli.base import Given, Needs, common_options, connected, pass_given
from sharedcache.cli.failure import RefusedFailure
from sharedcache.cli.signing import signature
from sharedcache.core.model import Cluster, Unreadable
from sharedcache.core.recovery import Recovery, judge

if TYPE_CHECKING:
    from sharedcache.cli.base import Connection
    from sharedcache.cli.data import Data

_NAMED = 20
_QUESTION = (
    "Is this the right directory and the right ZooKeeper, and does no other "
    "ZooKeeper act on this directory? Recover?"
)
_PAUSED = "recovered: look at the holds and at the nodes first"
_LOST = (
    "Orders given since the copy was made are lost: look at `sharedcache hold list`, "
    "and at `sharedcache node list` for hosts that were expected or expunged."
)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would change, change nothing.")
@click.option(
    "--anyway",
    is_flag=True,
    help="Recover although nothing shows that ZooKeeper went back: you know it.",
)
@click.option(
    "--pause", is_flag=True, help="Leave the gate closed, until `sharedcache resume`."
)
@common_options
@pass_given
def recover(
    given: Given, *, yes: bool, dry_run: bool, anyway: bool, pause: bool
) -> None:
    """Bring the cluster back after ZooKeeper lost its data or went back.

    The directory is the second witness: it knows the cluster's identity, the
    epochs, the nodes and the finalized schema. This shows what it and ZooKeeper
    say and what would change, and asks. No file is touched. Everything in
    quarantine starts its wait from the beginning, and no last report counts as
    complete until its node has spoken again.

    \b
      sharedcache recover --dry-run
      sharedcache recover
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.NOTHING) as to:
        seen, judged = _look(to, anyway=anyway)
        data = _data(to.settings.cluster, seen, judged)
        if judged.problems and not dry_run:
            if not yes:
                _show(output.stderr(), data)
                _ask()
            _act(to, seen, judged, pause=pause)
            data["recovered"] = True
    given.emit(data, lambda console: _show(console, data))


def _look(to: Connection, *, anyway: bool) -> tuple[Survey, Recovery]:
    with output.progress("Looking at the storage and at ZooKeeper"):
        seen = survey(to.session, to.storage)
    stamp_ms = int(time.time() * 1000)
    touches = [w.mtime_ns // 1_000_000 for w in seen.standing.witnesses.values()]
    stamp_ms = max([stamp_ms, *touches])
    return seen, judge(seen.standing, to.settings.cluster, stamp_ms, anyway=anyway)


def _ask() -> None:
    try:
        sure = click.confirm(_QUESTION, err=True)
    except click.Abort as error:
        raise RefusedFailure("nobody answered: give --yes") from error
    if not sure:
        raise RefusedFailure("not recovered, as you say")


def _act(to: Connection, seen: Survey, judged: Recovery, *, pause: bool) -> None:
    by = signature()
    recoverer = Recoverer(
        to.session,
        to.storage,
        RandomTokens(),
        by.who,
        by.when,
        _PAUSED if pause else "",
    )
    steps = len(judged.expect) + len(judged.doubt) + len(seen.members)
    with output.counted("Nodes", steps) as count:
        recoverer.run(seen, judged, count)


def _said(found: Cluster | Unreadable | int | None) -> object:
    if isinstance(found, Unreadable):
        return f"unreadable ({found.why})"
    if isinstance(found, Cluster):
        return f"{found.name} ({found.identity})"
    return found


def _data(cluster: str, seen: Survey, judged: Recovery) -> Data:
    standing = seen.standing
    changes: Data = {}
    if judged.problems:
        changes = {
            "epoch": judged.epoch,
            "round": judged.round,
            "finalized_schema": judged.schema,
            "expect": list(judged.expect),
            "doubt": list(judged.doubt),
            "entries_that_start_again": judged.entries,
        }
    return {
        "cluster": cluster,
        "problems": list(judged.problems),
        "storage": {
            "identity": _said(standing.on_storage),
            "epoch": standing.storage_epoch,
            "finalized_schema": _said(standing.storage_schema),
            "nodes": len(standing.witnesses),
        },
        "zookeeper": {
            "identity": _said(standing.in_zookeeper),
            "epoch": _said(standing.zookeeper_epoch),
            "round": _said(standing.round),
            "finalized_schema": _said(standing.zookeeper_schema),
            "nodes": len(standing.reports),
            "registered": len(seen.members),
        },
        "unrostered": list(judged.expect),
        "changes": changes,
        "recovered": False,
    }


def _show(console: Console, data: Data) -> None:
    storage, tree, changes = data["storage"], data["zookeeper"], data["changes"]
    labels = {
        "identity": "cluster",
        "epoch": "epoch",
        "round": "round",
        "finalized_schema": "finalized schema",
        "nodes": "nodes (witnesses, rostered)",
    }
    made = [
        [label, storage.get(key), tree.get(key), changes.get(key)]
        for key, label in labels.items()
    ]
    output.rows(console, ("", "the storage says", "ZooKeeper says", "becomes"), made)
    if not data["problems"]:
        console.print("Nothing shows that ZooKeeper went back.")
        if data["unrostered"]:
            console.print(
                f"Off the roster, with a witness: {_some(data['unrostered'])}. Start "
                "its agent, or `sharedcache node expect` or `node expunge` it; if "
                "ZooKeeper was restored from a copy, `sharedcache recover --anyway`."
            )
        return
    for problem in data["problems"]:
        console.print(f"- {problem}")
    done = data["recovered"]
    for key, text in (
        ("expect", "expected again, since they left a witness"),
        ("doubt", "whose last report no longer counts as complete"),
    ):
        if changes[key]:
            console.print(f"Nodes {text}: {_some(changes[key])}")
    console.print(
        f"Every quarantined file {'starts' if done else 'would start'} its wait from "
        "the beginning."
    )
    console.print(_LOST)
    if done:
        console.print(
            "Recovered. The gate opens once every node has reported: see "
            "`sharedcache status`."
        )


def _some(nodes: list[str]) -> str:
    more = len(nodes) - _NAMED
    return ", ".join(nodes[:_NAMED]) + (f" and {more} more" if more > 0 else "")
