"""Raw-id names that appear after finalization, on real servers and real files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sharedcache import audit, inventory, ledger
from sharedcache.cleaner import trail
from sharedcache.cleaner.finalize import RefusedError, finalize
from sharedcache.cleaner.inventory import acknowledge
from sharedcache.cleaner.service import CleanerService
from sharedcache.cli.main import cli
from sharedcache.core.acts import LISTED, Act, Deed
from sharedcache.core.gate import Code
from sharedcache.core.inventory import ANY, Inventory
from sharedcache.core.model import Unreadable
from sharedcache.core.ports import (
    ConflictError,
    Coordination,
    Delete,
    OutcomeUnknownError,
    Set,
)
from sharedcache.node.service import NodeService
from tests.support.crash import CrashedError, Fault, Faulty, Schedule
from tests.support.inprocess import (
    FAST,
    OPERATOR,
    Site,
    gate_codes,
    image_id,
    publish,
    settle,
)

pytestmark = pytest.mark.timeout(90)

SLOW = replace(FAST, grace_s=3600.0)


@pytest.fixture
def old_site(tmp_path: Path, zookeeper: Any, zk_cluster_name: str) -> Any:
    """Found a cluster at schema 1."""
    with Site(tmp_path / "site", zookeeper.address, zk_cluster_name) as made:
        made.found(1)
        yield made


def subjects(cleaner: CleanerService) -> set[str]:
    """Name what appeared, as the cleaner saw it last."""
    codes = gate_codes(cleaner)
    return {subject for code, subject in codes if code is Code.OLD_NAME_APPEARED}


def passes(cleaner: CleanerService, *agents: NodeService, more: int = 2) -> None:
    """Let a cleaner make whole passes."""
    until = cleaner.harvest.passes + more

    def enough() -> bool:
        if cleaner.harvest.passes >= until:
            return True
        cleaner.pass_now()
        return False

    settle(*agents, cleaner, until=enough, what="whole passes")


def stored(coordination: Coordination) -> Inventory | Unreadable | None:
    """Read the inventory."""
    coordination.sync()
    return inventory.read(coordination, coordination.get(ledger.INVENTORY))


def commit(site: Site, **ports: Any) -> None:
    """Finalize as an operator does."""
    session, storage = site.session("operator"), site.storage()
    observed = site.observer().observe(scan=False)
    finalize(
        ports.get("coordination", session),
        ports.get("storage", storage),
        observed,
        "root@desk",
        1.0,
    )


def acts(coordination: Coordination, deed: Deed) -> list[Act]:
    """Read the acts of a kind."""
    told = audit.forward(coordination, 0, 0)
    return [t.act for t in told if isinstance(t.act, Act) and t.act.deed == deed]


def test_a_raw_id_file_that_appears_closes_the_gate_until_acknowledged(
    site: Site,
) -> None:
    """Nothing is taken while it is there; an operator's word, on record, opens."""
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    passes(cleaner, agent)
    assert gate_codes(cleaner) == set()
    strange, unused = site.file(image_id()), site.image(image_id())
    passes(cleaner, agent)
    assert subjects(cleaner) == {strange.name}
    assert unused.exists()
    with pytest.raises(RefusedError, match="not among"):
        acknowledge(site.observer(), [image_id()], OPERATOR)
    assert acknowledge(site.observer(), [strange.name], OPERATOR) == [strange.name]
    settle(
        agent,
        cleaner,
        until=lambda: not strange.exists() and not unused.exists(),
        what="both are ordinary candidates",
    )
    (act,) = acts(cleaner.world.coordination, Deed.ACKNOWLEDGED)
    assert [one.name for one in act.subjects] == [strange.name]
    assert act.doer == OPERATOR.doer
    assert acknowledge(site.observer(), None, OPERATOR) == []


