"""Publication, interrupted or refused at each system call in turn."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.adapters.storage import (
    DirectoryStorage,
    control,
    descriptors,
    digests,
    errors,
    writing,
)
from sharedcache.adapters.storage import cache as cache_files
from sharedcache.cache import CacheError, SharedCache, partial, shared
from sharedcache.core.names import Kind, classify, digest_of
from sharedcache.core.plan import Why
from sharedcache.core.planner import make_plan
from sharedcache.core.policy import CleanerPolicy
from tests.property.strategies import NOW_NS, observation
from tests.support.crash import CrashedError
from tests.support.writers import CONTENT, QUICK, bound_base, giving, names_in, writer

if TYPE_CHECKING:
    from pathlib import Path

_MODULES = (
    control,
    descriptors,
    digests,
    errors,
    writing,
    cache_files,
    partial,
    shared,
)
_CALLS = frozenset(
    {
        "open",
        "write",
        "fsync",
        "fchmod",
        "link",
        "unlink",
        "rename",
        "mkdir",
        "utime",
        "fstat",
        "stat",
        "pread",
        "scandir",
        "fstatvfs",
    }
)
_NAME = digest_of("an image").hex()
_CALM = replace(QUICK, touch_s=1000.0, patience_s=60.0)
# Calls that came after the fault and are not the writer's own.
_ENDLESS = 200


@dataclass
class _Os:
    """The module ``os`` whose calls are counted, and strike once or for ever."""

    at: int
    error: int = 0
    after: bool = False
    count: int = 0
    struck: str = ""
    dead: bool = False
    calls: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in _CALLS:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            return self._call(name, lambda: real(*arguments, **options))

        return call

    def _call(self, name: str, real: Callable[[], Any]) -> Any:
        if self.dead:
            raise CrashedError
        number, self.count = self.count, self.count + 1
        self.calls.append(name)
        if number != self.at:
            return real()
        self.struck = name
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.dead = True
        if self.after:
            with suppress(OSError):
                made = real()
                if name == "scandir":
                    made.close()
        raise CrashedError


def _in_parts(cache: SharedCache) -> bytes:
    """Use the image; its fetch writes in two parts, so that half can be there."""

    def fetch(one: partial.Partial) -> None:
        half = len(CONTENT) // 2
        one.write(CONTENT[:half])
        one.write(CONTENT[half:])

    with cache.use("an image", fetch=fetch, size=len(CONTENT)) as path:
        return path.read_bytes()


def _struck(
    base: Path, monkeypatch: pytest.MonkeyPatch, fault: _Os
) -> tuple[BaseException | None, _Os]:
    """Use the image once with a fault, and end as the process would."""
    cache = writer(base, limits=_CALM)
    caught: BaseException | None = None
    with monkeypatch.context() as patch:
        for module in _MODULES:
            patch.setattr(module, "os", fault)
        try:
            assert _in_parts(cache) == CONTENT
        except (CrashedError, CacheError) as error:
            caught = error
    cache.close()
    return caught, fault


def _whole_or_absent(base: Path) -> None:
    if _NAME in names_in(base):
        assert (base / _NAME).read_bytes() == CONTENT


def _collectable(base: Path) -> None:
    """Hold what is left beside the file to be partial, and to go when it is old."""
    with DirectoryStorage(str(base)) as storage:
        files = storage.scan()
    for row in range(len(files)):
        files.mtimes_ns[row] = NOW_NS - 10 * 86400 * 10**9
    plan = make_plan(CleanerPolicy(), observation(files=files))
    for row, name in enumerate(files.names):
        if name != _NAME:
            assert classify(name) is Kind.PARTIAL
            assert Why(plan.whys[row]) is Why.UNUSED, name


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_leaves_the_whole_file_or_a_partial_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """Before and after each call: never half a file, and the next one gets it."""
    struck: list[str] = []
    for at in range(_ENDLESS):
        base = bound_base(tmp_path / str(at))
        caught, fault = _struck(base, monkeypatch, _Os(at, after=after))
        _whole_or_absent(base)
        _collectable(base)
        if caught is None:
            break
        assert isinstance(caught, CrashedError)
        struck.append(fault.struck)
        calls: list[str] = []
        fresh = names_in(base)
        with (
            writer(base, limits=_CALM) as cache,
            cache.use("an image", fetch=giving(calls=calls)) as path,
        ):
            assert path.read_bytes() == CONTENT
        assert len(calls) == (_NAME not in fresh)
    else:
        pytest.fail("the publication does not end")
    assert {"write", "fsync", "link", "unlink", "rename", "utime"} <= set(struck)


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.ESTALE]
)
def test_a_refusal_is_an_error_or_is_overcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Each call refused in turn: one kind of error, and the next try succeeds."""
    failed: list[str] = []
    for at in range(_ENDLESS):
        base = bound_base(tmp_path / str(at))
        caught, fault = _struck(base, monkeypatch, _Os(at, number))
        _whole_or_absent(base)
        _collectable(base)
        if not fault.struck:
            break
        if caught is not None:
            assert isinstance(caught, CacheError), fault.calls
            assert str(caught)
            failed.append(fault.struck)
        if caught is not None or fault.struck != "unlink":
            # Nothing is left behind but by a removal that was refused itself.
            assert names_in(base) <= {_NAME}, (at, fault.calls)
        with (
            writer(base, limits=_CALM) as cache,
            cache.use("an image", fetch=giving()) as path,
        ):
            assert path.read_bytes() == CONTENT
    else:
        pytest.fail("the publication does not end")
    assert {"write", "fsync", "link"} <= set(failed)


