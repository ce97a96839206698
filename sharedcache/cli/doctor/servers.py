"""The checks that ask ZooKeeper, each with a limit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sharedcache import ledger
from sharedcache.adapters.settings import Settings, SettingsError
from sharedcache.cli import wiring
from sharedcache.cli.doctor import judge
from sharedcache.cli.doctor.findings import Finding, fail, ok, warn
from sharedcache.core.codec import RecordError
from sharedcache.core.model import Cluster, Report, RosterRecord, Unreadable
from sharedcache.core.ports import CoordinationError

if TYPE_CHECKING:
    from sharedcache.adapters.zookeeper.probe import ServerWord
    from sharedcache.adapters.zookeeper.session import ZooKeeperSession


def check(
    settings: Settings, facts: Mapping[str, Any], patience_s: float
) -> Iterator[Finding]:
    """Ask each server, then make a session and look at this cluster's records.

    ``facts`` are what the storage said: the cluster's identity, this node's
    witness.
    """
    if not settings.zookeeper:
        yield fail(
            "zookeeper",
            "no ZooKeeper is set",
            "give --zookeeper, SHAREDCACHE_ZOOKEEPER, or [sharedcache] zookeeper",
        )
        return
    try:
        session = wiring.open_session(
            settings,
            wiring.cleaner_name("-doctor"),
            session_timeout_s=settings.cleaner.session_timeout_s,
            creates=False,
        )
    except SettingsError as error:
        yield fail("zookeeper", str(error), "correct [sharedcache] zookeeper")
        return
    words = ask_all(settings.zookeeper, patience_s)
    answers = any(not word.error for word in words)
    for word in words:
        yield judge.server(word, answers)
    yield from judge.modes(words)
    if not answers:
        return
    try:
        session.start(patience_s)
        yield from _session(settings, session, facts)
    except (CoordinationError, RecordError) as error:
        yield fail("zookeeper session", str(error), "check servers and credentials")
    finally:
        session.stop()


def ask_all(address: str, patience_s: float) -> list[ServerWord]:
    """Ask every server at one time; a name that does not resolve delays no other."""
    from sharedcache.adapters.zookeeper import probe  # noqa: PLC0415 - see wiring

    hosts = probe.servers(address)
    words: dict[str, ServerWord] = {}

    def ask(host: str) -> None:
        words[host] = probe.ask(address, host, patience_s)

    threads = [threading.Thread(target=ask, args=(h,), daemon=True) for h in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience_s)
    silent = f"no answer within {patience_s:g} s"
    return [
        words.get(host, probe.ServerWord(host, patience_s, error=silent))
        for host in hosts
    ]


def _session(
    settings: Settings, session: ZooKeeperSession, facts: Mapping[str, Any]
) -> Iterator[Finding]:
    # The timeout that this session asked for is the cleaner's; servers grant
    # the same to whoever asks for it.
    asked_s = {"cleaner": settings.cleaner.session_timeout_s}
    yield judge.session(asked_s, session.session_timeout_s())
    found = ledger.cluster_of(session.get(ledger.IDENTITY))
    if not isinstance(found, Cluster):
        why = found.why if isinstance(found, Unreadable) else "it is not there"
        yield fail(
            "cluster",
            f"ZooKeeper has no cluster {settings.cluster} ({why})",
            "correct `cluster` or `zookeeper`; for a new cluster `sharedcache init`",
        )
        return
    yield judge.access(session.access(ledger.IDENTITY))
    yield _identity(found, facts.get("identity"))
    leader = session.leader()
    if leader is None:
        yield warn("leader", "no cleaner leads", "start sharedcache-cleaner somewhere")
    else:
        yield ok("leader", leader)
    yield _agent(settings.agent.node, session, facts.get("witness"))


def _identity(found: Cluster, on_storage: str | None) -> Finding:
    if on_storage is None:
        return warn(
            "cluster",
            f"ZooKeeper says {found.identity}, the directory says nothing",
            "see the checks of the directory",
        )
    if found.identity != on_storage:
        return fail(
            "cluster",
            f"ZooKeeper's identity is {found.identity}, the directory's {on_storage}",
            "one of them is another cluster's: correct `base`, `zookeeper`, `cluster`",
        )
    return ok("cluster", "directory and ZooKeeper bear one identity")


def _agent(  # noqa: PLR0911 - each state of an agent is one answer
    node: str, session: ZooKeeperSession, witness: list[Any] | None
) -> Finding:
    """Judge this host's agent by its registration, its report and its witness."""
    check = f"agent {node}"
    start = f"start sharedcache-agent here, or set [agent] node if {node} is wrong"
    record = session.get(ledger.node_path(node))
    if record is None:
        if witness is None:
            return warn(
                check, "no agent of this host was ever seen", f"if it mounts: {start}"
            )
        return fail(check, "it started and never reported", "look at the agent's log")
    found = ledger.durable_report(record, node, session)
    if not isinstance(found, RosterRecord) or not isinstance(found.report, Report):
        why = found.why if isinstance(found, Unreadable) else "none"
        return fail(check, f"no report that can be read ({why})", start)
    report = found.report
    if session.get(ledger.member_path(node)) is None:
        return fail(check, "it is not registered now", start)
    if witness is not None and [
        report.incarnation.boot_id,
        report.incarnation.start,
    ] != list(witness):
        return warn(
            check,
            f"it reported as {report.incarnation} and has started again since",
            "wait for its next report; if it stays, two agents share this name",
        )
    if not report.complete:
        failed = "; ".join(f"{f.source}: {f.message}" for f in report.failures)
        return fail(check, f"it is degraded: {failed}", "make that source answer")
    return ok(check, f"registered, reported round {report.upto}")
