"""``sharedcache node``."""

from __future__ import annotations

import click
from rich.text import Text

from sharedcache.cleaner import operator
from sharedcache.cli import data, output, views
from sharedcache.cli.base import Given, Needs, common_options, connected, pass_given
from sharedcache.cli.failure import Failure, RefusedFailure
from sharedcache.cli.signing import refusals_on_record, signature
from sharedcache.core.gate import NodeView
from sharedcache.core.model import NodeState, Report
from sharedcache.core.names import is_node_name
from sharedcache.core.planner import node_of

LISTED = (NodeState.LIVE, NodeState.SEALED, NodeState.MISSING, NodeState.DEGRADED)
"""The states that a rostered node can be in."""


@click.group()
def node() -> None:
    """Look at the nodes that are expected to report, and say which are.

    \b
      sharedcache node list
      sharedcache node expect compute-1 compute-2
    """  # noqa: D301 - \b is click's mark for text that is not wrapped


@node.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in LISTED]),
    help="Only nodes in this state, repeatable.",
)
@common_options
@pass_given
def list_nodes(given: Given, states: tuple[str, ...]) -> None:
    """List the roster, a node a line.

    \b
      sharedcache node list
      sharedcache node list --state missing --state degraded
      sharedcache node list -f value -c node --state missing
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, _ = to.look(scan=False)
    rows = [
        data.node_row(view)
        for view in observed.seen.facts.nodes
        if not states or view.state.value in states
    ]
    given.emit(rows, lambda console: views.nodes(console, rows))


@node.command("show")
@click.argument("name")
@common_options
@pass_given
def show_node(given: Given, name: str) -> None:
    """Show all that one node's last report says.

    \b
      sharedcache node show compute-1
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, _ = to.look(scan=False)
    view = node_of(observed.seen, name)
    if view is None:
        raise Failure(
            f"{name} is not on the roster; `sharedcache node list` names the nodes "
            "that are"
        )
    said = data.node(view)
    given.emit(said, lambda console: views.pairs(console, said))


@node.command("expect")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@common_options
@pass_given
def expect_nodes(given: Given, names: tuple[str, ...]) -> None:
    """Put hosts on the roster before their agents have spoken.

    List every host that mounts the directory: one without an agent is seen by
    nobody. The gate stays closed until each has reported.

    \b
      sharedcache node expect compute-1 compute-2 compute-3
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    for name in names:
        if not is_node_name(name):
            raise click.BadParameter(
                f"{name!r} cannot name a node: letters, digits, dot, dash, underscore"
            )
    by = signature()
    with connected(given, Needs.ORDER) as to:
        new = [name for name in names if operator.expect(to.session, name, by)]
    given.emit(
        {"expected": list(names), "new": new},
        lambda console: console.print(f"Expected; new on the roster: {len(new)}."),
    )


@node.command("expunge")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask: the host is off for good.")
@common_options
@pass_given
def expunge_node(given: Given, name: str, *, yes: bool) -> None:
    """Take a host that is gone for good off the roster.

    What its last report says is in use counts no longer. A host that is only
    cut off, and runs on, may lose the files under its guests: be sure it is off.
    Refused for a live node; for one that is expunged already it only says so.

    \b
      sharedcache node expunge compute-7
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    # A witness may have a name that no agent could bear, but not one of these.
    if name in {"", ".", ".."} or "/" in name or not name.isprintable():
        raise click.BadParameter(f"{name!r} cannot name a node")
    with connected(given, Needs.ORDER) as to:
        done = operator.expunged(to.session, to.storage, name)
        if done is None:
            if not yes:
                observed, _ = to.look(scan=False)
                _ask(name, node_of(observed.seen, name))
            with refusals_on_record(to.session, "expunge", name):
                done = operator.expunge(to.session, to.storage, name, signature())
    said = {
        "expunged": name,
        "changed": done.changed,
        "since": done.since,
        "by": done.who,
    }
    given.emit(said, lambda console: console.print(_told(name, done)))


def _told(name: str, done: operator.Expunged) -> Text:
    if done.changed:
        return Text(f"{name} is expunged.")
    who = "" if done.who is None else f", by {output.printable(done.who)}"
    since = views.moment(done.since)
    return Text(f"{name} is expunged already, since {since} UTC{who}.")


def _ask(name: str, view: NodeView | None) -> None:
    """Say what is known of a node, and ask; raises if the answer is no, or none.

    One that cannot be expunged is not asked about: the order itself says why.
    """
    if view is not None and view.member:
        return
    if view is not None and isinstance(view.report, Report):
        output.note(
            f"{name} is {view.state.value}. Its last report names "
            f"{len(view.report.now)} files in use; they will not count any more."
        )
    question = f"Is {name} switched off, and will its guests never run again?"
    try:
        sure = click.confirm(question, err=True)
    except click.Abort as error:
        raise RefusedFailure("nobody answered: give --yes") from error
    if not sure:
        raise RefusedFailure("not expunged, as you say")
