"""``SharedCache`` on a real directory: one fetch, whole files, names by the stage."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cache import (
    IMAGE,
    KERNEL,
    BusyError,
    DamagedError,
    LostLockError,
    NoSpaceError,
    NotBoundError,
    NotCachedError,
    Partial,
    SharedCache,
    UnprotectedError,
    ephemeral,
    resized,
    swap,
)
from sharedcache.core.names import Kind, classify, digest_of
from tests.support import eventually
from tests.support.writers import (
    CONTENT,
    KERNEL_ID,
    QUICK,
    age,
    bound_base,
    finalize,
    giving,
    names_in,
    writer,
)

if TYPE_CHECKING:
    from sharedcache.cache import FileKind

NAME = digest_of("an image").hex()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Give a bound directory at the newest schema."""
    return bound_base(tmp_path)


@pytest.mark.parametrize(
    ("image_id", "kind", "name"),
    [
        ("an image", IMAGE, NAME),
        ("an image", resized(7), f"{NAME}_7"),
        (KERNEL_ID, KERNEL, digest_of(KERNEL_ID).hex()),
        (None, swap(512), "swap_512"),
        (None, ephemeral(2, "40d1d2c"), "ephemeral_2_40d1d2c"),
    ],
)
def test_every_kind_is_fetched_once_and_used(
    base: Path, image_id: str | None, kind: FileKind, name: str
) -> None:
    """The first use fetches, later ones find; the file is whole and readable."""
    calls: list[str] = []
    with writer(base) as cache:
        for _ in range(2):
            with cache.use(image_id, kind, fetch=giving(calls=calls)) as path:
                assert path == base / name
                assert path.read_bytes() == CONTENT
                assert path.stat().st_mode & 0o777 == 0o644
    assert len(calls) == 1
    assert classify(calls[0]) is Kind.PARTIAL
    assert names_in(base) == {name}


def test_nothing_to_fetch_with(base: Path) -> None:
    """A file that is not there, and no fetch: said so, and nothing is left."""
    with (
        writer(base) as cache,
        pytest.raises(NotCachedError),
        cache.use("an image", IMAGE),
    ):
        pass
    assert names_in(base) == set()


def test_names_follow_the_stage_and_both_are_found(tmp_path: Path) -> None:
    """Raw ids until schema 2 is finalized; what lies there is used under any name."""
    base = bound_base(tmp_path, finalized=1)
    calls: list[str] = []
    fetch = giving(calls=calls)
    with writer(base) as cache:
        with cache.use(KERNEL_ID, KERNEL, fetch=fetch) as path:
            assert path.name == KERNEL_ID
        with DirectoryStorage(str(base)) as storage:
            finalize(storage, 2)
        with cache.use(KERNEL_ID, KERNEL, fetch=fetch) as path:
            assert path.name == KERNEL_ID
        path.unlink()
        with cache.use(KERNEL_ID, KERNEL, fetch=fetch) as path:
            assert path.name == digest_of(KERNEL_ID).hex()
    assert len(calls) == 2


def test_finalizing_during_a_fetch_changes_the_name(tmp_path: Path) -> None:
    """No old name appears after the finalization, even of a fetch begun before."""
    base = bound_base(tmp_path, finalized=1)
    calls: list[str] = []

    def fetch(partial: Partial) -> None:
        calls.append(partial.name)
        with DirectoryStorage(str(base)) as storage:
            finalize(storage, 2)
        partial.write(CONTENT)

    with writer(base) as cache, cache.use(KERNEL_ID, KERNEL, fetch=fetch) as path:
        assert path.name == digest_of(KERNEL_ID).hex()
    assert names_in(base) == {digest_of(KERNEL_ID).hex()}
    assert [name[:8] for name in calls] == [
        KERNEL_ID[:8],
        digest_of(KERNEL_ID).hex()[:8],
    ]


def test_without_a_schema_the_old_name_is_written(base: Path) -> None:
    """Nothing says that every node knows the new name, so the old one is written."""
    (base / ".sharedcache" / "schema").unlink()
    with writer(base) as cache:
        with cache.use(KERNEL_ID, KERNEL, fetch=giving()) as path:
            assert path.name == KERNEL_ID
        (base / ".sharedcache" / "schema").write_text("{")
        with pytest.raises(NotBoundError), cache.use(KERNEL_ID, KERNEL):
            pass


def test_an_unmounted_directory_is_refused(base: Path, tmp_path: Path) -> None:
    """Writing into what is not the shared directory would fill the host's disk."""
    with writer(base) as cache:
        (base / ".sharedcache" / "cluster").unlink()
        with (
            pytest.raises(NotBoundError, match="mounted"),
            cache.use("an image", IMAGE, fetch=giving()),
        ):
            pass
    other = bound_base(tmp_path / "other", name="other")
    with (
        SharedCache(other, cluster="c", agent_socket="") as cache,
        pytest.raises(NotBoundError, match="other"),
        cache.use("an image", IMAGE, fetch=giving()),
    ):
        pass
    assert names_in(other) == set()


