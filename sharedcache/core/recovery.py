"""Recovery: what an operator's ``recover`` would change, judged from both witnesses.

ZooKeeper may have lost its data, or been restored from an older copy; the
storage went on.  Nothing that ZooKeeper says then is taken for the latest word,
so everything that was on its way to be purged starts from the beginning, under
an epoch and a round that were never used (``docs/protocol.md``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sharedcache.core.model import (
    Cluster,
    Report,
    SourceFailure,
    Unreadable,
    Witness,
)
from sharedcache.core.schema import SCHEMAS

DOUBT = SourceFailure(
    "zookeeper",
    "ZooKeeper was recovered after this report: what the node said later may be lost",
)
"""What makes a last report incomplete until its node has spoken again."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the storage and ZooKeeper say, read at one time.

    A number is ``None`` where its record is not there.  ``reports`` are the
    rostered nodes' last durable reports; ``expunged`` are the nodes off the roster
    whose witness, if any, is the one of then.  ``broken`` are the records of the
    manifest that cannot be read, ``gaps`` the paths of a founded tree that are
    missing.
    """

    on_storage: Cluster | Unreadable | None
    in_zookeeper: Cluster | Unreadable | None
    storage_epoch: int
    zookeeper_epoch: int | Unreadable | None
    round: int | Unreadable | None
    entry_rounds: Sequence[int]
    storage_schema: int | Unreadable | None
    zookeeper_schema: int | Unreadable | None
    authorisation: Unreadable | None
    witnesses: Mapping[str, Witness]
    reports: Mapping[str, Report | Unreadable | None]
    expunged: frozenset[str]
    broken: Mapping[str, Unreadable]
    gaps: Sequence[str]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is wrong, and what would be changed; no problem means nothing is.

    ``epoch`` and ``round`` are numbers never used before, ``expect`` the nodes
    that left a witness and are not rostered, ``doubt`` those whose last report
    no longer counts as complete, ``entries`` how many quarantined files start
    from the beginning as far as ZooKeeper knows them.
    """

    problems: tuple[str, ...]
    epoch: int
    round: int
    schema: int
    expect: tuple[str, ...]
    doubt: tuple[str, ...]
    entries: int


class CannotRecoverError(Exception):
    """Recovery would have to guess; the message says what to do first."""


def judge(
    standing: Standing, cluster: str, stamp_ms: int, *, anyway: bool = False
) -> Recovery:
    """Say what is wrong and what would be changed.

    ``stamp_ms`` is a present time in milliseconds since 1970.  Rounds count by
    one from 1 or from an earlier stamp, and never a thousand times a second, so
    a round made of it was never used.  ``anyway`` is the operator's word that
    ZooKeeper went back, where nothing shows it.  Raises ``CannotRecoverError``.
    """
    _refuse_to_guess(standing, cluster)
    problems = list(_problems(standing))
    if anyway:
        problems.append("the operator says that ZooKeeper went back")
    known = [standing.storage_epoch, _number(standing.zookeeper_epoch)]
    rounds = [_number(standing.round), *standing.entry_rounds]
    rounds += [r.upto for r in standing.reports.values() if isinstance(r, Report)]
    schemas = [_number(standing.storage_schema), _number(standing.zookeeper_schema)]
    return Recovery(
        problems=tuple(problems),
        epoch=max(known) + 1,
        round=max(stamp_ms, *(number + 1 for number in rounds)),
        schema=max(1, *schemas),
        expect=tuple(_unrostered(standing)),
        doubt=tuple(sorted(_doubtful(standing))),
        entries=len(standing.entry_rounds),
    )


def doubted(report: Report) -> Report:
    """Return a last report that no longer counts as complete."""
    return replace(report, failures=(*report.failures, DOUBT))


def _number(found: int | Unreadable | None) -> int:
    return found if isinstance(found, int) else 0


