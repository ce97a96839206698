"""Verifying: what is found of files that are whole, damaged, used, or replaced."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.adapters.storage import WriterDirectory
from sharedcache.adapters.uses_socket import UsesSocket
from sharedcache.cache import IMAGE, DamagedError, Partial
from sharedcache.cache import verify as engine
from sharedcache.cache.records import Records
from sharedcache.cache.verify import Finding, State, Verifier, tasks
from sharedcache.core.digests import Digest, Published, record_name
from sharedcache.core.model import Uses
from sharedcache.core.names import digest_of, leaf_of
from sharedcache.core.rate import Flow
from tests.support.writers import CONTENT, age, bound_base, giving, names_in, writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = digest_of("an image").hex()
OTHER = digest_of("another").hex()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Give a bound directory with one published image, last used long ago."""
    made = bound_base(tmp_path)
    with writer(made) as cache, cache.use("an image", IMAGE, fetch=giving()) as path:
        pass
    age(path, 1000)
    return made


@pytest.fixture
def storage(base: Path) -> Iterator[WriterDirectory]:
    """Open it as a verifier does."""
    with WriterDirectory(str(base)) as opened:
        yield opened


@pytest.fixture
def verifier(base: Path, storage: WriterDirectory) -> Iterator[Verifier]:
    """Give a verifier without a rate."""
    with NovaNameLocks(str(base.parent / "locks")) as locks:
        yield Verifier(storage, locks)


def record_of(base: Path, name: str = NAME) -> Path:
    """Path of the record of the file that bears a name."""
    inode = (base / name).stat().st_ino
    return base / ".sharedcache" / "digests" / record_name(name, inode)


def damage(path: Path, at: int = 1000) -> None:
    """Turn one bit of a file over, as a storage does that forgets: no time moves."""
    before = path.stat()
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def at_first(what: Callable[[], object]) -> Callable[[str, int], None]:
    """Make a watch that does something once, when the first bytes were read."""
    done: list[str] = []

    def watch(name: str, _size: int) -> None:
        if not done:
            done.append(name)
            what()

    return watch


def test_a_whole_file(base: Path, verifier: Verifier) -> None:
    """Told so, and noted when; its own time of last use is not disturbed."""
    before = (base / NAME).stat().st_mtime_ns
    age(record_of(base), 1000)
    found = verifier.check(NAME)
    assert (found.state, found.read, found.size) == (State.WHOLE, *2 * [len(CONTENT)])
    assert (base / NAME).stat().st_mtime_ns == before
    assert time.time() - record_of(base).stat().st_mtime < 100


def test_a_damaged_file_is_marked_and_not_handed_out(
    base: Path, verifier: Verifier
) -> None:
    """Writers without ZooKeeper know it too, and do not say that they use it."""
    damage(base / NAME)
    before = (base / NAME).stat().st_mtime_ns
    found = verifier.check(NAME)
    assert found.state is State.DAMAGED
    assert found.record is not None
    assert found.why == f"{found.found} and not {found.record.digest}"
    with (
        writer(base) as cache,
        pytest.raises(DamagedError, match="found damaged"),
        cache.use("an image", fetch=giving()),
    ):
        pass
    assert (base / NAME).stat().st_mtime_ns == before
    damage(base / NAME)
    assert verifier.check(NAME).state is State.WHOLE
    with writer(base) as cache, cache.use("an image") as path:
        assert path.read_bytes() == CONTENT


def _quarantine(base: Path) -> None:
    epoch = base / ".sharedcache" / "epochs" / "1"
    epoch.mkdir(parents=True)
    (base / NAME).rename(epoch / leaf_of(NAME, "0123456789abcdef", 1))


def test_a_damaged_file_in_quarantine_is_fetched_anew(
    base: Path, tmp_path: Path, verifier: Verifier
) -> None:
    """No agent is asked to bring back what was taken because it is damaged."""
    damage(base / NAME)
    assert verifier.check(NAME).state is State.DAMAGED
    _quarantine(base)
    with closing(UsesSocket(str(tmp_path / "s"))) as agent:
        agent.start()

        def fetch(partial: Partial) -> None:
            # Whatever an agent is told of, it restores.
            assert agent.look() == Uses()
            partial.write(CONTENT)

        with (
            writer(base, tmp_path / "s") as cache,
            cache.use("an image", fetch=fetch) as path,
        ):
            assert path.read_bytes() == CONTENT
            assert agent.look() == Uses.of_names([NAME])


