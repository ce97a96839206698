"""Acts: what the audit trail tells of, and how an act is written and read.

An act is one deed of one doer at one time, on any number of subjects: a batch
that was purged is one act.  The trail is for people: no rule relies on it, and
whatever cannot be read of it is shown as such.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sharedcache.core.codec import RECORD_SCHEMA, Fields, RecordError, unpack
from sharedcache.core.model import NANOSECONDS, EntryState, ManifestEntry

MAX_PART_BYTES = 120_000
"""About the largest record of the trail; an act with more subjects is split."""

LISTED = 20
"""An order on more names than this is one row of history, and counts as one."""

_MAX_TEXT = 500
_MAX_NAME = 300
_SUBJECT_BYTES = 64
_NAME_BYTES = 3
_FIRST = 3
_SUBJECT_FIELDS = 4


class Deed(enum.StrEnum):
    """What was done; a reader takes other words as they are, and shows them."""

    QUARANTINED = "quarantined"
    PURGED = "purged"
    VANISHED = "vanished"
    """An entry left quarantine by a hand that the cluster does not know."""
    RESTORED = "restored"
    REFUSED = "refused"
    FOUNDED = "founded"
    FINALIZED = "finalized"
    INVENTORY_TAKEN = "inventory-taken"
    ACKNOWLEDGED = "acknowledged"
    ROLLOUT_HELD = "rollout-held"
    ROLLOUT_RELEASED = "rollout-released"
    TOOK_OFFICE = "took-office"
    SEALED_EPOCHS = "sealed-epochs"
    EXPECTED = "expected"
    EXPUNGED = "expunged"
    RETURNED = "returned"
    """A node that was expunged reports again: its host was not off for good."""
    PAUSED = "paused"
    RESUMED = "resumed"
    BRAKED = "braked"
    """A leader stopped under a brake, or under another one than before."""
    BRAKE_ENDED = "brake-ended"
    """The brake is gone: its cause is, or it was approved and carried out."""
    APPROVED = "approved"
    HOLD_ADDED = "hold-added"
    HOLD_REMOVED = "hold-removed"
    RECOVERED = "recovered"
    FOUND_DAMAGED = "found-damaged"
    """A file's content is not what was recorded; ``verify`` ordered it away."""
    FOUND_WHOLE = "found-whole"
    """A file that was found damaged is whole again: its order was withdrawn."""


class By(enum.StrEnum):
    """Which kind of doer."""

    CLEANER = "cleaner"
    NODE = "node"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Doer:
    """Who did it: a cleaner in its epoch, a node, or an operator (user@host)."""

    by: str
    who: str
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """An operator's: user@host, and when, in seconds since 1970."""

    who: str
    when: float

    @property
    def doer(self) -> Doer:
        """The operator as an act names it."""
        return Doer(By.OPERATOR, self.who)


