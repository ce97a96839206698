"""The agent: starts on the storage alone, then reports for as long as it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from sharedcache import __version__, ledger
from sharedcache.core import codec
from sharedcache.core.losses import Losses
from sharedcache.core.model import (
    Cluster,
    Incarnation,
    Report,
    Unreadable,
)
from sharedcache.core.ports import (
    ConflictError,
    CoordinationError,
    MemberExistsError,
    OutcomeUnknownError,
    StorageError,
)
from sharedcache.node.answer import Answerer
from sharedcache.node.look import Ground, Looker, Sight
from sharedcache.node.publish import Publisher, require_allowed
from sharedcache.node.restore import Restorer
from sharedcache.node.world import (
    AgentRefusedError,
    ExpungedError,
    Identity,
    World,
)

RETRY_S = 0.5
"""How soon a step that did not come through is tried again, in seconds."""


def start(world: World, cluster_name: str) -> Identity:
    """Start on the storage alone: identity, witness, incarnation.

    After this the host may start guests, ZooKeeper reachable or not.  Raises
    ``AgentRefusedError`` with what to do, or ``StorageError``.
    """
    cluster = ledger.marker_of(world.storage.read_marker())
    if cluster is None:
        raise AgentRefusedError(
            "the base directory has no cluster marker: is it mounted, and was "
            "`sharedcache init` run?"
        )
    if isinstance(cluster, Unreadable):
        raise AgentRefusedError(
            f"the cluster marker cannot be read: {cluster.why}; look at the storage, "
            "and put a copy of .sharedcache/cluster back"
        )
    if cluster.name != cluster_name:
        raise AgentRefusedError(
            f"the base directory belongs to cluster {cluster.name}, not to "
            f"{cluster_name}: check [sharedcache] base and cluster"
        )
    incarnation = Incarnation(world.host.boot_id(), _last_start(world) + 1)
    record = codec.witness_to_record(world.policy.node, incarnation)
    world.storage.witness_write(world.policy.node, codec.to_text(record))
    # Guests may run here all the same, and nobody watches them: the witness of
    # this start keeps the gate closed until an agent that may run has reported.
    _refuse_by_storage(world)
    world.journal.event(
        "agent-started", node=world.policy.node, incarnation=incarnation
    )
    return Identity(cluster, incarnation)


def _refuse_by_storage(world: World) -> None:
    """Refuse an old node by what the storage says of the finalized schema."""
    rollout = ledger.schema_of(world.storage.read_schema())
    if rollout is None:
        return
    if isinstance(rollout, Unreadable):
        raise AgentRefusedError(
            f"the finalized schema on the storage cannot be read: {rollout.why}; "
            "remove .sharedcache/schema, and the leader writes it again, or upgrade "
            "this agent if it is newer"
        )
    require_allowed(world.policy, rollout.finalized_schema)


def _last_start(world: World) -> int:
    """Return the start number of this node's last run; 0 if it never ran."""
    found = world.storage.witness_read(world.policy.node)
    if found is None:
        return 0
    data, facts = found
    last = ledger.incarnation_of(data)
    if isinstance(last, Unreadable):
        # A witness cut short by a crash: a start number taken from the
        # storage's clock is higher than any counted one.
        return facts.mtime_ns // 1_000_000_000
    return last.start


