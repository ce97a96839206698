"""Worlds for the tests of the core: plain builders, and hypothesis strategies."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sharedcache.core.damage import Damage
from sharedcache.core.gate import GateFacts, NodeView
from sharedcache.core.inventory import ANY, Inventory, OldName
from sharedcache.core.model import (
    Baseline,
    Cluster,
    EntryState,
    FileFacts,
    FileTable,
    Incarnation,
    KernelNaming,
    ManifestBatch,
    ManifestEntry,
    Report,
    SourceFailure,
    Unreadable,
    Uses,
    Witness,
)
from sharedcache.core.names import Kind, leaf_of
from sharedcache.core.plan import Observation, Remembered
from sharedcache.core.policy import CleanerPolicy, MissingNodes
from sharedcache.core.schema import SCHEMAS, SchemaTable, SchemaVersion

settings.register_profile(
    "sharedcache",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("sharedcache")

SECOND = 1_000_000_000
NOW_NS = 10**18
"""The storage's time of every world that stands still."""

D1, D2, D3 = (two * 20 for two in ("0a", "b2", "c3"))
K1 = "0b5cbd6e-6f3a-4d3c-9a51-0123456789ab"
FAMILY = {f"{D1}_20": D1, f"{D2}_sm": D2}
"""Resized copies and their originals, written down by hand for the oracle."""

H1 = "0ba8d52853b96956d13ed8e73f2167f821011493"
"""``sha1(K1)``: the new name of the kernel ``K1``."""

RECOGNISED: dict[str, Kind] = {
    D1: Kind.IMAGE,
    D2: Kind.IMAGE,
    D3: Kind.IMAGE,
    **dict.fromkeys(FAMILY, Kind.RESIZED),
    H1: Kind.IMAGE,
    K1: Kind.KERNEL,
    "swap_512": Kind.SWAP,
    "ephemeral_2_40d1d2c": Kind.EPHEMERAL,
    f"{D1}.part": Kind.PARTIAL,
    f"{D2}.4f2a.part": Kind.PARTIAL,
    f"{D3}_20.part.converted": Kind.PARTIAL,
    f"{K1}.converted": Kind.PARTIAL,
}
"""Cache names and their kinds, written down by hand for the oracle."""

WHOLE = {
    f"{D1}.part": D1,
    f"{D2}.4f2a.part": D2,
    f"{D3}_20.part.converted": f"{D3}_20",
    f"{K1}.converted": K1,
}
"""Partial files and what they are parts of, written down by hand for the oracle."""

KEYS: dict[bytes, str] = {
    bytes.fromhex(name)[:6]
    if len(name) == 40
    else hashlib.sha256(name.encode()).digest()[:6]: name
    for name in RECOGNISED
}
"""The names behind the keys that leaders remember."""

UNRECOGNISED = (
    ".sharedcache",
    "README",
    "locks",
    D1.upper(),
    D1[:39],
    f"{D1}0",
    f"{D1}_0",
    f"{D1}_20_3",
    f"{D1}.bak",
    f"{D1}\n",
    f"{K1}_20",
    K1.upper(),
    "swap_",
    "swap_1.bak",
    "ephemeral_2",
    "ephemeral_2_a-b",
    f"{D1}.{'x' * 41}.part",
    f"{D1}{'.part' * 29}",
    "",
)


def uses_of(*cache_names: str, families: tuple[str, ...] = ()) -> Uses:
    """Build uses of these names, and of all resized copies of these originals."""
    digests = [bytes.fromhex(name) for name in families]
    found = Uses.of_names(cache_names)
    return Uses(found.images, families=frozenset(digests), names=found.names)


def report(node: str = "n1", **changes: Any) -> Report:
    """Build a report to which nobody can object, with changes."""
    fields: dict[str, Any] = {
        "node": node,
        "incarnation": Incarnation("boot", 1),
        "schema_version": 2,
        "kernel_naming": KernelNaming.SHA1,
        "upto": 10,
        "since_round": 9,
        "unbroken": True,
        "now": Uses(),
        "since": Uses(),
        "storage_time_ns": NOW_NS,
        "name_cache_s": 0.0,
    }
    return Report(**{**fields, **changes})


