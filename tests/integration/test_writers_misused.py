"""Callers and fetches that do what they should not: nobody else is harmed by it."""

from __future__ import annotations

import gc
import hashlib
import math
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.uses_socket import AgentLink
from sharedcache.cache import (
    IMAGE,
    KERNEL,
    BusyError,
    CacheError,
    DamagedError,
    Limits,
    NoSpaceError,
    Partial,
    SharedCache,
    StorageFailedError,
    WantedError,
    ephemeral,
    resized,
    swap,
)
from sharedcache.cache.fetchers import from_file
from sharedcache.cache.locking import MOST_IDLE
from sharedcache.core.names import Kind, classify, digest_of
from tests.support import eventually
from tests.support.writers import (
    CONTENT,
    QUICK,
    bound_base,
    giving,
    names_in,
    writer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = digest_of("an image").hex()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Give a bound directory at the newest schema."""
    return bound_base(tmp_path)


# Fetches.


def test_a_fetch_that_gives_nothing(base: Path) -> None:
    """No empty file is published, unless the caller knows that it is to be empty."""
    empty = "sha256:" + hashlib.sha256(b"").hexdigest()

    def nothing(_: Partial) -> None:
        """Give nothing."""

    with writer(base) as cache:
        with (
            pytest.raises(DamagedError, match="gave nothing"),
            cache.use("an image", fetch=nothing),
        ):
            pass
        assert names_in(base) == set()
        for known in ({"size": 0}, {"digest": empty}):
            with cache.use("an image", fetch=nothing, **known) as path:  # type: ignore[arg-type]
                assert path.stat().st_size == 0
            path.unlink()


def test_a_fetch_that_gives_too_much(base: Path) -> None:
    """It is stopped at its first byte too many, not when the storage is full."""
    given: list[int] = []

    def endless(partial: Partial) -> None:
        while True:
            given.append(partial.write(bytes(1000)))

    with (
        writer(base) as cache,
        pytest.raises(DamagedError, match="more than 5000"),
        cache.use("an image", fetch=endless, size=5000),
    ):
        pass
    assert sum(given) == 5000
    assert names_in(base) == set()


def test_a_source_that_tells_its_size_is_refused_before_it_is_read(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file too large for the storage, and one that is not the awaited one."""
    source = tmp_path / "source"
    source.write_bytes(bytes(200))
    told: list[int] = []
    fetch = from_file(source, lambda done, _total: told.append(done))
    with writer(base) as cache:
        with monkeypatch.context() as patch:
            patch.setattr(cache._storage, "space", lambda: (1000, 100))
            with pytest.raises(NoSpaceError), cache.use("an image", fetch=fetch):
                pass
        with (
            pytest.raises(DamagedError, match="is to have 7 bytes"),
            cache.use("an image", fetch=fetch, size=7),
        ):
            pass
    assert told == []
    assert names_in(base) == set()


def _swap_for_link(partial: Partial) -> None:
    partial.path.unlink()
    partial.path.symlink_to("/etc/passwd")


def _remove(partial: Partial) -> None:
    partial.path.unlink()


def _remove_quietly(partial: Partial) -> None:
    partial.write(CONTENT)
    Path(f"/proc/self/fd/{partial.descriptor}").readlink().unlink()


def _make_a_directory(partial: Partial) -> None:
    partial.path.unlink()
    partial.path.mkdir()


def _swap_quietly(partial: Partial) -> None:
    partial.write(CONTENT)
    path = Path(f"/proc/self/fd/{partial.descriptor}").readlink()
    path.unlink()
    path.write_bytes(b"another file")


def _close(partial: Partial) -> None:
    partial.write(CONTENT)
    os.close(partial.descriptor)


@pytest.mark.parametrize(
    "fetch",
    [
        _swap_for_link,
        _remove,
        _remove_quietly,
        _make_a_directory,
        _swap_quietly,
        _close,
    ],
)
def test_a_fetch_that_puts_something_else_there(
    base: Path, fetch: Callable[[Partial], None]
) -> None:
    """What was not read and checked gets no cache name, whatever it is."""
    with writer(base) as cache:
        with pytest.raises(CacheError), cache.use("an image", fetch=fetch):
            pass
        assert NAME not in names_in(base)
        assert Path("/etc/passwd").exists()
        for left in names_in(base):
            assert classify(left) is Kind.PARTIAL
        with cache.use("an image", fetch=giving()) as path:
            assert path.read_bytes() == CONTENT


def test_a_fetch_that_asks_for_itself(base: Path) -> None:
    """It would wait for its own lock; for another image it may ask."""

    def itself(partial: Partial) -> None:
        with cache.use("an image", fetch=itself):
            partial.write(CONTENT)

    def other(partial: Partial) -> None:
        with cache.use("another", fetch=giving()) as path:
            partial.write(path.read_bytes())

    with writer(base) as cache:
        began = time.monotonic()
        with (
            pytest.raises(BusyError, match="itself"),
            cache.use("an image", fetch=itself),
        ):
            pass
        assert time.monotonic() - began < QUICK.stall_s
        with cache.use("an image", fetch=other) as path:
            assert path.read_bytes() == CONTENT


# Callers.


@pytest.mark.parametrize(
    ("image_id", "kind"),
    [
        (7, IMAGE),
        (b"an image", IMAGE),
        ("", IMAGE),
        ("imäge", IMAGE),
        (None, IMAGE),
        ("an image", swap(1)),
        ("../../etc/passwd", KERNEL),
        ("0b5cbd6e-6f3a-4d3c-9a51-0123456789ab/../x", KERNEL),
        ("an image", resized(0)),
        ("an image", resized(-1)),
        ("an image", resized("1/../../x")),  # type: ignore[arg-type]
        (None, swap(-1)),
        (None, swap(10**12)),
        (None, ephemeral(1, "../x")),
        (None, ephemeral(1, "")),
    ],
)
def test_wrong_questions(base: Path, image_id: Any, kind: Any) -> None:
    """Nothing is made of what could not be a cache name; it is one kind of error."""
    with (
        writer(base) as cache,
        pytest.raises(WantedError),
        cache.use(image_id, kind, fetch=giving()),
    ):
        pass
    assert names_in(base) == set()


@pytest.mark.parametrize(
    "ident", ["../../../etc/passwd", "/etc/passwd", ".", NAME, "a\nb", "x" * 5000]
)
def test_ids_that_look_like_names(base: Path, ident: str) -> None:
    """An image's id never is a part of a path: only its digest is."""
    with writer(base) as cache, cache.use(ident, fetch=giving()) as path:
        assert path == base / digest_of(ident).hex()


@pytest.mark.parametrize(
    "bad", [{"touch_s": 0}, {"stall_s": -1}, {"patience_s": math.nan}]
)
def test_limits_that_cannot_work(bad: dict[str, float]) -> None:
    """Zero, negative, or no number at all."""
    with pytest.raises(ValueError, match="above 0"):
        Limits(**bad)


def test_a_cache_that_is_closed_while_its_files_are_used(base: Path) -> None:
    """What is left later closes nothing again: the number may be another file's."""
    cache = writer(base)
    holding = cache.use("an image", fetch=giving())
    holding.__enter__()
    cache.close()
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    holding.__exit__(None, None, None)
    for number in others:
        os.close(number)
    cache.close()
    with pytest.raises(CacheError), cache.use("an image"):
        pass


def test_a_use_that_is_dropped_without_being_left(base: Path) -> None:
    """A block that nobody ever leaves ends with its object."""
    with writer(base) as cache, DirectoryStorage(str(base)) as storage:
        holding = cache.use("an image", fetch=giving())
        holding.__enter__()
        assert storage.locked(NAME)
        del holding
        gc.collect()
        assert not storage.locked(NAME)


_FORKER = """
import os, sys
from pathlib import Path
from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.cache import CacheError
from tests.support.writers import CONTENT, giving, writer
base, when = Path(sys.argv[1]), sys.argv[2]

def leave():
    # Not os._exit: the child unwinds every block that its parent is in.
    raise SystemExit(0)

def fetch(partial):
    partial.write(CONTENT[:1000])
    if when == "fetching":
        child = os.fork()
        if not child:
            leave()
        assert os.waitpid(child, 0)[1] == 0
    partial.write(CONTENT[1000:])

with writer(base) as cache:
    with cache.use("an image", fetch=fetch) as path:
        if when == "holding":
            child = os.fork()
            if not child:
                try:
                    with cache.use("an image"):
                        sys.exit(7)
                except CacheError:
                    leave()
            assert os.waitpid(child, 0)[1] == 0
        assert path.read_bytes() == CONTENT
        with DirectoryStorage(str(base)) as storage:
            assert storage.locked(path.name)
print("good")
"""


@pytest.mark.parametrize("when", ["fetching", "holding"])
def test_a_caller_that_forks(base: Path, when: str) -> None:
    """A child that leaves its parent's blocks lets nothing go, and removes nothing."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKER, str(base), when],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.endswith("good\n"), done.stderr
    assert names_in(base) == {NAME}


def test_many_threads_leave_few_helpers(base: Path) -> None:
    """Helpers for locks are processes; those of a busy moment do not stay."""
    count = MOST_IDLE + 4
    gate = threading.Barrier(count, timeout=60)

    def use(number: int) -> bytes:
        def fetch(partial: Partial) -> None:
            gate.wait()
            partial.write(CONTENT)

        with cache.use(f"image {number}", fetch=fetch) as path:
            return path.read_bytes()

    with writer(base, limits=replace(QUICK, stall_s=60.0)) as cache:
        with ThreadPoolExecutor(count) as pool:
            assert set(pool.map(use, range(count))) == {CONTENT}
        assert len(cache._locks._idle) <= MOST_IDLE


# What lies in the way.


@pytest.mark.parametrize("what", ["link", "dangling", "directory", "fifo"])
def test_something_planted_under_the_cache_name(base: Path, what: str) -> None:
    """Not followed, not opened, not replaced: an error that names it."""
    path = base / NAME
    if what == "link":
        path.symlink_to("/etc/passwd")
    elif what == "dangling":
        path.symlink_to(base / "nowhere")
    elif what == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with (
        writer(base) as cache,
        pytest.raises(StorageFailedError, match=NAME),
        cache.use("an image", fetch=giving()),
    ):
        pass
    assert names_in(base) == {NAME}
    assert not (base / "nowhere").exists()


@pytest.mark.parametrize("what", ["link", "file"])
def test_something_planted_in_place_of_the_records(base: Path, what: str) -> None:
    """A file is published and used all the same; nothing is written elsewhere."""
    digests, elsewhere = base / ".sharedcache" / "digests", base.parent / "elsewhere"
    elsewhere.mkdir()
    if what == "link":
        digests.symlink_to(elsewhere)
    else:
        digests.write_bytes(b"")
    with writer(base) as cache:
        for _ in range(2):
            with cache.use("an image", fetch=giving()) as path:
                assert path.read_bytes() == CONTENT
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("what", ["missing", "file", "link to a lock"])
def test_the_lock_directory(base: Path, tmp_path: Path, what: str) -> None:
    """Made if it is missing; what cannot be locked is one error, soon."""
    locks = tmp_path / "instances" / "locks"
    if what == "missing":
        locks.rmdir()
        with writer(base) as cache, cache.use("an image", fetch=giving()) as path:
            assert path.read_bytes() == CONTENT
        return
    if what == "file":
        locks.rmdir()
        locks.write_bytes(b"")
    else:
        (locks / f"nova-{NAME}").symlink_to("/etc/passwd")
    with (
        writer(base) as cache,
        pytest.raises(BusyError, match="lock"),
        cache.use("an image", fetch=giving()),
    ):
        pass
    assert names_in(base) == set()


# The agent.


@pytest.fixture
def dribbling(tmp_path: Path) -> Iterator[Path]:
    """Give the socket of an agent that answers a blank every 50 ms, for ever."""
    path, stop = tmp_path / "agent.sock", threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while not stop.is_set():
                with suppress(OSError):
                    made, _ = listener.accept()
                    with made:
                        while not stop.wait(0.05):
                            made.sendall(b" ")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        stop.set()
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last,
        ):
            last.connect(str(path))
        thread.join(10)


def test_an_agent_that_never_finishes_its_answer(dribbling: Path) -> None:
    """The bound is for the answer, not for each of its bytes."""
    link = AgentLink(str(dribbling), answer_s=0.3)
    began = time.monotonic()
    assert not link.use(NAME)
    assert time.monotonic() - began < 2.0
    link.close()


def test_a_driver_goes_on_without_a_good_agent(base: Path, dribbling: Path) -> None:
    """A use needs no agent: it is given in the stated time all the same."""
    with SharedCache(base, agent_socket=dribbling, limits=QUICK) as cache:
        for _ in range(3):
            with cache.use("an image", fetch=giving()) as path:
                assert path.read_bytes() == CONTENT
    eventually(lambda: names_in(base) == {NAME}, 10, "one file")
