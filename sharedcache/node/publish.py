"""Publishing a report: capabilities first, then the durable report and counters.

A leader that reads the counters first therefore sees a veto, or its authorisation
fails, or it had committed before the counter was raised: then the windows of the
reports that it relied on already cover the common round (``docs/protocol.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sharedcache import audit, ledger
from sharedcache.core.acts import Act, By, Deed, Doer, Subject, rows
from sharedcache.core.model import (
    NANOSECONDS,
    ManifestBatch,
    Report,
    RosterRecord,
    Unreadable,
)
from sharedcache.core.policy import AgentPolicy
from sharedcache.core.ports import (
    Check,
    ConflictError,
    Create,
    Delete,
    Operation,
    OutcomeUnknownError,
    Set,
)
from sharedcache.core.veto import Spoken
from sharedcache.node.world import (
    AgentRefusedError,
    ExpungedError,
    Identity,
    SupersededError,
    World,
)


@dataclass(slots=True)
class Publisher:
    """Publishes one node's reports under its own registration.

    What the last report spoke against counts as told for as long as nothing came
    after it: not a registration whose durable half was not written, no other
    session.
    """

    world: World
    identity: Identity
    published: Report | None = None
    returned: bool = False
    _told: Spoken | None = None
    _session: int = 0
    _version: int | None = None
    _before: bytes = b""
    _parts: tuple[str, ...] = ()

    def recover(self) -> Report | None:
        """Read the last report of an earlier run of this agent.

        Its intents name the restores that were left unfinished, its uses stand
        in for sources that do not answer yet.
        """
        self._parts = self._left_parts()
        found = self._own_record()
        return found.report if isinstance(found, RosterRecord) else None

    def joined(self) -> bool:
        """Whether the present session bears this node's registration."""
        coordination = self.world.coordination
        return coordination.session_id() == self._session and coordination.joined()

    def due(self, report: Report) -> bool:
        """Whether the report says anything that the published one does not.

        A report that says the same costs no write, but the storage's time in
        it must not fall behind by more than the touch interval.
        """
        old = self.published
        if old is None or self._told is None or not self.joined():
            return True
        interval_ns = int(self.world.policy.touch_interval_s * NANOSECONDS)
        if report.storage_time_ns - old.storage_time_ns >= interval_ns:
            return True
        return replace(report, storage_time_ns=old.storage_time_ns) != old

    def publish(
        self,
        report: Report,
        manifest: Sequence[ManifestBatch],
        conditions: Sequence[Operation] = (),
    ) -> None:
        """Publish a report; raises what the coordination raises.

        ``conditions`` join the transaction of the durable half.  Raises
        ``SupersededError`` if another agent took this node's name.
        """
        packed = ledger.pack_report(report, self.world.tokens.token())
        for path, data in packed.parts.items():
            self.world.coordination.commit([Create(path, data)])
        told, self._told = self._told, None
        if self._register(packed):
            told = None
        spoken = Spoken.of(report, manifest)
        if spoken.must_be_heard(told):
            conditions = [*conditions, ledger.bump(ledger.VETO_COUNTER)]
        self._write(report, packed, conditions)
        old, self._parts = self._parts, tuple(packed.parts)
        self._drop_parts(old)
        self.published, self._told = report, spoken

    def _register(self, packed: ledger.Packed) -> bool:
        """Put the report into the group, joining anew if the session is new.

        The registration is created with the report in it: there is no moment
        at which this node is a member with nothing in use.  Tells whether it is
        a new one.
        """
        coordination = self.world.coordination
        session = coordination.session_id()
        if session == self._session and coordination.joined():
            coordination.update_capabilities(packed.capabilities)
            return False
        coordination.join(packed.capabilities)
        self._session = session
        return True

    def _write(
        self,
        report: Report,
        packed: ledger.Packed,
        conditions: Sequence[Operation],
    ) -> None:
        path = ledger.node_path(report.node)
        operations: list[Operation] = [
            Check(self.world.coordination.member_path, None),
            *conditions,
        ]
        previous = self._previous()
        data = ledger.roster_data(report.node, packed, self._before)
        if self._version is None:
            operations.append(Create(path, data))
        else:
            operations.append(Set(path, data, self._version))
        if previous is None or _identity_changed(previous, report):
            operations.append(self._rollout_allows())
            operations.append(ledger.bump(ledger.ROSTER_COUNTER))
        acts = [self._return_act()] if self.returned else []
        if acts:
            audit.prepare(self.world.coordination)
            operations = audit.riding(operations, acts)
        try:
            self.world.coordination.commit(operations)
        except (ConflictError, OutcomeUnknownError):
            # Whatever happened, what this agent believes of its own record is
            # in doubt; the next attempt reads it again.
            self.published = None
            self._version = None
            raise
        self._version = 0 if self._version is None else self._version + 1
        self._before = data
        self.returned = False
        for row in (row for act in acts for row in rows(act)):
            self.world.journal.event("audit", **row)

    def _previous(self) -> Report | None:
        """Return the durable report that will be replaced, and learn its version."""
        if self.published is not None and self._version is not None:
            return self.published
        found = self._own_record()
        if found is None or isinstance(found, Unreadable):
            # A record of ours that cannot be read is replaced: the new report
            # says more than it did, and the roster counter is raised.
            return None
        if found.expunged_at is not None:
            if not self.returned:
                raise ExpungedError(f"{found.node} was expunged while it ran")
            self.world.journal.event(
                "expunged-node-returned",
                node=found.node,
                advice="this node was expunged, and its host runs: nothing protected "
                "what it used, check its guests' disks",
            )
        report = found.report
        if report is not None and self._is_later(report):
            raise SupersededError(
                f"another agent reports as {report.node} (incarnation "
                f"{report.incarnation}, ours is {self.identity.incarnation}): two "
                "agents must not share a node name, set [agent] node"
            )
        return report

    def _return_act(self) -> Act:
        """Tell, on record, that an expunged node is back."""
        node = self.world.policy.node
        why = "its host was given up and runs: check its guests' disks"
        doer = Doer(By.NODE, node)
        return Act(Deed.RETURNED, doer, self.world.clock.wall(), why, (Subject(node),))

    def _is_later(self, report: Report) -> bool:
        return report.incarnation.start > self.identity.incarnation.start

    def _own_record(self) -> RosterRecord | Unreadable | None:
        coordination = self.world.coordination
        node = self.world.policy.node
        coordination.sync()
        record = coordination.get(ledger.node_path(node))
        self._version = None if record is None else record.version
        self._before = b"" if record is None else record.data
        if record is None:
            return None
        return ledger.durable_report(record, node, coordination)

    def _rollout_allows(self) -> Operation:
        """Check the rollout that this agent was judged by, in the transaction."""
        record = self.world.coordination.get(ledger.ROLLOUT)
        rollout = ledger.rollout_of(record)
        if record is None or isinstance(rollout, Unreadable):
            raise AgentRefusedError(
                "the rollout's record is missing or cannot be read: was the cluster "
                "initialised with `sharedcache init`, by this release or an older one?"
            )
        require_allowed(self.world.policy, rollout.finalized_schema)
        return Check(ledger.ROLLOUT, record.version)

    def _left_parts(self) -> tuple[str, ...]:
        """Find parts of reports that earlier runs of this agent left behind.

        They are dropped once this run's first report is published.
        """
        node = self.world.policy.node
        parts = self.world.coordination.children(ledger.PARTS)
        return tuple(
            f"{ledger.PARTS}/{part}" for part in parts if part.rsplit(".", 2)[0] == node
        )

    def _drop_parts(self, parts: Sequence[str]) -> None:
        for path in parts:
            try:
                self.world.coordination.commit([Delete(path, None)])
            except ConflictError:
                # It is gone already, which is what was wanted.
                continue


def require_allowed(policy: AgentPolicy, finalized: int) -> None:
    """Raise ``AgentRefusedError`` for an agent that may not run under this schema.

    One of a release that did not know this rule joins all the same: it closes the
    gate, and is named there.
    """
    why = policy.schemas.refusal(finalized, policy.schema_version, policy.kernel_naming)
    if why is not None:
        raise AgentRefusedError(why)


def _identity_changed(previous: Report, report: Report) -> bool:
    return (
        previous.schema_version != report.schema_version
        or previous.kernel_naming is not report.kernel_naming
        or previous.incarnation != report.incarnation
        or previous.sealed != report.sealed
    )
