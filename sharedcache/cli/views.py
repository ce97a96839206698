"""Data as tables, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from sharedcache.cli import output
from sharedcache.cli.data import Data

SHOWN = 3
"""How many nodes a table names before it counts the rest."""

SHOWN_HOLDERS = 10
"""How many rows tell who holds files back before the rest is summed up."""


def gate(console: Console, data: Data) -> None:
    """Show the gate and each reason with what to do."""
    for part in gate_parts(data):
        console.print(part)


def gate_parts(data: Data) -> Iterator[RenderableType]:
    """Give the gate, and each of its reasons with what to do.

    Nodes with the same reason share one, so that a thousand of them are read
    at a glance; ``-f json`` has each.
    """
    yield Text("Gate: ").append_text(gate_word(data))
    if not data["reasons"]:
        return
    by_code: dict[tuple[str, str], list[Data]] = {}
    for reason in data["reasons"]:
        by_code.setdefault((reason["closes"], reason["code"]), []).append(reason)
    for (closes, code), alike in by_code.items():
        head = Text(code, style="bold").append(f" closes {_WHAT[closes]}")
        subjects = [reason["subject"] for reason in alike]
        head.append(f": {some(subjects, sum(map(_stands_for, subjects)))}")
        yield Padding(head, (0, 0, 0, 2), expand=False)
        yield Padding(Text(_advice(alike)), (0, 0, 0, 6), expand=False)


_WHAT = {"all": "all", "purge": "purging"}


def _advice(alike: list[Data]) -> str:
    first = output.printable(alike[0]["message"])
    if len(alike) == 1:
        return first
    alike_in_all = sum(_stands_for(reason["subject"]) for reason in alike)
    return f"{first} (and {alike_in_all - 1} more like it)"


def _stands_for(subject: str) -> int:
    """Return how many a reason speaks for: ``9950 more`` is the rest of a long list."""
    number, _, word = subject.partition(" ")
    return int(number) if word == "more" and number.isdecimal() else 1


def some(names: Iterable[str], in_all: int | None = None) -> str:
    """Name the first few and count the rest; ``in_all`` if names stand for more."""
    every = list(names)
    more = (len(every) if in_all is None else in_all) - SHOWN
    shown = ", ".join(every[:SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def moment(when: float) -> str:
    """Spell a time, in seconds since 1970, in UTC."""
    try:
        made = datetime.fromtimestamp(when, UTC)
    except (OverflowError, ValueError, OSError):
        # A clock that was wrong by ages.
        return f"{when:.0f}"
    return f"{made:%Y-%m-%d %H:%M:%S}"


def gate_word(data: Data) -> Text:
    """Say in a few words what the gate lets through."""
    if data["purge_open"]:
        return Text("open", style="green")
    if data["open"]:
        return Text("open for quarantine, closed for purging", style="yellow")
    return Text("closed", style="red")


def amount(data: Data) -> str:
    """Say how many files and how much they hold."""
    return f"{data['files']} files, {output.size(data['bytes'])}"


def free_space(data: Data) -> str:
    """Say how much space is free, and whether that is below the mark."""
    if data["bytes"] is None:
        return "not known"
    low = ", below the low-water mark" if data["low"] else ""
    return f"{output.size(data['free_bytes'])} of {output.size(data['bytes'])}{low}"


def status(console: Console, data: Data) -> None:
    """Show how the cluster is doing."""
    for part in status_parts(data):
        console.print(part)


def _leaderless(hindrance: str | None) -> str:
    """Say what to do where nobody leads."""
    if hindrance is None:
        return "none: start sharedcache-cleaner"
    return f"none, and no cleaner can stand for election: {hindrance}"


def status_parts(data: Data) -> Iterator[RenderableType]:
    """Give what ``status`` shows, from top to bottom."""
    nodes = data["nodes"]
    states = ", ".join(f"{n} {state}" for state, n in nodes.items() if state != "total")
    rollout = data["rollout"]
    taken_at = datetime.fromtimestamp(data["time"], UTC).isoformat(" ", "seconds")
    yield output.fields_of(
        [
            ("cluster", data["cluster"]),
            ("leader", data["leader"] or _leaderless(data["no_leader_can"])),
            ("epoch", data["epoch"]),
            ("round", data["round"]),
            ("rollout", f"{rollout['state']}, schema {rollout['finalized_schema']}"),
            ("nodes", f"{nodes['total']}: {states}"),
            *_not_live(data["nodes_not_live"]),
            ("cache", amount(data["cache"])),
            ("reclaimable", amount(data["reclaimable"])),
            ("quarantine", amount(data["quarantine"])),
            ("free space", free_space(data["space"])),
            ("time", taken_at),
        ]
    )
    yield from gate_parts(data["gate"])
    yield from _caveats(data["caveats"])
    yield from _damaged(data["damaged"])
    yield from _holders(data["held_back_by_node"])
    others = [o for o in data["held_back"] if not o["by"].startswith(_OF_NODES)]
    if others:
        yield Text("What else the quarantine waits for:")
        yield output.table_of(
            ("files", "size", "by"), _cut(others, lambda one: [one["by"]])
        )


_WHYS = {
    "gate": "closes the gate",
    "uses": "uses them",
    "sees": "still sees them",
    "restores": "restores them",
    "awaited": "is yet to report",
}
"""What a node does to the files that it holds back, by ``held_back_by_node``'s why."""

_OF_NODES = ("gate: node-", "used by ", "still seen by ", "seen a while ago by ")
"""How a wait begins that names a node, which has its row in the table by node."""


