"""``sharedcache-cleaner``: the process around the cleaner's service."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agents import process
from agents.process import ProcessFailedError, Stop
from sharedcache.adapters.clock import SystemClock
from sharedcache.adapters.journal import LogJournal
from sharedcache.adapters.settings import Settings
from sharedcache.adapters.systemd import notify
from sharedcache.cleaner.service import CleanerService
from sharedcache.cli.wiring import CleanerParts, cleaner_name
from sharedcache.core.ports import StorageError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cleaner until it is told to stop; exits with its status."""
    sys.exit(process.run("cleaner", _cleaner, arguments))


def _cleaner(
    settings: Settings, clock: SystemClock, stop: Stop, journal: LogJournal
) -> None:
    try:
        parts = CleanerParts(settings, cleaner_name(), clock, journal, stop.wanted)
    except StorageError as error:
        raise ProcessFailedError(str(error)) from error
    service = CleanerService(parts.world)
    try:
        notify("READY=1\nSTATUS=Connecting to ZooKeeper")
        if process.connect(parts.session, clock, stop):
            _lead(service, clock, stop)
    finally:
        notify("STOPPING=1")
        service.stand_down()
        parts.close()


def _lead(service: CleanerService, clock: SystemClock, stop: Stop) -> None:
    """Stand for election, and tend what is led, until told to stop."""
    told = ""
    while not stop.wanted():
        wait_s = service.step()
        status = "Standing for election"
        if service.leadership is not None:
            status = f"Leading, epoch {service.leadership.epoch}"
        if status != told:
            notify(f"STATUS={status}")
            told = status
        # A step that waited for its turn may have used the stop's wake up.
        clock.wait(0.0 if stop.wanted() else wait_s)


if __name__ == "__main__":
    main()