@dataclass(slots=True)
class NodeService:
    """One agent after its start.  ``step`` makes one scan."""

    world: World
    identity: Identity
    looker: Looker = field(init=False)
    publisher: Publisher = field(init=False)
    restorer: Restorer = field(init=False)
    answerer: Answerer = field(init=False)
    _recovered: bool = False
    _checked_session: int = 0
    _trouble: str = ""
    _next_look: float = 0.0
    _next_look_alone: float = 0.0
    _rounds_seen: int = -1
    _hurried: bool = False
    _losses: Losses = field(default_factory=Losses)

    def __post_init__(self) -> None:
        """Put the parts together."""
        self.looker = Looker(self.world, self.identity)
        self.publisher = Publisher(self.world, self.identity)
        self.restorer = Restorer(self.world, self.publisher)
        self.answerer = Answerer(self.world)

    def step(self) -> float:
        """Scan and report if it is time; return how long to wait, in seconds.

        Raises ``AgentRefusedError`` or ``SupersededError`` when the agent
        must stop.  Everything else that goes wrong is told and tried again.
        """
        if self._due():
            self._try_scan()
        if self.publisher.published is not None:
            self.answerer.step(self.looker.sightings)
        return max(0.0, self._next_look - self.world.clock.boottime())

    def _try_scan(self) -> None:
        clock = self.world.clock
        self._next_look = clock.boottime() + self.world.policy.report_interval_s
        try:
            self._scan()
        except MemberExistsError as error:
            self._retry("waiting-for-old-registration", error)
        except ExpungedError as error:
            self._retry("expunged", error)
            self._return()
        except (ConflictError, OutcomeUnknownError, codec.RecordError) as error:
            self._retry("report-not-written", error)
        except CoordinationError as error:
            self._retry("zookeeper-out-of-reach", error)
            self._look_alone()

    def look_soon(self) -> None:
        """Make the next step look, whatever the interval; any thread may call it.

        One that comes while a look is under way may only be met by the next.
        """
        self._hurried = True

    def finish(self) -> None:
        """Leave in order: sealed if the host stops and that was seen, else missing."""
        host = self.world.host
        if host.stopping() and host.compute_stopped() and host.guests_gone():
            try:
                self._seal()
            except (CoordinationError, OutcomeUnknownError, codec.RecordError) as error:
                self.world.journal.event("not-sealed", error=error)
        try:
            self.world.coordination.leave()
        except (CoordinationError, OutcomeUnknownError) as error:
            # The session ends with the process and takes the registration along.
            self.world.journal.event("left-without-word", error=error)
        self.world.journal.event("agent-stopped", node=self.world.policy.node)

    def _due(self) -> bool:
        if self._hurried:
            # Cleared before the look: whatever hurries during it counts anew.
            self._hurried = False
            return True
        try:
            changes = self.world.coordination.watch(ledger.ROUND)
        except CoordinationError:
            # Out of reach: the scan says so, when its time has come.
            return self.world.clock.boottime() >= self._next_look
        if changes != self._rounds_seen:
            self._rounds_seen = changes
            return True
        return self.world.clock.boottime() >= self._next_look

    def _return(self) -> None:
        """Begin a new incarnation, so that the tombstone's witness is no more.

        A ZooKeeper that was restored from a copy would know the tombstone alone,
        and a witness that still fits it is the trace of nobody.
        """
        try:
            self.identity = start(self.world, self.identity.cluster.name)
        except (StorageError, OutcomeUnknownError) as error:
            self._tell_once("witness-not-written", str(error))
            return
        self.looker.identity = self.publisher.identity = self.identity
        self.looker.break_coverage()
        self.publisher.returned = True

    def _look_alone(self) -> None:
        """Keep the windows filled while ZooKeeper is out of reach."""
        now = self.world.clock.boottime()
        if now >= self._next_look_alone:
            self.looker.look_alone()
            self._next_look_alone = now + self.world.policy.report_interval_s

    def _retry(self, what: str, error: Exception) -> None:
        self._next_look = self.world.clock.boottime() + min(
            RETRY_S, self.world.policy.report_interval_s
        )
        self._tell_once(what, str(error))

    def _tell_once(self, what: str, error: str) -> None:
        """Tell of trouble when it begins or changes, not at every try."""
        if self._trouble != f"{what} {error}":
            self._trouble = f"{what} {error}"
            self.world.journal.event(what, error=error)

    def _check_tree(self) -> None:
        """Refuse to report into another cluster's tree."""
        found = ledger.cluster_of(self.world.coordination.get(ledger.IDENTITY))
        if found is None:
            raise CoordinationError(
                "ZooKeeper has no such cluster: was it initialised, or did it lose "
                "its data?"
            )
        if isinstance(found, Cluster) and found != self.identity.cluster:
            raise AgentRefusedError(
                f"ZooKeeper's cluster {found.name} has identity {found.identity}, "
                f"the directory {self.identity.cluster.identity}: one of them is "
                "another cluster's"
            )

    def _recover(self) -> None:
        """Check the tree of a new session; take over what an earlier run left."""
        session = self.world.coordination.session_id()
        if session != self._checked_session:
            self._check_tree()
            self._checked_session = session
        if self._recovered:
            return
        last = self.publisher.recover()
        if last is not None:
            self.restorer.intents |= last.intents
            self.looker.inherit(last.now | last.since)
        self._recovered = True

    def _scan(self) -> None:
        self._recover()
        ground = self.looker.ground()
        sight = self.looker.look(ground)
        if self.looker.blind:
            # Nothing is known of what this node uses: no report at all keeps
            # the gate closed, where an empty one would not.
            failed = "; ".join(f"{f.source}: {f.message}" for f in sight.failures)
            self._tell_once("no-report-yet", failed)
            return
        wanted = self.looker.wanted_entries(ground, sight.uses)
        missing = self.restorer.missing_entries(wanted)
        self._alarms(ground, sight)
        if missing or self.restorer.intents:
            self.restorer.run(
                ground, missing, lambda intents: self._report(ground, sight, intents)
            )
            # What was restored exists again and must be looked at again.
            self._next_look = self.world.clock.boottime() + min(
                RETRY_S, self.world.policy.report_interval_s
            )
        report = self._report(ground, sight, frozenset(self.restorer.intents))
        if self.publisher.due(report):
            self.publisher.publish(report, ground.manifest)
            self._trouble = ""
            self.world.journal.event(
                "reported",
                round=report.upto,
                uses=len(report.now),
                complete=report.complete,
            )

    def _alarms(self, ground: Ground, sight: Sight) -> None:
        """Sound the alarm once for used names that are nowhere at all."""
        kept = {e.name for batch in ground.manifest for e in batch.entries}
        missing = [name for name in sight.vanished if name not in kept]
        now_s = self.world.clock.boottime()
        for name in self._losses.look(missing, now_s, sight.name_cache_s):
            self.world.journal.event("used-name-lost", name=name)

    def _report(
        self,
        ground: Ground,
        sight: Sight,
        intents: frozenset[str],
        *,
        sealed: bool = False,
    ) -> Report:
        coverage = sight.windows.coverage()
        policy = self.world.policy
        return Report(
            node=policy.node,
            incarnation=self.identity.incarnation,
            schema_version=policy.schema_version,
            kernel_naming=policy.kernel_naming,
            upto=ground.round,
            since_round=coverage.since_round,
            unbroken=coverage.unbroken,
            now=sight.uses,
            since=coverage.since - sight.uses,
            storage_time_ns=sight.storage_time_ns,
            name_cache_s=sight.name_cache_s,
            sees=sight.sees,
            saw=coverage.saw - sight.sees,
            intents=intents,
            failures=sight.failures,
            lost=self._losses.lost,
            sealed=sealed,
            release=__version__,
            caveats=sight.caveats,
        )

    def _seal(self) -> None:
        """Write the final report of a host that stops with nothing running."""
        ground = self.looker.ground()
        sight = self.looker.look(ground)
        if sight.failures or self.looker.blind or self.restorer.intents:
            self.world.journal.event("not-sealed", failures=len(sight.failures))
            return
        report = self._report(ground, sight, frozenset(), sealed=True)
        self.publisher.publish(report, ground.manifest)
        self.world.journal.event("sealed", node=report.node, uses=len(report.now))
