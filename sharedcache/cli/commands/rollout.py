"""``sharedcache rollout``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console

from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.cleaner.inventory import acknowledge
from sharedcache.cli import data, output, views
from sharedcache.cli.base import (
    Connection,
    Given,
    Needs,
    common_options,
    connected,
    pass_given,
    why_option,
)
from sharedcache.cli.failure import Failure, RefusedFailure
from sharedcache.cli.signing import refusals_on_record, signature
from sharedcache.core.ports import (
    CoordinationError,
    OutcomeUnknownError,
    StorageError,
)
from sharedcache.core.rollout import Stage

if TYPE_CHECKING:
    from sharedcache.cleaner.observe import Observed
    from sharedcache.core.model import Rollout

LOOK_S = 2.0
"""How long ``--when-ready`` waits between two looks, in seconds."""


@click.group()
def rollout() -> None:
    """Follow the upgrade to the newest schema, and commit to it.

    \b
      sharedcache rollout status
    """  # noqa: D301 - \b is click's mark for text that is not wrapped


@rollout.command("status")
@common_options
@pass_given
def show(given: Given) -> None:
    """Show how far the upgrade has come, who is not ready, and what to do next.

    Nodes with the same reason share a row; -f json names each.

    \b
      sharedcache rollout status
      sharedcache rollout status -f json | jq -r '.waiting_for[].node'
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, _ = to.look()
    said = data.rollout_state(observed)
    given.emit(said, lambda console: views.rollout(console, said))


