"""``sharedcache doctor``: the command."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.text import Text

from sharedcache.adapters.host import SystemdHost
from sharedcache.adapters.settings import Settings, SettingsError
from sharedcache.cli import output
from sharedcache.cli.base import Given, common_options, pass_given
from sharedcache.cli.doctor import helper, judge, servers
from sharedcache.cli.doctor.findings import Finding, Level, fail, ok, warn
from sharedcache.core.policy import PolicyError

PATIENCE_S = 10.0
"""How long any check may take, in seconds."""

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=0.5, max=600),
    default=PATIENCE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long any single check may take.",
)
@common_options
@pass_given
def doctor(given: Given, patience_s: float) -> None:
    """Check this host's set-up, and say what to do about it.

    Looks at the settings, the cache directory and its mount, rights, locks,
    clock and free space, at each server of ZooKeeper, the cluster's identity,
    this host's agent and its sources, and the systemd units. Run it as the user
    of the daemons. A small file is made in the directory and removed again.
    A check that hangs is given up. The exit code is 1 if any check fails.

    \b
      sharedcache doctor
      sharedcache doctor -f json | jq '.[] | select(.result != "ok")'
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    findings = list(_findings(given, patience_s))
    said = [finding.row() for finding in findings]
    given.emit(said, lambda console: _show(console, said))
    if any(finding.level is Level.FAIL for finding in findings):
        raise click.exceptions.Exit(1)


def _findings(given: Given, patience_s: float) -> Iterator[Finding]:
    try:
        settings = given.settings()
    except SettingsError as error:
        yield fail("settings", str(error), "correct that; nothing else was checked")
        return
    yield from _settings(settings)
    facts: dict[str, object] = {}
    if settings.base:
        with output.progress("Checking the directory"):
            found = helper.run(_command(given), patience_s)
        yield from found.findings
        facts = found.facts
    else:
        yield fail(
            "base",
            "no cache directory is set",
            "give --base, [sharedcache] base, or a nova.conf with instances_path",
        )
    with output.progress("Asking ZooKeeper"):
        yield from servers.check(settings, facts, patience_s)
    yield from _units(SystemdHost(), settings.agent.compute_service)


def _command(given: Given) -> list[str]:
    """Start the helper with the same settings, and without this directory's code."""
    module = "sharedcache.cli.doctor.files"
    return [sys.executable, "-P", "-m", module, *given.arguments()]


def _settings(settings: Settings) -> Iterator[Finding]:
    if settings.files:
        yield ok("settings", ", ".join(settings.files))
    else:
        yield warn(
            "settings",
            "no file was read: options and the environment only",
            "put them into /etc/sharedcache/sharedcache.conf for the daemons",
        )
    for section in (settings.agent, settings.cleaner):
        try:
            section.policy()
        except PolicyError as error:
            yield fail("settings", str(error), "correct that setting")


def _units(host: SystemdHost, compute_service: str) -> Iterator[Finding]:
    agent, cleaner = "sharedcache-agent.service", "sharedcache-cleaner.service"
    agent_states = host.unit(agent)
    if not agent_states:
        yield warn(
            "systemd",
            "it does not answer, so this node never seals its report at a stop",
            "run the agent on a host, or in a container that sees systemd",
        )
        return
    install = "copy it from agents/systemd to /etc/systemd/system"
    units = (
        judge.Unit(
            agent,
            agent_states,
            warn(f"unit {agent}", "not installed", f"if this host mounts: {install}"),
        ),
        judge.Unit(
            cleaner,
            host.unit(cleaner),
            ok(f"unit {cleaner}", "not installed; two or three hosts need it"),
        ),
        judge.Unit(
            compute_service,
            host.unit(compute_service),
            warn(
                f"unit {compute_service}",
                "not known to systemd, so this node never seals its report",
                "set [agent] compute_service if it has another name",
            ),
        ),
    )
    for one in units:
        yield judge.unit(one)


def _show(console: Console, said: list[dict[str, str]]) -> None:
    columns = ("result", "check", "message", "what to do")
    made = [
        [
            Text(one["result"], style=_STYLES[one["result"]]),
            one["check"],
            one["message"],
            one["what_to_do"] or None,
        ]
        for one in said
    ]
    output.rows(console, columns, made)
    counts = {word: sum(one["result"] == word for one in said) for word in _STYLES}
    console.print(", ".join(f"{count} {word}" for word, count in counts.items()))
