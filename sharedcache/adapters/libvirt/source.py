"""The source ``libvirt``: running and defined domains, and events between looks."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from sharedcache.adapters.libvirt import loop
from sharedcache.adapters.libvirt.domains import ChainReader, uses_of
from sharedcache.adapters.libvirt.events import Events
from sharedcache.adapters.libvirt.patience import Patience
from sharedcache.core.model import Uses
from sharedcache.core.ports import Between, SourceError
from sharedcache.core.referrers import Referrers

if TYPE_CHECKING:
    import libvirt

KEEPALIVE_S = 5
KEEPALIVE_TRIES = 3
"""A libvirtd that does not answer for the product (seconds) counts as gone."""

LOOK_S = 60.0
ASK_S = 5.0
"""How long a look, and a mere question, may take (seconds)."""


class LibvirtSource:
    """Asks one libvirtd over a read-only connection.

    ``readers`` read backing chains, one for looks and one for events, since
    these come on another thread.  libvirt's module is imported at the first
    look.  A libvirtd that hangs is given up after ``look_s`` seconds, and not
    asked again before it has answered.
    """

    name = "libvirt"

    def __init__(
        self,
        uri: str,
        readers: tuple[ChainReader, ChainReader],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._uri = uri
        self._look_s = look_s
        self._patience = Patience(f"libvirt at {uri}")
        self._told = Referrers()
        self._chains, self._chains_of_events = readers
        self._connection: libvirt.virConnect | None = None
        self._ids: list[int] = []
        self._events = Events(self._read)

    def look(self) -> Uses:
        """Return what all domains use, whether they run or are only defined.

        Raises ``SourceError`` if libvirtd does not answer, or if any part of
        any domain cannot be known.
        """
        try:
            import_module("libvirt")
        except ImportError as error:
            raise SourceError(
                f"libvirt's Python module cannot be imported ({error});"
                " install sharedcache[libvirt]"
            ) from error
        uses, self._told = self._patience.within(self._look_s, self._look_twice)
        return uses

    def referrers(self) -> Referrers:
        """Return the domains that the last look found, by what they use."""
        return self._told

    def _look_twice(self) -> tuple[Uses, Referrers]:
        """Look, once more over a new connection if the old one was broken."""
        import libvirt  # noqa: PLC0415 - see above

        for last in (False, True):
            connection = self._open()
            try:
                return self._look(connection)
            except libvirt.libvirtError as error:
                broken = not _alive(connection)
                self.close()
                if last or not broken:
                    raise SourceError(
                        f"libvirt at {self._uri} failed: {error};"
                        " see to it that libvirtd runs"
                    ) from error
        raise SourceError(f"libvirt at {self._uri} cannot be asked")

    def between(self) -> Between:
        """Return what events told of since the last call."""
        if self._connection is not None:
            import libvirt  # noqa: PLC0415 - see above

            try:
                # Events and answers come in order over one connection: after
                # this answer all events that preceded it are here.
                self._patience.within(ASK_S, self._connection.getLibVersion)
            except (libvirt.libvirtError, SourceError):
                self._events.lose()
        return self._events.take()

    def close(self) -> None:
        """End the connection; the next look opens another."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        import libvirt  # noqa: PLC0415 - see above

        self._events.lose()
        self._events.detach(connection, self._ids)
        # It may be broken, and is forgotten.
        with suppress(libvirt.libvirtError):
            connection.close()

    def _open(self) -> libvirt.virConnect:
        """Return a connection that lives, with its events, or ``SourceError``."""
        import libvirt  # noqa: PLC0415 - see above

        if self._connection is not None:
            if _alive(self._connection):
                return self._connection
            self.close()
        loop.ensure()
        try:
            connection = libvirt.openReadOnly(self._uri)
            self._ids = self._events.attach(connection)
        except libvirt.libvirtError as error:
            raise SourceError(
                f"cannot connect to {self._uri}: {error}; start libvirtd, let the"
                " agent use its read-only socket, or correct [agent] libvirt_uri"
            ) from error
        # A driver in this process has no connection to keep alive.
        with suppress(libvirt.libvirtError):
            connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_TRIES)
        self._connection = connection
        return connection

    def _look(self, connection: libvirt.virConnect) -> tuple[Uses, Referrers]:
        used, told = Uses(), Referrers()
        with self._chains() as chains:
            for domain in connection.listAllDomains(0):
                used |= uses_of(connection, domain, chains, told) or Uses()
        return used, told

    def _read(self, domain: libvirt.virDomain, told: Referrers) -> Uses | None:
        """Read a domain that an event named, on the events' thread."""
        with self._chains_of_events() as chains:
            return uses_of(domain.connect(), domain, chains, told)


def _alive(connection: libvirt.virConnect) -> bool:
    """Whether the connection is open and its other end answers."""
    import libvirt  # noqa: PLC0415 - see above

    try:
        return connection.isAlive() == 1
    except libvirt.libvirtError:
        return False