FAILED = (SourceFailure("libvirt", "no answer"),)
"""The failures of a degraded node."""


def view(said: Report | Unreadable | None = None, **changes: Any) -> NodeView:
    """Build a live node with this report (a good one by default), with changes."""
    if said is None and "report" not in changes:
        said = report()
    fields: dict[str, Any] = {"node": "n1", "member": True, "report": said}
    fields["witness"] = None
    if isinstance(said, Report):
        fields["node"] = said.node
        fields["witness"] = Witness(said.node, said.incarnation, NOW_NS)
    return NodeView(**{**fields, **changes})


CLUSTER = Cluster("demo", "4b0c")


def facts(*nodes: NodeView, **changes: Any) -> GateFacts:
    """Build facts that open the gate if the nodes are good, with changes."""
    fields: dict[str, Any] = {
        "on_storage": CLUSTER,
        "in_zookeeper": CLUSTER,
        "storage_epoch": 3,
        "zookeeper_epoch": 3,
        "nodes": nodes,
        "strangers": (),
        "finalized_schema": 2,
        "inventory": Inventory({K1: ANY}),
    }
    return GateFacts(**{**fields, **changes})


def file_facts(**changes: Any) -> FileFacts:
    """Build the facts of a regular file that is old enough for every policy."""
    fields: dict[str, Any] = {
        "inode": 100,
        "size": 4096,
        "mtime_ns": NOW_NS - 10_000_000 * SECOND,
        "ctime_ns": NOW_NS - 10_000_000 * SECOND,
        "links": 1,
        "regular": True,
    }
    return FileFacts(**{**fields, **changes})


def table(*rows: tuple[str, FileFacts]) -> FileTable:
    """Build the columns of these files."""
    files = FileTable()
    for name, one in rows:
        files.append(name, one)
    return files


def entry(name: str = D1, number: int = 1, **changes: Any) -> ManifestEntry:
    """Build a taken entry of round 9 that has waited for long, with changes."""
    token = f"{number:016x}"
    fields: dict[str, Any] = {
        "name": name,
        "entry": token,
        "epoch": 3,
        "leaf": leaf_of(name, token, 3),
        "state": EntryState.TAKEN,
        "round": 9,
        "since_ns": NOW_NS - 100_000 * SECOND,
        "moved_ns": NOW_NS - 100_000 * SECOND,
        "size": 4096,
        "baseline": Baseline.of(file_facts(inode=200 + number)),
    }
    return ManifestEntry(**{**fields, **changes})


def observation(*nodes: NodeView, **changes: Any) -> Observation:
    """Build an observation of these nodes (one good one by default)."""
    fields: dict[str, Any] = {
        "facts": facts(*(nodes or (view(report()),))),
        "files": table(),
        "storage_now_ns": NOW_NS,
        "round": 10,
        "manifest": (),
    }
    return Observation(**{**fields, **changes})


def damage(name: str = D1, **changes: Any) -> Damage:
    """Build the order of a file as ``file_facts`` makes it, with changes."""
    one = file_facts()
    fields: dict[str, Any] = {
        "name": name,
        "inode": one.inode,
        "size": one.size,
        "mtime_ns": one.mtime_ns,
        "recorded": f"md5:{'0' * 32}",
        "found": f"md5:{'1' * 32}",
        "by": "operator@desk",
        "at": 1.0,
    }
    return Damage(**{**fields, **changes})


def remembered(*cache_names: str, **changes: Any) -> Remembered:
    """Build the memory of a node that used these names, with changes."""
    keys = frozenset(key for key, name in KEYS.items() if name in cache_names)
    fields: dict[str, Any] = {"count": len(cache_names), "keys": keys}
    return Remembered(**{**fields, **changes})


@dataclass(frozen=True)
class World:
    """What a planner is asked."""

    policy: CleanerPolicy
    seen: Observation


