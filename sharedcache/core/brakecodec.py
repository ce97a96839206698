"""Records of the brakes: what is remembered of uses, and the brake that is on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sharedcache.core.codec import Fields, RecordError
from sharedcache.core.gate import Closes, Code, Reason
from sharedcache.core.plan import Remembered
from sharedcache.core.shrink import KEY_BYTES

_COLUMNS = 5


def memory_to_record(memory: Mapping[str, Remembered]) -> dict[str, object]:
    """Turn what is remembered into a map."""
    return {
        "nodes": [
            [node, one.count, b"".join(sorted(one.keys)), one.shrunk_ns, one.least]
            for node, one in sorted(memory.items())
        ]
    }


def memory_from_record(values: object) -> Mapping[str, Remembered]:
    """Read what is remembered back; raises ``RecordError``."""
    fields = Fields(values)
    memory: dict[str, Remembered] = {}
    for row in fields.items("nodes"):
        if not isinstance(row, list | tuple) or len(row) != _COLUMNS:
            raise RecordError("a remembered node has another shape")
        node, one = _remembered(row)
        memory[node] = one
    return memory


def _remembered(row: Sequence[object]) -> tuple[str, Remembered]:
    node, count, keys, shrunk_ns, least = row
    if not isinstance(keys, bytes) or len(keys) % KEY_BYTES:
        raise RecordError("the keys of a remembered node are cut short")
    part = Fields(
        {
            "schema": 1,
            "node": node,
            "count": count,
            "shrunk_ns": shrunk_ns,
            "least": least,
        }
    )
    return part.text("node"), Remembered(
        part.integer("count"),
        frozenset(keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES)),
        None if shrunk_ns is None else part.integer("shrunk_ns"),
        part.integer("least"),
    )


@dataclass(frozen=True, slots=True)
class BrakeNote:
    """The brake that a leader is under, as it tells everybody.

    ``digest`` is that of the leader's own plan, ``files`` how many files that
    plan would take; ``at`` is for people to read, in seconds since 1970.
    """

    epoch: int
    digest: str
    files: int
    reasons: tuple[Reason, ...]
    at: float


def brake_to_record(note: BrakeNote) -> dict[str, object]:
    """Turn a leader's brake into a map."""
    return {
        "epoch": note.epoch,
        "digest": note.digest,
        "files": note.files,
        "at": note.at,
        "subjects": [reason.subject for reason in note.reasons],
        "messages": [reason.message for reason in note.reasons],
    }


def brake_from_record(values: object) -> BrakeNote:
    """Read a leader's brake back; raises ``RecordError``."""
    fields = Fields(values)
    said = zip(fields.texts("subjects"), fields.texts("messages"), strict=False)
    return BrakeNote(
        epoch=fields.integer("epoch"),
        digest=fields.text("digest"),
        files=fields.integer("files"),
        reasons=tuple(
            Reason(Code.BRAKE, Closes.ALL, subject, message)
            for subject, message in said
        ),
        at=fields.number("at"),
    )
