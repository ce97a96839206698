"""A uses file that cannot be relied on: told, degraded, and no file is removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sharedcache.adapters import uses_file
from sharedcache.core.gate import Code
from tests.support.inprocess import Site, gate_codes, image_id, publish, settle
from tests.support.stake import Stake, degraded, look_on, told

pytestmark = pytest.mark.timeout(90)

Spoil = Callable[[Path], object]


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _large(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(100 * 1024 * 1024)


BAD: dict[str, tuple[Spoil, str]] = {
    "missing": (Path.unlink, "create it, let the agent read it, or switch this source"),
    "truncated": (_truncated, "write another file and rename it to this name"),
    "not-json": (
        lambda path: path.write_text("images: none\n"),
        "write another file and rename it to this name",
    ),
    "wrong-shape": (
        lambda path: path.write_text('[{"images": []}]'),
        "use the keys images, kernels, names, ramdisks",
    ),
    "an-id-that-is-none": (
        lambda path: path.write_text('{"images": ["debian-12"]}'),
        "give image ids, and cache names under 'names'",
    ),
    "100-mb": (_large, "list each id once, or split the load over more nodes"),
}

bad = pytest.mark.parametrize(("spoil", "advice"), BAD.values(), ids=BAD.keys())


@bad
def test_a_bad_uses_file_degrades_the_report(
    site: Site, spoil: Spoil, advice: str
) -> None:
    """The last good uses stand, purging is closed, and a good file opens it."""
    stake, path = Stake.of(site, "n1"), site.root / "n1.json"
    agent = site.agent("n1")
    publish(agent)
    spoil(path)
    cleaner = site.cleaner("c1")
    message = degraded(agent, cleaner, "uses-file")
    assert str(path) in message
    assert advice in message
    look_on(cleaner, agent)
    assert stake.whole()
    report = agent.publisher.published
    assert report is not None
    assert stake.name in set(report.now.cache_names())
    path.unlink(missing_ok=True)
    site.uses("n1", images=[stake.ident])
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


@bad
def test_a_bad_uses_file_at_the_first_start_is_no_report(
    site: Site, spoil: Spoil, advice: str
) -> None:
    """Nothing is known of the node, so it does not say that it uses nothing."""
    stake, path = Stake.of(site, "n1"), site.root / "n1.json"
    blind, other, cleaner = site.agent("n1"), site.agent("n2"), site.cleaner("c1")
    spoil(path)
    look_on(cleaner, blind, other)
    assert gate_codes(cleaner) == {(Code.UNROSTERED_NODE, "n1")}
    (message,) = told(blind, "no-report-yet")
    assert str(path) in message
    assert advice in message
    assert stake.untouched()
    path.unlink(missing_ok=True)
    site.uses("n1", images=[stake.ident])
    settle(blind, other, cleaner, until=stake.gone, what="it goes on by itself")


def _replacing(replace: Callable[[], object]) -> Callable[[int, int], bytes]:
    """Make a reader behind whose back the file is replaced, every time."""
    real = uses_file._read_upto

    def reading(fd: int, limit: int) -> bytes:
        content = real(fd, limit)
        replace()
        return content

    return reading


def test_a_uses_file_rewritten_in_place_at_every_read_degrades_the_report(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of an old list and half of a new one is no list."""
    stake, path = Stake.of(site, "n1"), site.root / "n1.json"
    agent = site.agent("n1")
    publish(agent)

    def rewrite() -> None:
        path.write_text(json.dumps({"images": [image_id()]}))

    with monkeypatch.context() as patched:
        patched.setattr(uses_file, "_read_upto", _replacing(rewrite))
        cleaner = site.cleaner("c1")
        message = degraded(agent, cleaner, "uses-file")
        assert "rename it to this name" in message
        look_on(cleaner, agent)
        assert stake.whole()
    site.uses("n1", images=[stake.ident])
    settle(agent, cleaner, until=stake.gone, what="it goes on by itself")


def test_a_uses_file_renamed_over_while_being_read_is_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is replaced as it should be is never half of two: no degraded report."""
    stake = Stake.of(site)
    site.uses("n1")
    real, pending = uses_file._read_upto, [True]

    def reading(fd: int, limit: int) -> bytes:
        content = real(fd, limit)
        if pending:
            pending.clear()
            site.uses("n1", images=[stake.ident])
        return content

    monkeypatch.setattr(uses_file, "_read_upto", reading)
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    report = agent.publisher.published
    assert report is not None
    assert report.complete
    assert stake.name in set(report.now.cache_names())
    settle(agent, cleaner, until=stake.gone, what="the unused file is purged")
