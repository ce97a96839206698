"""``sharedcache pause``, ``resume``, ``approve`` and ``hold``: an operator's words."""

from __future__ import annotations

import click

from sharedcache.cleaner import operator
from sharedcache.cli import output
from sharedcache.cli.base import (
    Connection,
    Given,
    Needs,
    common_options,
    connected,
    own_name,
    pass_given,
    why_option,
)
from sharedcache.cli.failure import RefusedFailure
from sharedcache.cli.signing import refusals_on_record, signature
from sharedcache.core.gate import Code
from sharedcache.core.plan import Plan
from sharedcache.core.ports import CoordinationError, OutcomeUnknownError, StorageError

LEAST_DIGEST = 8


@click.command()
@why_option("Shown with the closed gate.")
@common_options
@pass_given
def pause(given: Given, why: str) -> None:
    """Close the gate until `sharedcache resume`. Restoring goes on.

    \b
      sharedcache pause --why "storage maintenance"
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.ORDER) as to:
        operator.pause(to.session, why, signature())
    given.emit(
        {"paused": why}, lambda console: console.print("The gate is closed: paused.")
    )


@click.command()
@common_options
@pass_given
def resume(given: Given) -> None:
    """Take `sharedcache pause` back.

    \b
      sharedcache resume
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.ORDER) as to:
        operator.resume(to.session, signature())
    given.emit({"paused": None}, lambda console: console.print("No longer paused."))


@click.command()
@click.argument("digest")
@common_options
@pass_given
def approve(given: Given, digest: str) -> None:
    """Approve the plan that the brake holds back, named by its DIGEST.

    The approval is for that plan alone, to the file, and stands for an hour. The
    gate's reason `brake` names the digest; its first 8 characters are enough.
    Refused while no brake holds anything back.

    \b
      sharedcache plan --all
      sharedcache approve 3f2a9c04e1b7
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given, Needs.ORDER) as to:
        # What the leader told of its own plan, if it is under a brake.  An approval
        # that stands took the brake off; another one lets it stand for longer.
        observed, plan = to.look()
        waits = _braked(plan) or observed.seen.approved == plan.digest
        named = len(digest) >= LEAST_DIGEST and plan.digest.startswith(digest)
        if not (waits and named):
            with refusals_on_record(to.session, "approve"):
                raise RefusedFailure(_not_that_plan(digest, plan))
        now_ns = observed.seen.storage_now_ns
        operator.approve(to.session, plan.digest, now_ns, signature())
    said = {"approved": plan.digest, "for_s": operator.APPROVAL_S}
    given.emit(
        said, lambda console: console.print(f"Approved: plan {plan.digest[:12]}.")
    )


def _braked(plan: Plan) -> bool:
    return any(reason.code is Code.BRAKE for reason in plan.gate.reasons)


def _not_that_plan(digest: str, plan: Plan) -> str:
    """Say why an approval of this digest is none, and what to do."""
    if not _braked(plan):
        return (
            f"there is nothing to approve, no brake is on: the plan now is "
            f"{plan.digest[:12]}, `sharedcache status` shows the gate"
        )
    if len(digest) < LEAST_DIGEST:
        return f"{digest} is too short: give {LEAST_DIGEST} characters at least"
    return (
        f"the plan now is {plan.digest[:12]}, not {digest}: look at it again with "
        "`sharedcache plan --all`"
    )


@click.group()
def hold() -> None:
    """Order that files are kept, whatever their age and use.

    \b
      sharedcache hold list
    """  # noqa: D301 - \b is click's mark for text that is not wrapped


@hold.command("add")
@click.argument("name")
@why_option("Shown in the list of holds.")
@common_options
@pass_given
def add_hold(given: Given, name: str, why: str) -> None:
    """Keep the cache file NAME; one in quarantine is not purged.

    \b
      sharedcache hold add da39a3ee5e6b4b0d3255bfef95601890afd80709 --why "golden"
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    name = own_name(given.settings(), name)
    with connected(given, Needs.ORDER) as to:
        operator.hold(to.session, name, why, signature())
        where = _where(to, name)
    if where == []:
        output.note(
            f"There is no {name} now, in the cache or in quarantine: is it spelt "
            "right? The hold counts for a file that gets this name."
        )
    given.emit(
        {"name": name, "why": why, "where": where},
        lambda console: console.print(f"{name} is held."),
    )


def _where(to: Connection, name: str) -> list[str] | None:
    """Tell where the file is; ``None`` if that cannot be found out now.

    The order stands already: whatever fails here is no failure of it.
    """
    try:
        seen = to.look()[0].seen
    except (CoordinationError, OutcomeUnknownError, StorageError):
        return None
    there = {
        "cache": name in seen.files.names,
        "quarantine": any(entry.name == name for entry in seen.entries),
    }
    return [place for place, found in there.items() if found]


@hold.command("list")
@common_options
@pass_given
def list_holds(given: Given) -> None:
    """List the files that are kept on an operator's order, and why.

    \b
      sharedcache hold list
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        found = operator.holds(to.session)
    given.emit(
        [{"name": one.name, "why": one.why} for one in found],
        lambda console: output.rows(
            console, ("name", "why"), [(one.name, one.why) for one in found]
        ),
    )


@hold.command("remove")
@click.argument("name")
@common_options
@pass_given
def remove_hold(given: Given, name: str) -> None:
    """Take the hold on NAME back: its age and use count again.

    \b
      sharedcache hold remove da39a3ee5e6b4b0d3255bfef95601890afd80709
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    name = own_name(given.settings(), name)
    with connected(given, Needs.ORDER) as to:
        operator.release(to.session, name, signature())
    given.emit(
        {"name": name}, lambda console: console.print(f"{name} is no longer held.")
    )
