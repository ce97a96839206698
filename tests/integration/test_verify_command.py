"""``sharedcache verify``: what the leader makes of damage, and what operators see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sharedcache import ledger
from sharedcache.cleaner import damage
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.core.damage import MAX_ORDERS, Damage
from sharedcache.core.digests import record_name
from sharedcache.core.names import digest_of
from sharedcache.core.ports import Set
from tests.support.cluster import Cluster, cache_name, clean_environment, image_id
from tests.support.inprocess import OPERATOR, Site, publish, settle
from tests.support.writers import giving, writer

pytestmark = pytest.mark.timeout(180)

USED, UNUSED, GOOD = image_id(1), image_id(2), image_id(3)


def _fetch(base: Path, *ids: str) -> None:
    (base.parent / "locks").mkdir(exist_ok=True)
    with writer(base) as cache:
        for one in ids:
            with cache.use(one, fetch=giving(one.encode() * 1000)):
                pass


def _damage(path: Path) -> None:
    """Turn one bit over; no time moves."""
    before = path.stat()
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, 500)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), 500)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _record(path: Path) -> Path:
    return (
        path.parent
        / ".sharedcache/digests"
        / record_name(path.name, path.stat().st_ino)
    )


def _by_name(said: Any) -> dict[str, Any]:
    return {one["name"]: one for one in said["files"]}


def test_damage_is_ordered_away_or_told_with_its_users(cluster: Cluster) -> None:
    """Unused and damaged goes at once, young as it is; used and damaged stays."""
    cluster.clean_by(min_age_image_s=86400)
    cluster.init()
    _fetch(cluster.base, USED, UNUSED, GOOD)
    cluster.agent("n1", uses={"images": [USED]})
    cluster.wait_live("n1")
    nothing = cluster.ask("verify", "--rate", "0")
    assert nothing["files"] == []
    assert nothing["counts"]["whole"] == 3
    records = [_record(cluster.base / cache_name(one)) for one in (UNUSED, USED)]
    for one in (USED, UNUSED):
        _damage(cluster.base / cache_name(one))
    # The leader asks for reports that are younger than the file's last touch.
    cluster.ask("clean", "--once")
    told = _by_name(cluster.ask("verify", code=1))
    assert set(told) == {cache_name(USED), cache_name(UNUSED)}
    assert all(one["ordered"] for one in told.values())
    assert told[cache_name(USED)]["users"] == ["n1"]
    assert told[cache_name(USED)]["reason"] == "used"
    assert told[cache_name(UNUSED)]["users"] == []
    status = cluster.ask("status")["damaged"]
    assert {one["name"]: one["users"] for one in status} == {
        cache_name(USED): ["n1"],
        cache_name(UNUSED): [],
    }
    explained = cluster.ask("explain", cache_name(USED))
    assert "and not sha256:" in explained["file"]["damage"]["what"]
    table = cluster.run("verify", cache_name(USED))
    assert "kept while it is used" in table.out
    assert "1 of 1 files are damaged" in table.err
    cluster.ask("clean", "--once", "--wait")
    assert cluster.names() == {cache_name(USED), cache_name(GOOD)}
    assert [one.exists() for one in records] == [False, True]
    rows = cluster.ask("history", cache_name(UNUSED))
    acts = [(row["act"], row["why"]) for row in rows]
    assert [act for act, _ in acts] == ["found-damaged", "quarantined", "purged"]
    assert acts[1][1].startswith("damaged and unused: sha256:")
    # Mended in place from a good copy: the order is withdrawn.
    _damage(cluster.base / cache_name(USED))
    assert cluster.ask("verify")["counts"]["whole"] == 2
    assert cluster.ask("history", "--act", "found-whole")[0]["name"] == cache_name(USED)
    cluster.ask("clean", "--once")
    assert cluster.ask("status")["damaged"] == []


def test_words_and_codes(cluster: Cluster) -> None:
    """Names, rates, offline, what cannot be verified: one line and a code each."""
    cluster.init()
    _fetch(cluster.base, GOOD)
    cluster.put("swap_1", b"from Nova")
    offline = ("verify", "--offline")
    said = cluster.ask(*offline)
    assert _by_name(said)["swap_1"]["state"] == "unrecorded"
    assert said["read_bytes"] == len(GOOD) * 1000
    assert cluster.ask(*offline, "--older-than", "1h")["left_out"] == 1
    for named in (cache_name(GOOD), GOOD, str(cluster.base / cache_name(GOOD))):
        (one,) = cluster.ask(*offline, named)["files"]
        assert (one["name"], one["state"]) == (cache_name(GOOD), "whole")
    for lacking in ("swap_1", "swap_2", image_id(9)):
        answer = cluster.run(*offline, lacking)
        assert (answer.code, "could not be verified" in answer.err) == (1, True)
    for wrong in (["notes.txt"], ["--rate", "fast"], ["--older-than", "9"]):
        assert cluster.run(*offline, *wrong).code == 2
    assert cluster.ask(*offline, "--record")["counts"]["recorded"] == 1
    assert cluster.ask(*offline, "swap_1")["files"][0]["recorded_later"] is True
    (cluster.base / "swap_1").write_bytes(b"from novA")
    told = _by_name(cluster.ask(*offline, code=1))["swap_1"]
    assert (told["ordered"], told["users"]) == (None, None)


def test_an_interrupted_run_says_where_to_go_on(cluster: Cluster) -> None:
    """Ctrl-C ends it with what was found; the next run begins with the rest."""
    cluster.init()
    _fetch(cluster.base, USED, UNUSED, GOOD)
    digests = cluster.base / ".sharedcache" / "digests"
    for record in digests.iterdir():
        os.utime(record, (1, 1))
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "sharedcache.cli.main", "verify", "--offline"),
            *("--rate", "30k", "-f", "json"),
        ],
        env=clean_environment(
            SHAREDCACHE_BASE=str(cluster.base), SHAREDCACHE_CLUSTER=cluster.name
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        cluster.wait(
            lambda: any(path.stat().st_mtime > 1 for path in digests.iterdir()),
            "one verified",
        )
        child.send_signal(signal.SIGINT)
        out, told = child.communicate(timeout=30)
    assert child.returncode == 1
    assert "were not reached" in told
    assert '"not_reached"' in out
    left = cluster.ask("verify", "--offline", "--older-than", "1h")
    assert 1 <= left["left_out"] <= 2
    assert left["counts"]["whole"] == 3 - left["left_out"]


# In one process, step by step.


def _order(path: Path, **changes: Any) -> Damage:
    facts = path.stat()
    fields: dict[str, Any] = {
        "name": path.name,
        "inode": facts.st_ino,
        "size": facts.st_size,
        "mtime_ns": facts.st_mtime_ns,
        "recorded": "md5:" + "0" * 32,
        "found": "md5:" + "1" * 32,
        "by": "operator@desk",
        "at": 1.0,
    }
    return Damage(**{**fields, **changes})


def test_only_what_was_verified_is_taken(site: Site) -> None:
    """A file that took the damaged one's place meanwhile is judged by its age."""
    image, other = image_id(5), image_id(6)
    path, second = site.image(image, age_s=30.0), site.image(other, age_s=30.0)
    agent, cleaner, word = site.agent("n1"), site.cleaner("c1"), site.session("word")
    publish(agent)
    assert damage.order(word, _order(path), OPERATOR)
    assert damage.order(word, _order(second), OPERATOR)
    assert not damage.order(word, _order(second), OPERATOR)
    # Somebody fetches it anew, before the leader looks.
    (site.root / "apart").hardlink_to(path)
    path.unlink()
    site.image(image, age_s=30.0)
    settle(
        agent,
        cleaner,
        until=lambda: not second.exists(),
        what="the quarantine of the damaged file",
    )
    assert cleaner.harvest.taken.names == [second.name]
    assert path.exists()
    # The order about the file that is gone is dropped, with the other's when it is.
    settle(
        agent,
        cleaner,
        until=lambda: not ledger.damaged_of(word.get(ledger.DAMAGED)),
        what="the orders' end",
    )
    assert path.exists()


