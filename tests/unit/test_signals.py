"""Signals that ask for the end are seen wherever they strike."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from concurrent.futures import _base as futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from click.testing import CliRunner

from sharedcache.cache import BusyError
from sharedcache.cli.commands import fetch as fetch_command
from sharedcache.cli.main import cli
from sharedcache.cli.signals import heard
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

ID = "11111111-0000-4000-8000-000000000001"
_LONGEST_S = 20.0
_WAITS = {"result", "wait"}


class _Waiting:
    """A cache whose file somebody else fetches; the interrupt strikes meanwhile."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Hold nothing."""

    @contextmanager
    def use(self, *_: object, **__: object) -> Iterator[Any]:
        """Wait, and have the signal come to a thread that it does not wake."""
        eventually(_main_waits, _LONGEST_S, "the main thread to wait for this one")
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        over = self.ended.wait(_LONGEST_S)
        raise BusyError("waiting was interrupted" if over else "nobody interrupted it")
        yield

    def interrupt(self) -> None:
        """End the waiting."""
        self.ended.set()


def _main_waits() -> bool:
    """Whether the main thread's frames are those of a wait for a future."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    codes = [one.f_code for one, _ in traceback.walk_stack(frame)]
    asked = {one.co_name for one in codes if one.co_filename == futures.__file__}
    # Not for the start of the thread, which comes before.
    return codes[0].co_filename == threading.__file__ and bool(asked & _WAITS)


def test_an_interrupt_that_wakes_nobody_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A signal may come right before the main thread begins to wait."""
    cache = _Waiting()
    monkeypatch.setattr(fetch_command, "SharedCache", lambda *_, **__: cache)
    result = CliRunner().invoke(
        cli, ["--base", str(tmp_path), "fetch", ID, "--command", "true"]
    )
    assert (result.exit_code, result.stderr) == (1, "sharedcache: interrupted\n")
    assert cache.ended.is_set()


def test_signals_are_told_and_put_back() -> None:
    """As long as the block lasts, and no longer."""
    told: list[int] = []
    # The tests themselves may run under nohup.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with heard((signal.SIGHUP,), told.append):
            os.kill(os.getpid(), signal.SIGHUP)
        assert told == [signal.SIGHUP]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_ignored_stays_ignored() -> None:
    """A program under nohup does not end with its terminal."""
    told: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heard((signal.SIGHUP,), told.append):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert told == []
