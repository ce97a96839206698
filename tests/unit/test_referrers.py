"""Since when each source says that a name is used, and what refers to it."""

from __future__ import annotations

import pytest

from sharedcache.core import codec, questions
from sharedcache.core.model import Uses
from sharedcache.core.names import digest_of
from sharedcache.core.questions import Answer
from sharedcache.core.referrers import (
    LIMIT,
    Key,
    Referrer,
    Referrers,
    Sighting,
    Sightings,
    Span,
)

X, Y = "a" * 40, "b" * 40
DISK, OTHER = Referrer("disk", path="/i/1/disk"), Referrer("disk", path="/i/2/disk")


def told(*referrers: Referrer, name: str = X) -> Referrers:
    """Let things refer to a name."""
    made = Referrers()
    for one in referrers:
        made.add([name], one)
    return made


def uses(*names: str) -> Uses:
    """Use cache names."""
    return Uses.of_names(names)


def test_since_when() -> None:
    """What the first look meets was there before; what comes later came then."""
    seen = Sightings()
    seen.looked("s", uses(X), told(DISK), 10.0)
    seen.looked("s", uses(X), told(DISK, OTHER), 20.0)
    seen.looked("s", uses(X, Y), told(DISK, OTHER), 30.0)
    at_start, later = Span(10.0, at_least=True), Span(20.0)
    assert seen.of(X) == (
        Sighting("s", at_start, referrers=((DISK, at_start), (OTHER, later))),
    )
    assert seen.of(Y) == (Sighting("s", Span(30.0)),)
    assert seen.of("c" * 40) == ()


def test_what_ended_is_told_while_the_report_bears_it() -> None:
    """A use of the window has its end told; one that nobody reports is forgotten."""
    seen = Sightings()
    seen.looked("s", uses(X), told(DISK), 10.0)
    seen.looked("s", uses(), told(), 20.0)
    gone = Span(10.0, at_least=True, until_s=20.0)
    seen.forget(uses(X))
    assert seen.of(X) == (Sighting("s", gone, referrers=((DISK, gone),)),)
    seen.forget(uses())
    assert seen.of(X) == ()


def test_one_of_two_referrers_ends() -> None:
    """The name goes on being used; the thing that is gone is told with its end."""
    seen = Sightings()
    seen.looked("s", uses(X), told(DISK, OTHER), 10.0)
    seen.looked("s", uses(X), told(OTHER), 20.0)
    (sighting,) = seen.of(X)
    assert sighting.span.until_s is None
    assert [(r, span.until_s) for r, span in sighting.referrers] == [
        (OTHER, None),
        (DISK, 20.0),
    ]


def test_what_comes_back_begins_anew() -> None:
    """A use that ended and begins again has its new beginning told."""
    seen = Sightings()
    for at, names in ((1.0, (X,)), (2.0, ()), (3.0, (X,))):
        seen.looked("s", uses(*names), told(DISK) if names else told(), at)
    assert seen.of(X) == (Sighting("s", Span(3.0), referrers=((DISK, Span(3.0)),)),)


def test_events_between_looks() -> None:
    """What came and went between two looks has both ends at the look that told it."""
    seen = Sightings()
    seen.looked("s", uses(), None, 10.0)
    seen.heard("s", uses(X), told(DISK), 20.0)
    moment = Span(20.0, until_s=20.0)
    assert seen.of(X) == (Sighting("s", moment, referrers=((DISK, moment),)),)
    seen.forget(uses())
    assert seen.of(X) == ()


def test_copies_of_an_image() -> None:
    """A source that knows only the image stands behind its copies, and says so."""
    seen = Sightings()
    digest = bytes.fromhex(X)
    said = Referrers()
    said.add([X], DISK, family=True)
    known = Uses(images=frozenset({digest}), families=frozenset({digest}))
    seen.looked("s", known, said, 10.0)
    (copy,) = seen.of(f"{X}_20")
    assert (copy.by_family, [r for r, _ in copy.referrers]) == (True, [DISK])
    (original,) = seen.of(X)
    assert not original.by_family


def test_kernels_have_two_names() -> None:
    """What a source knows by a raw id is found under the new name as well."""
    raw = "11111111-2222-3333-4444-555555555555"
    seen = Sightings()
    seen.looked("s", uses(raw), told(DISK, name=raw), 10.0)
    (sighting,) = seen.of(digest_of(raw).hex())
    assert [referrer for referrer, _ in sighting.referrers] == [DISK]


