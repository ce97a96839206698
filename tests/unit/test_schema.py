"""The table of schema versions: its own rules, and what it says to each stage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedcache.core.model import KernelNaming
from sharedcache.core.schema import (
    SCHEMAS,
    SchemaTable,
    SchemaTableError,
    SchemaVersion,
    Writing,
)
from tests.property.strategies import THREE

RAW, SHA1 = KernelNaming.RAW_ID, KernelNaming.SHA1
ONE, TWO = SCHEMAS.rows


def test_the_released_rows_mean_what_they_meant() -> None:
    """A row that was released is never changed: nodes of that release rely on it."""
    assert (ONE.version, ONE.reads, ONE.naming, ONE.cleaning) == (
        1,
        {RAW},
        RAW,
        False,
    )
    assert (TWO.version, TWO.reads, TWO.naming, TWO.cleaning) == (
        2,
        {RAW, SHA1},
        SHA1,
        True,
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((), "count up from 1"),
        ((TWO,), "count up from 1"),
        ((ONE, replace(TWO, version=3)), "count up from 1"),
        ((ONE, replace(TWO, reads=frozenset({SHA1}))), "must read"),
        ((ONE, replace(TWO, reads=frozenset({RAW}))), "must read"),
        ((ONE, TWO, replace(ONE, version=3)), "must read"),
        ((ONE, TWO, replace(TWO, version=3, cleaning=False)), "end all cleaning"),
    ],
)
def test_a_table_whose_readers_do_not_come_first_is_none(
    rows: tuple[SchemaVersion, ...], words: str
) -> None:
    """A node must read whatever it can meet: all earlier forms, and its own."""
    with pytest.raises(SchemaTableError, match=words):
        SchemaTable(rows)


@pytest.mark.parametrize(
    ("finalized", "naming", "writing"),
    [
        (1, RAW, Writing.DUE),
        (1, SHA1, Writing.EARLY),
        (2, SHA1, Writing.DUE),
        (2, RAW, Writing.OLD),
        (1, KernelNaming.UNKNOWN, Writing.UNKNOWN),
        (3, SHA1, Writing.UNKNOWN),
        (0, RAW, Writing.UNKNOWN),
    ],
)
def test_what_a_node_writes_is_due_early_or_old(
    finalized: int, naming: KernelNaming, writing: Writing
) -> None:
    """Writers turn when a schema is finalized: before it is early, after it is old."""
    assert SCHEMAS.writing(finalized, naming) is writing


@pytest.mark.parametrize(
    ("finalized", "version", "naming", "words"),
    [
        (2, 2, RAW, "set [agent] kernel_naming to auto or sha1"),
        (3, 2, SHA1, "upgrade sharedcache on this host"),
    ],
)
def test_an_agent_that_is_told_to_go_back_is_refused_and_told_how_to_go_on(
    finalized: int, version: int, naming: KernelNaming, words: str
) -> None:
    """Finalizing is for good: the old naming is refused, with the remedy."""
    assert words in (SCHEMAS.refusal(finalized, version, naming) or "")


@pytest.mark.parametrize(
    ("finalized", "version", "naming"),
    [
        (2, 2, SHA1),
        (1, 1, RAW),
        (1, 2, SHA1),
        (1, 2, RAW),
        (1, 1, SHA1),
        (2, 1, RAW),
        (2, 1, SHA1),
    ],
)
def test_what_stands_for_the_old_release_is_let_in_at_any_stage(
    finalized: int, version: int, naming: KernelNaming
) -> None:
    """A node of the old release asks nobody: the gate closes and names it."""
    assert SCHEMAS.refusal(finalized, version, naming) is None


def test_a_writer_looks_for_every_name_and_writes_the_finalized_one() -> None:
    """Readers know both names at any stage; an unknown schema names nothing."""
    assert SCHEMAS.namings(1) == (RAW, SHA1)
    assert SCHEMAS.namings(2) == (SHA1, RAW)
    assert SCHEMAS.namings(3) == ()
    assert THREE.namings(3) == (SHA1, RAW)


@pytest.mark.parametrize(
    ("finalized", "cleans", "row"),
    [(0, False, 2), (1, False, 2), (2, True, 2), (3, False, 2)],
)
def test_what_cleaning_waits_for(finalized: int, row: int, *, cleans: bool) -> None:
    """Schema 1 and unknown ones remove nothing; the next that cleans is waited for."""
    assert SCHEMAS.may_clean(finalized) is cleans
    assert SCHEMAS.cleaning_from(finalized).version == row
