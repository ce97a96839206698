"""Which directory this is: a cluster's, by the marker on the storage."""

from __future__ import annotations

from sharedcache import ledger
from sharedcache.adapters.storage import WriterDirectory
from sharedcache.cache.errors import NotBoundError
from sharedcache.core.model import Cluster, Unreadable


def require_bound(storage: WriterDirectory, base: object, cluster: str | None) -> None:
    """Refuse an empty mount, or another cluster's directory: ``NotBoundError``."""
    found = ledger.marker_of(storage.read_marker())
    if not isinstance(found, Cluster):
        why = "cannot be read" if isinstance(found, Unreadable) else "is missing"
        raise NotBoundError(
            f"the cluster's marker in {base} {why}: is the storage "
            "mounted, and was `sharedcache init` run?"
        )
    if cluster not in (None, found.name):
        raise NotBoundError(f"{base} belongs to cluster {found.name}, not {cluster}")