def test_many_names_are_one_row_of_the_trail(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trail keeps so many rows: one order must not push the rest out of it."""
    monkeypatch.setattr(trail, "TEND_S", 0.0)
    monkeypatch.setenv("SHAREDCACHE_BASE", str(site.base))
    monkeypatch.setenv("SHAREDCACHE_ZOOKEEPER", site.address)
    monkeypatch.setenv("SHAREDCACHE_CLUSTER", site.cluster)
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    publish(agent)
    passes(cleaner, agent)
    names = sorted(site.file(image_id()).name for _ in range(LISTED + 1))
    word = cleaner.world.coordination
    before = audit.read_mark(word).acts
    assert acknowledge(site.observer(), None, OPERATOR) == names

    def history(*words: str) -> Any:
        done = CliRunner().invoke(cli, ["history", *words, "-f", "json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    (row,) = history("--act", "acknowledged")
    assert f"{len(names)} names: {names[0]}" in row["why"]
    for name in (names[0], names[-1]):
        (row,) = history(name, "--act", "acknowledged")
        assert (row["name"], row["who"]) == (name, OPERATOR.who)
        assert history(name, "--limit", "1", "--act", "acknowledged") == [row]
    assert history(image_id()) == []
    settle(agent, cleaner, until=lambda: told(cleaner), what="it stands in the log")
    assert told(cleaner) == names
    taken = sum(act.count for act in acts(word, Deed.QUARANTINED))
    assert audit.read_mark(word).acts <= before + 1 + taken


def told(cleaner: CleanerService) -> list[object]:
    """Name what was acknowledged according to a cleaner's log."""
    journal: Any = cleaner.world.journal
    found = [fields for name, fields in journal.events if name == "audit"]
    return [one["name"] for one in found if one["act"] == Deed.ACKNOWLEDGED]


def test_between_whole_passes_the_last_scan_counts(site: Site) -> None:
    """A look that lists no file does not forget what appeared."""
    agent, cleaner = (
        site.agent("n1"),
        site.cleaner("c1", replace(SLOW, pass_interval_s=60.0)),
    )
    publish(agent)
    strange = site.file(image_id())
    passes(cleaner, agent, more=1)
    assert subjects(cleaner) == {strange.name}
    whole = cleaner.harvest.passes
    cleaner.step()
    assert cleaner.harvest.passes == whole
    assert subjects(cleaner) == {strange.name}


def test_our_own_restores_appear_to_nobody(old_site: Site) -> None:
    """A raw-id kernel of before is taken, wanted again, restored: the gate is open."""
    kernel = image_id()
    path = old_site.file(kernel)
    agent, cleaner = old_site.agent("n1"), old_site.cleaner("c1", SLOW)
    publish(agent)
    commit(old_site)
    settle(agent, cleaner, until=lambda: not path.exists(), what="taken")
    passes(cleaner, agent)
    old_site.uses("n1", kernels=[kernel])
    settle(agent, cleaner, until=path.exists, what="restored by the agent")
    passes(cleaner, agent, more=3)
    assert subjects(cleaner) == set()
    # Somebody else's file in its place is not ours.
    content = path.read_bytes()
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    fresh.rename(path)
    passes(cleaner, agent)
    assert subjects(cleaner) == {kernel}


def test_a_name_that_was_purged_and_comes_back_appeared(old_site: Site) -> None:
    """It was in the inventory, and was struck off when it was gone."""
    path = old_site.file(image_id())
    agent, cleaner = old_site.agent("n1"), old_site.cleaner("c1")
    publish(agent)
    commit(old_site)
    settle(
        agent,
        cleaner,
        until=lambda: path.name in cleaner.harvest.purged.names,
        what="purged",
    )
    passes(cleaner, agent, more=3)
    found = stored(cleaner.world.coordination)
    assert isinstance(found, Inventory)
    assert path.name not in found.inodes
    old_site.file(path.name)
    passes(cleaner, agent)
    assert subjects(cleaner) == {path.name}


def _rename(base: Path, partial: str, name: str) -> None:
    (base / partial).rename(base / name)


def _link(base: Path, partial: str, name: str) -> None:
    os.link(base / partial, base / name)
    (base / partial).unlink()


def _another(base: Path, partial: str, name: str) -> None:
    (base / name).write_bytes(b"converted")
    (base / partial).unlink()


@pytest.mark.parametrize("publication", [_rename, _link, _another])
def test_a_download_under_way_at_finalization_is_let_in_once(
    old_site: Site, publication: Callable[[Path, str, str], None]
) -> None:
    """Renamed as Nova does, linked as SharedCache does, or put in its place."""
    name = image_id()
    old_site.file(f"{name}.4f2a.part", age_s=1.0)
    agent, cleaner = old_site.agent("n1"), old_site.cleaner("c1", SLOW)
    publish(agent)
    commit(old_site)
    passes(cleaner, agent, more=3)
    publication(old_site.base, f"{name}.4f2a.part", name)
    passes(cleaner, agent, more=3)
    assert subjects(cleaner) == set()
    (old_site.base / name).unlink()
    old_site.file("keeps-the-inode-number", size=1)
    passes(cleaner, agent, more=3)
    old_site.file(name, age_s=1.0)
    passes(cleaner, agent)
    assert subjects(cleaner) == {name}


class _Writing:
    """A storage beside which a writer publishes at a chosen moment."""

    def __init__(self, storage: Any, moment: str, act: Callable[[], object]) -> None:
        self._storage, self._moment, self._act = storage, moment, act

    def __getattr__(self, name: str) -> Any:
        if name == self._moment:
            self._moment = ""
            self._act()
        return getattr(self._storage, name)


def test_a_writer_that_read_the_old_stage_at_the_last_moment_is_let_in(
    old_site: Site,
) -> None:
    """Between the transaction and the storage's word it may still publish."""
    name = image_id()
    agent, cleaner = old_site.agent("n1"), old_site.cleaner("c1", SLOW)
    publish(agent)
    late = _Writing(
        old_site.storage(), "write_schema", lambda: old_site.file(name, age_s=1.0)
    )
    commit(old_site, storage=late)
    passes(cleaner, agent, more=3)
    assert subjects(cleaner) == set()
    found = stored(cleaner.world.coordination)
    assert isinstance(found, Inventory)
    assert found.settled


@pytest.mark.parametrize("fault", list(Fault))
def test_no_crash_leaves_a_finalized_cluster_without_an_inventory(
    old_site: Site, fault: Fault
) -> None:
    """Killed at each effect: finalized with an inventory, or not at all."""
    known = old_site.file(image_id())
    agent = old_site.agent("n1")
    publish(agent)
    session, storage = old_site.session("operator"), old_site.storage()
    for at in range(20):
        # The same cluster as before the finalization.
        session.commit(
            [
                Set(ledger.ROLLOUT, ledger.rollout_data(ledger.Rollout(1)), None),
                Set(ledger.INVENTORY, b"", None),
            ]
        )
        (old_site.base / ".sharedcache" / "schema").unlink()
        schedule = Schedule(at, fault)
        with suppress(CrashedError, OutcomeUnknownError):
            commit(
                old_site,
                coordination=Faulty(session, schedule),
                storage=Faulty(storage, schedule),
            )
        rollout, found = ledger.rollout_of(session.get(ledger.ROLLOUT)), stored(session)
        assert not isinstance(rollout, Unreadable)
        if rollout.finalized_schema == 2:
            assert isinstance(found, Inventory)
            assert known.name in found.inodes
        else:
            assert found is None
        # Whoever presses it again, or for the first time, finds it done.
        commit(old_site, coordination=session, storage=storage)
        assert b'"finalized_schema": 2' in (storage.read_schema() or b"")
        if schedule.struck is None:
            break
    assert schedule.struck is None, "the finalization has more effects than were tried"
    assert at >= 3


def test_a_cluster_that_an_earlier_release_finalized_gets_one_from_the_leader(
    site: Site,
) -> None:
    """What is there by then counts as of before; what comes later appeared."""
    before = site.file(image_id(), age_s=1.0)
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    word = site.session("operator")
    word.commit([Delete(path, None) for path in ledger.LATER])
    publish(agent)
    passes(cleaner, agent)
    assert gate_codes(cleaner) == set()
    (act,) = acts(word, Deed.INVENTORY_TAKEN)
    assert "1 raw-id names" in act.why
    after = site.file(image_id())
    passes(cleaner, agent)
    assert subjects(cleaner) == {after.name}
    assert before.exists()


def test_a_damaged_inventory_is_taken_anew_on_an_operators_word(site: Site) -> None:
    """The leader does not guess; `acknowledge --all` does it, and is on record."""
    path = site.file(image_id(), age_s=1.0)
    agent, cleaner = site.agent("n1"), site.cleaner("c1", SLOW)
    site.session("vandal").commit([Set(ledger.INVENTORY, b"\x93", None)])
    publish(agent)
    passes(cleaner, agent)
    assert subjects(cleaner) == {"inventory"}
    with pytest.raises(RefusedError, match="--all"):
        acknowledge(site.observer(), [path.name], OPERATOR)
    assert acknowledge(site.observer(), None, OPERATOR) == [path.name]
    passes(cleaner, agent)
    assert gate_codes(cleaner) == set()


def test_an_inventory_larger_than_a_record_lies_in_parts(site: Site) -> None:
    """70,000 names come back whole; the parts of an earlier one are dropped."""
    word = site.session("operator")
    found = stored(word)
    assert isinstance(found, Inventory)
    inodes = {f"{n:08x}-0000-4000-8000-{n:012x}": n or ANY for n in range(70_000)}
    for size in (70_000, 40_000):
        some = dict(list(inodes.items())[:size])
        write = inventory.writing(word, Inventory(some), found.version)
        word.commit(write)
        inventory.drop_parts(word)
        found = stored(word)
        assert isinstance(found, Inventory)
        assert found.inodes == some
        assert len(word.children(ledger.INVENTORY)) == -(-24 * size // 700_000)


def test_an_inventory_whose_parts_were_dropped_meanwhile_is_not_written(
    site: Site,
) -> None:
    """Who drops an earlier one's parts may take those of a writer that is not done."""
    word = site.session("operator")
    found = stored(word)
    assert isinstance(found, Inventory)
    inodes = {f"{n:08x}-0000-4000-8000-{n:012x}": n + 1 for n in range(40_000)}
    write = inventory.writing(word, Inventory(inodes), found.version)
    inventory.drop_parts(word)
    with pytest.raises(ConflictError) as told:
        word.commit(write)
    assert inventory.is_conflict(told.value)
    assert stored(word) == found


def test_an_operators_commands_name_it_and_open_the_gate(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rollout status` names what appeared; `acknowledge` asks, and is exact."""
    monkeypatch.setenv("SHAREDCACHE_BASE", str(site.base))
    monkeypatch.setenv("SHAREDCACHE_ZOOKEEPER", site.address)
    monkeypatch.setenv("SHAREDCACHE_CLUSTER", site.cluster)

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli, ["rollout", *words, "-f", "json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else done.stderr

    publish(site.agent("n1"))
    names = sorted(site.file(image_id()).name for _ in range(2))
    status = run("status")
    assert status["appeared"] == names
    assert "rollout acknowledge" in status["advice"]
    assert "--yes" in run("acknowledge", names[0], code=3)
    assert "not among" in run("acknowledge", image_id(), "--yes", code=3)
    run("acknowledge", names[0], "--all", code=2)
    run("acknowledge", code=2)
    assert run("acknowledge", names[0], "--yes")["acknowledged"] == [names[0]]
    assert run("status")["appeared"] == [names[1]]
    assert run("acknowledge", "--all", "--yes")["acknowledged"] == [names[1]]
    assert run("hold", "--why", "not today") == {"held": "not today"}
    assert run("status")["held"].startswith("not today (")
    assert run("release") == {"held": None}
    assert run("status")["held"] is None
