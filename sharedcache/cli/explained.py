"""What ``explain`` says of one name: as data, and as a page for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from sharedcache.cleaner import ask
from sharedcache.cli import data, output, views
from sharedcache.cli.data import Data
from sharedcache.core.damage import Damage
from sharedcache.core.explain import EntryStory, Explanation, FileStory
from sharedcache.core.gate import Gate
from sharedcache.core.model import NANOSECONDS, Report
from sharedcache.core.obstacles import Obstacle, Word, spell
from sharedcache.core.plan import Verdict
from sharedcache.core.questions import Answer
from sharedcache.core.referrers import Span

_LOCKED = (
    "its Nova lock is held: somebody downloads it or starts a guest on it",
    "a pass that meets the lock keeps the file, and the next one asks again",
)
_IN_USE = (
    "a running qemu has it open, on this node or another",
    "that guest must end, or leave this disk",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was asked beyond the observation; ``None`` where there is no telling.

    ``entries_locked`` tells by entry id whether a qemu has that file locked;
    ``authorised`` holds the ids that may be unlinked at any moment; ``words``
    what nodes answered that were asked which of their sources names the file.
    """

    hold: str | None = None
    nova_lock: bool | None = None
    qemu_lock: bool | None = None
    entries_locked: Mapping[str, bool | None] = field(default_factory=dict)
    authorised: frozenset[str] = frozenset()
    words: Mapping[str, ask.Word] = field(default_factory=dict)


def explanation(
    told: Explanation, evidence: Evidence, gate: Gate, time_s: float
) -> Data:
    """Tell everything; ``time_s`` is the wall clock's, for times to come."""
    file = None if told.file is None else _file(told.file, evidence, time_s)
    entries = [_entry(story, evidence, time_s) for story in told.entries]
    first = file or (entries[0] if entries else None)
    return {
        "name": told.name,
        "kind": told.kind.label,
        "where": ["cache"] * (file is not None) + ["quarantine"] * bool(entries),
        "verdict": None if first is None else first["verdict"],
        "reason": None if first is None else first["reason"],
        "file": file,
        "entries": entries,
        "hold": evidence.hold if told.held else None,
        "locks": {
            "nova": _lock_word(evidence.nova_lock),
            "qemu": _lock_word(evidence.qemu_lock),
        },
        "nodes": [_node(word, evidence.words) for word in told.words],
        "gate": data.gate(gate),
        "time": round(time_s, 3),
    }


def _lock_word(held: bool | None) -> str:  # noqa: FBT001 - the value itself
    return {True: "held", False: "free", None: "unknown"}[held]


def _file(story: FileStory, evidence: Evidence, time_s: float) -> Data:
    obstacles = [_obstacle(one, time_s) for one in story.obstacles]
    obstacles += _locks(nova=evidence.nova_lock, qemu=evidence.qemu_lock)
    return {
        "bytes": story.size,
        "verdict": story.verdict.label,
        "reason": obstacles[0]["rule"] if obstacles else story.why.label,
        "modified_ns": story.mtime_ns,
        "age_s": _seconds(story.age_ns),
        "min_age_s": _seconds(story.min_age_ns),
        "links": story.links,
        "links_in_quarantine": story.own_links,
        "obstacles": obstacles,
        "damage": None if story.damage is None else _damage(story.damage),
    }


def _damage(found: Damage) -> Data:
    return {"what": found.what, "by": found.by, "at": round(found.at, 3)}


def _entry(story: EntryStory, evidence: Evidence, time_s: float) -> Data:
    entry = story.entry
    obstacles = [_obstacle(one, time_s) for one in story.obstacles]
    obstacles += _locks(qemu=evidence.entries_locked.get(entry.entry))
    return {
        "entry": entry.entry,
        "epoch": entry.epoch,
        "round": entry.round,
        "state": entry.state.value,
        "bytes": entry.size,
        "verdict": story.verdict.label,
        "reason": obstacles[0]["rule"] if obstacles else "confirmed",
        "restoring": entry.restoring,
        "authorised": entry.entry in evidence.authorised,
        "qemu_lock": _lock_word(evidence.entries_locked.get(entry.entry)),
        "obstacles": obstacles,
    }


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / NANOSECONDS, 3)


