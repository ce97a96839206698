"""What the operator chose, what was chosen before, and the settings made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sharedcache.adapters import settings as ini_files
from sharedcache.adapters.settings import Settings, SettingsError
from sharedcache.adapters.settings.reading import host_name
from sharedcache.cli.children import ini
from sharedcache.cli.sources import build_sources
from sharedcache.cli.standalone.place import State, write_private

USER = "sharedcache"
"""The user whose password ZooKeeper's nodes are for."""

_BASE = "_base"
_SETTABLE = ("agent", "cleaner")
_NO_SOURCE = (
    "nothing says what is in use, so every file would look unused: give --instances "
    "DIRECTORY (Nova's, with the guests' disks), --uses-file FILE, or --config-file "
    "with a nova.conf; a uses file with {} in it says that nothing is in use"
)

Changes = Mapping[str, Mapping[str, str]]
"""Settings by section and name, as ``--set`` gives them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The options of a start; empty ones were not given."""

    base: str = ""
    instances: str = ""
    uses_file: str = ""
    config_files: tuple[str, ...] = ()
    changes: Changes = field(default_factory=dict)

    def after(self, kept: State | None) -> Choice:
        """Take the sources of the last start if this one names none."""
        named = self.instances or self.uses_file or self.config_files
        if kept is None or named:
            return self
        return replace(
            self,
            instances=kept.instances,
            uses_file=kept.uses_file,
            config_files=kept.config_files,
        )


def parse_changes(words: Sequence[str]) -> Changes:
    """Read ``section.name=value``; raises ``SettingsError``."""
    changes: dict[str, dict[str, str]] = {}
    for word in words:
        where, equals, value = word.partition("=")
        section, dot, name = where.strip().partition(".")
        if not (equals and dot and name) or "\n" in word:
            raise SettingsError(
                f"--set {word}: write section.name=value, such as "
                "cleaner.min_age_image_s=600"
            )
        if section not in _SETTABLE:
            raise SettingsError(
                f"--set {word}: the section is {' or '.join(_SETTABLE)}, not {section}"
            )
        changes.setdefault(section, {})[name] = value.strip()
    return changes


def base_of(choice: Choice, kept: State | None) -> str:
    """Tell the cache directory: an absolute path.

    Raises ``SettingsError`` if none can be told.
    """
    if choice.base:
        return str(Path(choice.base).absolute())
    if choice.instances:
        return str(Path(choice.instances).absolute() / _BASE)
    # In files are Nova's own names for its base as well.
    base = _read(choice.config_files).base if choice.config_files else ""
    if base or kept is not None:
        return base or (kept.base if kept is not None else "")
    raise SettingsError(
        "which cache? Give --instances DIRECTORY (Nova's instances_path), or --base "
        "DIRECTORY with --uses-file FILE"
    )


def _read(paths: Sequence[str]) -> Settings:
    arguments = [f"--config-file={path}" for path in paths]
    # Neither the environment nor /etc says anything of a private cluster.
    return ini_files.read(ini_files.parser(), arguments, {})


def address(state: State) -> str:
    """Return ZooKeeper's URL, with its password."""
    return f"zookeeper://{USER}:{state.password}@127.0.0.1:{state.port}"


def render(choice: Choice, state: State) -> str:
    """Write the settings file that follows the operator's own files."""
    agent: dict[str, object] = {}
    if choice.instances:
        agent["instances_path"] = Path(choice.instances).absolute()
    if choice.uses_file:
        agent["uses_file"] = Path(choice.uses_file).absolute()
    if state.node:
        agent["node"] = state.node
    sections: dict[str, dict[str, object]] = {
        "sharedcache": {
            "base": state.base,
            "zookeeper": address(state),
            "cluster": state.cluster,
        },
        "agent": {**agent, **choice.changes.get("agent", {})},
        "cleaner": dict(choice.changes.get("cleaner", {})),
    }
    head = (
        "# Written anew at every start of `sharedcache standalone`; it holds the\n"
        "# password of its ZooKeeper.\n"
    )
    return head + ini(sections)


def chain(choice: Choice, settings_file: Path) -> list[str]:
    """Return the settings files of the parts, in their order.

    The paths are absolute: the parts, and other commands, run elsewhere.
    """
    return [*(_absolute(one) for one in choice.config_files), str(settings_file)]


def settle(choice: Choice, state: State, path: Path) -> tuple[Settings, State]:
    """Write the settings file and read all of it back, as the parts will.

    Returns the settings, and the state with the choice kept in it.  Raises
    ``SettingsError``: settings that are wrong, or no source of use at all.
    """
    _refuse_other_cluster(choice.config_files)
    # A host may be renamed; its node may not, or the old one would be missing.
    settings = _tried(choice, replace(state, node=""), path)
    node = settings.agent.node
    if state.node and node == host_name():
        node = state.node
    _require_sources(choice, settings)
    done = replace(
        state,
        node=node,
        instances=_absolute(choice.instances),
        uses_file=_absolute(choice.uses_file),
        config_files=tuple(_absolute(one) for one in choice.config_files),
    )
    settings = _tried(choice, done, path)
    write_private(path, render(choice, done))
    return settings, done


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _tried(choice: Choice, state: State, path: Path) -> Settings:
    """Read the settings as they would be; raises ``SettingsError``."""
    candidate = path.with_name(f".{path.name}.tried")
    try:
        write_private(candidate, render(choice, state))
        settings = _read([*choice.config_files, str(candidate)])
        settings.agent.policy()
        settings.cleaner.policy()
    except SettingsError as error:
        raise SettingsError(str(error).replace(f"{candidate}: ", "--set: ")) from error
    finally:
        candidate.unlink(missing_ok=True)
    return settings


def _require_sources(choice: Choice, settings: Settings) -> None:
    """Refuse to start where nothing, or less than was named, says what is used."""
    if not settings.agent.sources:
        raise SettingsError(_NO_SOURCE)
    named = {"instances": choice.instances, "uses-file": choice.uses_file}
    for name, path in named.items():
        if path and name not in settings.agent.sources:
            raise SettingsError(
                f"[agent] sources leaves out {name}, whose path you give: add it there"
            )
    build_sources(settings)


def _refuse_other_cluster(paths: Sequence[str]) -> None:
    """Refuse files of a cluster that has a ZooKeeper of its own."""
    if not paths:
        return
    settings = _read(paths)
    if settings.zookeeper:
        raise SettingsError(
            f"{' and '.join(paths)}: [sharedcache] zookeeper is set, and standalone "
            "has a private one: for a cluster use sharedcache-agent and "
            "sharedcache-cleaner"
        )
