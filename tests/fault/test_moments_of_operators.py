"""Something happens right before one call of an operator's: read again, or told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sharedcache import ledger
from sharedcache.adapters.clock import RandomTokens, SystemClock
from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.cleaner import damage, operator
from sharedcache.cleaner import inventory as old_names
from sharedcache.cleaner import restore as restoring
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.inventory import acknowledge
from sharedcache.cleaner.restore import OperatorRestore
from sharedcache.core import codec
from sharedcache.core.model import Authorisation
from sharedcache.core.ports import CoordinationError, Delete, Set, StorageError
from tests.property.strategies import damage as a_damage
from tests.support.inprocess import FAST, OPERATOR, Site, image_id, publish, settle
from tests.support.moments import before

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)

ALWAYS = 1000


@pytest.fixture
def taken(site: Site) -> Path:
    """Have one file in quarantine, and nobody who leads; give its cache path."""
    path = site.image(image_id())
    agent = site.agent("n1")
    cleaner = site.cleaner("c1", replace(FAST, grace_s=3600.0))
    settle(agent, cleaner, until=lambda: not path.exists(), what="it is taken")
    settle(cleaner, until=lambda: cleaner.harvest.passes > 2, what="it is recorded")
    cleaner.stand_down()
    return path


def restorer(site: Site) -> OperatorRestore:
    """Make an operator's restore that loses no time."""
    locks = NovaNameLocks(str(site.locks))
    site.stack.callback(locks.close)
    clock = site.stack.enter_context(SystemClock())
    return OperatorRestore(
        site.session("operator"),
        site.storage(),
        locks,
        clock,
        RandomTokens(),
        OPERATOR.who,
    )


def rewrite(site: Site, *, gone: bool = False) -> None:
    """Write the manifest's one record as it is, or delete it."""
    other = site.session("other")
    (batch,) = other.children(ledger.MANIFEST)
    path = ledger.batch_path(batch)
    record = other.get(path)
    assert record is not None
    other.commit([Delete(path, None) if gone else Set(path, record.data, None)])


# A restore.


def test_a_restore_meets_whoever_writes_its_record(site: Site, taken: Path) -> None:
    """A conflict is read again: nothing is lost of what others wrote."""
    restore = restorer(site)
    done = before(restore.coordination, "commit", lambda: rewrite(site), times=2)
    restore.run(taken.name)
    assert len(done) == 2
    assert taken.exists()


def test_a_restore_whose_record_never_rests(site: Site, taken: Path) -> None:
    """It is given up before anything was linked, and says to try again."""
    restore = restorer(site)
    before(restore.coordination, "commit", lambda: rewrite(site), times=ALWAYS)
    with pytest.raises(CoordinationError, match="faster than it can be written"):
        restore.run(taken.name)
    assert not taken.exists()


def test_a_restore_whose_entry_left_meanwhile(site: Site, taken: Path) -> None:
    """It was purged, or restored and settled, by others: there is nothing to do."""
    restore = restorer(site)
    before(restore.storage, "restore", lambda: rewrite(site, gone=True))
    with pytest.raises(RefusedError, match="left the quarantine meanwhile"):
        restore.run(taken.name)