def _obstacle(one: Obstacle, time_s: float) -> Data:
    passes_at = None
    if one.left_ns is not None:
        passes_at = round(time_s + one.left_ns / NANOSECONDS, 3)
    return {
        "rule": one.rule.value,
        "what": one.what,
        "change": one.change,
        "nodes": list(one.nodes),
        "passes_in_s": _seconds(one.left_ns),
        "passes_at": passes_at,
    }


def _locks(*, nova: bool | None = None, qemu: bool | None = None) -> list[Data]:
    """Tell of locks: a plan does not ask for them, the step itself does."""
    found = [("lock-busy", _LOCKED)] if nova else []
    found += [("qemu-lock", _IN_USE)] if qemu else []
    return [
        {
            "rule": rule,
            "what": what,
            "change": change,
            "nodes": [],
            "passes_in_s": None,
            "passes_at": None,
        }
        for rule, (what, change) in found
    ]


def _node(word: Word, words: Mapping[str, ask.Word]) -> Data:
    view = word.view
    answer = words.get(view.node)
    said = view.report if isinstance(view.report, Report) else None
    return {
        "node": view.node,
        "state": view.state.value,
        "bears": word.bears,
        "uses": "now" if word.now else "since" if word.since else None,
        "by_family": word.family,
        "sources": _sources(answer),
        "sources_unknown": answer.why if isinstance(answer, ask.Silence) else None,
        "sees": word.sees,
        "saw": word.saw,
        "restores": word.intends,
        "lost": word.lost,
        "round": None if said is None else said.upto,
        "since_round": None if said is None else said.since_round,
        "complete": None if said is None else said.complete,
        "reported_ns": None if said is None else said.storage_time_ns,
    }


def _sources(answer: ask.Word | None) -> list[Data] | None:
    """Tell what each source says; ``None`` of a node that did not answer."""
    if not isinstance(answer, Answer):
        return None
    return [
        {
            "source": one.source,
            "by_family": one.by_family,
            **_span(one.span),
            "referrers": [
                {
                    "kind": referrer.kind,
                    "name": referrer.name or None,
                    "path": referrer.path or None,
                    **_span(span),
                }
                for referrer, span in one.referrers
            ],
            "more": one.more,
        }
        for one in answer.sightings
    ]


def _span(span: Span) -> Data:
    """Tell a span, in seconds since 1970 on that node's clock."""
    until = span.until_s
    return {
        "since": round(span.since_s, 3),
        "since_at_least": span.at_least,
        "until": None if until is None else round(until, 3),
    }


# The page for people


def show(console: Console, said: Data) -> None:
    """Show what keeps the name, who has to do with it, and the way out."""
    console.print(_headline(said))
    console.print(output.fields_of(list(_facts(said))))
    if said["file"] is not None:
        _show_obstacles(
            console,
            "What keeps it in the cache:",
            "Nothing keeps it: the next pass of a cleaner quarantines it.",
            said["file"]["obstacles"],
        )
    for entry in said["entries"]:
        _show_entry(console, entry)
    _show_nodes(console, said["nodes"])


def _headline(said: Data) -> Text:
    text = Text(said["name"], style="bold")
    if not said["where"]:
        return text.append(" is neither in the cache nor in quarantine")
    style = "yellow" if said["verdict"] == Verdict.KEEP.label else "green"
    where = " and in ".join(_PLACES[place] for place in said["where"])
    text.append(f" is in {where}: ")
    return text.append(f"{said['verdict']} ({said['reason']})", style=style)


_PLACES = {"cache": "the cache", "quarantine": "quarantine"}


def _facts(said: Data) -> Iterator[tuple[str, object]]:
    yield "kind", said["kind"]
    file = said["file"]
    if file is not None:
        yield "size", output.size(file["bytes"])
        if file["min_age_s"] is not None:
            age, least = (spell(int(file[k] * NANOSECONDS)) for k in _AGES)
            yield "untouched for", f"{age} (its kind must be for {least})"
        if file["damage"] is not None:
            yield "found damaged", f"{file['damage']['what']} ({file['damage']['by']})"
        ours = file["links_in_quarantine"]
        yield "names of its inode", f"{file['links']}, {ours} of them in quarantine"
    if said["where"]:
        yield "Nova's lock", said["locks"]["nova"]
        if file is not None:
            yield "qemu's lock", said["locks"]["qemu"]
    yield "hold", said["hold"]
    yield "gate", views.gate_word(said["gate"])


