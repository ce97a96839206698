"""A server and two guests, started, shown and ended together."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Self

from tests.support.channel import Switchboard
from tests.support.clients import Clients
from tests.support.nfs.guest import Guest, GuestSpec
from tests.support.nfs.kernel import find_kernel
from tests.support.nfs.server import Server

if TYPE_CHECKING:
    from pathlib import Path

NAME_CACHE_S = 4
"""How long a guest may keep names, in seconds: short, to be waited for."""

MOUNT_OPTIONS = ("hard", f"acdirmin={NAME_CACHE_S}", f"acdirmax={NAME_CACHE_S}")

_DAY = dt.timedelta(days=1)


class Rig:
    """Two guests that mount one directory of one server.

    Their clocks are two days apart, a day before and a day after this
    machine's, so that it shows whose clock a time was taken from.
    """

    def __init__(self, home: Path) -> None:
        self.kernel = find_kernel()
        self._stack = contextlib.ExitStack()
        self._home = home
        self.server = Server(home / "server")
        self.guests: list[Guest] = []

    def __enter__(self) -> Self:
        """Start all of it, and wait until both guests serve."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.server)
            board = stack.enter_context(Switchboard())
            now = dt.datetime.now(dt.UTC)
            for name, clock in (("late", now - _DAY), ("successor", now + _DAY)):
                spec = GuestSpec(
                    name,
                    clock.strftime("%Y-%m-%dT%H:%M:%S"),
                    MOUNT_OPTIONS,
                    self.server.port,
                )
                guest = stack.enter_context(Guest(self._home / name, spec, board))
                self.guests.append(guest)
                guest.boot(self.kernel)
            for guest in self.guests:
                guest.wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End all of it."""
        self._stack.close()

    @property
    def clients(self) -> Clients:
        """The hands in the two guests."""
        return Clients(*(guest.remote for guest in self.guests))

    def log_tail(self, lines: int) -> str:
        """Return the ends of the guests' consoles and of the server's log."""
        parts = [f"-- server\n{self.server.tail(lines)}"]
        parts += [
            f"-- guest {guest.spec.name}\n{guest.console(lines)}"
            for guest in self.guests
        ]
        return "\n".join(parts)
