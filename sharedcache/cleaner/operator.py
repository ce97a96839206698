"""An operator's words: pause, approval, holds, expected and expunged nodes.

Every word bears the operator's signature, and is on record in the audit trail
exactly if it took effect: its act is part of the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharedcache import audit, ledger
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.core import codec, names
from sharedcache.core.acts import Act, Deed, Signature, Subject
from sharedcache.core.model import NANOSECONDS, Incarnation, Unreadable
from sharedcache.core.ports import (
    ConflictError,
    Coordination,
    CoordinationError,
    Create,
    Delete,
    Operation,
    Record,
    Set,
    Storage,
)

APPROVAL_S = 3600.0
"""How long an approval stands, in seconds on the storage's clock."""


def _commit(
    coordination: Coordination, transaction: Sequence[Operation], act: Act
) -> None:
    """Let a word take effect, and have it on record."""
    audit.prepare(coordination)
    coordination.commit(audit.riding(transaction, [act]))


def pause(coordination: Coordination, why: str, by: Signature) -> None:
    """Close the gate until ``resume``; ``why`` is shown with it.

    A pass under way stops before its next step, and an authorisation that is
    being asked for fails.
    """
    _commit(
        coordination,
        [Set(ledger.PAUSE, codec.pack({"why": why}), None), *_interrupting()],
        Act(Deed.PAUSED, by.doer, by.when, why),
    )


def _interrupting() -> list[Operation]:
    """Return what makes a leader look again before it does anything more."""
    return [ledger.bump(ledger.ROSTER_COUNTER), ledger.bump(ledger.VETO_COUNTER)]


def resume(coordination: Coordination, by: Signature) -> None:
    """Take a pause back; harmless when there is none."""
    act = Act(Deed.RESUMED, by.doer, by.when)
    _commit(coordination, [Set(ledger.PAUSE, b"", None)], act)


def hold_rollout(coordination: Coordination, why: str, by: Signature) -> None:
    """Order that nobody finalizes, neither a leader by itself nor an operator.

    A finalization that is under way fails, or came before this.
    """
    data = codec.pack({"why": f"{why} ({by.who})"})
    act = Act(Deed.ROLLOUT_HELD, by.doer, by.when, why)
    _say_of_rollout(coordination, data, act)


def release_rollout(coordination: Coordination, by: Signature) -> None:
    """Take the hold on the rollout back; harmless when there is none."""
    act = Act(Deed.ROLLOUT_RELEASED, by.doer, by.when)
    _say_of_rollout(coordination, b"", act)


def _say_of_rollout(coordination: Coordination, data: bytes, act: Act) -> None:
    if coordination.get(ledger.IDENTITY) is not None:
        # A tree of an earlier release has no such record.
        coordination.ensure(ledger.ROLLOUT_HOLD)
    _commit(coordination, [Set(ledger.ROLLOUT_HOLD, data, None)], act)


def approve(
    coordination: Coordination, digest: str, storage_now_ns: int, by: Signature
) -> None:
    """Approve the plan of this digest, and no other, for ``APPROVAL_S`` seconds."""
    until_ns = storage_now_ns + int(APPROVAL_S * NANOSECONDS)
    data = codec.pack({"digest": digest, "until_ns": until_ns})
    act = Act(Deed.APPROVED, by.doer, by.when, plan=digest)
    _commit(coordination, [Set(ledger.APPROVAL, data, None)], act)


@dataclass(frozen=True, slots=True)
class Hold:
    """An operator's order to keep a file."""

    name: str
    why: str


def hold(coordination: Coordination, name: str, why: str, by: Signature) -> None:
    """Order that a cache name is kept; ordering it again changes the reason.

    Raises ``RefusedError`` for a name that is no cache name: nothing ever
    touches such a file, and a typing error would protect nothing.
    """
    if names.classify(name) is names.Kind.UNRECOGNISED:
        raise RefusedError(f"{name} is no cache name, so no cleaner ever touches it")
    path, fresh = ledger.hold_path(name), {"why": why}
    act = Act(Deed.HOLD_ADDED, by.doer, by.when, why, (Subject(name),))
    try:
        _commit(coordination, [Create(path, codec.pack(fresh)), *_interrupting()], act)
    except ConflictError:
        before = coordination.get(path)
        data = ledger.renewed_data(b"" if before is None else before.data, fresh)
        _commit(coordination, [Set(path, data, None)], act)


def release(coordination: Coordination, name: str, by: Signature) -> None:
    """Take a hold back; raises ``RefusedError`` if there is none."""
    if names.classify(name) is names.Kind.UNRECOGNISED:
        # It may not even be a path of ZooKeeper, and no hold has such a name.
        raise RefusedError(f"{name!r} is no cache name, so there is no hold on it")
    path = ledger.hold_path(name)
    act = Act(Deed.HOLD_REMOVED, by.doer, by.when, subjects=(Subject(name),))
    try:
        _commit(coordination, [Delete(path, None)], act)
    except ConflictError as error:
        if error.path != path:
            raise
        raise RefusedError(
            f"there is no hold on {name}: `sharedcache hold list` names those that are"
        ) from error


