"""Starts child processes that the kernel ends when this process goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# A program run between us and the child.  It asks the kernel for the signal
# before the child's own program is there, and looks at its parent after that,
# so a parent that went in the meantime is noticed.  A preexec_fn would do the
# same in a forked copy of a process with threads, where a lock can be held for
# ever.
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class _Launcher:
    """Starts children on one thread that lives as long as the process.

    The kernel sends the parent-death signal when the *thread* that started the
    child ends.  A server that a fault-injecting thread restarts would otherwise
    die with that thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def start(
        self,
        command: Sequence[str],
        directory: Path,
        output: int,
        environ: Mapping[str, str] | None,
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "server-launcher")
            executor = self._executor
        return executor.submit(
            subprocess.Popen,
            [
                *(sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT),
                *(str(os.getpid()), *command),
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environ,
            # A Ctrl-C at the terminal is meant for us, who stop the child.
            process_group=0,
        ).result()


_launcher = _Launcher()


def _forget_launcher() -> None:
    """Start afresh in a forked child, which has none of its parent's threads."""
    global _launcher  # noqa: PLW0603 - a fork is outside any object's control.
    _launcher = _Launcher()


os.register_at_fork(after_in_child=_forget_launcher)


def start_child(
    command: Sequence[str],
    *,
    directory: Path,
    output: int,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in `directory`, in a process group of its own.

    Its first word is an absolute path.  Both its streams go to the descriptor
    `output`; `environ` replaces this process's environment.  It is killed when
    this process ends, however it ends.  Raises OSError if it cannot be started.
    """
    return _launcher.start(command, directory, output, environ)