WRONG = "sha256:" + hashlib.sha256(b"another").hexdigest()


def test_a_file_of_another_digest_is_not_handed_out(base: Path, tmp_path: Path) -> None:
    """Its record tells; nothing is read, touched, locked, declared or fetched."""
    right = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    before = (base / NAME).stat()
    calls: list[str] = []
    with closing(UsesSocket(str(tmp_path / "s"))) as agent:
        agent.start()
        with writer(base, tmp_path / "s") as cache:
            told = pytest.raises(DamagedError, match=f"{right}, and {WRONG} was asked")
            with told, cache.use("an image", fetch=giving(calls=calls), digest=WRONG):
                pass
            assert agent.look() == Uses()
            after = (base / NAME).stat()
            assert after.st_ctime_ns == before.st_ctime_ns
            assert calls == []
            with cache.use("an image", digest=right) as path:
                assert agent.look() == Uses.of_names([path.name])


def test_what_cannot_be_told_of_a_digest_is_not_told(base: Path) -> None:
    """By another algorithm, or without a record, a file is handed out as before."""
    with writer(base) as cache:
        with cache.use("an image", digest="md5:" + "0" * 32):
            pass
        record_of(base).unlink()
        with cache.use("an image", digest=WRONG):
            pass


def test_another_digest_that_was_fetched_meanwhile(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for another's fetch is told that it was of something else."""
    real, looks = WriterDirectory.open_cache, []

    def open_cache(storage: WriterDirectory, name: str) -> int | None:
        looks.append(name)
        return None if len(looks) == 1 else real(storage, name)

    monkeypatch.setattr(WriterDirectory, "open_cache", open_cache)
    with (
        writer(base) as cache,
        pytest.raises(DamagedError, match="was asked"),
        cache.use("an image", fetch=giving(), digest=WRONG),
    ):
        pass
    assert looks == [NAME, NAME]
    assert names_in(base) == {NAME}


def test_a_file_of_another_digest_in_quarantine_is_not_asked_for(
    base: Path, tmp_path: Path
) -> None:
    """It would be refused once it is back: what was asked for is fetched."""
    _quarantine(base)
    with closing(UsesSocket(str(tmp_path / "s"))) as agent:
        agent.start()

        def fetch(partial: Partial) -> None:
            assert agent.look() == Uses()
            partial.write(b"another")

        with (
            writer(base, tmp_path / "s") as cache,
            cache.use("an image", fetch=fetch, digest=WRONG) as path,
        ):
            assert path.read_bytes() == b"another"


def test_a_file_that_was_cut_off(base: Path, verifier: Verifier) -> None:
    """Its size alone tells: nothing is read."""
    os.truncate(base / NAME, 1000)
    found = verifier.check(NAME)
    assert (found.state, found.read, found.found) == (State.DAMAGED, 0, "")
    assert found.why == f"1000 bytes and not {len(CONTENT)}"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_that_is_touched_while_it_is_read(
    base: Path, verifier: Verifier, *, damaged: bool
) -> None:
    """Files in use are touched: two readings that agree tell, none is let be."""
    if damaged:
        damage(base / NAME)
    verifier.watch = lambda *_: os.utime(base / NAME)
    found = verifier.check(NAME)
    assert found.state is (State.DAMAGED if damaged else State.WHOLE)
    assert found.read == len(CONTENT) * (2 if damaged else 1)


def test_a_file_that_is_written_to_while_it_is_read(
    base: Path, verifier: Verifier
) -> None:
    """No two readings agree: it is not called damaged, and not marked."""
    count = iter(range(1000))

    def write(*_: object) -> None:
        with (base / NAME).open("r+b") as file:
            file.write(b"%9d" % next(count))

    with (base / NAME).open("r+b") as file:
        file.write(b"another beginning")
    verifier.watch = write
    assert verifier.check(NAME).state is State.CHANGING
    with writer(base) as cache, cache.use("an image") as path:
        assert path.exists()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_that_is_replaced_while_it_is_read(
    base: Path, verifier: Verifier, *, damaged: bool
) -> None:
    """What has the name now counts, not what was read: the new file is whole."""
    if damaged:
        damage(base / NAME)

    def fetch_anew() -> None:
        (base / NAME).unlink()
        with writer(base) as cache, cache.use("an image", fetch=giving(b"new" * 1000)):
            pass

    verifier.watch = at_first(fetch_anew)
    found = verifier.check(NAME)
    assert (found.state, found.size) == (State.WHOLE, 3000)


def test_a_file_that_goes_while_it_is_read(base: Path, verifier: Verifier) -> None:
    """Purged meanwhile: gone, and not damaged."""
    damage(base / NAME)
    verifier.watch = at_first((base / NAME).unlink)
    assert verifier.check(NAME).state is State.GONE


def test_a_file_that_is_taken_while_it_is_read_is_let_go(
    base: Path, verifier: Verifier
) -> None:
    """Long before it is purged; a reading at a low rate takes hours."""
    now, read = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def watch(_name: str, size: int) -> None:
        read.append(size)
        if len(read) == 1:
            (base / NAME).rename(base / "taken")

    slow = replace(
        verifier, rate_per_s=1000.0, clock=lambda: now[0], sleep=sleep, watch=watch
    )
    assert slow.check(NAME).state is State.GONE
    assert now[0] <= engine.LOOK_S + 1
    assert sum(read) < len(CONTENT) / 10


def test_a_file_that_cannot_be_read_is_not_called_damaged(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the storage says nothing of what the file holds."""

    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        @staticmethod
        def pread(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "os", Failing())
        found = verifier.check(NAME)
    assert (found.state, found.why) == (
        State.UNREADABLE,
        "cannot be read: Input/output error",
    )
    assert verifier.check(NAME).state is State.WHOLE


@pytest.mark.parametrize("how", ["garbage", "empty", "link", "other", "long", "fifo"])
def test_a_record_that_is_damaged_itself(
    base: Path, verifier: Verifier, how: str
) -> None:
    """It says nothing of its file: not damaged, handed out, recorded anew if asked."""
    record = record_of(base)
    good = record.read_bytes()
    record.unlink()
    if how == "link":
        record.symlink_to("/etc/passwd")
    elif how == "fifo":
        os.mkfifo(record)
    else:
        other = good.replace(NAME.encode(), OTHER.encode())
        contents = {"garbage": b"{", "empty": b"", "other": other, "long": b"x" * 99999}
        record.write_bytes(contents[how])
    assert verifier.check(NAME).state is State.BAD_RECORD
    with writer(base) as cache, cache.use("an image") as path:
        assert path.read_bytes() == CONTENT
    verifier.record = True
    assert verifier.check(NAME).state is State.RECORDED
    assert verifier.check(NAME).state is State.WHOLE
    assert not record.is_symlink()


def test_a_record_of_a_later_release_is_left_alone(
    base: Path, verifier: Verifier
) -> None:
    """Not understood, so neither judged by nor replaced."""
    record = record_of(base)
    later = record.read_bytes().replace(b'"schema": 1', b'"schema": 9')
    assert b'"schema": 9' in later
    record.write_bytes(later)
    verifier.record = True
    assert verifier.check(NAME).state is State.BAD_RECORD
    assert record.read_bytes() == later


def test_a_first_digest_is_recorded_if_asked(base: Path, verifier: Verifier) -> None:
    """Of a file that nobody is fetching; from then on it is verified like others."""
    (base / OTHER).write_bytes(b"from Nova")
    age(base / OTHER, 1000)
    assert verifier.check(OTHER).state is State.UNRECORDED
    verifier.record = True
    with NovaNameLocks(str(base.parent / "locks")) as nova:
        assert nova.take(OTHER, 1, 60)
        found = verifier.check(OTHER)
        assert found.state is State.CHANGING
        assert "being fetched" in found.why
        assert not record_of(base, OTHER).exists()
    found = verifier.check(OTHER)
    assert found.state is State.RECORDED
    assert found.record is not None
    assert found.record.later
    damage(base / OTHER, 3)
    assert verifier.check(OTHER).state is State.DAMAGED


def test_no_first_digest_of_a_file_that_grows(base: Path, verifier: Verifier) -> None:
    """Written to while it is read, by somebody without a lock: not recorded.

    It is not read on for as long as it grows, either.
    """
    grown: list[bytes] = []

    def grow(*_: object) -> None:
        grown.append(b"more" * 1000)
        with (base / OTHER).open("ab") as file:
            file.write(grown[-1])

    grow()
    verifier.record, verifier.watch = True, grow
    assert verifier.check(OTHER).state is State.CHANGING
    assert not record_of(base, OTHER).exists()
    assert len(grown) <= 1 + 2 * engine.TRIES
    verifier.watch = lambda *_: None
    assert verifier.check(OTHER).state is State.RECORDED


def test_the_rate_is_kept(verifier: Verifier) -> None:
    """By the clock it is told, 300,000 bytes at 100,000 a second take 3 seconds."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    limited = replace(verifier, rate_per_s=1e5, clock=lambda: now[0], sleep=sleep)
    assert limited._flow == Flow(1e5)
    for turn in (1, 2):
        assert limited.check(NAME).state is State.WHOLE
        assert now[0] == pytest.approx(3.0 * turn, abs=0.11)


def test_what_was_verified_longest_ago_comes_first(
    base: Path, storage: WriterDirectory, verifier: Verifier
) -> None:
    """A run that was cut short is gone on with; what is recent can be left out."""
    with writer(base) as cache, cache.use("another", fetch=giving()):
        pass
    (base / "swap_7").write_bytes(b"from Nova")
    (base / f"{NAME}.part").write_bytes(b"under way")
    (base / "notes.txt").write_bytes(b"")
    age(record_of(base, OTHER), 500)
    age(record_of(base), 1000)

    def listed(**more: int) -> list[str]:
        return [o.name for o in tasks(storage.scan(), storage.digest_list(), **more)]

    assert listed() == ["swap_7", NAME, OTHER]
    assert verifier.check(NAME).state is State.WHOLE
    assert listed() == ["swap_7", OTHER, NAME]
    now_ns = storage.digest_time()
    assert abs(now_ns - time.time_ns()) < 100 * 10**9
    assert listed(before_ns=now_ns - 100 * 10**9) == ["swap_7", OTHER]
    assert [o.name for o in tasks(storage.scan(), {}, chosen=[OTHER])] == [OTHER]


def test_a_damaged_file_is_looked_at_in_every_run(
    base: Path, storage: WriterDirectory, verifier: Verifier
) -> None:
    """Only what was found whole is left out: a run must not hide known damage."""
    before_ns = storage.digest_time() - 1000 * 10**9

    def left() -> list[str]:
        found = tasks(storage.scan(), storage.digest_list(), before_ns=before_ns)
        return [one.name for one in found]

    assert left() == []
    damage(base / NAME)
    assert verifier.check(NAME).state is State.DAMAGED
    assert left() == [NAME]
    assert verifier.check(NAME).state is State.DAMAGED
    assert left() == [NAME]
    damage(base / NAME)
    assert verifier.check(NAME).state is State.WHOLE
    assert left() == []


def test_a_new_file_of_a_name_has_a_record_of_its_own(
    base: Path, storage: WriterDirectory
) -> None:
    """The record of the file before says nothing of it, and can go by itself."""
    (base / "kept").hardlink_to(base / NAME)
    old = (base / NAME).stat().st_ino
    (base / NAME).unlink()
    with writer(base) as cache, cache.use("an image", fetch=giving(b"anew")) as path:
        new = path.stat().st_ino
    assert set(storage.digest_list()) == {(NAME, old), (NAME, new)}
    storage.digest_drop(NAME, old)
    assert set(storage.digest_list()) == {(NAME, new)}
    with writer(base) as cache, cache.use("an image") as path:
        assert path.read_bytes() == b"anew"


def test_who_may_not_write_records_verifies_all_the_same(
    base: Path, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding is told; only the note of it is missing."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    assert verifier.check(NAME).state is State.WHOLE
    monkeypatch.setattr(os, "rename", refuse)
    with (base / NAME).open("r+b") as file:
        file.write(b"other")
    assert verifier.check(NAME).state is State.DAMAGED
    assert names_in(base) == {NAME}


def test_a_record_says_what_it_is_about(base: Path, storage: WriterDirectory) -> None:
    """Read back as written; nothing is made of a name that nobody has."""
    records = Records(storage)
    assert records.read(OTHER, 7) is None
    made = Published(OTHER, 7, 9, Digest("md5", "0" * 32), later=True, damage="spoilt")
    records.write(made)
    assert records.read(OTHER, 7) == made
    assert Finding(NAME, State.GONE).why == ""
    assert names_in(base) == {NAME}
