"""The operations whose every effect is made to fail: who acts, and what is going on.

Each begins in a quiet cluster of two compute nodes.  Whoever is struck, the
others go on, and the struck process is started again by its supervisor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sharedcache import ledger
from sharedcache.cleaner import operator
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.cleaner.observe import Observer
from sharedcache.cleaner.restore import OperatorRestore
from sharedcache.core.ports import CoordinationError, Create, Delete, Set
from sharedcache.core.ports import Operation as Write
from tests.simulation.desk import OPERATOR, Desk, Word, say
from tests.simulation.memory_copies import copy_of, go_back, wipe
from tests.simulation.memory_disk import Inode, Removal
from tests.simulation.process import Host
from tests.simulation.profile import Profile
from tests.simulation.recovery import recovery
from tests.simulation.strikes import Operation, Striker
from tests.simulation.troubles import Troubles
from tests.simulation.world import World

QUIET = Profile(
    nodes=2,
    images=3,
    guest_interval_s=1e9,
    report_interval_s=0.5,
    pass_interval_s=0.5,
    min_age_s=0.2,
    batch=2,
)


def _profile(**changes: Any) -> Profile:
    values = {name: getattr(QUIET, name) for name in QUIET.__slots__}
    return Profile(**{**values, **changes})


SLOW = _profile(grace_s=1.0)


def _guest(world: World, host: str, image: int) -> None:
    inode = world.disk.base.names[world.images[image]]
    if not isinstance(inode, Inode):
        raise TypeError("no file")
    world.guests.begin(world.hosts[host], world.images[image], inode)


def _at(world: World, when: float, act: Callable[[], object]) -> None:
    world.scheduler.at(when, lambda _: act())


def _on_removal(world: World, act: Callable[[Removal], None]) -> None:
    """Let something happen right after each name that goes, once it was judged."""
    judged = world.disk.on_removal

    def heard(removal: Removal) -> None:
        if judged is not None:
            judged(removal)
        act(removal)

    world.disk.on_removal = heard


def _on_write(world: World, path: str, act: Callable[[Write], None]) -> None:
    """Let something happen right after each change of a path, once it was judged."""
    judged = world.zookeeper.on_commit

    def heard(writes: Sequence[Write], session: int) -> None:
        if judged is not None:
            judged(writes, session)
        for one in writes:
            if one.path == path and isinstance(one, Create | Delete | Set):
                act(one)

    world.zookeeper.on_commit = heard


def _once_gone(world: World, count: int, act: Callable[[], object]) -> None:
    """Let something happen as soon as this many names went from ``_base``."""
    gone = 0

    def heard(removal: Removal) -> None:
        nonlocal gone
        if removal.folder is world.disk.base:
            gone += 1
            if gone == count:
                act()

    _on_removal(world, heard)


# The cleaner.


def _clean(world: World, _: Striker) -> None:
    """One image is used, two are not; a second cleaner comes later."""
    _guest(world, "n1", 0)
    world.add_cleaner("c1")
    _at(world, 3.0, lambda: world.add_cleaner("c2"))


def _takeover(world: World, striker: Striker) -> None:
    """Let the leader die for good with entries in quarantine."""
    striker.armed = False
    world.add_cleaner("c1")

    def die() -> None:
        world.cleaners["c1"].wanted = False
        world.cleaners["c1"].kill()
        world.add_cleaner("c2")
        striker.armed = True

    _once_gone(world, 2, lambda: _at(world, world.scheduler.now + 0.5, die))


def _wanted_again(world: World, begun: Callable[[], None]) -> None:
    """Begin a guest by a name that its host still remembers: its agent restores."""
    world.add_cleaner("c1")

    def begin(removal: Removal) -> None:
        if removal.name == world.images[0] and not world.guests.all:
            world.guests.begin(world.hosts["n1"], removal.name, removal.inode)
            begun()

    _on_removal(world, begin)


def _renew(world: World, striker: Striker) -> None:
    """Let the leader give a new name to what an agent has just restored."""
    striker.armed = False

    def restored() -> bool:
        return bool(world.guests.all) and world.images[0] in world.disk.base.names

    def wait(_: object) -> None:
        striker.armed = restored()
        if not striker.armed:
            world.scheduler.after(0.002, wait)

    _wanted_again(world, lambda: wait(None))


# The agent.


def _start(world: World, _: Striker) -> None:
    """Let an agent start and join whose host has a guest."""
    _guest(world, "n1", 0)
    world.add_cleaner("c1")


def _report(world: World, striker: Striker) -> None:
    """Let a guest begin while files are taken: its agent must say so in time."""
    striker.armed = False
    world.add_cleaner("c1")

    def begin(_: Removal) -> None:
        left = [name for name in world.images if name in world.disk.base.names]
        if left and not world.guests.all:
            _guest(world, "n1", world.images.index(left[-1]))
            striker.armed = True

    _on_removal(world, begin)


def _restore(world: World, striker: Striker) -> None:
    """Let an agent give back what its host uses and a leader took."""
    striker.armed = False

    def begun() -> None:
        striker.armed = True

    _wanted_again(world, begun)


class _Shutdowns(Troubles):
    """Shuts one host down in good order, and starts it again later."""

    def _some_node(self) -> Host:
        return self._world.hosts["n1"]


def _seal(world: World, striker: Striker) -> None:
    """Shut a host with a stopped guest down while files are in quarantine."""
    striker.armed = False
    _guest(world, "n1", 0)
    _at(world, 2.0, lambda: world.add_cleaner("c1"))

    def shut_down() -> None:
        striker.armed = True
        _Shutdowns(world, world.scheduler.now + 6.0).reboot()

    _at(world, 3.0, shut_down)


def _session_lost(world: World, striker: Striker) -> None:
    """Let the servers end an agent's session while files are in quarantine."""
    striker.armed = False
    _guest(world, "n1", 0)
    _at(world, 2.0, lambda: world.add_cleaner("c1"))

    def expire() -> None:
        session = world.agents["n1"].session
        if session is None:
            raise TypeError("no session")
        world.zookeeper.end_session(session.raw_session)
        striker.armed = True

    _at(world, 3.0, expire)


