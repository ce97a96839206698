"""Data as tables, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from sharedcache.cli import output
from sharedcache.cli.data import Data


def gate(console: Console, data: Data) -> None:
    """Show the gate and each reason with what to do."""
    console.print(Text("Gate: ").append_text(gate_word(data)))
    if data["reasons"]:
        columns = ("closes", "reason", "subject", "what to do")
        made = [
            [reason["closes"], reason["code"], reason["subject"], reason["message"]]
            for reason in data["reasons"]
        ]
        output.rows(console, columns, made)


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
    nodes = data["nodes"]
    states = ", ".join(f"{n} {state}" for state, n in nodes.items() if state != "total")
    rollout = data["rollout"]
    taken_at = datetime.fromtimestamp(data["time"], UTC).isoformat(" ", "seconds")
    output.fields(
        console,
        [
            ("cluster", data["cluster"]),
            ("leader", data["leader"]),
            ("epoch", data["epoch"]),
            ("round", data["round"]),
            ("rollout", f"{rollout['state']}, schema {rollout['finalized_schema']}"),
            ("nodes", f"{nodes['total']}: {states}"),
            ("cache", amount(data["cache"])),
            ("reclaimable", amount(data["reclaimable"])),
            ("quarantine", amount(data["quarantine"])),
            ("free space", free_space(data["space"])),
            ("time", taken_at),
        ],
    )
    gate(console, data["gate"])
    if data["held_back"]:
        console.print("Held back in quarantine:")
        made = [
            [one["files"], output.size(one["bytes"]), one["by"]]
            for one in data["held_back"]
        ]
        output.rows(console, ("files", "size", "by"), made)


def nodes(console: Console, data: list[Data]) -> None:
    """Show a row for each node."""
    columns = ("node", "state", "schema", "kernel naming", "uses", "round", "complete")
    output.rows(console, columns, [list(row.values()) for row in data])


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
    output.rows(console, columns, made)


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
    output.rows(console, columns, made)


def rollout(console: Console, data: Data) -> None:
    """Show where the rollout stands and who stands in its way."""
    output.fields(
        console,
        [
            ("state", data["state"]),
            ("finalized schema", data["finalized_schema"]),
            ("newest schema", data["newest_schema"]),
        ],
    )
    if data["waiting_for"]:
        made = [[one["node"], one["why"]] for one in data["waiting_for"]]
        output.rows(console, ("node", "why it is not ready"), made)
    console.print(data["advice"])


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