def test_several_sources() -> None:
    """Each source that names it is told, those that see it now first."""
    seen = Sightings()
    seen.looked("a", uses(X), None, 10.0)
    seen.looked("b", uses(X), None, 10.0)
    seen.looked("a", uses(), None, 20.0)
    assert [(one.source, one.span.until_s) for one in seen.of(X)] == [
        ("b", None),
        ("a", 20.0),
    ]


def test_bounds() -> None:
    """Of many referrers the same few are kept, and the rest is counted."""
    disks = [Referrer("disk", path=f"/i/{number:05}/disk") for number in range(5000)]
    seen = Sightings()
    seen.looked("s", uses(X), told(*disks), 1.0)
    seen.looked("s", uses(X), told(*reversed(disks)), 2.0)
    (sighting,) = seen.of(X)
    assert [r for r, _ in sighting.referrers] == disks[:LIMIT]
    assert {span for _, span in sighting.referrers} == {Span(1.0, at_least=True)}
    assert sighting.more == 5000 - LIMIT
    # However they change, what is remembered stays small.
    for number in range(50):
        fresh = [Referrer("disk", path=f"/i/{number}-{n}") for n in range(LIMIT)]
        seen.looked("s", uses(X), told(*fresh), 3.0)
    assert len(seen._sources["s"].by_key[Key(X)].referrers) <= 2 * LIMIT


def test_one_source_adds_to_another() -> None:
    """Referrers of two readings are told together, and counted once each."""
    both = told(DISK)
    many = told(*(Referrer("disk", path=f"/m/{n:03}") for n in range(100)))
    both.update(many)
    kept, count = both.of(Key(X))
    assert (kept[0], len(kept), count) == (DISK, LIMIT, 101)


def test_an_answer_survives_its_record() -> None:
    """Odd names, long names and ends go through ZooKeeper, cut to their bounds."""
    odd = Referrer("disk", "new\nline", "/i/\udcff" + "x" * 5000)
    span = Span(1.5, at_least=True, until_s=2.5)
    answer = Answer(X, (Sighting("s", span, True, ((odd, span),), 7),), 9.25)
    data = codec.pack(questions.answer_to_record(answer))
    assert len(data) < 2000
    read = questions.answer_from_record(codec.unpack(data))
    assert read is not None
    ((referrer, read_span),) = read.sightings[0].referrers
    assert (referrer.name, read_span) == ("new\nline", span)
    assert referrer.path.startswith("/i/\\udcff")
    assert len(referrer.path) == questions.MAX_TEXT
    assert questions.question_from_record(codec.unpack(data)) is None


@pytest.mark.parametrize("name", ["notes.txt", "", "../x", "a" * 5000])
def test_questions_about_nothing(name: str) -> None:
    """Only cache names can be asked for."""
    with pytest.raises(codec.RecordError):
        questions.question_from_record(
            codec.unpack(codec.pack(questions.question_to_record(name)))
        )


@pytest.mark.parametrize(
    "part",
    [
        {"at": 1.0, "sources": [3]},
        {"at": 1.0, "sources": [{"source": "s"}]},
        {"at": -1.0, "sources": []},
        {"sources": []},
        {"at": 1.0, "sources": "s"},
    ],
)
def test_answers_that_are_none(part: object) -> None:
    """What is no answer is an error of the record, and nothing else."""
    record = codec.unpack(codec.pack({"name": X, "answer": part}))
    with pytest.raises(codec.RecordError):
        questions.answer_from_record(record)


def test_an_answer_that_is_too_long() -> None:
    """However long what an agent writes, what is read of it is short."""
    span = {"since": 1.0, "at_least": False, "until": None}
    text = "x" * 600
    referrer = {"kind": text, "name": text, "path": text, **span}
    source = {
        "source": text,
        "by_family": False,
        "more": 0,
        "referrers": [referrer] * (LIMIT + 1),
        **span,
    }
    record = {
        "schema": 1,
        "name": X,
        "answer": {"at": 1.0, "sources": [source] * (questions.MAX_SOURCES + 1)},
    }
    read = questions.answer_from_record(record)
    assert read is not None
    assert len(read.sightings) == questions.MAX_SOURCES
    for one in read.sightings:
        assert len(one.source) == questions.MAX_TEXT
        assert len(one.referrers) == LIMIT
        for referred, _ in one.referrers:
            assert {len(referred.kind), len(referred.name), len(referred.path)} == {
                questions.MAX_TEXT
            }