# Operators.


def _says(*words: Word) -> Callable[[World, Striker], None]:
    """Let an operator give commands to a cluster at work, one after the other."""

    def begin(world: World, _: Striker) -> None:
        _guest(world, "n1", 0)
        _at(world, 2.0, lambda: world.add_cleaner("c1"))
        _at(world, 2.5, lambda: say(world, "operator-1", 1.0, *words))

    return begin


_PAUSE = _says(
    lambda at: operator.pause(at.zookeeper, "simulated", OPERATOR),
    lambda at: operator.resume(at.zookeeper, OPERATOR),
)
_EXPECT = _says(
    lambda at: operator.expect(at.zookeeper, "n9", OPERATOR),
    lambda at: operator.expunge(at.zookeeper, at.storage, "n9", OPERATOR),
)
LATER_NS = 10**18
"""A time by which every run is over: an approval stands."""


def _hold(world: World, _: Striker) -> None:
    """Let an operator hold one of two names that nobody uses, before anybody leads.

    Once the other one was taken the hold is taken back.
    """
    _guest(world, "n1", 0)
    name, other = world.images[1:]

    def release(at: Desk) -> None:
        if other in world.disk.base.names:
            raise CoordinationError("nothing was taken yet")
        operator.release(at.zookeeper, name, OPERATOR)

    def said(word: Write) -> None:
        if isinstance(word, Create):
            world.scheduler.after(0.1, lambda _: world.add_cleaner("c1"))
        elif isinstance(word, Delete):
            # Who dies afterwards gives both words again.
            if not world.counts["released"] and name not in world.disk.base.names:
                world.oracle.say(f"{name[:6]} was held, and is gone")
            world.counts["released"] += 1

    _on_write(world, f"holds/{name}", said)
    _at(
        world,
        1.0,
        lambda: say(
            world,
            "operator-1",
            1.0,
            lambda at: operator.hold(at.zookeeper, name, "simulated", OPERATOR),
            release,
        ),
    )


