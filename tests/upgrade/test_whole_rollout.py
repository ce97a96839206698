"""A whole rollout as processes on a real ensemble, beside cleaners of 2013.

The nodes are upgraded one by one while guests start and stop, and kernels of
both namings are in use.  On every node that is not upgraded yet a cleaner of
2013 removes sha1 names that no disk image explains.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.zookeeper.session import ZooKeeperSession
from sharedcache.cache import IMAGE, KERNEL, SharedCache
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.cleaner.observe import Observer
from sharedcache.core.gate import Code
from sharedcache.core.gate_rules import evaluate
from sharedcache.core.model import Report
from tests.support.cleaner2013 import Cleaner2013, fetch_as_then
from tests.support.cluster import Cluster, cache_name, image_id
from tests.support.polling import eventually
from tests.support.writers import QUICK, giving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sharedcache.adapters.zookeeper_server import PrivateEnsemble
    from sharedcache.cleaner.observe import Observed

pytestmark = pytest.mark.timeout(180)

NODES = tuple(f"compute-{number}" for number in range(1, 7))
OLD_AGE_S = 0.5
"""From which age on the cleaner of 2013 removes; a day in the field."""
PATIENCE_S = 60.0


class Stageless(SharedCache):
    """Writers whose stage is switched off: they write the hashed naming at once."""

    def _schema(self) -> int:
        return 2


@dataclass(frozen=True)
class Guest:
    """One guest: its node, its disk image and its kernel."""

    node: str
    image: str
    kernel: str


@dataclass
class Farm:
    """The nodes with their guests, old cleaners, and a watch on what is in use."""

    cluster: Cluster
    writer: SharedCache
    guests: set[Guest] = field(default_factory=set)
    old: dict[str, Cleaner2013] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Let the old cleaners run, and the watch with them."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self._over.set()
        assert self._thread is not None
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            with self._lock:
                images = [guest.image for guest in self.guests]
                for cleaner in self.old.values():
                    cleaner.clean(images)
                self.losses += [
                    f"{guest}: {what}"
                    for guest in self.guests
                    for what in self._lost(guest)
                ]

    def _lost(self, guest: Guest) -> Iterator[str]:
        base = self.cluster.base
        if not (base / cache_name(guest.image)).exists():
            yield "its disk image is gone"
        names = (guest.kernel, cache_name(guest.kernel))
        if not any((base / name).exists() for name in names):
            yield "its kernel is gone under either name"

    def begin(self, guest: Guest) -> None:
        """Start a guest: as of then on an old node, else through the writer."""
        base = self.cluster.base
        if guest.node in self.old:
            with self._lock:
                fetch_as_then(base, guest.image, guest.kernel)
            self._add(guest)
            return
        with (
            self.writer.use(guest.image, IMAGE, fetch=giving(b"image")),
            self.writer.use(guest.kernel, KERNEL, fetch=giving(b"kernel")),
        ):
            self._add(guest)

    def _add(self, guest: Guest) -> None:
        with self._lock:
            self.guests.add(guest)
        self._tell(guest.node)

    def end(self, guest: Guest) -> None:
        """Stop a guest and forget it."""
        with self._lock:
            self.guests.remove(guest)
        self._tell(guest.node)

    def _tell(self, node: str) -> None:
        mine = [guest for guest in self.guests if guest.node == node]
        self.cluster.use(
            node,
            images=[guest.image for guest in mine],
            kernels=[guest.kernel for guest in mine],
        )

    def let_them_clean(self) -> None:
        """Wait until every old cleaner saw what is there now at its full age."""
        cleaners = list(self.old.values())
        passes = int(OLD_AGE_S / 0.05) + 3
        wanted = {id(one): one.passes + passes for one in cleaners}
        eventually(
            lambda: all(one.passes >= wanted[id(one)] for one in cleaners),
            PATIENCE_S,
            "the old cleaners have passed",
        )


@dataclass
class Desk:
    """An operator's eyes, in this very process."""

    session: ZooKeeperSession
    storage: DirectoryStorage

    def look(self, *, scan: bool = False) -> Observed:
        """Observe the cluster."""
        return Observer(self.session, self.storage).observe(scan=scan)

    def wait_at(self, versions: dict[str, int]) -> None:
        """Wait until these nodes are live, report, and are at these schemas."""

        def there() -> bool:
            views = {view.node: view for view in self.look().seen.facts.nodes}
            return all(
                node in views
                and views[node].member
                and views[node].witnessed
                and isinstance(report := views[node].report, Report)
                and report.schema_version == version
                for node, version in versions.items()
            )

        eventually(there, PATIENCE_S, f"live: {versions}")