def test_what_is_known_is_checked(base: Path) -> None:
    """Another size or digest is not published, and leaves nothing behind."""
    right = "sha512:" + hashlib.sha512(CONTENT).hexdigest()
    wrong = "sha512:" + hashlib.sha512(b"").hexdigest()
    with writer(base) as cache:
        for known in ({"digest": wrong}, {"size": len(CONTENT) + 1}):
            with (
                pytest.raises(DamagedError),
                cache.use("an image", IMAGE, fetch=giving(), **known),  # type: ignore[arg-type]
            ):
                pass
            assert names_in(base) == set()
        with cache.use(
            "an image", IMAGE, fetch=giving(), digest=right, size=len(CONTENT)
        ) as path:
            assert path.read_bytes() == CONTENT
        path.write_bytes(CONTENT[:-1])
        with (
            pytest.raises(DamagedError, match="299999 bytes"),
            cache.use("an image", IMAGE),
        ):
            pass


def test_a_program_that_writes_by_path(base: Path) -> None:
    """What a program wrote by the path, be it into a new file, is what is checked."""
    digest = "sha256:" + hashlib.sha256(b"made elsewhere").hexdigest()

    def fetch(partial: Partial) -> None:
        partial.run(
            sys.executable,
            "-c",
            "import os, sys; p = sys.argv[1]; open(p + '.x', 'w').write('made "
            "elsewhere'); os.rename(p + '.x', p)",
            partial.path,
        )

    def failing(partial: Partial) -> None:
        partial.run("false")

    with writer(base) as cache:
        with cache.use("an image", IMAGE, fetch=fetch, digest=digest) as path:
            assert path.read_text() == "made elsewhere"
        with (
            pytest.raises(DamagedError, match="false failed with 1"),
            cache.use("another", IMAGE, fetch=failing),
        ):
            pass
    assert names_in(base) == {NAME}


def test_a_fetch_that_fails_leaves_nothing(base: Path) -> None:
    """Its own error reaches the caller, the lock is free, and nothing is left."""

    def fetch(partial: Partial) -> None:
        partial.write(b"half")
        raise ZeroDivisionError

    with writer(base) as cache:
        with pytest.raises(ZeroDivisionError), cache.use("an image", fetch=fetch):
            pass
        assert names_in(base) == set()
        with cache.use("an image", IMAGE, fetch=giving()) as path:
            assert path.read_bytes() == CONTENT


def test_no_fetch_below_the_reserve(base: Path) -> None:
    """Refused before anything is downloaded; what is there is used all the same."""
    calls: list[str] = []
    with writer(base) as cache, cache.use("an image", IMAGE, fetch=giving()):
        pass
    tight = replace(QUICK, reserve_percent=99.99)
    with writer(base, limits=tight) as cache:
        with cache.use("an image", IMAGE):
            pass
        with (
            pytest.raises(NoSpaceError),
            cache.use("another", IMAGE, fetch=giving(calls=calls)),
        ):
            pass
    with (
        writer(base) as cache,
        pytest.raises(NoSpaceError),
        cache.use("another", IMAGE, fetch=giving(calls=calls), size=2**60),
    ):
        pass
    assert calls == []


# Single flight.


def test_many_threads_and_caches_fetch_once(base: Path) -> None:
    """However many ask at once, on however many nodes, one fetches."""
    calls: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def fetch(partial: Partial) -> None:
        calls.append(partial.name)
        begun.set()
        assert go_on.wait(30)
        partial.write(CONTENT)

    with ExitStack() as stack:
        caches = [stack.enter_context(writer(base)) for _ in range(3)]
        pool = stack.enter_context(ThreadPoolExecutor(9))

        def use(number: int) -> bytes:
            with caches[number % 3].use("an image", IMAGE, fetch=fetch) as path:
                return path.read_bytes()

        answers = [pool.submit(use, number) for number in range(9)]
        assert begun.wait(30)
        go_on.set()
        assert {answer.result() for answer in answers} == {CONTENT}
    assert len(calls) == 1


_FETCHER = """
import signal, sys, time
from tests.support.writers import writer, QUICK
from dataclasses import replace
from pathlib import Path
base, how = Path(sys.argv[1]), sys.argv[2]
def fetch(partial):
    partial.write(b"some of it")
    print("begun", flush=True)
    sys.stdin.readline()
    partial.write(b"the rest")
with writer(base, limits=replace(QUICK, stall_s=float(how))) as cache:
    with cache.use("an image", fetch=fetch) as path:
        print(path.read_bytes() == b"some of itthe rest", flush=True)
"""


def _fetcher(base: Path, stall_s: float) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _FETCHER, str(base), str(stall_s)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    return child


def test_a_fetcher_that_dies_lets_others_past(base: Path) -> None:
    """Its lock ends with it, long before the stall limit."""
    with _fetcher(base, 1000.0) as child:
        child.kill()
        with writer(base) as cache, cache.use("an image", fetch=giving()) as path:
            assert path.read_bytes() == CONTENT
    left = names_in(base) - {NAME}
    assert [classify(name) for name in left] == [Kind.PARTIAL]


