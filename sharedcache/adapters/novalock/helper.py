"""The process that holds Nova's lock for a cache name, so that it can be ended.

Started by its path with the lock directory as its only argument; it imports
the standard library only, and little of that.  It answers lines on its
standard input with lines on its standard output:

    take <wait seconds> <hold seconds> <name>  ->  held | busy | error <why>
    renew <hold seconds>                       ->  renewed | none
    drop                                       ->  dropped | none
    probe <name>                               ->  held | free | error <why>

The lock is the one that oslo.concurrency takes through fasteners: an exclusive
``fcntl.lockf`` on the whole of ``<lock directory>/nova-<name>``.

It never holds a lock for longer than it was told last.  That is the kernel's work:
a timer on CLOCK_BOOTTIME, armed before each attempt, ends this process with
SIGKILL, and a process that ends has no locks.  So the rule also stands while
this process is stopped, while it hangs on a storage that does not answer
(NFS waits can be killed), and after its parent was stopped or killed.
PR_SET_PDEATHSIG would add nothing but a trap: it follows the thread that
started this process, not the process of that thread.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import stat
import struct
import sys
import time
from contextlib import suppress

_POLL_S = 0.01
"""Time between two attempts, as fasteners begins with."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PROBED = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of 64-bit Linux: type, whence, start, length, pid."""
_CLOCK_BOOTTIME = 7
_NANOSECONDS = 1_000_000_000
_CREATE_TRIES = 10


class _SignalEvent(ctypes.Structure):
    """``struct sigevent`` of 64-bit Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("pad", ctypes.c_char * 48),
    )


class _TimerSetting(ctypes.Structure):
    """``struct itimerspec`` of 64-bit Linux."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Deadline:
    """A timer of the kernel's that ends this process with SIGKILL."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _SignalEvent(signo=signal.SIGKILL, notify=0)
        self._check(
            self._libc.timer_create(
                _CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer)
            )
        )

    def arm(self, seconds: float) -> None:
        """End this process so many seconds from now, instead of any time before."""
        # All zeros would disarm it.
        whole, rest = divmod(max(1, round(seconds * _NANOSECONDS)), _NANOSECONDS)
        self._set(_TimerSetting(value_s=whole, value_ns=rest))

    def disarm(self) -> None:
        """Let this process live."""
        self._set(_TimerSetting())

    def _set(self, setting: _TimerSetting) -> None:
        self._check(
            self._libc.timer_settime(self._timer, 0, ctypes.byref(setting), None)
        )

    @staticmethod
    def _check(answer: int) -> None:
        if answer != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def hand_over(descriptor: int, owner: os.stat_result) -> bool:
    """Give a new file to the lock directory's owner; whether it is theirs now."""
    # Only root may, and not on an export that squashes root.
    with suppress(OSError):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return os.fstat(descriptor).st_uid == owner.st_uid


def private_name(name: str) -> str:
    """Name something that is not to be found yet."""
    return f".{name}.{os.getpid()}.{time.time_ns()}"


def open_lock_directory(path: str) -> int:
    """Open the lock directory; make it like its parent directory if missing."""
    try:
        return os.open(path, _DIRECTORY)
    except FileNotFoundError:
        make_lock_directory(path)
        return os.open(path, _DIRECTORY)


