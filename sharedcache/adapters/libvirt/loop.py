"""libvirt's event loop, of which a process has one, on a thread of its own."""

from __future__ import annotations

import threading

_LOCK = threading.Lock()
_STARTED = threading.Event()


def ensure() -> None:
    """Start the loop; *must* come before the first connection is opened."""
    import libvirt  # noqa: PLC0415 - an extra, and 7 MiB, for those who use it

    with _LOCK:
        if _STARTED.is_set():
            return
        libvirt.virEventRegisterDefaultImpl()
        # The errors that libvirt prints by itself are raised as well.
        libvirt.registerErrorHandler(_quiet, None)
        threading.Thread(target=_run, name="libvirt-events", daemon=True).start()
        _STARTED.set()


def _quiet(_context: object, _error: object) -> None:
    """Print nothing."""


def _run() -> None:
    import libvirt  # noqa: PLC0415 - see above

    while True:
        libvirt.virEventRunDefaultImpl()


def drained(within_s: float) -> bool:
    """Wait until every event that has arrived was handed on; ``False`` if late.

    A timer that is armed now fires after those that were armed before.
    """
    import libvirt  # noqa: PLC0415 - see above

    done = threading.Event()
    timer = libvirt.virEventAddTimeout(0, lambda _timer, _opaque: done.set(), None)
    try:
        return done.wait(within_s)
    finally:
        libvirt.virEventRemoveTimeout(timer)
