"""Whether this host may be the only one that says what is used in a directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sharedcache import ledger
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cli.failure import Failure, RefusedFailure
from sharedcache.core.model import Unreadable

_REGISTER = "compute_nodes"
"""Nova's register of the nodes that share an instances directory."""

_REGISTER_BYTES = 1024 * 1024
_SURE = "if no other host uses it, say so with --only-host"


def check_base(base: Path, cluster: str) -> None:
    """Refuse a directory that belongs to another cluster, or is not there.

    ``cluster`` is the name that its marker may bear; empty if it has to be a
    directory that no cluster was begun in.
    """
    if not base.is_dir():
        raise Failure(
            f"{base} is no directory: is it mounted? Nova makes it with its first guest"
        )
    with DirectoryStorage(str(base)) as storage:
        marker = ledger.marker_of(storage.read_marker())
    if marker is None:
        return
    if isinstance(marker, Unreadable):
        raise RefusedFailure(f"{base}'s cluster marker cannot be read: {marker.why}")
    if marker.name != cluster:
        raise RefusedFailure(
            f"{base} belongs to cluster {marker.name} ({marker.identity}): use that "
            "cluster's agent and cleaners, or the --data directory that it was begun "
            "with"
        )


def check_alone(base: Path) -> None:
    """Refuse a directory that other hosts may use: nobody asks them here."""
    with DirectoryStorage(str(base)) as storage:
        shared = storage.name_cache_s() > 0
    if shared:
        raise RefusedFailure(
            f"{base} may be on storage that other hosts mount, and standalone asks "
            f"this host alone what it uses: use agents and cleaners; {_SURE}"
        )
    register = base.parent / _REGISTER
    hosts = _registered(register)
    if len(hosts) > 1:
        raise RefusedFailure(
            f"Nova's register {register} names {len(hosts)} hosts ("
            f"{', '.join(sorted(hosts)[:3])}), and standalone asks this one alone: use "
            f"agents and cleaners; {_SURE}"
        )


def _registered(register: Path) -> set[str]:
    """Read which hosts Nova has seen using the directory lately."""
    try:
        with register.open("rb") as file:
            told = json.loads(file.read(_REGISTER_BYTES))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise RefusedFailure(
            f"Nova's register {register} cannot be read, so other hosts may use the "
            f"directory: {error}; {_SURE}"
        ) from error
    if not isinstance(told, dict):
        raise RefusedFailure(
            f"Nova's register {register} is none, so other hosts may use the "
            f"directory; {_SURE}"
        )
    return {str(host) for host in told}


def owner_note(base: Path) -> str:
    """Say what running as another user than the owner means; empty if it is so."""
    owner = base.stat().st_uid
    if owner == os.geteuid():
        return ""
    return (
        f"{base} belongs to user id {owner}, and you are {os.geteuid()}: should this "
        f"become a cluster later, give {base}/.sharedcache to that user first."
    )