def _refuse_to_guess(standing: Standing, cluster: str) -> None:
    disk, tree = standing.on_storage, standing.in_zookeeper
    if disk is None:
        raise CannotRecoverError(
            "the base directory has no cluster marker: mount it first, or check "
            "[sharedcache] base"
        )
    if isinstance(disk, Unreadable):
        raise CannotRecoverError(
            f"the cluster marker on the storage cannot be read ({disk.why}): "
            + ("use the newer release" if disk.newer else "put a copy back first")
        )
    if disk.name != cluster:
        raise CannotRecoverError(
            f"the directory belongs to cluster {disk.name}, not to {cluster}: check "
            "[sharedcache] base and cluster"
        )
    if isinstance(tree, Cluster) and tree != disk:
        raise CannotRecoverError(
            f"the directory belongs to identity {disk.identity}, ZooKeeper's cluster "
            f"{tree.name} to {tree.identity}: these are two clusters; check "
            "[sharedcache] base, zookeeper and cluster"
        )
    for what, found in _readings(standing):
        if isinstance(found, Unreadable) and found.newer:
            raise CannotRecoverError(
                f"{what} was written by a newer release ({found.why}): use that one"
            )
    _refuse_unknown_schemas(standing)


def _refuse_unknown_schemas(standing: Standing) -> None:
    """Refuse to commit a cluster, for good, to a schema that this release lacks."""
    newest = SCHEMAS.newest
    for where, schema in (
        ("ZooKeeper", standing.zookeeper_schema),
        ("the storage", standing.storage_schema),
    ):
        if isinstance(schema, int) and schema > newest:
            raise CannotRecoverError(
                f"{where} knows schema {schema} as finalized, and this release knows "
                f"schemas up to {newest}: use one that knows it"
                + (
                    "; if none was ever here, remove .sharedcache/schema"
                    if where == "the storage"
                    else ""
                )
            )


def _readings(standing: Standing) -> Iterator[tuple[str, object]]:
    """Name every reading that a damaged or newer record can spoil."""
    yield "ZooKeeper's identity", standing.in_zookeeper
    yield "ZooKeeper's epoch", standing.zookeeper_epoch
    yield "ZooKeeper's round", standing.round
    yield "ZooKeeper's authorisation", standing.authorisation
    yield "ZooKeeper's finalized schema", standing.zookeeper_schema
    yield "the storage's finalized schema", standing.storage_schema
    for batch, broken in standing.broken.items():
        yield f"the manifest's record {batch}", broken


def _problems(standing: Standing) -> Iterator[str]:
    if standing.in_zookeeper is None:
        yield "ZooKeeper has no such cluster: it lost its data"
    for what, found in _readings(standing):
        if isinstance(found, Unreadable):
            yield f"{what} cannot be read ({found.why})"
    if standing.in_zookeeper is not None:
        yield from (f"ZooKeeper has no record {gap}" for gap in standing.gaps)
    epoch = standing.zookeeper_epoch
    if isinstance(epoch, int) and standing.storage_epoch > epoch:
        yield (
            f"ZooKeeper knows epoch {epoch}, the storage epoch "
            f"{standing.storage_epoch}: ZooKeeper went back"
        )
    disk, tree = standing.storage_schema, standing.zookeeper_schema
    if isinstance(disk, int) and isinstance(tree, int) and disk > tree:
        yield (
            f"ZooKeeper knows schema {tree} as finalized, the storage schema {disk}: "
            "ZooKeeper went back"
        )


def _unrostered(standing: Standing) -> Iterator[str]:
    """Name who left a witness and is not expected to report."""
    for node in sorted(standing.witnesses):
        if node not in standing.reports and node not in standing.expunged:
            yield node


def _doubtful(standing: Standing) -> Iterator[str]:
    """Name whose last report may have been followed by one that is lost.

    A sealed node has not started since, if its witness says so: its last report
    is its last word.
    """
    for node, report in standing.reports.items():
        if not isinstance(report, Report) or not report.complete:
            continue
        witness = standing.witnesses.get(node)
        asleep = (
            report.sealed
            and witness is not None
            and witness.incarnation == report.incarnation
        )
        if not asleep:
            yield node