@dataclass(frozen=True, slots=True)
class Subject:
    """What an act was done to.

    ``name`` is a cache name, or a node's; ``entry`` the entry of the manifest;
    ``size`` in bytes, for a purge what it freed; ``last_use_s`` the file's
    modification time, in seconds on the storage's clock.
    """

    name: str
    entry: str | None = None
    size: int | None = None
    last_use_s: int | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """One deed.  ``when`` is for people to read, in seconds since 1970.

    ``why`` names the rule; ``plan`` is the digest of the plan whose step it
    was, ``round`` the round by which it was judged; ``asked`` is what a refusal
    refused.  ``left_off`` counts subjects for which there was no room.
    ``together`` are names instead of subjects, which share one row: a row each
    would push all other acts out of the trail.
    """

    deed: str
    doer: Doer
    when: float
    why: str = ""
    subjects: tuple[Subject, ...] = ()
    plan: str | None = None
    round: int | None = None
    asked: str | None = None
    left_off: int = 0
    together: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many rows of history it makes, at least one."""
        return max(1, len(self.subjects))


def upon(act: Act, names: Sequence[str]) -> Act:
    """Return an order with the names that it was given for, however many."""
    if len(names) > LISTED:
        return replace(act, together=tuple(names))
    return replace(act, subjects=tuple(Subject(name) for name in names))


def spread(act: Act) -> Act:
    """Return an act with a subject for each of its names, as the log tells it."""
    alone = tuple(Subject(name) for name in act.together)
    return replace(act, subjects=(*act.subjects, *alone), together=())


def concerning(act: Act, name: str) -> Act:
    """Return an act as the history of one name tells it."""
    if name not in act.together:
        return act
    return replace(act, subjects=(Subject(name),), together=())


def rows(act: Act) -> Iterator[dict[str, object]]:
    """Give an act as flat rows with stable keys, one for each subject.

    The log and ``history`` show the same keys.  An act without a subject is
    one row; so are the subjects that were left off, and names ``together``.
    """
    if act.together:
        yield _row(act, None, _summary(act))
        return
    for subject in act.subjects:
        yield _row(act, subject, act.why)
    if not act.subjects and not act.left_off:
        yield _row(act, None, act.why)
    if act.left_off:
        more = f"{act.left_off} more, which only the log names"
        yield _row(act, None, f"{act.why}; {more}" if act.why else more)


def _summary(act: Act) -> str:
    """Say of how many names an act tells, and name the first few."""
    count, first = len(act.together), ", ".join(act.together[:_FIRST])
    more = f" and {count - _FIRST} more" if count > _FIRST else ""
    said = f"{count} names: {first}{more}"
    return f"{act.why}; {said}" if act.why else said


def _row(act: Act, subject: Subject | None, why: str) -> dict[str, object]:
    return {
        "act": str(act.deed),
        "when": act.when,
        "by": str(act.doer.by),
        "who": act.doer.who,
        "epoch": act.doer.epoch,
        "name": None if subject is None else subject.name,
        "entry": None if subject is None else subject.entry,
        "bytes": None if subject is None else subject.size,
        "last_use": None if subject is None else subject.last_use_s,
        "plan": act.plan,
        "round": act.round,
        "asked": act.asked,
        "why": why,
    }


def parts(act: Act) -> Iterator[Act]:
    """Split an act with many subjects, so that each part fits one record."""
    if act.together:
        for piece in _pieces(act.together, _NAME_BYTES):
            yield replace(act, together=act.together[piece])
        return
    *most, last = _pieces([one.name for one in act.subjects], _SUBJECT_BYTES)
    for piece in most:
        yield replace(act, subjects=act.subjects[piece], left_off=0)
    yield replace(act, subjects=act.subjects[last])


def _pieces(names: Sequence[str], more: int) -> Iterator[slice]:
    """Cut names so that each piece fits one record, ``more`` bytes beside each."""
    room, first = MAX_PART_BYTES, 0
    for index, name in enumerate(names):
        size = more + len(_said(name, _MAX_NAME).encode())
        if size > room:
            yield slice(first, index)
            room, first = MAX_PART_BYTES, index
        room -= size
    yield slice(first, len(names))


def _said(text: str, most: int) -> str:
    """Return a text of bounded length that any reader can decode."""
    return text.encode("utf-8", "backslashreplace").decode()[:most]


def act_to_record(act: Act) -> dict[str, object]:
    """Turn an act into a map; texts are cut where they are too long."""
    together = [_said(name, _MAX_NAME) for name in act.together]
    return {
        "act": str(act.deed),
        "by": str(act.doer.by),
        "who": _said(act.doer.who, _MAX_NAME),
        "epoch": act.doer.epoch,
        "when": act.when,
        "why": _said(act.why, _MAX_TEXT),
        "plan": act.plan,
        "round": act.round,
        "asked": act.asked,
        "left_off": act.left_off,
        "subjects": [
            [_said(s.name, _MAX_NAME), s.entry, s.size, s.last_use_s]
            for s in act.subjects
        ],
        # Left out where it is empty, as a release that does not know it writes.
        **({"together": together} if together else {}),
    }


def act_from_record(values: Mapping[str, object]) -> Act:
    """Read an act back; raises ``RecordError``.

    What a later release may add, keys and words, is no error.
    """
    fields = Fields(values)
    return Act(
        deed=fields.text("act"),
        doer=Doer(fields.text("by"), fields.text("who"), _number(values, "epoch")),
        when=fields.number("when"),
        why=fields.text("why", ""),
        subjects=tuple(_subject(item) for item in fields.items("subjects")),
        plan=_text(values, "plan"),
        round=_number(values, "round"),
        asked=_text(values, "asked"),
        left_off=_number(values, "left_off") or 0,
        together=_together(values),
    )


def as_written(act: Act) -> Act:
    """Return an act as its record gives it back: long texts are cut."""
    return act_from_record({"schema": RECORD_SCHEMA, **act_to_record(act)})


def act_from_bytes(data: bytes) -> Act:
    """Read an act from a record's bytes; raises ``RecordError``."""
    return act_from_record(unpack(data))