@rollout.command("finalize")
@click.option("--yes", is_flag=True, help="Do not ask whether the roster is complete.")
@click.option("--when-ready", is_flag=True, help="Wait until every node is ready.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.0),
    metavar="SECONDS",
    help="With --when-ready: give up after this long (default: never).",
)
@common_options
@pass_given
def commit(
    given: Given, *, yes: bool, when_ready: bool, timeout_s: float | None
) -> None:
    """Commit the cluster to the newest schema. There is no way back.

    Refused while any node that is expected to report does not support it, and
    while `rollout hold` stands. A host that mounts the directory and has no agent
    cannot be seen: look at the roster. With --when-ready it asks first and then
    waits; Ctrl-C ends the waiting, and nothing has been changed then.

    \b
      sharedcache rollout finalize
      sharedcache rollout finalize --when-ready --yes
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    if timeout_s is not None and not when_ready:
        raise click.UsageError("--timeout goes with --when-ready")
    with connected(given, Needs.ORDER) as to:
        observed, _ = to.look(scan=False)
        state = data.rollout_state(observed)
        if state["state"] == Stage.MIXED.value and not when_ready:
            with refusals_on_record(to.session, "finalize"):
                _refuse(given, state)
        if state["state"] != Stage.FINALIZED.value and not yes:
            _ask(observed)
        with refusals_on_record(to.session, "finalize"):
            if when_ready:
                done = _finalize_when_ready(to, observed, timeout_s)
            else:
                done = _finalize(to, observed)
    said = {
        "state": Stage.FINALIZED.value,
        "finalized_schema": done.finalized_schema,
        "changed": state["state"] != Stage.FINALIZED.value,
    }

    def view(console: Console) -> None:
        word = "is now" if said["changed"] else "was already"
        console.print(f"Schema {done.finalized_schema} {word} finalized.")

    given.emit(said, view)


def _finalize(to: Connection, observed: Observed) -> Rollout:
    by = signature()
    return finalize(to.session, to.storage, observed, by.who, by.when)


def _refuse(given: Given, state: data.Data) -> None:
    """Print who is not ready, and refuse."""
    given.emit(state, lambda console: views.rollout(console, state))
    waiting = [f"{one['node']} {one['why']}" for one in state["waiting_for"]]
    raise RefusedFailure(f"not finalized: {views.some(waiting) or state['advice']}")


def _ask(observed: Observed) -> None:
    """Show the roster, and ask whether it is complete."""
    nodes = ", ".join(view.node for view in observed.seen.facts.nodes)
    output.note(f"The roster: {nodes}")
    _confirm(
        "Is every host that mounts the directory on it, and every other cleaner "
        "switched off? Finalize for good?",
        "not finalized, as you say",
    )


def _confirm(question: str, refusal: str) -> None:
    try:
        sure = click.confirm(question, err=True)
    except click.Abort as error:
        raise RefusedFailure("nobody answered: give --yes") from error
    if not sure:
        raise RefusedFailure(refusal)


def _finalize_when_ready(
    to: Connection, observed: Observed, timeout_s: float | None
) -> Rollout:
    """Wait until nothing stands in the way, then finalize."""
    until = None if timeout_s is None else time.monotonic() + timeout_s
    with _Waiting() as waiting:
        while True:
            what = _in_the_way(observed)
            if not what:
                try:
                    return _finalize(to, observed)
                except (RefusedError, CoordinationError, OutcomeUnknownError) as error:
                    what = str(error)
            waiting.tell(what)
            if until is not None and time.monotonic() >= until:
                raise RefusedFailure(f"not finalized in {timeout_s:g} s: {what}")
            observed = waiting.look(to, observed)


def _in_the_way(observed: Observed) -> str:
    """Say what finalizing waits for, in one line; empty if it waits for nothing."""
    state = data.rollout_state(observed)
    if state["state"] == Stage.FINALIZED.value:
        return ""
    said = [
        f"{views.some(group['nodes'])}, which {group['why']}"
        if group["count"] == 1
        else f"{group['count']} nodes ({views.some(group['nodes'])}): {group['why']}"
        for group in _not_ready(state)
    ]
    if state["state"] == Stage.MIXED.value and not said:
        said.append("no node is rostered")
    if state["unrostered"]:
        said.append(f"{views.some(state['unrostered'])} not on the roster")
    if state["held"] is not None:
        said.append(f"held: {state['held']}")
    return "; ".join(said)


def _not_ready(state: data.Data) -> list[data.Data]:
    """Return the groups of nodes that finalizing waits for."""
    waiting = {one["node"] for one in state["waiting_for"]}
    return [group for group in state["groups"] if waiting.issuperset(group["nodes"])]


class _Waiting:
    """Tells what is waited for: in place on a terminal, else a line at a change."""

    def __init__(self) -> None:
        self._said = ""
        self._shown = output.progress("Waiting until every node is ready")

    def __enter__(self) -> Self:
        self._show = self._shown.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._shown.__exit__(None, None, None)
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            raise Failure(
                "interrupted while waiting; `sharedcache rollout status` says whether "
                "anything was finalized"
            ) from None

    def tell(self, what: str) -> None:
        """Say what is waited for now."""
        if what == self._said:
            return
        self._said = what
        self._show(f"Waiting for {what}")
        if not output.on_terminal():
            output.note(f"Waiting for {what}")

    def look(self, to: Connection, before: Observed) -> Observed:
        """Look again after a while; trouble is told and waited out."""
        time.sleep(LOOK_S)
        try:
            return to.look(scan=False, quietly=True)[0]
        except (CoordinationError, StorageError, OutcomeUnknownError) as error:
            self.tell(f"an answer: {error}")
            return before


@rollout.command("acknowledge")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every name that appeared.")
@click.option("--yes", is_flag=True, help="Do not ask: who wrote them is known.")
@common_options
@pass_given
def acknowledge_names(
    given: Given, names: tuple[str, ...], *, everything: bool, yes: bool
) -> None:
    """Open the gate again after files appeared under raw image ids.

    After finalization nobody who is known here writes such a name, so a host
    without an agent did, whose guests nobody reports. Find it first: from here on
    these files are ordinary ones, and are removed when no known node uses them.

    \b
      sharedcache rollout status
      sharedcache rollout acknowledge 0b5cbd6e-6f3a-4d3c-9a51-0123456789ab
      sharedcache rollout acknowledge --all
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    if everything == bool(names):
        raise click.UsageError("give the names, or --all")
    with connected(given, Needs.ORDER) as to:
        if not yes:
            observed, _ = to.look()
            state = data.rollout_state(observed)
            shown = names or state["appeared"]
            output.note(f"Under raw image ids: {', '.join(shown) or 'nothing'}")
            _confirm(
                "Is every host that may have written them on the roster now?",
                "not acknowledged, as you say",
            )
        with refusals_on_record(to.session, "acknowledge", *names[:1]):
            done = acknowledge(to.observer(), names or None, signature())
    given.emit(
        {"acknowledged": done},
        lambda console: console.print(f"Acknowledged: {len(done)}."),
    )


@rollout.command("hold")
@why_option("Shown to whoever wants to finalize.")
@common_options
@pass_given
def hold(given: Given, why: str) -> None:
    """Keep anybody from finalizing, `auto_finalize` included, until `release`.

    \b
      sharedcache rollout hold --why "rack 7 is off until Monday"
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.ORDER) as to:
        operator.hold_rollout(to.session, why, signature())
    given.emit({"held": why}, lambda console: console.print("The rollout is held."))


@rollout.command("release")
@common_options
@pass_given
def release(given: Given) -> None:
    """Take `rollout hold` back.

    \b
      sharedcache rollout release
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.ORDER) as to:
        operator.release_rollout(to.session, signature())
    given.emit(
        {"held": None}, lambda console: console.print("The rollout is no longer held.")
    )
