"""What a reader behind a follower sees: one suite for real servers and memory.

ZooKeeper's reads are sequentially consistent: a server answers with what it
knows, which may be old, but it learns every write in the order in which they
were made.  A test file subclasses `LaggingContract` and gives the fixture
`world`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from sharedcache.core.ports import ConflictError, Create, Delete, Set
from tests.contract.coordination_suite import SOON_S, read
from tests.support import eventually

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sharedcache.core.ports import Coordination

WRITES = 12


class World(Protocol):
    """A cluster whose servers need not know the same."""

    def session(self, member: str) -> Coordination:
        """Start one more session, with a server that is in step."""

    def behind(self, member: str) -> Coordination:
        """Start a session with a server that can be held."""

    def held(self) -> AbstractContextManager[None]:
        """Let that server learn of no write inside the block."""


class LaggingContract:
    """The suite."""

    @pytest.fixture
    def writer(self, world: World) -> Coordination:
        """Give a session that wrote two records."""
        session = world.session("writer")
        session.commit([Create("a", b"0"), Create("b", b"0")])
        return session

    @pytest.fixture
    def reader(self, world: World, writer: Coordination) -> Coordination:
        """Give a session with a server that can be held; it has seen the records."""
        del writer
        session = world.behind("reader")
        session.sync()
        assert read(session, "a") == b"0"
        return session

    def test_old_data_until_sync(
        self, world: World, writer: Coordination, reader: Coordination
    ) -> None:
        """A server that lags answers with older data; after `sync` never."""
        with world.held():
            writer.commit([Set("a", b"1", 0)])
            assert read(reader, "a") == b"0"
            assert read(writer, "a") == b"1"
        reader.sync()
        assert read(reader, "a") == b"1"

    def test_lists_are_as_old_as_records(
        self, world: World, writer: Coordination, reader: Coordination
    ) -> None:
        """Children and members lag as well, and what went is still there."""
        writer.commit([Create("a/gone", b"")])
        reader.sync()
        with world.held():
            writer.commit([Create("a/child", b""), Delete("a/gone", None)])
            writer.join({"schema": 1})
            assert reader.children("a") == ["gone"]
            assert reader.get("a/gone") is not None
            assert reader.members() == {}
        reader.sync()
        assert reader.children("a") == ["child"]
        assert reader.get("a/gone") is None
        assert list(reader.members()) == ["writer"]

    def test_writes_are_learnt_in_their_order(
        self, world: World, writer: Coordination, reader: Coordination
    ) -> None:
        """What was written later is never seen before what was written earlier.

        Nor does a record ever go back.
        """
        newest = 0
        for number in range(1, WRITES):
            with world.held():
                writer.commit([Set("a", b"%d" % number, None)])
                writer.commit([Set("b", b"%d" % number, None)])
            later, earlier = int(read(reader, "b")), int(read(reader, "a"))
            assert newest <= later <= earlier <= number
            newest = earlier
            if number % 4 == 0:
                reader.sync()
                newest = number
        reader.sync()
        assert read(reader, "b") == b"%d" % (WRITES - 1)

    def test_own_writes_are_read_back(
        self, world: World, writer: Coordination, reader: Coordination
    ) -> None:
        """Behind a server that lags too, and with them all that came before."""
        with world.held():
            writer.commit([Set("a", b"1", None)])
            assert read(reader, "a") == b"0"
        reader.commit([Set("b", b"own", None)])
        assert read(reader, "b") == b"own"
        assert read(reader, "a") == b"1"

    def test_a_write_that_rests_on_old_data_is_refused(
        self, world: World, writer: Coordination, reader: Coordination
    ) -> None:
        """Versions are compared with what is true, not with what the reader saw."""
        with world.held():
            writer.commit([Set("a", b"1", 0)])
            record = reader.get("a")
            assert record is not None
            assert record.version == 0
        with pytest.raises(ConflictError):
            reader.commit([Set("a", b"2", record.version)])
        reader.sync()
        assert read(reader, "a") == b"1"

    def test_a_watch_lags_as_data_does(
        self, world: World, writer: Coordination, reader: Coordination
    ) -> None:
        """A change is not counted before it can be read, and after `sync` it is."""
        before = reader.watch("a")
        # The count is good once the watch is set: the record was read after it.
        reader.sync()
        assert read(reader, "a") == b"0"
        with world.held():
            writer.commit([Set("a", b"1", None)])
            assert reader.watch("a") == before
            assert read(reader, "a") == b"0"
        reader.sync()
        eventually(lambda: reader.watch("a") != before, SOON_S, "the change is told")
        assert read(reader, "a") == b"1"