def _not_live(nodes: list[Data]) -> Iterator[tuple[str, str]]:
    """Name the first few nodes of each state but the good one."""
    for state in ("missing", "degraded", "sealed"):
        names = [one["node"] for one in nodes if one["state"] == state]
        if names:
            yield f"  {state}", some(names)


def _caveats(caveats: list[Data]) -> Iterator[RenderableType]:
    if not caveats:
        return
    yield Text("Worth knowing:")
    made = [[one["what"], some(one["nodes"])] for one in caveats]
    yield output.table_of(("what", "nodes"), made)


def _damaged(damaged: list[Data]) -> Iterator[RenderableType]:
    if not damaged:
        return
    yield Text("Found damaged, and taken once nobody uses it:", style="red")
    made = [
        [one["name"], output.size(one["bytes"]), one["where"], some(one["users"])]
        for one in damaged[:SHOWN_HOLDERS]
    ]
    more = len(damaged) - SHOWN_HOLDERS
    if more > 0:
        made.append([f"and {more} more (-f json has all)", "", "", ""])
    yield output.table_of(("name", "size", "where", "used by"), made)


def _holders(holders: list[Data]) -> Iterator[RenderableType]:
    if not holders:
        return
    yield Text("Held back in quarantine, by node:")
    yield output.table_of(
        ("files", "size", "node", "state", "why"),
        _cut(
            holders,
            lambda one: [one["node"], one["state"], [_WHYS[w] for w in one["why"]]],
        ),
    )


def _cut(data: list[Data], cells: Callable[[Data], list[Any]]) -> list[list[Any]]:
    """Give the first rows, and one that says how many there are more."""
    made = [
        [one["files"], output.size(one["bytes"]), *cells(one)]
        for one in data[:SHOWN_HOLDERS]
    ]
    more = len(data) - SHOWN_HOLDERS
    if more > 0:
        made.append(["", "", f"and {more} more (-f json has all)"])
        made[-1] += [""] * (len(made[0]) - len(made[-1]))
    return made


def nodes(console: Console, data: list[Data]) -> None:
    """Show a row for each node, and how many there are in each state."""
    columns = ("node", "state", "schema", "naming", "uses", "round", "complete")
    output.rows(console, columns, [list(row.values()) for row in data])
    if data:
        console.print(_counted([row["state"] for row in data]))


def _counted(states: list[str]) -> str:
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{len(states)} {'node' if len(states) == 1 else 'nodes'}: {told}"


def pairs(console: Console, data: Data) -> None:
    """Show names and values as they are."""
    output.fields(console, [(key, _shown(value)) for key, value in data.items()])


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return "\n".join(
            " ".join(str(part) for part in one.values())
            if isinstance(one, dict)
            else str(one)
            for one in value
        )
    return value


def plan(console: Console, data: Data) -> None:
    """Show the gate, and a row for each file."""
    gate(console, data["gate"])
    if not data["files"]:
        word = "why files are kept"
        if any(reason["code"] == "brake" for reason in data["gate"]["reasons"]):
            word = "what the brake holds back"
        console.print(f"Nothing to take or purge: `plan --all` says {word}.")
        return
    columns = ("name", "kind", "size", "verdict", "reason", "waiting for")
    made = [
        [
            one["name"],
            one["kind"],
            output.size(one["bytes"]),
            one["verdict"],
            one["reason"],
            one.get("waiting_for"),
        ]
        for one in data["files"]
    ]
    output.records(console, columns, made)


def quarantine(console: Console, data: list[Data]) -> None:
    """Show a row for each quarantined file."""
    columns = ("name", "entry", "epoch", "round", "size", "waiting for")
    made = [
        [
            one["name"],
            one["entry"],
            one["epoch"],
            one["round"],
            output.size(one["bytes"]),
            one["waiting_for"],
        ]
        for one in data
    ]
    if not made:
        console.print("The quarantine is empty.")
        return
    output.records(console, columns, made)


def rollout(console: Console, data: Data) -> None:
    """Show where the rollout stands and who stands in its way."""
    for part in rollout_parts(data):
        console.print(part)


def rollout_parts(data: Data) -> Iterator[RenderableType]:
    """Give what ``rollout status`` shows, from top to bottom.

    Nodes that are not ready for the same reason share a row.
    """
    waiting = len(data["waiting_for"])
    early = data["early_writers"]
    rows = [
        ("state", data["state"]),
        ("finalized schema", data["finalized_schema"]),
        ("newest schema", data["newest_schema"]),
        ("nodes", f"{data['nodes']}: {data['nodes'] - waiting} ready, {waiting} not"),
    ]
    if early:
        rows.append(
            ("early writers", f"{len(early)}: {some(early)} (old cleaners must be off)")
        )
    if data["unrostered"]:
        rows.append(("not on the roster", some(data["unrostered"])))
    if data["appeared"]:
        rows.append(("names that appeared", some(data["appeared"])))
    if data["held"] is not None:
        rows.append(("held", data["held"]))
    yield output.fields_of(rows)
    if data["groups"]:
        yield output.table_of(
            ("nodes", "which", "what is waited for"),
            [[g["count"], some(g["nodes"]), g["why"]] for g in data["groups"]],
        )
    yield Text(data["advice"])


def cleaned(console: Console, data: Data) -> None:
    """Show what one pass did."""
    output.fields(
        console,
        [
            ("epoch", data["epoch"]),
            ("quarantined", len(data["quarantined"])),
            ("purged", len(data["purged"])),
        ],
    )
    gate(console, data["gate"])
    done = [[name, "quarantined"] for name in data["quarantined"]]
    done += [[name, "purged"] for name in data["purged"]]
    output.rows(console, ("name", "what was done"), done)
