"""A name that could lead out of its directory never reaches the system."""

from __future__ import annotations

import os
import string
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharedcache.adapters.storage import DirectoryStorage
from sharedcache.adapters.storage.control import (
    MAX_WITNESS_DATA_BYTES,
    WITNESS_BYTES,
    pack_witness,
    unpack_witness,
)
from sharedcache.adapters.storage.descriptors import cache_entry, plain, shown
from sharedcache.core.names import Kind, classify
from sharedcache.core.ports import StorageError
from tests.contract.storage_world import BAD_NAMES, IMAGE, LEAF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sharedcache.core.ports import Storage

_NAMING_CALLS: dict[str, Callable[[Storage, str], object]] = {
    "witness_write": lambda s, bad: s.witness_write(bad, b""),
    "witness_touch": lambda s, bad: s.witness_touch(bad),
    "witness_read": lambda s, bad: s.witness_read(bad),
    "facts": lambda s, bad: s.facts(bad),
    "touch": lambda s, bad: s.touch(bad),
    "locked": lambda s, bad: s.locked(bad),
    "quarantine": lambda s, bad: s.quarantine(bad, 1, LEAF),
    "quarantine to": lambda s, bad: s.quarantine(IMAGE, 1, bad),
    "quarantined_facts": lambda s, bad: s.quarantined_facts(1, bad),
    "quarantined_locked": lambda s, bad: s.quarantined_locked(1, bad),
    "restore": lambda s, bad: s.restore(1, bad, IMAGE),
    "restore to": lambda s, bad: s.restore(1, LEAF, bad),
    "purge": lambda s, bad: s.purge(1, bad),
    "epoch_move": lambda s, bad: s.epoch_move(1, bad, 2, LEAF),
    "epoch_move to": lambda s, bad: s.epoch_move(1, LEAF, 2, bad),
}
_SYSTEM = (
    "open",
    "stat",
    "rename",
    "link",
    "unlink",
    "utime",
    "mkdir",
    "rmdir",
    "scandir",
)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[DirectoryStorage]:
    """Give a bound directory."""
    with DirectoryStorage(str(tmp_path)) as storage:
        storage.create_marker(b"identity")
        yield storage


def _forbid_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("the system was asked")

    for name in _SYSTEM:
        monkeypatch.setattr(os, name, forbidden)


@pytest.mark.parametrize("bad", BAD_NAMES)
@pytest.mark.parametrize("call", _NAMING_CALLS)
def test_bad_names_reach_nothing(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch, call: str, bad: str
) -> None:
    """Every call that takes a name refuses before the first system call."""
    with monkeypatch.context() as patch:
        _forbid_the_system(patch)
        with pytest.raises(StorageError):
            _NAMING_CALLS[call](storage, bad)


@pytest.mark.parametrize(
    "call", ["facts", "touch", "locked", "quarantine", "restore to"]
)
def test_our_own_directory_is_no_cache_file(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """`.sharedcache` is never taken for an entry of the cache."""
    with monkeypatch.context() as patch:
        _forbid_the_system(patch)
        with pytest.raises(StorageError):
            _NAMING_CALLS[call](storage, ".sharedcache")


@pytest.mark.parametrize("bad", ["notes.txt", "a", IMAGE.upper(), f"{IMAGE}.x"])
def test_unrecognised_names_are_never_taken_away(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """What the grammar does not know is refused before the first system call."""
    with monkeypatch.context() as patch:
        _forbid_the_system(patch)
        with pytest.raises(StorageError, match="no cache name"):
            storage.quarantine(bad, 1, LEAF)


def test_names_that_cannot_be_encoded() -> None:
    """A lone surrogate that no file name can give is refused like the rest."""
    with pytest.raises(StorageError):
        plain("\ud800")
    assert plain(os.fsdecode(b"caf\xe9")) == "caf\udce9"


@given(st.text(alphabet=string.ascii_letters + "./\0- é", max_size=8))
def test_a_plain_name_stays_in_its_directory(name: str) -> None:
    """Whatever is let through is one component, and not the directory itself."""
    try:
        checked = cache_entry(name)
    except StorageError:
        assert name in ("", ".", "..") or "/" in name or "\0" in name
    else:
        assert checked == name
        joined = os.path.normpath(f"/x/{checked}")
        assert os.path.split(joined) == ("/x", checked)


@given(st.binary(min_size=1, max_size=30))
def test_shown_names_can_be_printed(raw: bytes) -> None:
    """The shown form is UTF-8, and never turns into a cache name."""
    name = os.fsdecode(raw)
    form = shown(name)
    form.encode()
    if form != name:
        assert classify(form) is Kind.UNRECOGNISED


@given(st.binary(max_size=MAX_WITNESS_DATA_BYTES))
def test_witness_records_give_back_the_data(data: bytes) -> None:
    """Any bytes survive the padding, and every record has the same length."""
    record = pack_witness(data)
    assert len(record) == WITNESS_BYTES
    assert record.endswith(b"\n")
    assert unpack_witness(record) == data


@given(st.binary(max_size=WITNESS_BYTES + 20))
@settings(suppress_health_check=[HealthCheck.data_too_large])
def test_any_witness_can_be_unpacked(record: bytes) -> None:
    """Whatever lies in the file, reading it never raises."""
    assert len(unpack_witness(record)) <= len(record)
