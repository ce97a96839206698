"""Processes by identity: a number alone is given again to somebody else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_POLL_S = 0.05
_START_TIME = 19
"""Place of the start time among the fields after the command's name (proc(5))."""
_STATE = 0
_GONE = frozenset("ZX")


def boot_id() -> str:
    """Return the kernel's boot id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def identity(pid: int) -> str:
    """Name a process for ever; empty if it is gone or only awaits its parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The command's name, in brackets, may contain anything.
    fields = text.rpartition(")")[2].split()
    if fields[_STATE] in _GONE:
        return ""
    return f"{boot_id()} {pid} {fields[_START_TIME]}"


def pid_of(named: str) -> int | None:
    """Return the id of a process that still runs; ``None`` if it is gone."""
    fields = named.split()
    pid = next((int(one) for one in fields[1:2] if one.isdecimal()), None)
    return pid if pid is not None and identity(pid) == named else None


def outlast(named: Mapping[str, str], patience_s: float) -> list[str]:
    """Wait until processes of an earlier run are gone; return the names of others.

    The kernel ends them with the process that started them; one that hangs in
    a system call ends when that returns.  After half of the time they are
    killed once more.  ``named`` is what ``identity`` said of each.
    """
    start = time.monotonic()
    killed = False
    while True:
        late_s = time.monotonic() - start
        left = {name: pid for name, one in named.items() if (pid := pid_of(one))}
        if not left or late_s >= patience_s:
            return sorted(left)
        if not killed and late_s >= patience_s / 2:
            killed = True
            for pid in left.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
