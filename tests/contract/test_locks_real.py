"""Nova's locks through the helper, with fasteners as Nova's side."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import fasteners
import pytest

from sharedcache.adapters.novalock import NovaNameLocks, helper
from tests.contract.locks_suite import LONG_S, NAME, OTHER, LocksContract
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sharedcache.core.ports import NameLocks

_HELPER = Path(helper.__file__)
_SOON_S = 20.0


class RealLocks:
    """The helper, and a Nova in this process."""

    def __init__(self, lock_dir: Path) -> None:
        self.lock_dir = lock_dir
        self.real = NovaNameLocks(str(lock_dir))
        self.locks: NameLocks = self.real

    def path(self, name: str) -> Path:
        """Where oslo.concurrency has the lock, with Nova's prefix."""
        return self.lock_dir / f"nova-{name}"

    @contextmanager
    def nova_holds(self, name: str) -> Iterator[None]:
        """Hold it as oslo.concurrency does."""
        with fasteners.InterProcessLock(self.path(name)):
            yield

    def nova_could(self, name: str) -> bool:
        """Try it as oslo.concurrency does."""
        lock = fasteners.InterProcessLock(self.path(name))
        if lock.acquire(blocking=False):
            lock.release()
            return True
        # fasteners leaves the file of a refused lock open.
        vars(lock)["lockfile"].close()
        return False

    def pass_time(self, seconds: float) -> None:
        """Wait until the helper's own deadline has ended it, within reason."""
        helper = self.real._helper
        assert helper is not None
        with suppress(subprocess.TimeoutExpired):
            helper.process.wait(seconds + _SOON_S)

    def helper_pid(self) -> int:
        """Process id of the running helper."""
        assert self.real._helper is not None
        return self.real._helper.process.pid


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RealLocks]:
    """Give a lock directory."""
    (tmp_path / "locks").mkdir()
    world = RealLocks(tmp_path / "locks")
    with world.real:
        yield world


class TestRealLocks(LocksContract):
    """The contract suite over the helper."""