def test_a_file_that_is_used_again_after_its_order_waits(site: Site) -> None:
    """Touched between order and pass: somebody uses it, and its age counts again."""
    path = site.image(image_id(5), age_s=30.0)
    agent, cleaner, word = site.agent("n1"), site.cleaner("c1"), site.session("word")
    publish(agent)
    damage.order(word, _order(path), OPERATOR)
    os.utime(path)
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes >= 5, what="passes")
    assert path.exists()
    assert set(cleaner.observer.observe(scan=True).seen.damaged) == {path.name}


def test_a_purge_drops_the_record_of_what_it_unlinks(site: Site) -> None:
    """Before the inode's number can be another file's; a new file's stays."""
    image = image_id(5)
    with site.storage() as storage:
        path = site.image(image)
        old = path.stat().st_ino
        storage.digest_write(path.name, old, b"{}")
        storage.digest_write(path.name, old + 1, b"{}")
        agent, cleaner = site.agent("n1"), site.cleaner("c1")
        publish(agent)
        settle(
            agent,
            cleaner,
            until=lambda: cleaner.harvest.purged.names,
            what="the purge",
        )
        assert set(storage.digest_list()) == {(path.name, old + 1)}


def test_records_of_files_that_are_gone_are_swept(site: Site) -> None:
    """A leader drops old records that no file has, and those alone."""
    kept = site.image(image_id(5), age_s=30.0)
    gone = digest_of("nowhere").hex()
    with site.storage() as storage:
        for name, inode in ((kept.name, kept.stat().st_ino), (gone, 7), (gone, 8)):
            storage.digest_write(name, inode, b"{}")
    digests = site.base / ".sharedcache" / "digests"
    for record in digests.iterdir():
        if record.name != record_name(gone, 8):
            os.utime(record, (1, 1))
    (digests / "notes").write_bytes(b"")
    agent, cleaner = site.agent("n1"), site.cleaner("c1")
    publish(agent)
    settle(agent, cleaner, until=lambda: cleaner.harvest.passes >= 1, what="a pass")
    assert {path.name for path in digests.iterdir()} == {
        record_name(kept.name, kept.stat().st_ino),
        record_name(gone, 8),
        "notes",
    }


def test_orders_are_bounded_and_survive_a_damaged_record(site: Site) -> None:
    """So much damage is the storage's; what cannot be read is begun anew."""
    word = site.session("word")
    path = site.image(image_id(5))
    one = _order(path)
    for record in (b"\xc1", b""):
        word.commit([Set(ledger.DAMAGED, record, None)])
        assert damage.order(word, one, OPERATOR)
    many = {
        f"swap_{number}": _order(path, name=f"swap_{number}")
        for number in range(MAX_ORDERS)
    }
    word.commit([Set(ledger.DAMAGED, damage._data(many), None)])
    with pytest.raises(RefusedError, match="storage itself"):
        damage.order(word, one, OPERATOR)
    # One that stands can be renewed, and withdrawn.
    assert damage.order(word, _order(path, name="swap_7", inode=1), OPERATOR)
    assert damage.withdraw(word, "swap_7", OPERATOR)
    assert not damage.withdraw(word, "swap_7", OPERATOR)
    assert damage.order(word, one, OPERATOR)