def test_a_restore_that_never_finds_its_file(
    site: Site, taken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark stays, so that the entry is not purged, and the next run finishes it."""
    monkeypatch.setattr(restoring, "TRIES", 3)
    monkeypatch.setattr(restoring, "PAUSE_S", 0.01)
    restore = restorer(site)
    (leaf,) = (site.base / ".sharedcache/epochs/1").iterdir()
    away = site.root / "away"
    before(restore.storage, "restore", lambda: leaf.rename(away))
    with pytest.raises(StorageError, match="was not linked, run this again"):
        restore.run(taken.name)
    (entry,) = site.observer().observe(scan=False).seen.entries
    assert entry.restoring
    away.rename(leaf)
    restorer(site).run(taken.name)
    assert taken.exists()


def authorise(site: Site) -> None:
    """Authorise the unlink of the one entry there is."""
    other = site.session("other")
    (entry,) = site.observer().observe(scan=False).seen.entries
    word = Authorisation("token", entry.epoch, {entry.entry: entry.leaf})
    data = codec.pack(codec.authorisation_to_record(word))
    other.commit([Set(ledger.AUTHORISATION, data, None)])


def test_a_restore_whose_entry_is_authorised_meanwhile(site: Site, taken: Path) -> None:
    """Between its look at the authorisation and its mark: the mark is not written."""
    restore = restorer(site)
    before(restore.coordination, "commit", lambda: authorise(site))
    with pytest.raises(RefusedError, match="it is too late"):
        restore.run(taken.name)
    (entry,) = site.observer().observe(scan=False).seen.entries
    assert not entry.restoring
    assert not taken.exists()


def test_a_restore_is_heard_by_whoever_observed_before(site: Site, taken: Path) -> None:
    """Its mark raises the veto counter, which every authorisation checks."""
    restore, other = restorer(site), site.session("other")
    seen: list[int] = []

    def look() -> None:
        record = other.get(ledger.VETO_COUNTER)
        assert record is not None
        seen.append(record.version)

    before(restore.coordination, "commit", look)
    before(restore.storage, "restore", look)
    restore.run(taken.name)
    assert seen[0] < seen[1]


# Orders.


def test_two_operators_may_expect_one_node(site: Site) -> None:
    """Whoever comes second hears that it is expected already."""
    session, other = site.session("operator"), site.session("other")
    before(session, "commit", lambda: operator.expect(other, "n7", OPERATOR))
    assert not operator.expect(session, "n7", OPERATOR)


def test_an_expected_node_is_heard_by_whoever_observed_before(site: Site) -> None:
    """It raises the roster counter, which every removal checks."""
    session = site.session("operator")
    before_it = session.get(ledger.ROSTER_COUNTER)
    assert before_it is not None
    operator.expect(session, "n7", OPERATOR)
    session.sync()
    after_it = session.get(ledger.ROSTER_COUNTER)
    assert after_it is not None
    assert after_it.version > before_it.version


def test_a_name_is_acknowledged_beside_another(site: Site) -> None:
    """Two at once both count: the slower one reads the inventory again."""
    publish(site.agent("n1"))
    first, second = site.file(image_id()), site.file(image_id())
    observer = site.observer()
    done = before(
        observer.coordination,
        "commit",
        lambda: acknowledge(site.observer(), [second.name], OPERATOR),
    )
    assert acknowledge(observer, [first.name], OPERATOR) == [first.name]
    assert done
    assert acknowledge(site.observer(), None, OPERATOR) == []


def test_an_inventory_that_never_rests(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and nothing was accounted for."""
    publish(site.agent("n1"))
    name = site.file(image_id()).name
    other, observer = site.session("other"), site.observer()
    monkeypatch.setattr(old_names, "TRIES", 2)

    def rewriting() -> None:
        record = other.get(ledger.INVENTORY)
        assert record is not None
        other.commit([Set(ledger.INVENTORY, record.data, None)])

    before(observer.coordination, "commit", rewriting, times=ALWAYS)
    with pytest.raises(RefusedError, match="faster than it can be written"):
        acknowledge(observer, [name], OPERATOR)
    assert acknowledge(site.observer(), [name], OPERATOR) == [name]


def test_orders_of_two_hosts_both_stand(site: Site) -> None:
    """What the faster one found damaged is not forgotten by the slower one."""
    session, other = site.session("operator"), site.session("other")
    one, two = a_damage(name="1" * 40), a_damage(name="2" * 40)
    before(session, "commit", lambda: damage.order(other, two, OPERATOR))
    assert damage.order(session, one, OPERATOR)
    session.sync()
    found = ledger.damaged_of(session.get(ledger.DAMAGED))
    assert found == {one.name: one, two.name: two}


def test_orders_that_never_rest(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told of an order that was not written."""
    monkeypatch.setattr(damage, "WRITE_TRIES", 2)
    session, other = site.session("operator"), site.session("other")
    assert damage.order(other, a_damage(name="2" * 40), OPERATOR)

    def rewriting() -> None:
        record = other.get(ledger.DAMAGED)
        assert record is not None
        other.commit([Set(ledger.DAMAGED, record.data, None)])

    before(session, "commit", rewriting, times=ALWAYS)
    with pytest.raises(CoordinationError, match="could not be written"):
        damage.order(session, a_damage(name="1" * 40), OPERATOR)
