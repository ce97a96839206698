"""Members' reports as tooz packs them, and what others' processes left there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tooz import coordination
from tooz import utils as tooz_utils

from sharedcache.adapters.zookeeper.errors import FAILURES, translate, translated
from sharedcache.adapters.zookeeper.link import check_size
from sharedcache.core.ports import UndecodableMember

if TYPE_CHECKING:
    from sharedcache.adapters.zookeeper.link import Pending

# What a request takes beside the report: headers, a path, an ACL.
_REQUEST_BYTES: Final = 500


def checked(capabilities: Mapping[str, object], member: str) -> dict[str, Any]:
    """Return the report as tooz wants it.

    Raises ``CoordinationError`` if it cannot be packed or is too large.
    """
    report = dict(capabilities)
    with translated(f"packing the report of {member}"):
        size = len(tooz_utils.dumps(report))
    check_size(size + _REQUEST_BYTES, f"the report of {member}")
    return report


def take(
    answer: Pending, member: str
) -> Mapping[str, object] | UndecodableMember | None:
    """Wait for one member's report; ``None`` if the member has gone meanwhile.

    What cannot be decoded is told apart, never raised; ``CoordinationError``
    means that ZooKeeper failed.
    """
    try:
        report = answer.get()
    except coordination.MemberNotJoined:
        return None
    except tooz_utils.SerializationError as error:
        return UndecodableMember(f"not what tooz writes: {error}")
    except FAILURES as error:
        raise translate(error, f"reading the report of {member}") from error
    except Exception as error:  # noqa: BLE001 - the bytes are another process's, and tooz's decoder lets through the errors of a dozen types' handlers; one broken member must not hide the others.
        return UndecodableMember(f"{type(error).__name__}: {error}")
    if not isinstance(report, dict):
        return UndecodableMember(f"a {type(report).__name__}, not a report")
    if not all(isinstance(key, str) for key in report):
        return UndecodableMember("a key is not text")
    return report
