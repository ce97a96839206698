"""``sharedcache rollout``."""

from __future__ import annotations

import click
from rich.console import Console

from sharedcache.cleaner.finalize import finalize
from sharedcache.cleaner.observe import Observed
from sharedcache.cli import data, output, views
from sharedcache.cli.base import Given, common_options, connected, pass_given
from sharedcache.cli.failure import RefusedFailure
from sharedcache.cli.signing import refusals_on_record, signature
from sharedcache.core.rollout import Stage


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
    """Show how far the upgrade has come, and who is not ready.

    \b
      sharedcache rollout status
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, _ = to.look(scan=False)
    said = data.rollout_state(observed)
    given.emit(said, lambda console: views.rollout(console, said))


@rollout.command("finalize")
@click.option("--yes", is_flag=True, help="Do not ask whether the roster is complete.")
@common_options
@pass_given
def commit(given: Given, *, yes: bool) -> None:
    """Commit the cluster to the newest schema. There is no way back.

    Refused while any node that is expected to report does not support it. A host
    that mounts the directory and has no agent cannot be seen: look at the roster.

    \b
      sharedcache rollout finalize
      sharedcache rollout finalize --yes
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, _ = to.look(scan=False)
        state = data.rollout_state(observed)
        if state["state"] == Stage.MIXED.value:
            with refusals_on_record(to.session, "finalize"):
                _refuse(given, state)
        if state["state"] == Stage.READY.value and not yes:
            _ask(observed)
        by = signature()
        with refusals_on_record(to.session, "finalize"):
            done = finalize(to.session, to.storage, observed, by.who, by.when)
    said = {
        "state": Stage.FINALIZED.value,
        "finalized_schema": done.finalized_schema,
        "changed": state["state"] != Stage.FINALIZED.value,
    }

    def view(console: Console) -> None:
        word = "is now" if said["changed"] else "was already"
        console.print(f"Schema {done.finalized_schema} {word} finalized.")

    given.emit(said, view)


def _refuse(given: Given, state: data.Data) -> None:
    """Print who is not ready, and refuse."""
    given.emit(state, lambda console: views.rollout(console, state))
    waiting = state["waiting_for"]
    who = "; ".join(f"{one['node']} {one['why']}" for one in waiting)
    raise RefusedFailure(f"not finalized: {who or state['advice']}")


def _ask(observed: Observed) -> None:
    """Show the roster, and ask whether it is complete."""
    nodes = ", ".join(view.node for view in observed.seen.facts.nodes)
    output.note(f"The roster: {nodes}")
    try:
        sure = click.confirm(
            "Is every host that mounts the directory on it, and every other cleaner "
            "switched off? Finalize for good?",
            err=True,
        )
    except click.Abort as error:
        raise RefusedFailure("nobody answered: give --yes") from error
    if not sure:
        raise RefusedFailure("not finalized, as you say")