THREE = SchemaTable(
    (
        *SCHEMAS.rows,
        SchemaVersion(
            3,
            "what a later release may add",
            reads=SCHEMAS.rows[-1].reads,
            naming=SCHEMAS.rows[-1].naming,
            cleaning=True,
        ),
    )
)
"""The table of a later release: one more row, and nothing else."""

_NAMES = st.sampled_from(sorted(RECOGNISED))
_MOST = st.sampled_from((True,) * 9 + (False,))
_OFTEN = st.sampled_from((True, True, False))
_NANOS = st.sampled_from((-1, 0, 1))
AGE_S = 10.0
GRACE_S = 20.0
LOW_GRACE_S = 10.0
LASTS_S = 15.0


@st.composite
def some_uses(draw: st.DrawFn) -> Uses:
    """Draw uses of few names."""
    if draw(_OFTEN):
        return Uses()
    names = draw(st.lists(_NAMES, max_size=2))
    digests = frozenset(bytes.fromhex(n) for n in names if len(n) == 40)
    others = frozenset(n for n in names if len(n) != 40)
    originals = draw(st.sampled_from(((), (), (D1,), (D2,))))
    families = frozenset(bytes.fromhex(name) for name in originals)
    column = draw(st.sampled_from(("images", "kernels", "ramdisks")))
    return Uses(**{column: digests}, families=families, names=others)


_TIDY = ("live", "live", "live", "sealed")
_GONE = ("live", "live", "missing", "missing", "missing-degraded", "sealed-degraded")
_CALM = ("live", "live", "live", "sealed", "missing", "degraded")
_FAULTS = (
    "unreported",
    "unwitnessed",
    "restarted",
    "unclear-witness",
    "raw-id",
    "naming-unknown",
    "unreadable",
    "newer",
    "schema-1",
    "schema-newer",
    "sealed-degraded",
    "missing-degraded",
)
_FLAVOURS = {"tidy": _TIDY, "gone": _GONE, "calm": _CALM, "wild": _CALM + _FAULTS}


@st.composite
def _node(
    draw: st.DrawFn, number: int, present: int, mood: str, good: tuple[int, ...]
) -> NodeView:
    node = f"n{number}"
    flavour = draw(st.sampled_from(_FLAVOURS[mood]))
    if flavour == "unreported":
        return NodeView(node, draw(st.booleans()), None, None)
    if flavour in {"unreadable", "newer"}:
        why = Unreadable("cut short", newer=flavour == "newer")
        return NodeView(node, draw(st.booleans()), why, None)
    tidy = mood in {"tidy", "gone"}
    upto = present - draw(st.sampled_from((0,) if tidy else (0, 0, 0, 0, 1, -1)))
    said = report(
        node,
        schema_version={"schema-1": 1, "schema-newer": max(good) + 1}.get(
            flavour, draw(st.sampled_from(good))
        ),
        kernel_naming={
            "raw-id": KernelNaming.RAW_ID,
            "naming-unknown": KernelNaming.UNKNOWN,
        }.get(flavour, KernelNaming.SHA1),
        upto=upto,
        since_round=max(
            0, upto - draw(st.sampled_from((1, 1, 2) if tidy else (1, 1, 1, 2, 0, -1)))
        ),
        unbroken=tidy or draw(_MOST),
        now=draw(some_uses()),
        since=draw(some_uses()),
        storage_time_ns=NOW_NS
        - draw(st.sampled_from((0, 0, 0, 11, 25))) * SECOND
        + draw(_NANOS),
        name_cache_s=draw(st.sampled_from((0.0, 0.0, 5.0))),
        sees=frozenset() if draw(_MOST) else frozenset({f"{1:016x}"}),
        saw=frozenset() if draw(_MOST) else frozenset({f"{2:016x}"}),
        intents=frozenset() if draw(_MOST) else frozenset({f"{2:016x}"}),
        failures=FAILED if "degraded" in flavour else (),
        sealed=flavour.startswith("sealed"),
    )
    witness: Witness | None = Witness(node, said.incarnation, NOW_NS)
    if flavour == "unwitnessed":
        witness = None
    elif flavour == "restarted":
        witness = Witness(node, Incarnation("boot", 2), NOW_NS)
    elif flavour == "unclear-witness":
        witness = Witness(node, None, NOW_NS)
    member = not flavour.startswith(("sealed", "missing"))
    return NodeView(node, member, said, witness)


