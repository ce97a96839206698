"""Questions to agents about one name, and their answers, as records.

They only tell: a question or an answer that cannot be read counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sharedcache.core import names
from sharedcache.core.codec import Fields, RecordError
from sharedcache.core.referrers import LIMIT, Referrer, Sighting, Span

MAX_TEXT = 512
"""Characters of a path or a name in an answer; longer ones are cut."""

MAX_SOURCES = 32
"""Sources in an answer; no agent has as many."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent says of a name; ``at_s`` is its own clock, since 1970."""

    name: str
    sightings: tuple[Sighting, ...]
    at_s: float


def question_to_record(name: str) -> dict[str, object]:
    """Turn a question into a map."""
    return {"name": name}


def question_from_record(values: object) -> str | None:
    """Read the name that is asked about; ``None`` if it was answered already.

    Raises ``RecordError``.
    """
    fields = Fields(values)
    name = fields.text("name")
    if names.classify(name) is names.Kind.UNRECOGNISED:
        raise RecordError("the question names no cache name")
    return None if fields.part("answer") is not None else name


def answer_to_record(answer: Answer) -> dict[str, object]:
    """Turn an answer into a map, the question's with one key more."""
    return {
        "name": answer.name,
        "answer": {
            "at": max(0.0, answer.at_s),
            "sources": [_sighting_to(one) for one in answer.sightings[:MAX_SOURCES]],
        },
    }


def answer_from_record(values: object) -> Answer | None:
    """Read an answer; ``None`` if there is none yet.  Raises ``RecordError``."""
    fields = Fields(values)
    part = fields.part("answer")
    if part is None:
        return None
    said = Fields(part)
    sources = said.items("sources")[:MAX_SOURCES]
    return Answer(
        fields.text("name"),
        tuple(_sighting_from(one) for one in sources),
        said.number("at"),
    )


def _sighting_to(one: Sighting) -> dict[str, object]:
    return {
        "source": _cut(one.source),
        "by_family": one.by_family,
        "more": one.more,
        **_span_to(one.span),
        "referrers": [
            {
                "kind": _cut(referrer.kind),
                "name": _cut(referrer.name),
                "path": _cut(referrer.path),
                **_span_to(span),
            }
            for referrer, span in one.referrers[:LIMIT]
        ],
    }


def _sighting_from(values: object) -> Sighting:
    fields = _fields(values)
    return Sighting(
        _cut(fields.text("source")),
        _span_from(fields),
        fields.flag("by_family"),
        tuple(_referrer_from(one) for one in fields.items("referrers")[:LIMIT]),
        fields.integer("more"),
    )


def _referrer_from(values: object) -> tuple[Referrer, Span]:
    fields = _fields(values)
    kind, name, path = (_cut(fields.text(key)) for key in ("kind", "name", "path"))
    referrer = Referrer(kind, name, path)
    return referrer, _span_from(fields)


def _span_to(span: Span) -> dict[str, object]:
    return {
        "since": max(0.0, span.since_s),
        "at_least": span.at_least,
        "until": None if span.until_s is None else max(0.0, span.until_s),
    }


def _span_from(fields: Fields) -> Span:
    return Span(
        fields.number("since"),
        fields.flag("at_least"),
        fields.optional_number("until"),
    )


def _fields(values: object) -> Fields:
    if not isinstance(values, Mapping):
        raise RecordError("a part of the answer is not a map")
    return Fields({**values, "schema": 1})


def _cut(text: str) -> str:
    """Make a text that any reader can decode and that is not long."""
    said = text.encode("utf-8", "backslashreplace").decode()
    return said if len(said) <= MAX_TEXT else f"{said[: MAX_TEXT - 3]}..."