def _approve(world: World, _: Striker) -> None:
    """Let an operator approve the plan that a brake holds back."""
    _guest(world, "n1", 0)

    def word(at: Desk) -> None:
        note = ledger.brake_of(at.zookeeper.get(ledger.BRAKE))
        if world.counts["approved"]:
            return
        if note is None:
            raise CoordinationError("no brake is on")
        operator.approve(at.zookeeper, note.digest, LATER_NS, OPERATOR)

    def approved(_: Write) -> None:
        world.counts["approved"] += 1

    def taken(removal: Removal) -> None:
        if removal.folder is not world.disk.base:
            return
        if world.counts["approved"]:
            world.counts["taken as approved"] += 1
        else:
            world.oracle.say(f"{removal.name[:6]} was taken in spite of the brake")

    _on_write(world, ledger.APPROVAL, approved)
    _on_removal(world, taken)
    world.add_cleaner("c1")
    _at(world, 4.0, lambda: say(world, "operator-1", 1.0, word))


def _by_hand(world: World, _: Striker) -> None:
    """Let an operator restore what nobody uses."""
    world.add_cleaner("c1")
    name = world.images[1]

    def word(at: Desk) -> None:
        OperatorRestore(
            at.zookeeper, at.storage, at.locks, at.clock, at.tokens, OPERATOR.who
        ).run(name)
        if name in world.disk.base.names:
            world.counts["given back by hand"] += 1
        else:
            world.oracle.say(f"{name[:6]} is said to be restored, and is not there")

    def wanted(removal: Removal) -> None:
        if removal.name == name and not world.counts["restored by hand"]:
            world.counts["restored by hand"] += 1
            _at(
                world,
                world.scheduler.now + 1,
                lambda: say(world, "operator-1", 1, word),
            )

    _on_removal(world, wanted)


def _finalize(world: World, _: Striker) -> None:
    """Let an operator finalize the rollout; nothing goes before that."""
    world.add_cleaner("c1")

    def word(at: Desk) -> None:
        observed = Observer(at.zookeeper, at.storage).observe(scan=False)
        try:
            finalize(at.zookeeper, at.storage, observed, "operator", 0.0)
        except RefusedError as error:
            raise CoordinationError(str(error)) from error

    _at(world, 3.0, lambda: say(world, "operator-1", 1.0, word, word))


def _expunge(world: World, _: Striker) -> None:
    """Let an operator expunge a node that is off for good."""
    world.add_cleaner("c1")
    world.add_node("n3")

    def off() -> None:
        world.agents["n3"].wanted = False
        world.agents["n3"].kill()

    _at(world, 2.0, off)

    def word(at: Desk) -> None:
        try:
            operator.expunge(at.zookeeper, at.storage, "n3", OPERATOR)
        except RefusedError as error:
            # Its session has not ended yet.
            raise CoordinationError(str(error)) from error

    _at(world, 4.0, lambda: say(world, "operator-1", 1.0, word))


def _wiped(world: World) -> None:
    """Let ZooKeeper lose everything while files are in quarantine."""
    _guest(world, "n1", 0)
    world.oracle.may_lose_zookeeper = True
    world.add_cleaner("c1")
    _at(world, 3.0, lambda: wipe(world.zookeeper))
    _at(world, 4.0, lambda: say(world, "operator-1", 1.0, recovery))


def _recover_wiped(world: World, _: Striker) -> None:
    """Let an operator recover a ZooKeeper that lost everything."""
    _wiped(world)


