"""What every coordination must do, real or in memory: one suite for all of them.

A test file subclasses `CoordinationContract` and gives the fixture `world`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import pytest

from sharedcache.core.ports import (
    Append,
    Check,
    ConflictError,
    Coordination,
    CoordinationError,
    Create,
    Delete,
    DisconnectedError,
    MemberExistsError,
    SessionChangedError,
    Set,
    UndecodableMember,
)
from tests.support import eventually

if TYPE_CHECKING:
    from sharedcache.core.ports import Candidacy, Operation

BAD_PATHS = ("/a", "a/", "a//b", ".", "..", "a/../b", "a\0b", "a\nb")
LARGE = 1_100_000
SOON_S = 10.0

REPORT = {
    "schema": 2,
    "images": [b"\x00\xff" * 10, b"\x01" * 20],
    "names": ["0123_5", "größe"],
    "nothing": None,
    "yes": True,
    "nested": {"a": [1, -1, 2**40]},
}


class World(Protocol):
    """One cluster in one ZooKeeper, and what befalls its sessions."""

    def session(self, member: str) -> Coordination:
        """Start one more session, as another process would."""

    def expire(self, session: Coordination) -> None:
        """Let the servers end a session; its process goes on and does not know."""

    def end(self, session: Coordination) -> None:
        """End a session in good order."""

    def plant_member(self, name: str, data: bytes) -> None:
        """Register a member of the group `nodes` with these bytes as its report."""

    def boottime(self) -> float:
        """Read the clock that `lease_sent` counts on."""


def read(session: Coordination, path: str) -> bytes:
    """Read a node that must be there."""
    record = session.get(path)
    assert record is not None
    return record.data


def elected(session: Coordination) -> Candidacy:
    """Campaign until the election is won."""
    won = eventually(session.campaign, SOON_S, "the election is won")
    assert won is not None
    return won


class CoordinationContract:
    """The suite."""

    @pytest.fixture
    def zk(self, world: World) -> Coordination:
        """Give a session with a few records."""
        session = world.session("node-1")
        session.commit([Create("a", b"one"), Create("a/b", b""), Create("c", b"three")])
        return session

    # Records.

    def test_missing_is_none_and_empty_is_empty(self, zk: Coordination) -> None:
        """No node is None, a node without data has empty data; never confused."""
        assert zk.get("no") is None
        record = zk.get("a/b")
        assert record is not None
        assert (record.data, record.version, record.owner) == (b"", 0, 0)

    def test_get_many_keeps_the_order(self, zk: Coordination) -> None:
        """Answers come in the order asked, missing nodes as None in their place."""
        found = zk.get_many(["c", "no", "a", "c"])
        assert [None if r is None else r.data for r in found] == [
            b"three",
            None,
            b"one",
            b"three",
        ]
        assert zk.get_many([]) == []

    def test_get_many_takes_thousands(self, zk: Coordination) -> None:
        """More requests than fit in any buffer are answered all the same."""
        found = zk.get_many(["a", "no"] * 1500)
        assert [r is None for r in found] == [False, True] * 1500

    def test_children_are_sorted(self, zk: Coordination) -> None:
        """Children are sorted; a missing node has none; '' is the root."""
        zk.commit([Create(f"a/{name}", b"") for name in ("z", "A", "m")])
        assert zk.children("a") == ["A", "b", "m", "z"]
        assert zk.children("no") == []
        assert {"a", "c"} <= set(zk.children(""))

    def test_ensure_makes_parents_once(self, zk: Coordination) -> None:
        """Ensure makes what is missing and leaves what is there as it is."""
        zk.ensure("a/b/d/e")
        zk.ensure("a/b/d/e")
        zk.ensure("a")
        assert zk.children("a/b") == ["d"]
        assert read(zk, "a/b/d/e") == b""
        assert read(zk, "a") == b"one"

    @pytest.mark.parametrize("path", BAD_PATHS)
    def test_bad_paths_are_refused(self, zk: Coordination, path: str) -> None:
        """A path that ZooKeeper would not take is a mistake of the caller's."""
        with pytest.raises(ValueError, match="no path"):
            zk.get(path)
        with pytest.raises(ValueError, match="no path"):
            zk.commit([Create(path, b"")])

    def test_another_session_sees_it_after_sync(
        self, world: World, zk: Coordination
    ) -> None:
        """After sync a session sees all that was written before."""
        other = world.session("node-2")
        zk.commit([Set("a", b"new", 0)])
        other.sync()
        assert read(other, "a") == b"new"

    def test_a_session_sees_its_own_writes(
        self, world: World, zk: Coordination
    ) -> None:
        """What a session wrote it reads back without a sync, whoever else writes."""
        other = world.session("node-2")
        for number in range(50):
            data = b"%d" % number
            zk.commit([Set("a", data, 2 * number)])
            assert read(zk, "a") == data
            other.commit([Set("a", b"other", 2 * number + 1)])
            assert read(other, "a") == b"other"

    def test_reads_never_go_back(self, world: World, zk: Coordination) -> None:
        """Reads of one session may be old, but never older than one before."""
        other = world.session("node-2")
        newest = 0
        for number in range(1, 100):
            zk.commit([Set("a", b"%d" % number, None)])
            record = other.get("a")
            assert record is not None
            assert newest <= record.version <= number
            newest = record.version

    # Transactions.

    def test_commit_applies_all(self, zk: Coordination) -> None:
        """All operations take effect, in their order."""
        zk.commit(
            [
                Check("a", 0),
                Set("a", b"1", 0),
                Check("a", 1),
                Delete("c", None),
                Create("c", b"again"),
                Create("c/d", b""),
            ]
        )
        assert [read(zk, path) for path in ("a", "c", "c/d")] == [b"1", b"again", b""]

    def test_commit_of_nothing_is_nothing(self, zk: Coordination) -> None:
        """No operation is no transaction."""
        zk.commit([])

    @pytest.mark.parametrize(
        ("operations", "index", "why"),
        [
            ([Check("a", 1)], 0, "version"),
            ([Check("no", None)], 0, "missing"),
            ([Check("no", 0)], 0, "missing"),
            ([Create("x", b""), Create("a", b"")], 1, "exists"),
            ([Create("x", b""), Create("no/x", b"")], 1, "missing"),
            ([Set("a", b"x", 7), Create("a", b"")], 0, "version"),
            ([Set("no", b"x", None)], 0, "missing"),
            ([Create("x", b""), Check("a", None), Delete("c", 3)], 2, "version"),
            ([Delete("no", None)], 0, "missing"),
            ([Set("a", b"x", 0), Delete("a", None)], 1, "not-empty"),
        ],
    )
    def test_conflict_names_the_first_failure(
        self, zk: Coordination, operations: list[Operation], index: int, why: str
    ) -> None:
        """A condition that fails is named by its place and kind; nothing applies."""
        with pytest.raises(ConflictError) as caught:
            zk.commit(operations)
        assert (caught.value.index, caught.value.why) == (index, why)
        assert caught.value.path == operations[index].path
        assert zk.get("x") is None
        assert read(zk, "a") == b"one"

    def test_version_zero_is_a_version(self, zk: Coordination) -> None:
        """Version 0 is a condition, not the absence of one."""
        zk.commit([Set("a", b"1", 0)])
        for operation in (Set("a", b"2", 0), Delete("a/b", 5), Check("a", 0)):
            with pytest.raises(ConflictError, match="version"):
                zk.commit([operation])
        assert read(zk, "a") == b"1"

    def test_none_is_no_condition(self, zk: Coordination) -> None:
        """None writes and deletes whatever the version is."""
        zk.commit([Set("c", b"1", None)])
        zk.commit([Set("c", b"2", None), Check("c", None)])
        record = zk.get("c")
        assert record is not None
        assert (record.data, record.version) == (b"2", 2)
        zk.commit([Delete("c", None)])
        assert zk.get("c") is None

    def test_create_and_delete_means_did_not_exist(self, zk: Coordination) -> None:
        """Create and delete of one path in one transaction check its absence."""
        absent: list[Operation] = [Create("x", b""), Delete("x", None)]
        zk.commit([*absent, Set("a", b"1", 0)])
        zk.commit([Create("x", b"")])
        with pytest.raises(ConflictError, match="exists"):
            zk.commit([*absent, Set("a", b"2", 1)])
        assert read(zk, "a") == b"1"

    def test_deleting_the_parent_means_none_left(self, zk: Coordination) -> None:
        """A parent goes only with the last child, in one transaction."""
        zk.commit([Delete("a/b", None), Delete("a", None)])
        assert zk.get("a") is None

    def test_appended_nodes_are_numbered_without_gaps(
        self, world: World, zk: Coordination
    ) -> None:
        """Numbers rise by one from 0, whoever appends; failures use none up."""
        other = world.session("node-2")
        zk.commit([Create("t", b"")])
        zk.commit([Append("t/x-", b"0"), Append("t/x-", b"1"), Set("t", b"", None)])
        with pytest.raises(ConflictError, match="version"):
            zk.commit([Append("t/x-", b"no"), Check("a", 7)])
        other.commit([Append("t/x-", b"2")])
        zk.commit([Delete("t/x-0000000000", None), Delete("t/x-0000000002", None)])
        zk.commit([Append("t/y-", b"3")])
        zk.commit([Append("t/x-", b"4")])
        zk.sync()
        assert {name: read(zk, f"t/{name}") for name in zk.children("t")} == {
            "x-0000000001": b"1",
            "y-0000000003": b"3",
            "x-0000000004": b"4",
        }

    def test_appending_needs_the_parent(self, zk: Coordination) -> None:
        """A parent that is not there is a conflict like any other."""
        with pytest.raises(ConflictError) as caught:
            zk.commit([Set("a", b"x", None), Append("no/x-", b"")])
        assert (caught.value.index, caught.value.why) == (1, "missing")
        assert caught.value.path == "no/x-"
        assert read(zk, "a") == b"one"

    def test_appending_at_once_loses_nothing(
        self, world: World, zk: Coordination
    ) -> None:
        """Writers that do not know of each other neither fail nor overwrite."""
        zk.commit([Create("t", b"")])
        sessions = [zk, world.session("node-2"), world.session("node-3")]

        def write(number: int) -> None:
            for turn in range(30):
                data = b"%d.%d" % (number, turn)
                sessions[number].commit([Append("t/x-", data), Set("t", data, None)])

        with ThreadPoolExecutor(len(sessions)) as pool:
            list(pool.map(write, range(len(sessions))))
        zk.sync()
        names = zk.children("t")
        assert names == [f"x-{number:010d}" for number in range(90)]
        assert len({read(zk, f"t/{name}") for name in names}) == 90

    def test_too_large_is_refused_before_it_is_sent(self, zk: Coordination) -> None:
        """An oversized request would drop the connection for everybody."""
        session = zk.session_id()
        big = b"x" * (LARGE // 2)
        for operations in (
            [Create("big", b"x" * LARGE)],
            [Create("p", big), Create("q", big)],
        ):
            with pytest.raises(CoordinationError, match="bytes"):
                zk.commit(operations)
        with pytest.raises(CoordinationError, match="bytes"):
            zk.join({"images": b"x" * LARGE})
        assert not zk.joined()
        assert zk.session_id() == session
        assert read(zk, "a") == b"one"

    def test_nearly_too_large_goes_through(self, zk: Coordination) -> None:
        """What is allowed does work: 990,000 bytes in one node."""
        zk.commit([Create("big", b"x" * 990_000)])
        assert len(read(zk, "big")) == 990_000

    # Watches.

    def test_watch_counts_changes(self, world: World, zk: Coordination) -> None:
        """Every change after a count was returned raises it; reading does not."""
        other = world.session("node-2")
        count = zk.watch("w")
        assert zk.watch("w") == count
        for operation in (Create("w", b"1"), Set("w", b"2", None), Delete("w", None)):
            other.commit([operation])
            before = count
            eventually(
                lambda: zk.watch("w") > before,  # noqa: B023 - called within this turn of the loop.
                SOON_S,
                f"the watch counts {operation}",
            )
            count = zk.watch("w")
        zk.get("w")
        assert zk.watch("w") == count

    def test_watches_are_apart(self, zk: Coordination) -> None:
        """A change of one node is not counted for another."""
        first, second = zk.watch("a"), zk.watch("c")
        zk.commit([Set("a", b"1", None)])
        eventually(lambda: zk.watch("a") > first, SOON_S, "the change is counted")
        assert zk.watch("c") == second

    def test_whoever_reads_after_the_count_misses_nothing(
        self, world: World, zk: Coordination
    ) -> None:
        """Count, then read: the value is never older than what is counted next."""
        other = world.session("node-2")
        seen = zk.watch("a")
        value = read(zk, "a")
        last = b""
        for number in range(200):
            last = b"%d" % number
            other.commit([Set("a", last, None)])
            count = zk.watch("a")
            if count != seen:
                seen, value = count, read(zk, "a")

        def caught_up() -> bool:
            nonlocal seen, value
            count = zk.watch("a")
            if count != seen:
                seen, value = count, read(zk, "a")
            return value == last

        eventually(caught_up, SOON_S, "the last change is seen")

    def test_a_lost_session_counts(self, world: World, zk: Coordination) -> None:
        """Whatever happened without a session is a change."""
        before = zk.watch("a")
        world.expire(zk)

        def counted() -> bool:
            try:
                return zk.watch("a") > before
            except DisconnectedError:
                return False

        eventually(counted, SOON_S, "the loss is counted")

    # Members.

    def test_a_member_is_seen_with_its_report(
        self, world: World, zk: Coordination
    ) -> None:
        """A registration bears the whole report at once, as it was given."""
        assert zk.members() == {}
        assert not zk.joined()
        zk.join(REPORT)
        other = world.session("node-2")
        other.sync()
        assert other.members() == {"node-1": REPORT}
        assert zk.joined()
        assert not other.joined()

    def test_update_replaces_the_report(self, world: World, zk: Coordination) -> None:
        """An update replaces the report as a whole, for this member only."""
        zk.join({"a": 1, "b": 2})
        other = world.session("node-2")
        other.join({"c": 3})
        zk.update_capabilities({"a": 2})
        assert zk.members() == {"node-1": {"a": 2}, "node-2": {"c": 3}}

    def test_the_registration_can_be_checked(self, zk: Coordination) -> None:
        """The member's own node is part of the tree, owned by the session."""
        zk.join({})
        record = zk.get(zk.member_path)
        assert record is not None
        assert record.owner == zk.session_id()
        zk.commit([Check(zk.member_path, None), Set("a", b"1", 0)])
        zk.leave()
        with pytest.raises(ConflictError, match="missing"):
            zk.commit([Check(zk.member_path, None), Set("a", b"2", 1)])

    def test_leave_takes_it_back(self, zk: Coordination) -> None:
        """Leaving ends the registration; leaving twice is harmless."""
        zk.join({})
        zk.leave()
        zk.leave()
        assert zk.members() == {}
        assert not zk.joined()

    def test_joining_twice_updates(self, zk: Coordination) -> None:
        """A registration of this very session (a lost reply) is taken as joined."""
        zk.join({"a": 1})
        zk.join({"a": 2})
        assert zk.members() == {"node-1": {"a": 2}}

    def test_the_same_name_is_refused_while_it_lives(
        self, world: World, zk: Coordination
    ) -> None:
        """A second process of one name can neither join nor overwrite nor leave."""
        zk.join({"a": 1})
        second = world.session("node-1")
        with pytest.raises(MemberExistsError):
            second.join({"a": 2})
        with pytest.raises(SessionChangedError):
            second.update_capabilities({"a": 2})
        second.leave()
        assert not second.joined()
        second.sync()
        assert second.members() == {"node-1": {"a": 1}}
        world.end(zk)
        second.join({"a": 2})
        assert second.members() == {"node-1": {"a": 2}}

    def test_an_update_needs_a_registration(self, zk: Coordination) -> None:
        """Without a registration of this session an update says so."""
        with pytest.raises(SessionChangedError):
            zk.update_capabilities({})

    def test_expiry_ends_the_registration(self, world: World, zk: Coordination) -> None:
        """After an expiry the member is gone until it joins again."""
        zk.join({"a": 1})
        before = zk.session_id()
        other = world.session("node-2")
        world.expire(zk)
        other.sync()
        assert other.members() == {}

        def back() -> bool:
            try:
                return zk.session_id() != before
            except DisconnectedError:
                return False

        eventually(back, SOON_S, "there is a new session")
        assert not zk.joined()
        with pytest.raises(SessionChangedError):
            zk.update_capabilities({"a": 2})
        zk.join({"a": 3})
        assert zk.members() == {"node-1": {"a": 3}}

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xc1",
            b"\x81\xa1a",
            b"\x01",
            b"\x93\x01\x02\x03",
            b"\xc0",
            b"\x81\x01\x02",
            b"\x81\x91\x01\x02",
            b"\x81\xa1a\xc7\x03\x02abc",
            b"\x81\xa1a\xa2\xff\xfe",
            b"\x81\xa1a\x01trailing",
        ],
    )
    def test_a_broken_member_hides_no_other(
        self, world: World, zk: Coordination, data: bytes
    ) -> None:
        """A report that cannot be read is told apart, and the others are read."""
        zk.join({"a": 1})
        world.plant_member("broken", data)
        zk.sync()
        members = zk.members()
        assert members["node-1"] == {"a": 1}
        assert isinstance(members["broken"], UndecodableMember)
        assert members["broken"].why

    def test_a_member_name_that_is_not_ascii(
        self, world: World, zk: Coordination
    ) -> None:
        """A name that tooz cannot spell is told apart too."""
        zk.join({"a": 1})
        world.plant_member("größe", b"\x80")
        zk.sync()
        members = zk.members()
        assert members["node-1"] == {"a": 1}
        assert isinstance(members["größe"], UndecodableMember)

    # The election.

    def test_alone_one_wins(self, zk: Coordination) -> None:
        """The winner's node exists, is its session's own, and can be checked."""
        assert zk.leader() is None
        won = elected(zk)
        record = zk.get(won.path)
        assert record is not None
        assert record.owner == won.session == zk.session_id()
        assert zk.leader() == "node-1"
        zk.commit([Check(won.path, None), Set("a", b"1", 0)])

    def test_winning_again_is_the_same_candidacy(self, zk: Coordination) -> None:
        """A leader that campaigns stays what it is."""
        assert elected(zk) == zk.campaign()

    def test_two_contenders_one_winner(self, world: World, zk: Coordination) -> None:
        """While one leads the other does not, and both know who."""
        won = elected(zk)
        other = world.session("node-2")
        assert [other.campaign() for _ in range(3)] == [None] * 3
        assert other.leader() == "node-1"
        assert zk.campaign() == won
        assert other.lease_sent(won) is None

    def test_resigning_hands_over(self, world: World, zk: Coordination) -> None:
        """Who resigns has no lease, and its node can no longer be checked."""
        won = elected(zk)
        other = world.session("node-2")
        zk.resign()
        assert zk.lease_sent(won) is None
        next_won = elected(other)
        assert next_won.path != won.path
        assert zk.campaign() is None
        with pytest.raises(ConflictError, match="missing"):
            zk.commit([Check(won.path, None), Set("a", b"late", None)])

    def test_resigning_is_harmless(self, world: World, zk: Coordination) -> None:
        """Resigning when not elected, twice, or beside a leader changes nothing."""
        zk.resign()
        won = elected(zk)
        other = world.session("node-2")
        other.resign()
        assert zk.campaign() == won
        zk.resign()
        zk.resign()
        assert zk.leader() is None
        assert elected(zk) != won

    def test_expiry_hands_over(self, world: World, zk: Coordination) -> None:
        """A leader whose session expires is deposed, and can win later."""
        won = elected(zk)
        other = world.session("node-2")
        world.expire(zk)
        other_won = elected(other)
        with pytest.raises((ConflictError, DisconnectedError)):
            zk.commit([Check(won.path, None), Set("a", b"late", None)])
        eventually(
            lambda: zk.lease_sent(won) is None, SOON_S, "the old leader knows of it"
        )

        def loses() -> bool:
            try:
                return zk.campaign() is None
            except DisconnectedError:
                return False

        eventually(loses, SOON_S, "the old leader stands and loses")
        assert other.leader() == "node-2"
        other.resign()
        again = elected(zk)
        assert again.session != won.session
        assert other_won not in (again, won)
        assert zk.lease_sent(again) is not None

    def test_the_lease_is_counted_from_the_sending(
        self, world: World, zk: Coordination
    ) -> None:
        """The lease counts from a time in the past, and is renewed by itself."""
        won = elected(zk)
        timeout_s = zk.session_timeout_s()
        first = zk.lease_sent(won)
        assert first is not None
        assert world.boottime() - timeout_s < first < world.boottime()

        def renewed() -> bool:
            sent = zk.lease_sent(won)
            assert sent is not None
            assert first <= sent < world.boottime()
            return sent > first

        eventually(renewed, timeout_s, "the lease is renewed")

    # Sessions.

    def test_sessions_are_apart(self, world: World, zk: Coordination) -> None:
        """Every process has a session of its own."""
        assert zk.session_id() != world.session("node-2").session_id()
        assert zk.session_id() != 0
        assert zk.session_timeout_s() > 0

    def test_without_a_session_everything_fails_at_once(
        self, world: World, zk: Coordination
    ) -> None:
        """Without a connection every call says so; resigning is still harmless."""
        won = elected(zk)
        world.end(zk)
        calls = (
            zk.session_id,
            zk.sync,
            lambda: zk.get("a"),
            lambda: zk.get_many(["a"]),
            lambda: zk.children("a"),
            lambda: zk.commit([Set("a", b"", None)]),
            lambda: zk.ensure("x"),
            lambda: zk.watch("a"),
            lambda: zk.join({}),
            zk.joined,
            lambda: zk.update_capabilities({}),
            zk.leave,
            zk.members,
            zk.campaign,
            zk.leader,
        )
        for call in calls:
            with pytest.raises(DisconnectedError):
                call()
        assert zk.lease_sent(won) is None
        zk.resign()
