"""What ``verify`` says when not all can be told, and amounts as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click
import pytest

from sharedcache.cache.verify import Finding, State
from sharedcache.cleaner import damage
from sharedcache.cli import amounts
from sharedcache.cli.commands import verify as command
from sharedcache.cli.failure import Failure
from sharedcache.core.digests import Digest, Published
from sharedcache.core.ports import CoordinationError, DisconnectedError
from tests.property.strategies import D1, D2, file_facts
from tests.simulation.memory_zookeeper import MemorySession, MemoryZooKeeper
from tests.support.inprocess import OPERATOR

if TYPE_CHECKING:
    from sharedcache.cli.base import Connection

ONE = file_facts()
RECORD = Published(D1, ONE.inode, ONE.size, Digest("md5", "0" * 32))
FOUND = Finding(D1, State.DAMAGED, "spoilt", ONE, RECORD, f"md5:{'1' * 32}", size=9)


class _Lost:
    """A connection to a ZooKeeper that is lost."""

    def __getattr__(self, name: str) -> Any:
        """Fail, whatever is asked."""
        if name in {"session", "settings"}:
            return self

        def call(*_: object, **__: object) -> None:
            raise DisconnectedError("no session")

        return call


def _run(to: object = None) -> Any:
    return command._Run(cast("Any", None), cast("Connection", to), findings=[FOUND])


def test_damage_that_cannot_be_ordered_is_told_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """ZooKeeper is lost in the middle: the finding stands, and what is missing too."""
    run = _run(_Lost())
    run._speak(FOUND, ordered=False)
    said = run.told(everything=False)
    (row,) = said["files"]
    assert (row["state"], row["ordered"], row["users"]) == ("damaged", False, None)
    assert command._next(row) == "see `sharedcache status`"
    with pytest.raises(Failure, match="1 of 1 files are damaged"):
        command._judge(said, named=False)
    told = capsys.readouterr().err
    assert f"{D1} is not ordered away: no session" in told
    assert "the users are not known" in told


@pytest.mark.parametrize(
    ("states", "named", "words"),
    [
        ([State.WHOLE, State.RECORDED, State.UNRECORDED, State.CHANGING], False, ""),
        ([State.WHOLE, State.UNRECORDED], True, "1 of 2 files could not"),
        ([State.UNREADABLE, State.BAD_RECORD], False, "2 of 2 files could not"),
        ([State.DAMAGED, State.UNREADABLE], False, "1 of 2 files are damaged"),
    ],
)
def test_what_a_run_ends_with(states: list[State], words: str, *, named: bool) -> None:
    """Damage and what cannot be read are failures, other doubt only if it was named."""
    run = _run()
    run.findings = [
        Finding(name, s) for name, s in zip((D1, D2), states[:2], strict=True)
    ]
    run.findings += [Finding(f"swap_{n}", s) for n, s in enumerate(states[2:])]
    said = run.told(everything=True)
    if not words:
        command._judge(said, named=named)
        return
    with pytest.raises(Failure, match=words):
        command._judge(said, named=named)


@pytest.mark.parametrize("state", list(State))
def test_every_state_says_what_next(state: State) -> None:
    """Nothing but good news is without advice, and an interrupted run has its own."""
    run = _run()
    run.findings = [Finding(D1, state)]
    (row,) = run.told(everything=True)["files"]
    good = state in {State.WHOLE, State.RECORDED, State.GONE}
    assert bool(command._next(row)) is not good


def test_nothing_is_left_in_a_tree_that_was_lost() -> None:
    """An order would be in the way of whoever founds the tree again."""
    server = MemoryZooKeeper(lambda: 0.0)
    session = MemorySession(server, "word", lambda: 0.0, 10.0)
    session.start()
    with pytest.raises(CoordinationError, match="no such cluster"):
        damage.order(session, command._damage(FOUND, "o", 1.0), OPERATOR)
    assert session.get("damaged") is None


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0.0),
        ("4096", 4096.0),
        ("1.5k", 1536.0),
        ("50M", 50 * 2.0**20),
        ("1GiB", 2.0**30),
        ("2tb", 2.0**41),
    ],
)
def test_amounts_of_bytes(text: str, amount: float) -> None:
    """Units of 1,024, whatever their case."""
    context = click.Context(click.Command("x"))
    assert amounts.bytes_of(context, click.Option(["--rate"]), text) == amount


@pytest.mark.parametrize(
    "text", ["", "fast", "-1", "5 M", "1e9", "9" * 30, "1x", "\u0665"]
)
def test_no_amounts_of_bytes(text: str) -> None:
    """Wrong usage, not a guess."""
    context = click.Context(click.Command("x"))
    with pytest.raises(click.BadParameter):
        amounts.bytes_of(context, click.Option(["--rate"]), text)
