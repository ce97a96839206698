"""Sources of use, found through the entry points ``sharedcache.sources``.

Those that come with this package are classes with arguments of their own.
Anybody else's entry point is called with the whole ``Settings`` and returns a
``sharedcache.core.ports.Source``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from sharedcache.adapters.instances.reader import ChainReader
from sharedcache.adapters.settings import Settings, SettingsError
from sharedcache.core.model import KernelNaming
from sharedcache.core.ports import Source
from sharedcache.core.schema import SCHEMAS

GROUP = "sharedcache.sources"


def _uses_file(kind: Any, settings: Settings) -> Source:
    if not settings.agent.uses_file:
        raise SettingsError("source uses-file needs [agent] uses_file: the JSON file")
    # A node of the old release knows kernels by their raw ids only.
    row = SCHEMAS.row(settings.agent.schema_version)
    both_namings = row is not None and KernelNaming.SHA1 in row.reads
    source: Source = kind(settings.agent.uses_file, both_namings=both_namings)
    return source


def _instances(kind: Any, settings: Settings) -> Source:
    if not settings.agent.instances_path:
        raise SettingsError(
            "source instances needs [agent] instances_path, or a nova.conf that has it"
        )
    source: Source = kind(settings.agent.instances_path, settings.require_base())
    return source


def _proc(kind: Any, settings: Settings) -> Source:
    source: Source = kind(settings.require_base())
    return source


def _libvirt(kind: Any, settings: Settings) -> Source:
    base = settings.require_base()
    # One for looks and one for events, which come on another thread.
    readers = (ChainReader(base), ChainReader(base))
    source: Source = kind(settings.agent.libvirt_uri, readers)
    return source


_OWN: Mapping[str, Callable[[Any, Settings], Source]] = {
    "uses-file": _uses_file,
    "instances": _instances,
    "proc": _proc,
    "libvirt": _libvirt,
}


def build_sources(settings: Settings) -> list[Source]:
    """Build the sources that are on; raises ``SettingsError``.

    None at all is refused: the agent would report that nothing is in use.
    """
    names = settings.agent.sources
    if not names:
        raise SettingsError(
            "no source of use is on, so this agent would report that nothing is in "
            "use: set [agent] uses_file or instances_path, or give a nova.conf"
        )
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name in names:
        if name not in known:
            raise SettingsError(
                f"[agent] sources: there is no source {name}; known are "
                f"{', '.join(sorted(known)) or 'none (is the package installed?)'}"
            )
    return [_build(known[name], settings) for name in names]


def _build(entry: EntryPoint, settings: Settings) -> Source:
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"source {entry.name} ({entry.value}) cannot be loaded: {error}"
        ) from error
    own = _OWN.get(entry.name)
    if own is not None:
        return own(kind, settings)
    source: Source = kind(settings)
    return source
