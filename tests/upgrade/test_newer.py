"""Records of a release to come: every command and every writer stands back.

Agents and cleaners are tried record by record in
``tests/fault/test_bad_input_records.py``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from click.testing import CliRunner

from sharedcache import audit, ledger
from sharedcache.cache import KERNEL, NotBoundError
from sharedcache.cleaner import operator
from sharedcache.cli.main import cli
from sharedcache.core import codec
from sharedcache.core.ports import Coordination, Set
from sharedcache.node.service import start
from sharedcache.node.world import AgentRefusedError
from tests.support.inprocess import FAST, OPERATOR, Site, image_id, publish, settle
from tests.support.writers import bound_base, giving, writer

pytestmark = pytest.mark.timeout(120)

RECORDS = (
    ledger.IDENTITY,
    ledger.EPOCH,
    ledger.ROUND,
    ledger.ROLLOUT,
    ledger.AUTHORISATION,
    ledger.MEMORY,
    ledger.BRAKE,
    ledger.PAUSE,
    ledger.APPROVAL,
    audit.TRAIL,
    "roster/n1",
    "manifest/*",
    "holds/*",
)
FILES = ("cluster", "schema", "nodes/n1")

COMMANDS = (
    ("status",),
    ("node", "list"),
    ("node", "show", "n1"),
    ("plan", "--all"),
    ("explain", "NAME"),
    ("quarantine", "list"),
    ("quarantine", "restore", "NAME"),
    ("hold", "list"),
    ("history",),
    ("rollout", "status"),
    ("rollout", "finalize", "--yes"),
    ("node", "expect", "n1"),
    ("recover",),
)


class Place:
    """A cluster with a file in quarantine, a hold, and a node that is gone."""

    def __init__(self, site: Site) -> None:
        self.site = site
        path = site.image(image_id())
        self.name = path.name
        agents, cleaner = [site.agent("n1"), site.agent("n2")], site.cleaner("c1", SLOW)
        settle(*agents, cleaner, until=lambda: not path.exists(), what="quarantined")
        settle(*agents, cleaner, until=lambda: cleaner.harvest.passes > 2, what="kept")
        agents[0].finish()
        self.session: Coordination = site.session("op")
        operator.hold(self.session, self.name, "a reason", OPERATOR)
        operator.pause(self.session, "maintenance", OPERATOR)

    def run(self, *words: str) -> tuple[int, str, BaseException | None]:
        """Run one command in this process; return its code, words and defect."""
        site = self.site
        told = [self.name if word == "NAME" else word for word in words]
        where = (
            *("--base", str(site.base), "--zookeeper", site.address),
            *("--cluster", site.cluster),
        )
        done = CliRunner().invoke(cli, [*where, *told], prog_name="sharedcache")
        error = done.exception
        defect = None if isinstance(error, SystemExit) else error
        return done.exit_code, done.output, defect

    def path_of(self, record: str) -> str:
        """Find the one record that a pattern stands for."""
        parent, star, _ = record.partition("/*")
        if not star:
            return record
        return f"{parent}/{self.session.children(parent)[0]}"


SLOW = replace(FAST, grace_s=3600.0)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, zookeeper: object
) -> Iterator[Place]:
    """Make the cluster once: each test puts back what it changed."""
    root = tmp_path_factory.mktemp("newer") / "site"
    name = f"test-{uuid.uuid4().hex[:12]}"
    with Site(root, zookeeper.address, name) as site:  # type: ignore[attr-defined]
        site.found()
        yield Place(site)


@contextmanager
def newer_record(place: Place, path: str) -> Iterator[bytes]:
    """Let one record in ZooKeeper be of a later release for a while."""
    record = place.session.get(path)
    assert record is not None
    values = codec.unpack(record.data) if record.data else {}
    data = msgpack.packb({**values, "schema": 99, "later": True})
    place.session.commit([Set(path, data, None)])
    yield data
    place.session.commit([Set(path, record.data, None)])


@contextmanager
def newer_file(place: Place, name: str) -> Iterator[bytes]:
    """Let one file on the storage be of a later release for a while."""
    path = place.site.base / ".sharedcache" / name
    written = path.read_bytes()
    # A witness is padded, and its record is the first line.
    values = codec.from_text(written.splitlines()[0])
    data = codec.to_text({**values, "schema": 99, "later": True})
    folder, _, node = name.rpartition("/")
    if folder:
        place.site.storage().witness_write(node, data)
    else:
        path.write_bytes(data)
    yield path.read_bytes()
    path.write_bytes(written)


def _stands_back(place: Place, still: Callable[[], bytes], newer: bytes) -> None:
    """Run every command: none crashes, and none writes over what it cannot read."""
    for words in COMMANDS:
        code, said, defect = place.run(*words)
        assert defect is None, (words, defect)
        assert code in {0, 1, 3}, (words, said)
        assert "Traceback" not in said, words
        assert still() == newer, words


@pytest.mark.parametrize("record", RECORDS)
def test_every_command_stands_back_from_a_newer_record(
    place: Place, record: str
) -> None:
    """One line, an exit code, and the record as it was."""
    path = place.path_of(record)

    def still() -> bytes:
        found = place.session.get(path)
        return b"" if found is None else found.data

    with newer_record(place, path) as newer:
        _stands_back(place, still, newer)


@pytest.mark.parametrize("name", FILES)
def test_every_command_stands_back_from_a_newer_file(place: Place, name: str) -> None:
    """The storage's word is read by every command, and written over by none."""
    path = place.site.base / ".sharedcache" / name
    with newer_file(place, name) as newer:
        _stands_back(place, path.read_bytes, newer)


def test_with_nothing_newer_the_same_commands_do_their_work(place: Place) -> None:
    """The commands above stand back because of the record, not for another reason."""
    done = {
        words: place.run(*words)[0]
        for words in COMMANDS
        if words[:2] != ("quarantine", "restore")
    }
    assert set(done.values()) == {0}, done


@pytest.mark.parametrize("name", ["cluster", "schema"])
def test_an_agent_does_not_start_on_a_newer_directory(place: Place, name: str) -> None:
    """It says so, and that an upgrade is the way on."""
    agent = place.site.agent("n3")
    with newer_file(place, name), pytest.raises(AgentRefusedError, match="newer"):
        start(agent.world, place.site.cluster)
    (place.site.base / ".sharedcache" / "nodes" / "n3").unlink()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cluster", {"schema": 99}),
        ("schema", {"schema": 99}),
        ("schema", {"finalized_schema": 3}),
    ],
)
def test_a_writer_stands_back_from_a_newer_directory(
    tmp_path: Path, name: str, change: dict[str, int]
) -> None:
    """``SharedCache`` names nothing under rules that it does not know."""
    base = bound_base(tmp_path)
    path = base / ".sharedcache" / name
    path.write_bytes(codec.to_text({**codec.from_text(path.read_bytes()), **change}))
    with (
        writer(base) as cache,
        pytest.raises(NotBoundError, match=r"cannot be read|upgrade"),
        cache.use(image_id(), KERNEL, fetch=giving()),
    ):
        raise AssertionError("it gave a path")
    assert {p.name for p in base.iterdir()} == {".sharedcache"}


def test_a_newer_node_cannot_be_published_over(place: Place) -> None:
    """A node of an unknown schema version closes the gate, and is named."""
    path = ledger.node_path("n1")
    with newer_record(place, path):
        _, said, _ = place.run("status")
        assert "node-schema-unknown" in said
        assert "upgrade the cleaners" in " ".join(said.split())
    publish(place.site.agent("n1"))