def _after_recovery(world: World, striker: Striker) -> None:
    """Let a leader take over what no record names any more."""
    striker.armed = False
    _wiped(world)
    _at(world, 3.0, lambda: setattr(striker, "armed", True))


def _recover_copy(world: World, _: Striker) -> None:
    """Let an operator recover a ZooKeeper that went back to an old copy.

    The copy is from before the first leader, and from before a node was known.
    """
    _guest(world, "n1", 0)
    world.oracle.may_lose_zookeeper = True

    def restore_copy() -> None:
        ghosts = go_back(world.zookeeper, copy)
        later = world.scheduler.now + 4
        _at(world, later, lambda: [world.zookeeper.end_session(n) for n in ghosts])

    copy = copy_of(world.zookeeper)

    def keep() -> None:
        nonlocal copy
        copy = copy_of(world.zookeeper)

    _at(world, 1.0, keep)
    _at(world, 1.1, lambda: world.add_cleaner("c1"))
    _at(world, 1.2, lambda: world.add_node("n3"))
    _at(world, 4.0, restore_copy)
    _at(world, 5.0, lambda: say(world, "operator-1", 1.0, recovery))


OPERATIONS: dict[str, Operation] = {
    "clean": Operation(
        "c1",
        QUIET,
        _clean,
        {"commit": 10, "epoch_make": 1, "quarantine": 2, "purge": 2},
    ),
    "takeover": Operation(
        "c2",
        _profile(grace_s=6.0),
        _takeover,
        {"commit": 10, "epoch_make": 1, "epoch_move": 2, "epoch_seal": 1, "purge": 2},
    ),
    "renew": Operation(
        "c1", _profile(grace_s=4.0), _renew, {"commit": 5, "epoch_move": 1, "purge": 2}
    ),
    "start": Operation(
        "agent@n1", QUIET, _start, {"witness_write": 1, "join": 1, "commit": 3}
    ),
    "report": Operation(
        "agent@n1", _profile(batch=1), _report, {"update_capabilities": 3, "commit": 3}
    ),
    "restore": Operation(
        "agent@n1", _profile(grace_s=4.0), _restore, {"commit": 4, "restore": 1}
    ),
    "seal": Operation(
        "agent@n1", _profile(grace_s=2.0), _seal, {"commit": 1, "leave": 1}
    ),
    "session-lost": Operation(
        "agent@n1", _profile(grace_s=3.0), _session_lost, {"join": 1, "commit": 2}
    ),
    "pause": Operation("operator-1", SLOW, _PAUSE, {"commit": 2}),
    "hold": Operation("operator-1", SLOW, _hold, {"commit": 2}, shows="released"),
    "expect": Operation("operator-1", SLOW, _EXPECT, {"commit": 2}),
    "approve": Operation(
        "operator-1",
        _profile(grace_s=1.0, share_percent=10.0),
        _approve,
        {"commit": 1},
        shows="taken as approved",
    ),
    "restore-by-hand": Operation(
        "operator-1",
        _profile(grace_s=6.0),
        _by_hand,
        {"commit": 2, "restore": 1},
        shows="given back by hand",
    ),
    "finalize": Operation(
        "operator-1", QUIET, _finalize, {"commit": 1, "write_schema": 1}, schema=1
    ),
    "expunge": Operation("operator-1", QUIET, _expunge, {"commit": 1}),
    "recover-wiped": Operation(
        "operator-1", _profile(grace_s=4.0), _recover_wiped, {"ensure": 3, "commit": 3}
    ),
    "recover-copy": Operation(
        "operator-1", _profile(grace_s=4.0), _recover_copy, {"commit": 3}
    ),
    "after-recovery": Operation(
        "c1",
        _profile(grace_s=4.0),
        _after_recovery,
        {"commit": 5, "epoch_make": 1, "epoch_move": 2, "epoch_seal": 2, "purge": 2},
    ),
}
"""What is struck; each with how often its effects occur at the least."""