@pytest.fixture
def cluster(
    tmp_path: Path, ensemble: PrivateEnsemble, zk_cluster_name: str
) -> Iterator[Cluster]:
    """Make a directory with kernels of the old naming, one of them unused."""
    root = tmp_path / "site"
    with Cluster(root, ensemble.addresses, zk_cluster_name) as made:
        (made.base.parent / "locks").mkdir()
        made.clean_by(min_age_kernel_s=0)
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close what a test opened."""
    with ExitStack() as made:
        yield made


def open_farm(cluster: Cluster, stack: ExitStack, kind: type[SharedCache]) -> Farm:
    """Open the directory for writers, and begin to watch."""
    writer = stack.enter_context(kind(cluster.base, agent_socket="", limits=QUICK))
    return stack.enter_context(Farm(cluster, writer))


def open_desk(cluster: Cluster, stack: ExitStack) -> Desk:
    """Open a session and the directory for the operator."""
    session = ZooKeeperSession(
        cluster.zookeeper, cluster.name, "desk", session_timeout_s=4.0
    )
    stack.callback(session.stop)
    session.start()
    storage = stack.enter_context(DirectoryStorage(str(cluster.base)))
    return Desk(session, storage)


def start_old(farm: Farm, nodes: tuple[str, ...]) -> list[Guest]:
    """Start every node as of then, with a guest."""
    guests: list[Guest] = []
    for number, node in enumerate(nodes):
        farm.cluster.agent(node, schema_version=1)
        with farm._lock:
            farm.old[node] = Cleaner2013(farm.cluster.base, OLD_AGE_S)
        guests.append(Guest(node, image_id(number), image_id(100 + number)))
        farm.begin(guests[-1])
    return guests


def upgrade(farm: Farm, node: str) -> None:
    """Stop a node's old cleaner and its agent, and start the new release's."""
    with farm._lock:
        del farm.old[node]
    assert farm.cluster.daemons[node].stop() == 0
    farm.cluster.agent(node, uses=None, start=False)
    farm._tell(node)
    farm.cluster.daemons[node].start()


def test_with_the_stages_enforced_nothing_in_use_is_lost(
    cluster: Cluster, stack: ExitStack
) -> None:
    """From six old nodes to the last unused raw-id kernel purged."""
    unused = cluster.put(image_id(999))
    assert cluster.init()["finalized_schema"] == 1
    farm, desk = open_farm(cluster, stack, SharedCache), open_desk(cluster, stack)
    first = start_old(farm, NODES)
    for name in ("cleaner-1", "cleaner-2"):
        cluster.cleaner(name)
    desk.wait_at(dict.fromkeys(NODES, 1))
    upgraded: list[Guest] = []
    for number, node in enumerate(NODES):
        with pytest.raises(RefusedError, match=node):
            finalize(desk.session, desk.storage, desk.look(), "me", 1.0)
        upgrade(farm, node)
        desk.wait_at({node: 2})
        # A kernel that is new, and one that an old node brought.
        upgraded += [
            Guest(node, image_id(number), image_id(200 + number)),
            Guest(node, image_id(50 + number), first[-1].kernel),
        ]
        for guest in upgraded[-2:]:
            farm.begin(guest)
        if number % 2:
            farm.end(first[number])
        farm.let_them_clean()
        assert (cluster.base / image_id(200 + number)).exists(), "not the old naming"
    assert farm.losses == []
    assert cluster.ask("rollout", "finalize", "--yes")["state"] == "finalized"
    late = Guest(NODES[0], image_id(70), image_id(300))
    again = Guest(NODES[1], image_id(71), first[2].kernel)
    for guest in (late, again):
        farm.begin(guest)
    assert (cluster.base / cache_name(late.kernel)).exists()
    assert not (cluster.base / late.kernel).exists()
    farm.end(upgraded[0])
    gone = {unused.name, first[1].kernel, first[3].kernel, upgraded[0].kernel}
    eventually(
        lambda: not gone & (cluster.names() | cluster.quarantined()),
        PATIENCE_S,
        f"purged: {gone}",
    )
    kept = cluster.names()
    assert {first[2].kernel, upgraded[2].kernel, cache_name(late.kernel)} <= kept
    assert farm.losses == []
    codes = {r.code for r in evaluate(desk.look(scan=True).seen.facts).reasons}
    assert Code.OLD_NAME_APPEARED not in codes


def test_with_the_writers_stage_off_a_kernel_in_use_is_lost(
    cluster: Cluster, stack: ExitStack
) -> None:
    """The test above can fail: this is what the stage is there for."""
    cluster.put(image_id(999))
    cluster.init()
    farm, desk = open_farm(cluster, stack, Stageless), open_desk(cluster, stack)
    start_old(farm, NODES[:2])
    desk.wait_at(dict.fromkeys(NODES[:2], 1))
    upgrade(farm, NODES[0])
    desk.wait_at({NODES[0]: 2})
    guest = Guest(NODES[0], image_id(0), image_id(200))
    farm.begin(guest)
    eventually(lambda: farm.losses, PATIENCE_S, "a kernel in use is lost")
    assert farm.losses[0] == f"{guest}: its kernel is gone under either name"