def make_lock_directory(path: str) -> None:
    """Make the lock directory with its parent's owner, group and mode.

    It gets its name last: between a mkdir and a chown Nova would find a
    directory in which it may not write.  A rename onto a directory that
    somebody made meanwhile replaces it only while it is empty.
    """
    above, name = os.path.split(path)
    parent = os.open(above, _DIRECTORY)
    try:
        owner = os.fstat(parent)
        private = private_name(name)
        os.mkdir(private, 0o700, dir_fd=parent)
        try:
            made = os.open(private, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                hand_over(made, owner)
                os.fchmod(made, stat.S_IMODE(owner.st_mode))
            finally:
                os.close(made)
            os.rename(private, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            with suppress(OSError):
                os.rmdir(private, dir_fd=parent)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        os.close(parent)


def make_lock_file(directory: int, name: str) -> None:
    """Make a lock file that Nova's own user can lock too.

    It gets its name, by a link, only once owner and mode are right; and it is
    never deleted, since whoever waits on it would then hold a lock that
    nobody else sees.
    """
    private = private_name(name)
    flags = _FILE | os.O_CREAT | os.O_EXCL
    made = os.open(private, flags, 0o600, dir_fd=directory)
    try:
        theirs = hand_over(made, os.fstat(directory))
        os.fchmod(made, 0o644 if theirs else 0o666)
        with suppress(FileExistsError):
            os.link(
                private,
                name,
                src_dir_fd=directory,
                dst_dir_fd=directory,
                follow_symlinks=False,
            )
    finally:
        os.close(made)
        os.unlink(private, dir_fd=directory)


def open_lock_file(directory: int, name: str) -> int:
    """Open a lock file for writing, without following a link; make it if missing."""
    for _ in range(_CREATE_TRIES):
        try:
            descriptor = os.open(name, _FILE, dir_fd=directory)
        except FileNotFoundError:
            make_lock_file(directory, name)
            continue
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    raise OSError(errno.EAGAIN, "deleted as often as it is made")


def still_named(directory: int, name: str, descriptor: int) -> bool:
    """Whether the file that is locked is the one that others will lock.

    Nova's own cleaner deletes the lock file of a base file that it removes.
    """
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return found.st_ino == os.fstat(descriptor).st_ino


def probe(path: str, name: str) -> str:
    """Ask whether anybody holds a lock; nothing is made, and nothing locked."""
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        directory = os.open(path, _DIRECTORY)
        try:
            descriptor = os.open(name, _PROBED, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        # Whoever locks makes the file first.
        return "free"
    except OSError as error:
        return f"error {error.strerror}"
    return "free" if _FLOCK.unpack(answer)[0] == fcntl.F_UNLCK else "held"


class Server:
    """Answers the parent's lines, one at a time, and ends with it."""

    def __init__(self, lock_directory: str) -> None:
        self._path = lock_directory
        self._deadline = Deadline()
        self._held: int | None = None
        self._input = b""
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)

    def serve(self) -> None:
        """Answer until the parent closes its end, or is no more."""
        self._answer("ready")
        while True:
            while b"\n" not in self._input:
                self._read(None)
            line, _, self._input = self._input.partition(b"\n")
            words = os.fsdecode(line).split(" ", 3)
            if words[0] == "probe":
                name = os.fsdecode(line).partition(" ")[2]
                self._answer(probe(self._path, f"nova-{name}"))
            elif words[0] == "take":
                self._answer(self._take(float(words[1]), float(words[2]), words[3]))
            elif words[0] == "renew":
                self._answer(self._renew(float(words[1])))
            else:
                self._answer(self._drop())

    def _answer(self, line: str) -> None:
        os.write(1, os.fsencode(line.replace("\n", " ") + "\n"))

    def _read(self, wait_s: float | None) -> None:
        """Wait for input, or this long; the end of input is the end of all."""
        if not self._poll.poll(None if wait_s is None else wait_s * 1000):
            return
        data = os.read(0, 4096)
        if not data:
            # The parent is gone.  Ending here gives up the lock as well.
            os._exit(0)
        self._input += data

    def _take(self, wait_s: float, hold_s: float, name: str) -> str:
        if self._held is not None:
            return "busy"
        until = time.clock_gettime(time.CLOCK_BOOTTIME) + wait_s
        try:
            while True:
                # Armed before the attempt: the lock cannot have been granted
                # earlier.
                self._deadline.arm(hold_s)
                self._held = self._attempt(f"nova-{name}")
                if self._held is not None:
                    return "held"
                left = until - time.clock_gettime(time.CLOCK_BOOTTIME)
                if left <= 0 or self._input:
                    break
                self._deadline.disarm()
                self._read(min(_POLL_S, left))
        except OSError as error:
            self._deadline.disarm()
            return f"error {error.strerror}"
        self._deadline.disarm()
        return "busy"

    def _attempt(self, name: str) -> int | None:
        """Try once; return the locked descriptor, ``None`` if others hold it.

        Everything is opened anew each time: what others wait for may have been
        deleted and made again.
        """
        directory = open_lock_directory(self._path)
        try:
            descriptor = open_lock_file(directory, name)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if still_named(directory, name, descriptor):
                    return descriptor
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    os.close(descriptor)
                    raise
            os.close(descriptor)
            return None
        finally:
            os.close(directory)

    def _renew(self, hold_s: float) -> str:
        """Hold what is held for this long from now; it was held without a gap."""
        if self._held is None:
            return "none"
        self._deadline.arm(hold_s)
        return "renewed"

    def _drop(self) -> str:
        if self._held is None:
            return "none"
        # Closing lets the lock go; the deadline guards the closing as well.
        os.close(self._held)
        self._held = None
        self._deadline.disarm()
        return "dropped"


def main() -> None:
    """Serve the parent until it closes the pipe or ends."""
    # An interrupt at a terminal is meant for the parent, which ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server(sys.argv[1])
    with suppress(BrokenPipeError):
        server.serve()


if __name__ == "__main__":
    main()
