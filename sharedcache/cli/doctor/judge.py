"""Judging what was found: pure, so that each judgement is tested for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sharedcache.adapters.storage.mountinfo import (
    Mount,
    local_locks_of,
    name_cache_of,
)
from sharedcache.adapters.storage.trial import Trial
from sharedcache.adapters.zookeeper.probe import ServerWord
from sharedcache.cli.doctor.findings import Finding, fail, ok, warn
from sharedcache.cli.output import size

LEAST_NFS = (4, 1)
"""Sessions answer a repeated request once; on version 3 a rename could act twice."""

CLOCK_S = 2.0
"""Clocks further apart than this make logs hard to read, in seconds."""

LOW_SHARE, NO_SHARE = 0.10, 0.02
"""Shares of free space below which to warn, and to fail."""

SLOW_S = 0.5
"""A server of ZooKeeper that takes longer than this is worth a look, in seconds."""


def mount(found: Mount | None) -> Iterator[Finding]:
    """Judge the file system that the cache directory lies on."""
    if found is None:
        yield warn(
            "mount",
            "the mount of the cache directory is not to be found in /proc",
            "run this where /proc shows this process's mounts",
        )
        return
    options = set(found.options)
    cache_s = name_cache_of(found)
    kept = f"names are cached for up to {cache_s:g} s" if cache_s else "no name cache"
    yield ok("mount", f"{found.kind}, {kept}")
    if "ro" in options:
        yield fail("mount", "it is mounted read-only", "mount it for writing (rw)")
    if found.kind in {"nfs", "nfs4"}:
        yield from _nfs(found, options, cache_s)


def _nfs(found: Mount, options: set[str], cache_s: float) -> Iterator[Finding]:
    values = dict(option.partition("=")[::2] for option in options)
    version = values.get("vers", values.get("nfsvers", ""))
    if _number(version) < LEAST_NFS:
        yield warn(
            "mount",
            f"NFS version {version or 'unknown'}: a repeated request may act twice",
            "mount it with vers=4.1 or later",
        )
    how = local_locks_of(found)
    if how:
        yield warn(
            "mount",
            f"{how}: locks of qemu and Nova stay on this host",
            "mount it without nolock and local_lock, on every node",
        )
    if "soft" in options or "softerr" in options:
        yield warn(
            "mount",
            "a soft mount: a slow server becomes an error in a guest's disk",
            "mount it hard",
        )
    if cache_s > 60:  # noqa: PLR2004 - the default of acdirmax, nfs(5)
        yield warn(
            "mount",
            f"names are cached for up to {cache_s:g} s: every purge waits twice that",
            "mount it with acdirmax=60 or less",
        )


def _number(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return (
        tuple(int(one) for one in parts) if version.replace(".", "").isdigit() else ()
    )


def space(total: int, free: int) -> Finding:
    """Judge the room that is left, in bytes."""
    said = f"{size(free)} of {size(total)} free"
    if total and free < NO_SHARE * total:
        return fail("space", said, "free some space by hand, or grow the storage")
    if total and free < LOW_SHARE * total:
        return warn("space", said, "see `sharedcache status` for what can be freed")
    return ok("space", said)


def clock(trial: Trial) -> Finding:
    """Judge how far this host's clock is from the storage's."""
    ahead = "ahead of" if trial.offset_s > 0 else "behind"
    apart_s = abs(trial.offset_s)
    if apart_s - trial.doubt_s > CLOCK_S:
        return warn(
            "clock",
            f"the storage's clock is {apart_s:.1f} s {ahead} this host's",
            "no file's age depends on it, but let both follow one time server",
        )
    return ok("clock", f"within {max(apart_s, trial.doubt_s):.3f} s of the storage's")


def server(word: ServerWord, others_answer: bool) -> Finding:  # noqa: FBT001 - a fact
    """Judge one server of ZooKeeper's."""
    check = f"zookeeper {word.server}"
    if word.error:
        advice = (
            "check that it runs, that this host reaches its port, and the URL's TLS "
            "options"
        )
        judged = warn if others_answer else fail
        return judged(check, f"does not answer: {word.error}", advice)
    what = " ".join(filter(None, (word.version, word.mode))) or "answers"
    said = f"{what}, {word.answer_s * 1000:.0f} ms"
    if word.answer_s > SLOW_S:
        return warn(check, said, "a slow server delays every round: look at its load")
    return ok(check, said)


def modes(words: Sequence[ServerWord]) -> Iterator[Finding]:
    """Judge whether the servers are one ensemble."""
    alone = [word.server for word in words if word.mode == "standalone"]
    if alone and len(words) > 1:
        yield fail(
            "zookeeper",
            f"{', '.join(alone)} runs alone, though several servers are named",
            "make them one ensemble, or name one server: two ZooKeepers are two truths",
        )
    leaders = [word.server for word in words if word.mode == "leader"]
    if len(leaders) > 1:
        yield fail(
            "zookeeper",
            f"{' and '.join(leaders)} lead ensembles of their own",
            "name the servers of one ensemble only",
        )


def session(asked_s: Mapping[str, float], granted_s: float) -> Finding:
    """Judge the session timeout that was granted, in seconds."""
    short = [
        f"[{who}] asks for {s:g} s" for who, s in asked_s.items() if s != granted_s
    ]
    if short:
        return warn(
            "zookeeper session",
            f"the servers grant {granted_s:g} s, {' and '.join(short)}",
            "the servers' limits are 2 and 20 ticks: set session_timeout_s within "
            "them, or minSessionTimeout and maxSessionTimeout there",
        )
    return ok("zookeeper session", f"timeout {granted_s:g} s, as asked")


def access(found: Sequence[str]) -> Finding:
    """Judge who may change the cluster's records."""
    if any(one == "world:anyone" for one in found):
        return warn(
            "zookeeper access",
            "anybody who reaches the servers may change the cluster's records",
            "use credentials from the beginning (docs/operations.md), or keep others "
            "from the port",
        )
    schemes = ", ".join(sorted({one.partition(":")[0] for one in found}))
    return ok("zookeeper access", f"for holders of credentials only ({schemes})")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of systemd's, and what it is for here."""

    name: str
    states: Mapping[str, str]
    missing: Finding


def unit(found: Unit) -> Finding:
    """Judge whether a unit is there, starts at boot, and runs."""
    check = f"unit {found.name}"
    if found.states.get("LoadState") != "loaded":
        return found.missing
    active, file = (
        found.states.get("ActiveState", ""),
        found.states.get("UnitFileState"),
    )
    said = f"{active}, {file or 'no unit file'}"
    if active == "active" and file != "disabled":
        return ok(check, said)
    return warn(check, said, f"systemctl enable --now {found.name}")