def test_a_lost_answer_to_the_link_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that was made, and said to have failed, is not made twice."""
    base = bound_base(tmp_path)
    real = os.link

    for number in (errno.EIO, errno.EEXIST):

        def lost(*arguments: Any, _number: int = number, **options: Any) -> None:
            real(*arguments, **options)
            raise OSError(_number, os.strerror(_number))

        monkeypatch.setattr(os, "link", lost)
        with writer(base, limits=_CALM) as cache:
            assert _in_parts(cache) == CONTENT
        assert names_in(base) == {_NAME}
        (base / _NAME).unlink()


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Somebody without the lock was faster: his file stays, and is used."""
    base = bound_base(tmp_path)

    def fetch(one: partial.Partial) -> None:
        (base / _NAME).write_bytes(b"theirs")
        one.write(CONTENT)

    with (
        writer(base, limits=_CALM) as cache,
        cache.use("an image", fetch=fetch) as path,
    ):
        assert path.read_bytes() == b"theirs"
    assert names_in(base) == {_NAME}


@pytest.mark.parametrize("fetched", [False, True])
def test_what_was_done_under_a_lost_lock_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fetched: bool
) -> None:
    """A cleaner may have looked meanwhile: the file is protected once more."""
    base = bound_base(tmp_path)
    if not fetched:
        (base / _NAME).write_bytes(CONTENT)
    taken: list[bool] = []
    release = NovaNameLocks.release

    def losing(locks: NovaNameLocks) -> bool:
        taken.append(release(locks))
        return len(taken) > 1

    monkeypatch.setattr(NovaNameLocks, "release", losing)
    calls: list[str] = []
    with (
        writer(base, limits=_CALM) as cache,
        cache.use("an image", fetch=giving(calls=calls)) as path,
    ):
        assert path.read_bytes() == CONTENT
    assert len(taken) == 2
    assert len(calls) == fetched
    assert names_in(base) == {_NAME}


def test_a_lock_that_is_lost_at_any_renewal_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others were let past; the second fetch has the lock, and gives the name."""
    renew = NovaNameLocks.renew
    for lost in range(10):
        base = bound_base(tmp_path / str(lost))
        renewed: list[bool] = []

        def losing(
            locks: NovaNameLocks,
            hold_s: float,
            *,
            _lost: int = lost,
            _renewed: list[bool] = renewed,
            _base: Path = base,
        ) -> bool:
            _renewed.append(renew(locks, hold_s))
            if len(_renewed) - 1 == _lost:
                assert names_in(_base).isdisjoint({_NAME})
                return False
            return True

        monkeypatch.setattr(NovaNameLocks, "renew", losing)
        calls: list[str] = []
        with (
            writer(base, limits=_CALM) as cache,
            cache.use("an image", fetch=giving(calls=calls)) as path,
        ):
            assert path.read_bytes() == CONTENT
        assert names_in(base) == {_NAME}
        if len(renewed) <= lost:
            assert lost > 2
            assert len(calls) == 1
            return
        assert len(calls) == 2
    pytest.fail("it renews without end")