_AGES = ("age_s", "min_age_s")


def _show_obstacles(
    console: Console, title: str, nothing: str, obstacles: list[Data]
) -> None:
    if not obstacles:
        console.print(nothing, style="green")
        return
    console.print(title)
    made = [
        [one["rule"], one["what"], one["change"], _when(one["passes_at"])]
        for one in obstacles
    ]
    timed = any(one["passes_at"] for one in obstacles)
    columns = ("rule", "what is so", "what would have to change", "passes at")
    count = len(columns) if timed else len(columns) - 1
    output.rows(console, columns[:count], [row[:count] for row in made])


def _when(passes_at: float | None) -> str | None:
    if passes_at is None:
        return None
    try:
        return datetime.fromtimestamp(passes_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        # A file may bear a time that no calendar has.
        return "never, as it stands"


def _show_entry(console: Console, entry: Data) -> None:
    console.print(
        f"In quarantine as {entry['entry']}: {output.size(entry['bytes'])}, round "
        f"{entry['round']}, epoch {entry['epoch']}"
    )
    if entry["authorised"]:
        console.print(
            "It is confirmed by every node and may be unlinked at any moment: it can "
            "not be restored any more.",
            style="red",
        )
    _show_obstacles(
        console,
        "What it waits for:",
        "Nothing keeps it: the leader purges it in its next pass.",
        entry["obstacles"],
    )


def _show_nodes(console: Console, nodes: list[Data]) -> None:
    bearing = [node for node in nodes if node["bears"]]
    others = len(nodes) - len(bearing)
    if bearing:
        columns = ("node", "state", "what it says", "round")
        made = [
            [node["node"], node["state"], _says(node), node["round"]]
            for node in bearing
        ]
        output.rows(console, columns, made)
        _show_sources(console, bearing)
    unread = [node["node"] for node in nodes if node["round"] is None]
    if others:
        console.print(f"Nodes that do not name it: {others}.")
    if unread:
        console.print(
            f"Nothing is known of {views.some(unread)}: no readable report.",
            style="yellow",
        )


def _show_sources(console: Console, bearing: list[Data]) -> None:
    """Show which source of which node names the file, by what, since when."""
    made = [
        row
        for node in bearing
        for source in node["sources"] or ()
        for row in _source_rows(node["node"], source)
    ]
    if made:
        console.print("What refers to it there, by the clocks of those nodes:")
        output.rows(console, ("node", "source", "what", "since"), made)
    for node in bearing:
        if node["sources_unknown"]:
            unknown = (
                f"What refers to it on {node['node']} is not known: the node"
                f" {output.printable(node['sources_unknown'])}."
            )
            # A text of its own, for brackets in it are no markup.
            console.print(Text(unknown, style="yellow"))


def _source_rows(node: str, source: Data) -> Iterator[list[object]]:
    """Give a row for each; what an agent wrote may hold anything at all."""
    said = source["referrers"]
    name_of_source = output.printable(source["source"])
    if not said:
        yield [node, name_of_source, "", _time(source)]
    for one in said:
        name = " ".join(part for part in (one["kind"], one["name"]) if part)
        what = f"{name}: {one['path']}" if one["path"] else name
        yield [node, name_of_source, output.printable(what), _time(one)]
    if source["more"]:
        yield [node, name_of_source, f"and {source['more']} more", None]


def _time(span: Data) -> str:
    """Say since when, and until when if it is gone."""
    text = _when(span["since"]) or ""
    if span["since_at_least"]:
        text = f"{text} or before"
    if span["until"] is not None:
        text = f"{text}, gone by {_when(span['until'])}"
    return text


def _says(node: Data) -> list[str]:
    said = {
        "now": "uses it now",
        "since": f"used it in its window, since round {node['since_round']}",
        None: "",
    }[node["uses"]]
    if node["by_family"]:
        said += " (by its original)"
    flags = {
        "sees": "sees its file under the name",
        "saw": "saw its file under the name",
        "restores": "is restoring it",
        "lost": "finds it nowhere: fetch it again",
    }
    return [
        *([said] if said else []),
        *(text for flag, text in flags.items() if node[flag]),
    ]
