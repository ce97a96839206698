"""The checks that touch files, in a process of their own that can be given up.

A call to a storage that hangs never returns, so whoever asks must be able to
leave. Each check announces itself before it begins; what it finds is a line of
JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from sharedcache import ledger
from sharedcache.adapters import settings as ini
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.adapters.settings import Settings, SettingsError
from sharedcache.adapters.settings.reading import host_name
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cli.doctor import judge
from sharedcache.cli.doctor.findings import Finding, fail, ok, warn
from sharedcache.cli.sources import build_sources
from sharedcache.core.model import Cluster, Unreadable
from sharedcache.core.ports import OutcomeUnknownError, SourceError, StorageError

_LOCK_S = 2.0


def checks(settings: Settings) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    """Give each check with its name; the first one opens the directory."""
    try:
        storage = DirectoryStorage(settings.base)
    except StorageError as error:
        why = str(error)
        yield "base", lambda: [fail("base", why, "mount it, or correct `base`")]
        return
    yield "base", lambda: [ok("base", settings.base)]
    yield "mount", lambda: judge.mount(storage.mount())
    yield "marker", lambda: [_marker(storage, settings.cluster)]
    yield "rights", lambda: _rights(storage)
    yield "space", lambda: [judge.space(*storage.space())]
    yield "lock", lambda: [_lock(settings.lock_path)]
    yield "witness", lambda: _witness(storage, settings.agent.node)
    yield from _sources(settings)


def _marker(storage: DirectoryStorage, cluster: str) -> Finding:
    found = ledger.marker_of(storage.read_marker())
    if found is None:
        return fail(
            "marker",
            "the directory has no cluster marker",
            "is the shared storage mounted? A new directory: `sharedcache init`",
        )
    if isinstance(found, Unreadable):
        return fail(
            "marker",
            f"the cluster marker cannot be read: {found.why}",
            "upgrade this host, or look at .sharedcache/cluster",
        )
    tell("identity", found.identity)
    if found.name != cluster:
        return fail(
            "marker",
            f"the directory belongs to cluster {found.name}, the settings say "
            f"{cluster}",
            "correct `cluster` or `base`",
        )
    return ok("marker", f"cluster {found.name} ({found.identity})")


def _rights(storage: DirectoryStorage) -> Iterator[Finding]:
    if not isinstance(ledger.marker_of(storage.read_marker()), Cluster):
        return
    try:
        trial = storage.trial()
    except (StorageError, OutcomeUnknownError) as error:
        yield fail(
            "rights",
            str(error),
            "run agents, cleaners and this command as the owner of the directory",
        )
        return
    yield ok("rights", f"create, rename, link and unlink as user {os.geteuid()}")
    yield judge.clock(trial)


def _lock(lock_path: str) -> Finding:
    """Take a lock in one process and see it from another."""
    # A name of this host's own: two hosts may run this at one time.
    name = f"sharedcache-doctor-{host_name()}"
    with NovaNameLocks(lock_path) as first, NovaNameLocks(lock_path) as second:
        if not first.take(name, _LOCK_S, 4 * _LOCK_S):
            why = first.last_error or "another process holds the trial's lock"
            return fail(
                "lock",
                f"no lock can be taken in {lock_path}: {why}",
                "check that it is Nova's lock directory and writable for this user",
            )
        if second.held(name) is not True or second.take(name, 0.0, _LOCK_S):
            return fail(
                "lock",
                f"a lock in {lock_path} does not keep other processes out",
                "the file system has no working locks: mount it otherwise",
            )
    return ok("lock", f"processes exclude each other in {lock_path}")


def _witness(storage: DirectoryStorage, node: str) -> Iterator[Finding]:
    found = storage.witness_read(node)
    if found is None:
        return
    read = ledger.incarnation_of(found[0])
    if isinstance(read, Unreadable):
        yield warn(
            "witness",
            f"the witness of {node} cannot be read: {read.why}",
            "restart sharedcache-agent: it writes it anew",
        )
        return
    tell("witness", [read.boot_id, read.start])
    yield ok("witness", f"{node} started as {read}")


def _sources(
    settings: Settings,
) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    try:
        sources = build_sources(settings)
    except SettingsError as error:
        # A host of cleaners or operators needs none.
        why = str(error)
        yield (
            "sources",
            lambda: [warn("sources", why, "needed where sharedcache-agent runs")],
        )
        return
    for source in sources:
        check = f"source {source.name}"

        def look(check: str = check, source: object = source) -> Iterator[Finding]:
            try:
                uses = source.look()  # type: ignore[attr-defined]
            except SourceError as error:
                yield fail(check, str(error), "without it the node is degraded")
            else:
                yield ok(check, f"{len(uses)} names in use")

        yield check, look


def tell(fact: str, value: object) -> None:
    """Tell the parent something that it compares with ZooKeeper's word."""
    _print({"fact": fact, "value": value})


def _print(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Make every check, one after the other; one that fails ends none but itself."""
    settings = ini.read(ini.parser(), list(arguments), os.environ)
    _print({"begins": "base"})
    for name, check in checks(settings):
        _print({"begins": name})
        try:
            for finding in check():
                _print(finding.row())
        except (StorageError, OutcomeUnknownError) as error:
            _print(fail(name, str(error), "see the message").row())
        except Exception as error:  # noqa: BLE001 - a third party's source must not end the other checks
            what = f"{type(error).__name__}: {error}"
            _print(fail(name, what, "see the message").row())
        _print({"begins": "the next check"})


if __name__ == "__main__":
    main(sys.argv[1:])