def test_a_fetcher_that_hangs_lets_others_past(base: Path) -> None:
    """After the stall limit another one fetches, and the first one gives way."""
    with _fetcher(base, 1.0) as child:
        child.send_signal(signal.SIGSTOP)
        with writer(base) as cache, cache.use("an image", fetch=giving()) as path:
            assert path.read_bytes() == CONTENT
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate("\n", timeout=60)
    # It woke up, found its turn lost, and used what the other one had fetched.
    assert out == "False\n"
    assert (base / NAME).read_bytes() == CONTENT
    assert names_in(base) == {NAME}


def test_a_fetch_that_makes_progress_keeps_its_turn(base: Path) -> None:
    """One that takes several stall limits, but never stands still, is not passed."""
    slow = replace(QUICK, stall_s=0.6)

    def fetch(partial: Partial) -> None:
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            partial.write(b"x")
            threading.Event().wait(0.05)

    locks = NovaNameLocks(str(base.parent / "locks"))
    with locks, writer(base, limits=slow) as cache, ThreadPoolExecutor(1) as pool:

        def use() -> int:
            with cache.use("an image", fetch=fetch) as path:
                return path.stat().st_size

        answer = pool.submit(use)
        eventually(lambda: len(names_in(base)) == 1, 30, "a fetch under way")
        while NAME not in names_in(base):
            assert not locks.take(NAME, 0.1, 1.0) or NAME in names_in(base)
        assert answer.result() > 1
    assert names_in(base) == {NAME}


def test_a_fetch_that_always_stalls_is_an_error(base: Path) -> None:
    """Twice it lost its turn, and nobody else fetched: the caller is told."""
    calls: list[str] = []

    def fetch(partial: Partial) -> None:
        calls.append(partial.name)
        threading.Event().wait(0.4)
        partial.write(CONTENT)

    with (
        writer(base, limits=replace(QUICK, stall_s=0.1)) as cache,
        pytest.raises(LostLockError),
        cache.use("an image", fetch=fetch),
    ):
        pass
    assert len(calls) == 2
    assert names_in(base) == set()


def test_nova_and_writers_wait_for_each_other(base: Path) -> None:
    """Who waits for a lock that Nova holds waits no longer than it was told."""
    locks = NovaNameLocks(str(base.parent / "locks"))
    hasty = replace(QUICK, patience_s=0.2)
    with locks, writer(base, limits=hasty) as cache:
        assert locks.take(NAME, 0, 60)
        with pytest.raises(BusyError), cache.use("an image", fetch=giving()):
            pass
        assert locks.release()
        with cache.use("an image", fetch=giving()):
            assert locks.take(NAME, 5, 60)
            assert locks.release()


# What protects a file that is used.


def test_a_use_shows_on_the_storage(base: Path) -> None:
    """Touched at once and again while held; locked like a guest's; then let go."""
    with writer(base) as cache, DirectoryStorage(str(base)) as storage:
        with cache.use("an image", fetch=giving()) as path:
            pass
        age(path, 1000)
        assert not storage.locked(NAME)
        with cache.use("an image"):
            assert time.time() - path.stat().st_mtime < 100
            assert storage.locked(NAME)
            age(path, 1000)
            eventually(lambda: time.time() - path.stat().st_mtime < 100, 30, "a touch")
        assert not storage.locked(NAME)


def test_two_uses_of_one_file_end_one_by_one(base: Path) -> None:
    """The first one that ends takes nothing from the other."""
    with (
        writer(base) as cache,
        DirectoryStorage(str(base)) as storage,
        cache.use("an image", fetch=giving()),
    ):
        with cache.use("an image"):
            pass
        assert storage.locked(NAME)


def test_a_holder_that_dies_holds_nothing(base: Path) -> None:
    """The lock ends with the process; the touch protects for the minimum age."""
    program = (
        "import sys; from pathlib import Path; from tests.support.writers import *\n"
        "with writer(Path(sys.argv[1])) as cache:\n"
        "    with cache.use('an image', fetch=giving()):\n"
        "        print('held', flush=True); sys.stdin.readline()\n"
    )
    with (
        DirectoryStorage(str(base)) as storage,
        subprocess.Popen(
            [sys.executable, "-c", program, str(base)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert storage.locked(NAME)
        child.kill()
        child.wait()
        assert not storage.locked(NAME)


def test_a_file_that_nothing_protects_is_not_handed_out(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it can be neither touched nor locked, a cleaner would not see the use."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with writer(base) as cache:
        with cache.use("an image", fetch=giving()):
            pass
        with monkeypatch.context() as patch:
            patch.setattr(os, "utime", refuse)
            with cache.use("an image") as path:
                assert path.exists()
            patch.setattr(cache._storage, "hold_open", lambda _: False)
            with pytest.raises(UnprotectedError), cache.use("an image"):
                pass
