"""``sharedcache quarantine``."""

from __future__ import annotations

import click
from rich.console import Console

from sharedcache.adapters.clock import RandomTokens, SystemClock
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.cleaner.restore import OperatorRestore
from sharedcache.cli import data, output, views
from sharedcache.cli.base import (
    Given,
    Needs,
    common_options,
    connected,
    own_name,
    pass_given,
)
from sharedcache.cli.signing import refusals_on_record, signature
from sharedcache.core.model import NANOSECONDS
from sharedcache.core.names import classify
from sharedcache.core.obstacles import spell


@click.group()
def quarantine() -> None:
    """Look at files that are on their way to be purged, and bring them back.

    \b
      sharedcache quarantine list
      sharedcache quarantine restore da39a3ee5e6b4b0d3255bfef95601890afd80709
    """  # noqa: D301 - \b is click's mark for text that is not wrapped


@quarantine.command("list")
@common_options
@pass_given
def list_quarantine(given: Given) -> None:
    """List quarantined files, and what each waits for.

    \b
      sharedcache quarantine list
      sharedcache quarantine list -f value -c name -c bytes
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    with connected(given) as to:
        observed, made = to.look(scan=False)
    said = data.quarantine(observed, made)
    given.emit(said, lambda console: views.quarantine(console, said))


@quarantine.command("restore")
@click.argument("name")
@common_options
@pass_given
def restore_quarantined(given: Given, name: str) -> None:
    """Give the quarantined file NAME its cache name back.

    NAME is its cache name, a path to it in the cache, or the entry's id where
    several files had that name.
    Nothing is replaced, and the gate does not matter. The file counts as touched
    now, so it stays for its minimum age at least. A restore that was cut short
    is finished by running it again; until then the entry is not purged.

    \b
      sharedcache quarantine restore da39a3ee5e6b4b0d3255bfef95601890afd80709
      sharedcache hold add da39a3ee5e6b4b0d3255bfef95601890afd80709
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    asked = own_name(given.settings(), name)
    with (
        connected(given, Needs.ORDER) as to,
        NovaNameLocks(to.settings.lock_path) as locks,
        SystemClock() as clock,
        output.progress(f"Restoring {asked}"),
    ):
        ports = (to.session, to.storage, locks, clock, RandomTokens())
        with refusals_on_record(to.session, "restore", asked):
            done = OperatorRestore(*ports, signature().who).run(asked)
        min_age_s = to.settings.cleaner.policy().min_age_s[classify(done.name)]
    said = {
        "restored": done.name,
        "entry": done.entry,
        "bytes": done.size,
        "linked": done.linked,
        "min_age_s": min_age_s,
    }
    if done.untouched:
        output.note(
            f"Its time could not be set ({done.untouched}): the next pass may take "
            f"it again, so `sharedcache hold add {done.name}`"
        )

    def view(console: Console) -> None:
        word = (
            "is back in the cache" if done.linked else "was back in the cache already"
        )
        stays = spell(int(min_age_s * NANOSECONDS))
        console.print(f"{done.name} {word}.")
        console.print(
            f"No cleaner takes it for {stays}; `sharedcache hold add {done.name}` "
            "keeps it longer."
        )

    given.emit(said, view)
