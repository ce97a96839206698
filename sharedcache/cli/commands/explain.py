"""``sharedcache explain``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import click

from sharedcache.adapters.clock import RandomTokens
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.cleaner import operator
from sharedcache.cleaner.ask import Word, ask
from sharedcache.cleaner.observe import Observed
from sharedcache.cli import explained, output
from sharedcache.cli.base import (
    Connection,
    Given,
    Needs,
    common_options,
    connected,
    pass_given,
)
from sharedcache.cli.failure import Failure
from sharedcache.core.explain import Explanation
from sharedcache.core.explain import explain as explain_name
from sharedcache.core.model import NodeState
from sharedcache.core.names import Kind, digest_of, is_image_id, lock_name
from sharedcache.core.plan import Plan
from sharedcache.core.ports import OutcomeUnknownError, StorageError

WAIT_S = 3.0
"""How long agents may take to say which source names a file, in seconds."""


@click.command()
@click.argument("name")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0, max=600),
    default=WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the nodes that name it to say which domain, disk or"
    " process does. 0 asks nobody.",
)
@common_options
@pass_given
def explain(given: Given, name: str, wait_s: float) -> None:
    """Tell why the file NAME is kept, and what would have to change.

    NAME is a cache name, a path to it, an image id, or the id or the name of a
    quarantined file. Every rule that keeps it is shown, with who stands behind
    it: nodes with the source and the domain or file, since when; age, hold, locks,
    links, the gate. No file is changed. Ages are judged by the settings at hand:
    give the cleaner's own.

    \b
      sharedcache explain da39a3ee5e6b4b0d3255bfef95601890afd80709
      sharedcache explain /var/lib/nova/instances/_base/swap_512 -f json
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    asked = name.rstrip("/").rpartition("/")[2]
    if not asked:
        raise click.BadParameter(f"{name!r} names no file", param_hint="NAME")
    with connected(given, Needs.NOTHING) as to:
        observed, made = to.look()
        told = _explained(to, observed, made, asked)
        with output.progress("Asking for locks"):
            evidence = _evidence(to, observed, told)
        with output.progress("Asking the nodes that name it"):
            words = _ask(to, told, wait_s)
        evidence = replace(evidence, words=words)
    said = explained.explanation(told, evidence, made.gate, time.time())
    given.emit(said, lambda console: explained.show(console, said))
    if not told.known:
        raise Failure(_nowhere(told))


def _explained(
    to: Connection, observed: Observed, made: Plan, asked: str
) -> Explanation:
    """Explain the name, or the file that an image id stands for."""
    policy = to.settings.cleaner.policy()
    told = explain_name(policy, observed.seen, made, asked)
    if not is_image_id(asked):
        return told
    digest = digest_of(asked).hex()
    hashed = explain_name(policy, observed.seen, made, digest)
    if hashed.known and not told.known:
        output.note(f"{asked} is an image id; its file is {digest}:")
        return hashed
    if hashed.known:
        output.note(f"The same image is cached as {digest} too.")
    return told


def _evidence(
    to: Connection, observed: Observed, told: Explanation
) -> explained.Evidence:
    """Ask what a pass asks at the very step: Nova's lock, and qemu's."""
    holds = {one.name: one.why for one in operator.holds(to.session)}
    qemu = None
    if told.file is not None and told.file.regular:
        qemu = _locked(to, told.name)
    return explained.Evidence(
        hold=holds.get(told.name),
        nova_lock=_nova_lock(to, told),
        qemu_lock=qemu,
        entries_locked={
            story.entry.entry: _entry_locked(to, story.entry.epoch, story.entry.leaf)
            for story in told.entries
        },
        authorised=frozenset(observed.authorisation.leaves),
    )


def _ask(to: Connection, told: Explanation, wait_s: float) -> Mapping[str, Word]:
    """Ask the live nodes that name the file which of their sources does."""
    nodes = [
        word.view.node
        for word in told.words
        if (word.now or word.since)
        and word.view.state in {NodeState.LIVE, NodeState.DEGRADED}
    ]
    if not nodes or not wait_s:
        return {}
    until = time.monotonic() + wait_s
    return ask(
        to.session,
        nodes,
        told.name,
        RandomTokens().token(),
        left_s=lambda: until - time.monotonic(),
        pause=time.sleep,
    )


def _nova_lock(to: Connection, told: Explanation) -> bool | None:
    if not told.known or told.kind is Kind.UNRECOGNISED or not to.settings.lock_path:
        return None
    with NovaNameLocks(to.settings.lock_path) as locks:
        return locks.held(lock_name(told.name))


def _locked(to: Connection, name: str) -> bool | None:
    try:
        return to.storage.locked(name)
    except (StorageError, OutcomeUnknownError):
        return None


def _entry_locked(to: Connection, epoch: int, leaf: str) -> bool | None:
    try:
        return to.storage.quarantined_locked(epoch, leaf)
    except (StorageError, OutcomeUnknownError):
        return None


def _nowhere(told: Explanation) -> str:
    if told.kind is Kind.UNRECOGNISED:
        return (
            f"{told.name} is not in the cache directory, and is no cache name: "
            "`sharedcache plan --all` names what is there"
        )
    users = [word.view.node for word in told.words if word.now or word.since]
    if users:
        return (
            f"{told.name} is in use, as {', '.join(users[:5])} says, and lies neither "
            "in the cache nor in quarantine: fetch the image again under that name"
        )
    return (
        f"{told.name} is neither in the cache directory nor in quarantine, and no "
        "node says that it uses it: `sharedcache plan --all` names what is there, "
        f"`sharedcache history {told.name}` tells whether it was removed"
    )