def holds(coordination: Coordination) -> list[Hold]:
    """List the holds, by name."""
    found = sorted(ledger.read_holds(coordination))
    records = coordination.get_many([ledger.hold_path(name) for name in found])
    return [
        Hold(name, ledger.note_of(record, "why") or "")
        for name, record in zip(found, records, strict=True)
    ]


def expect(coordination: Coordination, node: str, by: Signature) -> bool:
    """Put a node on the roster before it has spoken; ``False`` if it is there.

    Raises ``RefusedError`` for a name that no agent could bear.
    """
    if not names.is_node_name(node):
        raise RefusedError(
            f"{node!r} cannot name a node: letters, digits, dot, dash, underscore"
        )
    path = ledger.node_path(node)
    coordination.sync()
    record = coordination.get(path)
    data = ledger.roster_data(node, None, b"" if record is None else record.data)
    write: Operation = Create(path, data)
    if record is not None:
        if node not in ledger.roster_of([(node, record)]).expunged:
            return False
        write = Set(path, data, record.version)
    act = Act(Deed.EXPECTED, by.doer, by.when, subjects=(Subject(node),))
    try:
        _commit(coordination, [write, ledger.bump(ledger.ROSTER_COUNTER)], act)
    except ConflictError as error:
        if error.path != path:
            raise
        # Its agent, or another operator, was faster.
        return False
    return True


@dataclass(frozen=True, slots=True)
class Expunged:
    """A node off the roster: since when, in seconds since 1970, and by whom.

    ``who`` is ``None`` if the trail does not tell any more.  ``changed`` tells that
    it was this order which did it.
    """

    since: float
    who: str | None
    changed: bool = False


def expunged(
    coordination: Coordination, storage: Storage, node: str
) -> Expunged | None:
    """Tell of a node that is expunged already, where expunging again does nothing.

    ``None`` for any other: an agent that registered there since, or left another
    witness, is a new trace, and only another order takes it off.
    """
    incarnation = _witnessed(storage, node)
    coordination.sync()
    record = coordination.get(ledger.node_path(node))
    return _already(coordination, node, record, incarnation)


def _witnessed(storage: Storage, node: str) -> Incarnation | Unreadable | None:
    """Return the incarnation of a node's witness; ``None`` if it has none."""
    witness = storage.witness_read(node)
    return None if witness is None else ledger.incarnation_of(witness[0])


def _already(
    coordination: Coordination,
    node: str,
    record: Record | None,
    incarnation: Incarnation | Unreadable | None,
) -> Expunged | None:
    tombstone = ledger.roster_of([(node, record)]).expunged.get(node)
    if tombstone is None:
        return None
    readable = None if isinstance(incarnation, Unreadable) else incarnation
    if incarnation is not None and not tombstone.bears(readable):
        # An agent ran there since.
        return None
    if coordination.get(ledger.member_path(node)) is not None:
        return None
    when = tombstone.expunged_at
    return Expunged(when, _by_whom(coordination, node, when))


def _by_whom(coordination: Coordination, node: str, when: float) -> str | None:
    """Look in the trail for whoever expunged a node at that time."""
    for told in audit.backward(coordination, audit.read_mark(coordination)):
        act = told.act
        if isinstance(act, Unreadable) or act.deed != Deed.EXPUNGED:
            continue
        if act.when == when and Subject(node) in act.subjects:
            return act.doer.who
    return None


def expunge(
    coordination: Coordination, storage: Storage, node: str, by: Signature
) -> Expunged:
    """Take a node off the roster; its tombstone stays.

    The caller has the operator's word that the host is off: a host that runs
    on loses every guarantee.  The tombstone bears the incarnation of the node's
    witness, so that an agent that starts there again is noticed.  Writes nothing
    if that is so already.  Raises ``RefusedError`` for a live node, or one of
    which there is no trace; the transaction itself checks that the node is not
    registered.
    """
    incarnation = _witnessed(storage, node)
    coordination.sync()
    record = coordination.get(ledger.node_path(node))
    if record is None and incarnation is None:
        raise RefusedError(
            f"{node} is not on the roster and left no witness: `sharedcache node "
            "list` names the nodes that are"
        )
    already = _already(coordination, node, record, incarnation)
    if already is not None:
        return already
    before = b"" if record is None else record.data
    tombstone = ledger.tombstone_data(node, incarnation, by.when, before)
    registration, path = ledger.member_path(node), ledger.node_path(node)
    operations: list[Operation] = [
        # Created and deleted in one transaction: it did not exist.
        Create(registration, b""),
        Delete(registration, None),
        Create(path, tombstone)
        if record is None
        else Set(path, tombstone, record.version),
        ledger.bump(ledger.ROSTER_COUNTER),
    ]
    bears = "unreadable" if isinstance(incarnation, Unreadable) else incarnation
    why = "no witness" if bears is None else f"witness {bears}"
    act = Act(Deed.EXPUNGED, by.doer, by.when, why, (Subject(node),))
    try:
        _commit(coordination, operations, act)
    except ConflictError as error:
        if error.path == registration:
            raise RefusedError(
                f"{node} is live: stop its agent, and the host with it, first"
            ) from error
        raise CoordinationError(
            f"{node}'s record changed meanwhile: look at it and try again"
        ) from error
    return Expunged(by.when, by.who, changed=True)
