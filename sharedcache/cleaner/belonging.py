"""Whether directory and ZooKeeper are of one cluster, before anything is asked of it.

A mistyped cluster, or one host's settings with another's directory, must neither
look like a cluster without nodes nor send an order to a cluster that was not meant.
"""

from __future__ import annotations

from sharedcache import ledger
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.core.model import Cluster, Unreadable
from sharedcache.core.ports import (
    Coordination,
    CoordinationError,
    Storage,
    StorageError,
)

_WHERE = "`cluster` and `zookeeper` in the settings"


def check_cluster(coordination: Coordination, storage: Storage, asked: str) -> None:
    """Raise ``CoordinationError`` if ZooKeeper has no cluster ``asked``."""
    coordination.sync()
    if coordination.get(ledger.IDENTITY) is not None:
        return
    disk = _named(storage)
    if disk is None:
        why = f"was `sharedcache init` run? If so, check {_WHERE}"
    elif disk.name != asked:
        why = f"the directory belongs to cluster {disk.name}: check {_WHERE}"
    else:
        why = f"check {_WHERE}; if it lost its data, `sharedcache recover`"
    raise CoordinationError(f"ZooKeeper has no cluster {asked}: {why}")


def check_order(coordination: Coordination, storage: Storage, asked: str) -> None:
    """Raise if an operator's order to the cluster ``asked`` may reach another one.

    ``CoordinationError`` if ZooKeeper has no such cluster, ``RefusedError`` if it
    is not the one that the directory names.  A directory that names none, or that
    cannot be read here, hinders no order, least of all a pause: it goes to the
    cluster that was named.
    """
    check_cluster(coordination, storage, asked)
    tree = ledger.cluster_of(coordination.get(ledger.IDENTITY))
    if isinstance(tree, Unreadable):
        raise RefusedError(
            f"the identity of cluster {asked} in ZooKeeper cannot be read "
            f"({tree.why}): upgrade if it is newer, else `sharedcache recover`"
        )
    disk = _named(storage)
    if disk is not None and disk != tree:
        other = disk.name if disk.name != asked else f"another {asked}"
        raise RefusedError(
            f"the directory belongs to cluster {other} ({disk.identity}), ZooKeeper's "
            f"{asked} is another one: check `base`, {_WHERE}"
        )


def _named(storage: Storage) -> Cluster | None:
    """Return the cluster that the directory names; ``None`` if it tells none."""
    try:
        found = ledger.marker_of(storage.read_marker())
    except StorageError:
        return None
    return found if isinstance(found, Cluster) else None