class Parent:
    """Another process of ours that takes a lock and then does nothing."""

    _PROGRAM = """
import sys
from sharedcache.adapters.novalock import NovaNameLocks
locks = NovaNameLocks(sys.argv[1])
print(locks.take(sys.argv[2], 0, float(sys.argv[3])), flush=True)
sys.stdin.readline()
print(locks.release(), flush=True)
locks.close()
"""

    def __init__(self, lock_dir: Path, hold_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM, str(lock_dir), NAME, str(hold_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "True\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


# Renewing.


def test_a_renewed_lock_lasts_from_then_on(world: RealLocks) -> None:
    """Each renewal counts from itself; the last one ends like any lock."""
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real.renew(0.3)
    world.pass_time(0.3)
    assert world.nova_could(NAME)
    assert not world.real.renew(LONG_S)
    assert world.real.take(NAME, 0, 5.0)
    assert world.real.renew(LONG_S)
    assert not world.nova_could(NAME)
    assert world.real.release()


def test_what_is_not_held_cannot_be_renewed(world: RealLocks) -> None:
    """Never taken, or given back: there is nothing to renew, and nothing ends."""
    assert not world.real.renew(LONG_S)
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real.release()
    assert not world.real.renew(0.01)
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real.release()


# Waiting.


def test_busy_is_told_quickly(world: RealLocks) -> None:
    """A pass does not stop at a name that Nova is busy with."""
    assert world.real.take(OTHER, 0, LONG_S)
    assert world.real.release()
    with world.nova_holds(NAME):
        start = time.monotonic()
        assert not world.real.take(NAME, 0, LONG_S)
        assert time.monotonic() - start < 1.0
    assert world.real.last_error == ""


def test_lock_that_becomes_free_is_taken(world: RealLocks) -> None:
    """Within wait_s the lock is taken as soon as Nova lets go."""
    with world.nova_holds(NAME):
        taken: list[bool] = []
        waiter = threading.Thread(
            target=lambda: taken.append(world.real.take(NAME, LONG_S, LONG_S))
        )
        waiter.start()
        eventually(world.real._guard.locked, _SOON_S, "the call is made")
        # One call at a time: a second thread is not kept waiting.
        start = time.monotonic()
        assert world.real.take(OTHER, LONG_S, LONG_S) is False
        assert time.monotonic() - start < 5.0
    waiter.join(_SOON_S)
    assert taken == [True]
    assert not world.nova_could(NAME)


def test_deleted_lock_file_is_no_lock(world: RealLocks) -> None:
    """Nova's cleaner deletes lock files: what is locked is what bears the name."""
    with world.nova_holds(NAME):
        world.path(NAME).unlink()
        assert world.real.take(NAME, 0, LONG_S)
    assert not world.nova_could(NAME)


def test_lock_file_deleted_while_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a file that lost its name meanwhile does not count."""
    monkeypatch.setattr(helper, "Deadline", object)
    server = helper.Server(str(tmp_path))
    lockf = fcntl.lockf

    def deleted(descriptor: int, command: int) -> None:
        lockf(descriptor, command)
        (tmp_path / "nova-x").unlink()

    def replaced(descriptor: int, command: int) -> None:
        deleted(descriptor, command)
        (tmp_path / "nova-x").touch()

    for late in (deleted, replaced):
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "lockf", late)
            assert server._attempt("nova-x") is None
    held = server._attempt("nova-x")
    assert held is not None
    os.close(held)


# Whatever happens to the parent or the helper.


def test_stopped_parent_loses_the_lock(world: RealLocks) -> None:
    """hold_s counts while the parent is stopped, and it learns of the loss."""
    with Parent(world.lock_dir, 0.5) as parent:
        os.kill(parent.process.pid, signal.SIGSTOP)
        eventually(lambda: world.nova_could(NAME), _SOON_S, "the lock is let go")
        os.kill(parent.process.pid, signal.SIGCONT)
        assert parent.process.communicate("\n")[0] == "False\n"


def test_dead_parent_loses_the_lock(world: RealLocks) -> None:
    """A parent that is killed leaves neither lock nor helper."""
    with Parent(world.lock_dir, LONG_S) as parent:
        assert not world.nova_could(NAME)
        (helper,) = _children(parent.process.pid)
        os.kill(parent.process.pid, signal.SIGKILL)
        eventually(lambda: world.nova_could(NAME), _SOON_S, "the lock is let go")
        eventually(lambda: not _alive(helper), _SOON_S, "the helper ends")


def test_killed_helper_loses_the_lock(world: RealLocks) -> None:
    """A helper that is killed has lost the lock; the next call starts another."""
    assert world.real.take(NAME, 0, LONG_S)
    os.kill(world.helper_pid(), signal.SIGKILL)
    eventually(lambda: world.nova_could(NAME), _SOON_S, "the lock is let go")
    assert world.real.release() is False
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real.release() is True


def _lose_idle_helper(world: RealLocks) -> subprocess.Popen[bytes]:
    """Use the locks once, then kill the helper that is kept for later."""
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real.release()
    assert world.real._helper is not None
    process = world.real._helper.process
    process.kill()
    process.wait(_SOON_S)
    return process


def test_helper_that_is_gone_is_replaced(world: RealLocks) -> None:
    """Killed between two calls or within one: the next call starts another."""
    _lose_idle_helper(world)
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real.release()
    with world.nova_holds(NAME):
        killer = threading.Timer(0.2, lambda: os.kill(world.helper_pid(), 9))
        killer.start()
        assert not world.real.take(NAME, LONG_S, LONG_S)
        killer.join()
    assert "ended" in world.real.last_error
    assert world.real.take(NAME, 0, LONG_S)


def test_helper_that_ends_before_it_is_asked(
    world: RealLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there a moment ago, and its pipe is broken now."""
    process = _lose_idle_helper(world)
    with monkeypatch.context() as patch:
        patch.setattr(process, "poll", lambda: None)
        assert not world.real.take(NAME, 0, LONG_S)
    assert "ended" in world.real.last_error


def test_helper_that_the_storage_holds_is_not_waited_for(
    world: RealLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was killed and hangs in the kernel is let be, and reaped later."""
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real._helper is not None
    process = world.real._helper.process

    def hanging(_: float) -> None:
        raise subprocess.TimeoutExpired("the helper", 1.0)

    monkeypatch.setattr(process, "wait", hanging)
    world.real.close()
    monkeypatch.undo()
    # By the end of its input, or by SIGKILL, whichever it meets first.
    assert process.wait(_SOON_S) in (0, -signal.SIGKILL)
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real._ending == []


def test_stopped_helper_loses_the_lock(world: RealLocks) -> None:
    """hold_s counts even while the helper itself is stopped."""
    assert world.real.take(NAME, 0, 0.5)
    os.kill(world.helper_pid(), signal.SIGSTOP)
    eventually(lambda: world.nova_could(NAME), _SOON_S, "the lock is let go")
    assert world.real.release() is False


def test_hanging_helper_is_replaced(tmp_path: Path) -> None:
    """A helper that does not answer is killed within the bound, then replaced."""
    (tmp_path / "locks").mkdir()
    with NovaNameLocks(str(tmp_path / "locks"), answer_s=0.3) as locks:
        assert locks.take(NAME, 0, LONG_S)
        assert locks.release()
        assert locks._helper is not None
        hanging = locks._helper.process
        os.kill(hanging.pid, signal.SIGSTOP)
        start = time.monotonic()
        assert not locks.take(NAME, 0.2, LONG_S)
        assert time.monotonic() - start < _SOON_S
        assert "did not answer" in locks.last_error
        assert hanging.poll() == -signal.SIGKILL
        # Not the same bound again: on a busy machine a start takes longer.
        locks._answer_s = _SOON_S
        assert locks.take(NAME, 0, LONG_S)
        assert locks.last_error == ""


# The lock files.


def test_missing_lock_directory_is_made(tmp_path: Path) -> None:
    """It is made with the mode of the directory above it, and nothing is left."""
    above = tmp_path / "instances"
    above.mkdir()
    above.chmod(0o2750)
    with NovaNameLocks(str(above / "locks")) as locks:
        assert locks.take(NAME, 0, LONG_S)
    assert (above / "locks").stat().st_mode & 0o7777 == 0o2750
    assert [path.name for path in above.iterdir()] == ["locks"]
    assert [path.name for path in (above / "locks").iterdir()] == [f"nova-{NAME}"]


def test_missing_instances_path_is_an_error(tmp_path: Path) -> None:
    """Nothing but the last directory is ever made."""
    with NovaNameLocks(str(tmp_path / "absent" / "locks")) as locks:
        assert not locks.take(NAME, 0, LONG_S)
        assert "No such file" in locks.last_error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_made_by_root_for_nova(tmp_path: Path) -> None:
    """What root makes belongs to the owner of the directory that it is in."""
    above = tmp_path / "instances"
    above.mkdir()
    os.chown(above, 1234, 2345)
    with NovaNameLocks(str(above / "locks")) as locks:
        assert locks.take(NAME, 0, LONG_S)
    for path in (above / "locks", above / "locks" / f"nova-{NAME}"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
    assert (above / "locks" / f"nova-{NAME}").stat().st_mode & 0o777 == 0o644


@pytest.mark.root
def test_lock_file_that_cannot_be_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where root is squashed, or we are not root, all may lock what we make."""
    os.chown(tmp_path, 1234, 2345)

    def squashed(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", squashed)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        helper.make_lock_file(directory, f"nova-{NAME}")
    finally:
        os.close(directory)
    (made,) = tmp_path.iterdir()
    assert made.stat().st_uid == 0
    assert made.stat().st_mode & 0o777 == 0o666


def test_existing_lock_file_is_left_as_it_is(world: RealLocks) -> None:
    """Neither owner, mode, content nor existence of a lock file changes."""
    world.path(NAME).write_text("content")
    world.path(NAME).chmod(0o664)
    before = world.path(NAME).stat()
    assert world.real.take(NAME, 0, LONG_S)
    assert world.real.release()
    after = world.path(NAME).stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
    )
    assert world.path(NAME).read_text() == "content"


@pytest.mark.parametrize("filled", [False, True])
def test_lock_directory_that_somebody_makes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, filled: bool
) -> None:
    """Theirs is used, with the locks that are in it, and nothing of ours is left."""
    locks = tmp_path / "locks"
    rename = os.rename

    def late(*arguments: Any, **options: Any) -> None:
        locks.mkdir()
        if filled:
            (locks / "nova-x").touch()
        rename(*arguments, **options)

    monkeypatch.setattr(os, "rename", late)
    os.close(helper.open_lock_directory(str(locks)))
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
    assert [path.name for path in locks.iterdir()] == ["nova-x"] * filled


def test_lock_directory_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error, and nothing is left."""

    def refusing(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "rename", refusing)
    with pytest.raises(PermissionError):
        helper.open_lock_directory(str(tmp_path / "locks"))
    assert list(tmp_path.iterdir()) == []


def test_lock_file_that_goes_as_often_as_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up, with an error that is none of a busy lock."""
    monkeypatch.setattr(helper, "make_lock_file", lambda *_: None)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="deleted as often"):
            helper.open_lock_file(directory, "nova-x")
    finally:
        os.close(directory)


def test_lock_that_the_storage_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount without locks is an error, never a lock, and never just busy."""
    monkeypatch.setattr(helper, "Deadline", object)
    server = helper.Server(str(tmp_path))

    def refusing(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refusing)
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        server._attempt("nova-x")
    opened = [os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()]
    assert not any(path.startswith(str(tmp_path)) for path in opened)


def test_deadline_that_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a lock could be held for ever: there is no helper then."""
    monkeypatch.setattr(helper, "_CLOCK_BOOTTIME", -1)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        helper.Deadline()


def test_planted_links_and_fifos(world: RealLocks, tmp_path: Path) -> None:
    """A link is not followed and a fifo not waited for: there is no lock."""
    (tmp_path / "elsewhere").touch()
    world.path(NAME).symlink_to(tmp_path / "elsewhere")
    world.path("dangling").symlink_to(tmp_path / "absent")
    os.mkfifo(world.path(OTHER))
    for name in (NAME, "dangling", OTHER):
        assert not world.real.take(name, 0, LONG_S)
        assert world.real.last_error
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../x", "a\0b", "a\nb"])
def test_names_are_entries_only(world: RealLocks, bad: str) -> None:
    """A name that could lead elsewhere, or end the line, is never sent."""
    with pytest.raises(ValueError, match="not a cache name"):
        world.real.take(bad, 0, LONG_S)
    assert world.real._helper is None


# The helper as a process.


def test_helper_inherits_nothing(world: RealLocks) -> None:
    """It has its pipes and the inherited error stream, and its own session."""
    with (world.lock_dir / "stranger").open("w") as stranger:
        os.set_inheritable(stranger.fileno(), True)
        assert world.real.take(NAME, 0, LONG_S)
        pid = world.helper_pid()
        links = {
            entry.name: str(entry.readlink())
            for entry in Path(f"/proc/{pid}/fd").iterdir()
        }
    assert links.pop("0").startswith("pipe:")
    assert links.pop("1").startswith("pipe:")
    links.pop("2")
    assert list(links.values()) == [str(world.path(NAME))]
    assert os.getsid(pid) == pid


def test_deadline_is_the_kernels_own(world: RealLocks) -> None:
    """It counts while the host is suspended, and cannot be caught or blocked."""
    assert world.real.take(NAME, 0, LONG_S)
    timers = Path(f"/proc/{world.helper_pid()}/timers")
    if not timers.exists():
        pytest.skip("this kernel does not show timers")
    text = timers.read_text("ascii")
    assert f"ClockID: {time.CLOCK_BOOTTIME}" in text
    assert f"signal: {signal.SIGKILL:d}/" in text


def test_helper_starts_quickly() -> None:
    """It imports little: a start takes less than 150 ms on an idle machine."""

    def starts() -> bool:
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-I", "-S", str(_HELPER), "/"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
        return time.monotonic() - start < 0.15

    eventually(starts, _SOON_S, "a start in less than 150 ms")


@pytest.mark.parametrize("flags", [("-I", "-S"), ()], ids=["shipped", "counted"])
def test_helper_answers_each_line_and_ends_with_its_input(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """One answer a line, in order; at the end of the input it ends, and so its lock.

    Without the flags it has the environment's packages, and `make coverage` sees
    what it runs.
    """
    world = RealLocks(tmp_path / "locks")
    with subprocess.Popen(
        [sys.executable, *flags, str(_HELPER), str(world.lock_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        to, answers = process.stdin, process.stdout
        assert to is not None
        assert answers is not None

        def ask(line: str) -> str:
            to.write(line + "\n")
            return answers.readline().split()[0]

        assert answers.readline() == "ready\n"
        assert ask(f"probe {NAME}") == "free"
        assert ask("renew 60") == "none"
        assert ask("drop") == "none"
        assert ask(f"take 0 60 {NAME}") == "held"
        assert ask(f"probe {NAME}") == "held"
        assert ask(f"take 0 60 {OTHER}") == "busy"
        assert ask("renew 60") == "renewed"
        assert ask("drop") == "dropped"
        assert ask(f"probe {NAME}") == "free"
        with world.nova_holds(NAME):
            assert ask(f"take 0.05 60 {NAME}") == "busy"
            assert ask(f"probe {NAME}") == "held"
        os.mkfifo(world.path("fifo"))
        assert ask("take 0 60 fifo") == "error"
        world.path("loop").symlink_to("nova-loop")
        assert ask("probe loop") == "error"
        assert ask(f"take 0 60 {NAME}") == "held"
        assert not world.nova_could(NAME)
        to.close()
        assert process.wait(_SOON_S) == 0
    assert world.nova_could(NAME)


def test_helper_that_nobody_hears_ends_quietly(tmp_path: Path) -> None:
    """A parent that is gone before the first answer is no failure."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, str(_HELPER), str(tmp_path)],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=_SOON_S,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in text.split()]


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_lock_is_asked_for_without_being_taken(tmp_path: Path) -> None:
    """Held by Nova, by us, by nobody; nothing is made, and nobody waits for us."""
    lock_dir = tmp_path / "locks"
    world = RealLocks(lock_dir)
    with NovaNameLocks(str(lock_dir)) as asking, world.real:
        assert asking.held(NAME) is False
        assert not lock_dir.exists()
        lock_dir.mkdir()
        assert asking.held(NAME) is False
        assert not world.path(NAME).exists()
        with world.nova_holds(NAME):
            assert asking.held(NAME) is True
        assert asking.held(NAME) is False
        assert world.nova_could(NAME)
        assert world.real.take(NAME, 0.0, LONG_S)
        assert asking.held(NAME) is True
        assert asking.held(OTHER) is False
        world.real.release()
        with pytest.raises(ValueError, match="not a cache name"):
            asking.held("a/b")
        world.path(NAME).unlink()
        world.path(NAME).symlink_to("elsewhere")
        assert asking.held(NAME) is None
        assert asking.last_error