@st.composite
def _files(draw: st.DrawFn) -> FileTable:
    chosen = draw(st.lists(_NAMES, unique=True, max_size=5))
    chosen += draw(st.lists(st.sampled_from(UNRECOGNISED), unique=True, max_size=2))
    files = FileTable()
    for number, name in enumerate(chosen):
        age = draw(st.sampled_from((30, 30, 30, 11, 10, 25, 5, -1))) * SECOND
        one = file_facts(
            inode=draw(st.sampled_from((number + 1, number + 1, 201, 202, 301))),
            mtime_ns=NOW_NS - age + draw(_NANOS),
            links=draw(st.sampled_from((1, 1, 1, 2))),
            regular=draw(_MOST),
        )
        files.append(name, one)
    return files


@st.composite
def _entries(draw: st.DrawFn, present: int) -> tuple[ManifestEntry, ...]:
    made = []
    for number in range(draw(st.integers(0, 3))):
        states = (EntryState.TAKEN,) * 5 + (EntryState.INTENDED,)
        ages = st.sampled_from((30, 30, 30, 30, 30, 20, 10, 0))
        mtime_ns = NOW_NS - draw(st.sampled_from((60, 60, 25, 11))) * SECOND
        inode = draw(st.sampled_from((201, 202, 203)))
        some = Baseline.of(file_facts(inode=inode, mtime_ns=mtime_ns))
        one = entry(
            draw(_NAMES),
            number + 1,
            state=draw(st.sampled_from(states)),
            round=max(0, present + draw(st.sampled_from((-2, -2, -2, -1, 0, 1, -9)))),
            since_ns=NOW_NS - draw(ages) * SECOND + draw(_NANOS),
            moved_ns=NOW_NS - draw(ages) * SECOND + draw(_NANOS),
            baseline=some if draw(_MOST) else None,
            restoring=not draw(_MOST),
            asked=not draw(_MOST),
        )
        made.append(one)
    return tuple(made)


@st.composite
def _old_names(draw: st.DrawFn, files: FileTable) -> dict[str, Any]:
    """Draw what the scan saw of the old naming, and an inventory of it.

    Most know every file; some know none, another file of the name, or any.
    """
    rows = [row for row, name in enumerate(files.names) if name == K1]
    here = [OldName(K1, files.inodes[row]) for row in rows if files.regular[row]]
    known = {one.name: one.inode for one in here}
    if not draw(_MOST):
        others = (Inventory(), Inventory({K1: ANY}), Inventory({K1: 77}))
        broken = (None, Unreadable("cut short"))
        return {
            "inventory": draw(st.sampled_from((*others, *broken))),
            "old_names": here,
        }
    return {"inventory": Inventory(known), "old_names": here}


def _cluster_trouble() -> st.SearchStrategy[dict[str, Any]]:
    """One thing that is wrong with the cluster, or nothing."""
    broken = Unreadable("cut short")
    troubles: tuple[dict[str, Any], ...] = (
        {},
        {"on_storage": None},
        {"in_zookeeper": None},
        {"on_storage": None, "in_zookeeper": None},
        {"on_storage": broken, "in_zookeeper": broken},
        {"in_zookeeper": Cluster("demo", "other")},
        {"storage_epoch": 4},
        {"strangers": ("n9",)},
        {"unreadable": ("b7",)},
        {"finalized_schema": 1},
        {"finalized_schema": 3},
        {"finalized_schema": 4},
        {"finalized_schema": broken},
        {"storage_schema": 1},
        {"storage_schema": 3},
        {"storage_schema": 4},
        {"storage_schema": broken},
        {"storage_schema": replace(broken, newer=True)},
        {"paused": "maintenance"},
    )
    return st.sampled_from(troubles)