def _number(values: Mapping[str, object], key: str) -> int | None:
    return None if values.get(key) is None else Fields(values).integer(key)


def _text(values: Mapping[str, object], key: str) -> str | None:
    return None if values.get(key) is None else Fields(values).text(key)


def _together(values: Mapping[str, object]) -> tuple[str, ...]:
    if "together" not in values:
        return ()
    return Fields(values).texts("together")


def _subject(item: object) -> Subject:
    if not isinstance(item, list | tuple) or len(item) < _SUBJECT_FIELDS:
        raise RecordError("a subject has the wrong shape")
    name, entry, size, last_use_s = item[:_SUBJECT_FIELDS]
    named = {"schema": RECORD_SCHEMA, "name": name, "entry": entry, "size": size}
    if last_use_s is not None and type(last_use_s) is not int:
        raise RecordError("a subject's last use is not a whole number")
    return Subject(
        Fields(named).text("name"),
        _text(named, "entry"),
        _number(named, "size"),
        last_use_s,
    )


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the entries of a record of the manifest."""

    quarantined: tuple[ManifestEntry, ...] = ()
    purged: tuple[ManifestEntry, ...] = ()
    vanished: tuple[ManifestEntry, ...] = ()


def changes(
    before: Iterable[ManifestEntry],
    after: Iterable[ManifestEntry],
    authorised: Container[str],
) -> Changes:
    """Tell what happened to files from what is written of their entries.

    An entry is taken once, and leaves the manifest once, each in a transaction
    that checks the record's version; so whoever derives acts from what that
    transaction changes, and writes them in it, tells of each exactly once.
    ``authorised`` holds the ids of entries that somebody was allowed to unlink.
    An entry that leaves while only intended was never renamed.
    """
    now = {entry.entry: entry for entry in after}
    was = {entry.entry: entry for entry in before}
    gone = [e for e in was.values() if e.entry not in now and _is_taken(e)]
    return Changes(
        quarantined=tuple(
            entry
            for entry in now.values()
            if _is_taken(entry)
            and (entry.entry not in was or not _is_taken(was[entry.entry]))
        ),
        purged=tuple(entry for entry in gone if entry.entry in authorised),
        vanished=tuple(entry for entry in gone if entry.entry not in authorised),
    )


def _is_taken(entry: ManifestEntry) -> bool:
    return entry.state is EntryState.TAKEN


def subjects_of(
    entries: Sequence[ManifestEntry], *, freed: bool = False
) -> tuple[Subject, ...]:
    """Name entries as subjects; ``freed`` counts what their unlink gave back.

    A file that has another name still (restored before) gave nothing back.
    """
    return tuple(_subject_of(entry, freed=freed) for entry in entries)


def _subject_of(entry: ManifestEntry, *, freed: bool) -> Subject:
    base = entry.baseline
    if base is None:
        return Subject(entry.name, entry.entry, entry.size)
    size = entry.size if base.links == 1 or not freed else 0
    return Subject(entry.name, entry.entry, size, base.mtime_ns // NANOSECONDS)
