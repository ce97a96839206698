"""What befalls domains between looks, as libvirt's events tell it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from sharedcache.adapters.libvirt import loop
from sharedcache.core.model import Uses
from sharedcache.core.ports import Between, SourceError
from sharedcache.core.referrers import Referrers

if TYPE_CHECKING:
    import libvirt

DRAIN_S = 5.0
"""How long ``take`` waits for events that have arrived to be read (seconds)."""

_LOG = logging.getLogger("sharedcache.libvirt")

Read = Callable[["libvirt.virDomain", Referrers], Uses | None]


class Events:
    """Collects the uses of every domain that an event names.

    A domain that is started or defined is read at once, on a thread of its
    own: libvirt's event loop must not wait for storage.  One that is gone
    before it could be read is a use that is not known, so coverage is lost.
    What stops or is undefined was seen when it began.  ``read`` returns
    ``None`` for a domain that is gone.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._seen = Uses()
        self._told = Referrers()
        self._lost = False
        self._queue: SimpleQueue[libvirt.virDomain | threading.Event] = SimpleQueue()
        self._worker: threading.Thread | None = None

    def attach(self, connection: libvirt.virConnect) -> list[int]:
        """Be told of a connection's events; returns what ``detach`` wants.

        Raises ``libvirtError``.
        """
        import libvirt  # noqa: PLC0415 - an extra, and 7 MiB, for those who use it

        if self._worker is None:
            self._worker = threading.Thread(
                target=self._work, name="libvirt-domains", daemon=True
            )
            self._worker.start()
        connection.registerCloseCallback(self._closed, None)
        handlers: list[tuple[int, Callable[..., None]]] = [
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_DISK_CHANGE, self._changed),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._changed),
            (libvirt.VIR_DOMAIN_EVENT_ID_TRAY_CHANGE, self._changed),
            (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, self._changed),
            (libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, self._block_job),
        ]
        return [
            connection.domainEventRegisterAny(None, number, handler, None)
            for number, handler in handlers
        ]

    @staticmethod
    def detach(connection: libvirt.virConnect, ids: list[int]) -> None:
        """Be told no more; the connection may be broken."""
        import libvirt  # noqa: PLC0415 - see above

        for number in ids:
            with suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(number)
        with suppress(libvirt.libvirtError):
            connection.unregisterCloseCallback()

    def lose(self) -> None:
        """Say that something may have been missed."""
        with self._lock:
            self._lost = True

    def take(self) -> Between:
        """Return what was seen since the last call."""
        if self._worker is not None and not self._drained():
            self.lose()
        with self._lock:
            between = Between(self._seen, not self._lost, self._told)
            self._seen, self._told, self._lost = Uses(), Referrers(), False
        return between

    def _drained(self) -> bool:
        """Wait until all that has arrived was read."""
        if not loop.drained(DRAIN_S):
            return False
        done = threading.Event()
        self._queue.put(done)
        return done.wait(DRAIN_S)

    def _closed(self, _connection: object, reason: int, _opaque: object) -> None:
        _LOG.debug("the connection was closed, reason %s", reason)
        self.lose()

    def _lifecycle(
        self,
        _connection: object,
        domain: libvirt.virDomain,
        event: int,
        _detail: int,
        _opaque: object,
    ) -> None:
        import libvirt  # noqa: PLC0415 - see above

        if event in {
            libvirt.VIR_DOMAIN_EVENT_DEFINED,
            libvirt.VIR_DOMAIN_EVENT_STARTED,
        }:
            self._queue.put(domain)

    def _changed(
        self, _connection: object, domain: libvirt.virDomain, *_details: object
    ) -> None:
        self._queue.put(domain)

    def _block_job(
        self,
        _connection: object,
        domain: libvirt.virDomain,
        _disk: str,
        kind: int,
        status: int,
        _opaque: object,
    ) -> None:
        """Read a domain again after a copy: commit and pull only shorten chains."""
        import libvirt  # noqa: PLC0415 - see above

        if kind != libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY:
            return
        if status in {
            libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED,
            libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED,
        }:
            # What it copied to is not known any more.
            self.lose()
        self._queue.put(domain)

    def _work(self) -> None:
        """Read the domains that events name, one after the other, for ever."""
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._take_in(item)

    def _take_in(self, domain: libvirt.virDomain) -> None:
        import libvirt  # noqa: PLC0415 - see above

        told = Referrers()
        try:
            found = self._read(domain, told)
        except (libvirt.libvirtError, SourceError, OSError) as error:
            _LOG.debug("a domain that an event named cannot be read: %s", error)
            found = None
        if found is None:
            self.lose()
            return
        with self._lock:
            self._seen |= found
            self._told.update(told)