@st.composite
def _memories(draw: st.DrawFn) -> dict[str, Remembered] | Unreadable:
    """Draw what leaders remember: mostly nothing that could be lost."""
    if draw(_OFTEN):
        return {}
    if not draw(_MOST):
        return Unreadable("cut short")
    return {
        f"n{number}": remembered(
            *draw(st.lists(_NAMES, unique=True, min_size=1, max_size=5)),
            count=draw(st.integers(0, 6)),
            shrunk_ns=draw(
                st.sampled_from((None, *(NOW_NS - age * SECOND for age in (0, 14, 15))))
            ),
            least=draw(st.integers(0, 2)),
        )
        for number in draw(st.sets(st.integers(0, 3), max_size=3))
    }


@st.composite
def _damages(draw: st.DrawFn, files: FileTable) -> dict[str, Damage]:
    """Draw orders: of files as they are, or as they were before a use."""
    if draw(_OFTEN):
        return {}
    found: dict[str, Damage] = {}
    for row, name in enumerate(files.names):
        if draw(_OFTEN):
            found[name] = damage(
                name,
                inode=files.inodes[row] + (not draw(_MOST)),
                size=files.sizes[row] + (not draw(_MOST)),
                mtime_ns=files.mtimes_ns[row] - (not draw(_MOST)),
            )
    return found


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a world; most have nothing that closes the whole gate."""
    mood = draw(st.sampled_from(("tidy", "tidy", "gone", "calm", "wild")))
    present = draw(st.integers(3, 6))
    wild = mood == "wild"
    count = draw(st.integers(0 if wild else 1, 5 if wild else 3))
    known = THREE if draw(st.sampled_from((False, False, True))) else SCHEMAS
    finalized = draw(st.integers(2, known.newest))
    good = tuple(range(finalized if draw(_MOST) else 2, known.newest + 1))
    nodes = [draw(_node(number, present, mood, good)) for number in range(count)]
    missing = draw(st.sampled_from(list(MissingNodes)))
    wrong = wild or not draw(_MOST)
    trouble = draw(_cluster_trouble()) if wrong else {}
    ages = {kind: AGE_S for kind in Kind if kind is not Kind.UNRECOGNISED}
    policy = CleanerPolicy(
        grace_s=GRACE_S,
        min_age_s={**ages, Kind.RESIZED: AGE_S / 2},
        missing_nodes=missing,
        max_share_percent=draw(st.sampled_from((100.0, 100.0, 50.0, 20.0))),
        max_share_floor=draw(st.sampled_from((0, 1, 100))),
        max_shrink_percent=draw(st.sampled_from((100.0, 50.0, 33.3))),
        max_shrink_floor=draw(st.sampled_from((0, 1, 2))),
        shrink_lasts_s=LASTS_S,
        low_water_percent=draw(st.sampled_from((0.0, 10.0))),
        low_water_grace_s=LOW_GRACE_S,
    )
    entries = draw(_entries(present))
    cut = draw(st.integers(0, len(entries)))
    batches = (ManifestBatch("b1", entries[:cut]), ManifestBatch("b2", entries[cut:]))
    files = draw(_files())
    old = draw(_old_names(files))
    seen = Observation(
        facts=facts(
            *nodes,
            missing_nodes=missing,
            schemas=known,
            **old,
            **{"finalized_schema": finalized, **trouble},
        ),
        files=files,
        storage_now_ns=NOW_NS,
        round=present,
        manifest=batches,
        holds=frozenset() if draw(_OFTEN) else frozenset({draw(_NAMES)}),
        name_cache_s=draw(st.sampled_from((0.0, 0.0, 10.0))),
        space=draw(st.sampled_from((None, (1000, 100), (1000, 99), (0, 0)))),
        remembered=draw(_memories()),
        damaged=draw(_damages(files)),
    )
    return World(policy, seen)
