"""What every holder of Nova's locks must do: one suite for real and fake ones.

A test file subclasses `LocksContract` and gives the fixture `world`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sharedcache.core.ports import NameLocks

NAME = "0123456789abcdef0123456789abcdef01234567"
OTHER = "89abcdef0123456789abcdef0123456789abcdef"
LONG_S = 60.0


class LocksWorld(Protocol):
    """The locks, and Nova beside them."""

    locks: NameLocks

    def nova_holds(self, name: str) -> AbstractContextManager[None]:
        """Hold a name's lock as a Nova on this host does."""

    def nova_could(self, name: str) -> bool:
        """Whether a Nova on this host would get the lock now."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass, by waiting or by turning a clock."""


class LocksContract:
    """The suite."""

    def test_take_and_release(self, world: LocksWorld) -> None:
        """A free lock is taken, kept from Nova, and given back."""
        assert world.locks.take(NAME, 0, LONG_S) is True
        assert not world.nova_could(NAME)
        assert world.nova_could(OTHER)
        assert world.locks.release() is True
        assert world.nova_could(NAME)

    def test_lock_can_be_taken_again(self, world: LocksWorld) -> None:
        """One after the other, as a pass takes them."""
        for name in (NAME, OTHER, NAME):
            assert world.locks.take(name, 0, LONG_S) is True
            assert world.locks.release() is True

    def test_busy_lock_is_not_taken(self, world: LocksWorld) -> None:
        """What Nova holds is busy, and only that."""
        with world.nova_holds(NAME):
            assert world.locks.take(NAME, 0, LONG_S) is False
            assert world.locks.release() is False
            assert world.locks.take(OTHER, 0, LONG_S) is True
            assert world.locks.release() is True
        assert world.locks.take(NAME, 0, LONG_S) is True

    def test_waiting_has_an_end(self, world: LocksWorld) -> None:
        """A wait that is over is answered with False."""
        with world.nova_holds(NAME):
            assert world.locks.take(NAME, 0.1, LONG_S) is False

    def test_one_lock_at_a_time(self, world: LocksWorld) -> None:
        """While one is held, another is refused and the first one stays."""
        assert world.locks.take(NAME, 0, LONG_S) is True
        assert world.locks.take(OTHER, 0, LONG_S) is False
        assert world.locks.take(NAME, 0, LONG_S) is False
        assert world.nova_could(OTHER)
        assert not world.nova_could(NAME)
        assert world.locks.release() is True

    def test_release_of_nothing(self, world: LocksWorld) -> None:
        """What was never taken, or was given back, cannot be released."""
        assert world.locks.release() is False
        assert world.locks.take(NAME, 0, LONG_S) is True
        assert world.locks.release() is True
        assert world.locks.release() is False

    def test_lock_ends_by_itself(self, world: LocksWorld) -> None:
        """After hold_s the lock is Nova's again, and releasing says so."""
        assert world.locks.take(NAME, 0, 0.3) is True
        world.pass_time(0.3)
        assert world.nova_could(NAME)
        assert world.locks.release() is False
        assert world.locks.take(NAME, 0, LONG_S) is True
        assert world.locks.release() is True
