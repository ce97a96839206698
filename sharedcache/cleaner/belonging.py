"""Whether directory and ZooKeeper are of one cluster, before anything is asked of it.

A mistyped cluster, or one host's settings with another's directory, must neither
look like a cluster without nodes nor send an order to a cluster that was not meant.
"""

from __future__ import annotations

from sharedcache import ledger
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.core.model import Cluster, Unreadable
from sharedcache.core.ports import Coordination, CoordinationError, Storage

_WHERE = "`cluster` and `zookeeper` in the settings"


def check_cluster(coordination: Coordination, storage: Storage, asked: str) -> None:
    """Raise ``CoordinationError`` if ZooKeeper has no cluster ``asked``."""
    coordination.sync()
    if coordination.get(ledger.IDENTITY) is not None:
        return
    disk = ledger.marker_of(storage.read_marker())
    if not isinstance(disk, Cluster):
        why = f"was `sharedcache init` run? If so, check {_WHERE}"
    elif disk.name != asked:
        why = f"the directory belongs to cluster {disk.name}: check {_WHERE}"
    else:
        why = f"check {_WHERE}; if it lost its data, `sharedcache recover`"
    raise CoordinationError(f"ZooKeeper has no cluster {asked}: {why}")


def check_order(coordination: Coordination, storage: Storage, asked: str) -> None:
    """Raise if an operator's order to the cluster ``asked`` may reach another one.

    ``CoordinationError`` if ZooKeeper has no such cluster, ``RefusedError`` if it
    is not the one that the directory names.  A directory that names none may be
    one that is not mounted here: the order goes to the cluster that was named.
    """
    check_cluster(coordination, storage, asked)
    tree = ledger.cluster_of(coordination.get(ledger.IDENTITY))
    if isinstance(tree, Unreadable):
        raise RefusedError(
            f"the identity of cluster {asked} in ZooKeeper cannot be read "
            f"({tree.why}): upgrade if it is newer, else `sharedcache recover`"
        )
    disk = ledger.marker_of(storage.read_marker())
    if isinstance(disk, Cluster) and disk != tree:
        other = disk.name if disk.name != asked else f"another {asked}"
        raise RefusedError(
            f"the directory belongs to cluster {other} ({disk.identity}), ZooKeeper's "
            f"{asked} is another one: check `base`, {_WHERE}"
        )
