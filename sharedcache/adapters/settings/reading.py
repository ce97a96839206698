"""Reading settings: options before environment before files before defaults."""

from __future__ import annotations

import difflib
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oslo_config import cfg

from sharedcache.adapters.settings import options
from sharedcache.adapters.settings.model import (
    AgentSettings,
    CleanerSettings,
    Settings,
    SettingsError,
)
from sharedcache.core.model import KernelNaming
from sharedcache.core.names import Kind
from sharedcache.core.policy import MissingNodes
from sharedcache.core.schema import SCHEMAS

DEFAULT_FILE = "/etc/sharedcache/sharedcache.conf"
"""Read if it exists and neither an option nor the environment names files."""

_ENVIRONMENT = {
    "base": "SHAREDCACHE_BASE",
    "zookeeper": "SHAREDCACHE_ZOOKEEPER",
    "cluster": "SHAREDCACHE_CLUSTER",
}
_NEAR = 0.8
_NOT_VALID = re.compile(r" is not valid: (?P<why>.*)\Z", re.DOTALL)


def parser(section: str | None = None) -> cfg.ConfigOpts:
    """Make the parser of a command line.

    ``section`` is ``agent`` or ``cleaner``: its settings become options.  More
    options may be registered before it is given to ``read``.
    """
    command_line = cfg.ConfigOpts()
    command_line.register_cli_opts(options.connection_options())
    for group in (options.SHAREDCACHE, section):
        if group is not None:
            command_line.register_cli_opts(options.options_of(group), group)
    return command_line


def read(
    command_line: cfg.ConfigOpts,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    prog: str = "sharedcache",
    version: str | None = None,
) -> Settings:
    """Read everything; raises ``SettingsError`` with one line on what is wrong.

    Wrong options on the command line end the process with status 2 and a
    usage message, as ``--help`` and ``--version`` end it with 0.
    """
    # oslo.config takes a value in a file that follows an option as said by
    # that option; with the files apart, options win wherever they stand.
    named, rest = _split(_hyphenated(arguments))
    try:
        command_line(
            rest,
            project="sharedcache",
            prog=prog,
            version=version,
            default_config_files=[],
            default_config_dirs=[],
            use_env=False,
        )
    except SystemExit as error:
        # oslo.config ends with 1 for a value of a wrong type, argparse with 2.
        raise SystemExit(2 if error.code else 0) from error
    except cfg.Error as error:
        raise SettingsError(_one_line(error)) from error
    if command_line.config_file or command_line.config_dir:
        # An abbreviation, which argparse knows and the lines above do not.
        raise SettingsError("write --config-file and --config-dir in full")
    paths = named or _default_files(environ)
    values = _from_files(paths)
    files = [_parsed(path) for path in paths]
    for file in files:
        _refuse_unknown(file)
    _override(values, command_line, environ)
    return _Reader(values, files).settings()


def _from_files(paths: Sequence[str]) -> cfg.ConfigOpts:
    """Read the files, the later ones before the earlier ones."""
    values = cfg.ConfigOpts()
    for group in options.SECTIONS:
        values.register_opts(options.options_of(group), group)
    for group, option in options.nova_options():
        values.register_opt(option, None if group == "DEFAULT" else group)
    try:
        values(
            [],
            project="sharedcache",
            default_config_files=list(paths),
            default_config_dirs=[],
            use_env=False,
        )
    except UnicodeDecodeError as error:
        names = " or ".join(paths)
        raise SettingsError(f"{names} is not text: {_one_line(error)}") from error
    except (cfg.Error, OSError) as error:
        raise SettingsError(_one_line(error)) from error
    return values


def _hyphenated(arguments: Sequence[str]) -> list[str]:
    """Spell options with hyphens: ``--agent-uses_file`` is ``--agent-uses-file``."""
    spelled = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
        spelled.append(name + equals + value)
    return spelled


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the configuration files out of a command line, in their order."""
    files: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name not in ("--config-file", "--config-dir"):
            rest.append(argument)
            continue
        path = value if equals else next(left, "")
        if not path:
            raise SettingsError(f"{name} needs a path")
        files.extend([path] if name == "--config-file" else _files_in(path))
    return files, rest


def _files_in(directory: str) -> list[str]:
    found = [str(path) for path in Path(directory).expanduser().glob("*.conf")]
    if not found:
        # The default files, in its place, may be another cluster's.
        raise SettingsError(f"no file {directory}/*.conf is there")
    return sorted(found)


def is_ours(path: str) -> bool:
    """Whether a configuration file has a section of ours."""
    return any(section in options.SECTIONS for section in _parsed(path).sections)


def on_command_line(
    command_line: cfg.ConfigOpts, name: str, group: str | None = None
) -> bool:
    """Whether an option was given on the command line."""
    where = command_line.get_location(name, group)
    return where is not None and where.location is cfg.Locations.command_line


def host_name() -> str:
    """Return this host's name as a node's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("._-")


def _default_files(environ: Mapping[str, str]) -> list[str]:
    named = environ.get("SHAREDCACHE_CONFIG", "")
    if named:
        return [path for path in named.split(":") if path]
    return [DEFAULT_FILE] if Path(DEFAULT_FILE).is_file() else []


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _why(error: Exception) -> str:
    """Say in one line what is wrong with a value."""
    if isinstance(error, cfg.NoSuchOptError):
        # oslo.config's own words name the option itself, which is there.
        return "it refers ($name) to an option that is not known: write it out"
    text = _one_line(error)
    match = _NOT_VALID.search(text)
    return text if match is None else match["why"]


@dataclass(frozen=True, slots=True)
class _File:
    """A configuration file, as it is written."""

    path: str
    sections: Mapping[str, Mapping[str, Sequence[str]]]


def _parsed(path: str) -> _File:
    sections: dict[str, dict[str, Any]] = {}
    try:
        cfg.ConfigParser(path, sections).parse()
    except (OSError, cfg.ParseError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {_one_line(error)}") from error
    return _File(path, sections)


def _refuse_unknown(file: _File) -> None:
    """Refuse a key of our sections, or a section like ours, that nobody knows."""
    for section, keys in file.sections.items():
        if section not in options.SECTIONS:
            near = difflib.get_close_matches(section, options.SECTIONS, 1, _NEAR)
            if near:
                raise SettingsError(
                    f"{file.path}: there is no section [{section}]: did you mean "
                    f"[{near[0]}]?"
                )
            continue
        known = [str(option.dest) for option in options.options_of(section)]
        for key in keys:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, 0.0)
                raise SettingsError(
                    f"{file.path}: [{section}] has no setting {key}: did you mean "
                    f"{near[0]}?"
                )


def _override(
    values: cfg.ConfigOpts, command_line: cfg.ConfigOpts, environ: Mapping[str, str]
) -> None:
    """Let the environment override the files, and options both."""
    for name, variable in _ENVIRONMENT.items():
        if environ.get(variable):
            values.set_override(name, environ[variable], options.SHAREDCACHE)
    for group in options.SECTIONS:
        if group not in command_line:
            continue
        for option in options.options_of(group):
            if on_command_line(command_line, option.dest, group):
                value = command_line[group][option.dest]
                values.set_override(option.dest, value, group)
    # ``--base`` is short for ``--sharedcache-base``.
    for name in _ENVIRONMENT:
        if on_command_line(command_line, name):
            values.set_override(name, command_line[name], options.SHAREDCACHE)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads values one by one, and says where a wrong one stands."""

    conf: cfg.ConfigOpts
    files: Sequence[_File]

    def value(self, section: str, name: str) -> Any:
        """Return one value, ``None`` if it is unset; raises ``SettingsError``."""
        try:
            group = self.conf if section == "DEFAULT" else self.conf[section]
            return group[name]
        except (cfg.Error, ValueError) as error:
            raise SettingsError(f"{self._where(section, name)}: {_why(error)}") from (
                error
            )

    def _where(self, section: str, name: str) -> str:
        for file in reversed(self.files):
            values = file.sections.get(section, {}).get(name)
            if values:
                return f"{file.path}: [{section}] {name} = {values[-1]}"
        return f"[{section}] {name}"

    def text(self, section: str, name: str) -> str:
        """Return a text; empty if it is unset."""
        return str(self.value(section, name) or "").strip()

    def path(self, section: str, name: str) -> str:
        """Return an absolute path; empty if it is unset."""
        text = self.text(section, name)
        return str(Path(text).expanduser().absolute()) if text else ""

    def number(self, section: str, name: str, default: float | None = None) -> float:
        """Return a number."""
        value = self.value(section, name)
        if value is None and default is not None:
            return default
        return float(value)

    def nova_text(self, spellings: Sequence[options.Spelling]) -> str:
        """Return the first spelling of an option of Nova's that is set."""
        return next(
            (text for where in spellings if (text := self.text(*where))), ""
        ).strip()

    def nova_number(
        self, spellings: Sequence[options.Spelling], default: float
    ) -> float:
        """Return the first spelling of an option of Nova's that is set."""
        values = (self.value(*where) for where in spellings)
        return float(next((v for v in values if v is not None), default))

    def settings(self) -> Settings:
        """Put everything together."""
        agent = self._agent()
        base = self.path(options.SHAREDCACHE, "base")
        if not base and agent.instances_path:
            subdirectory = self.nova_text(options.NOVA_SUBDIRECTORY) or "_base"
            base = str(Path(agent.instances_path) / subdirectory)
        lock_path = self.path(options.SHAREDCACHE, "lock_path")
        if not lock_path and base:
            # Beside the base, where Nova has it, for agents and cleaners alike:
            # two that lock in different places do not exclude each other.
            lock_path = str(Path(base).parent / "locks")
        return Settings(
            base=base,
            zookeeper=self.text(options.SHAREDCACHE, "zookeeper"),
            cluster=self.text(options.SHAREDCACHE, "cluster"),
            lock_path=lock_path,
            agent=agent,
            cleaner=self._cleaner(),
            files=tuple(file.path for file in self.files),
            log_form=self.text(options.SHAREDCACHE, "log_form"),
        )

    def _instances_path(self) -> str:
        own = self.path(options.AGENT, "instances_path")
        nova = self.nova_text(options.NOVA_INSTANCES)
        if own or nova:
            return own or str(Path(nova).absolute())
        # Nova's own default.
        state = self.nova_text(options.NOVA_STATE)
        return str(Path(state).absolute() / "instances") if state else ""

    def _agent(self) -> AgentSettings:
        section = options.AGENT
        uses_file = self.path(section, "uses_file")
        instances_path = self._instances_path()
        sources = self.value(section, "sources")
        if sources is None:
            named = {"uses-file": uses_file, "instances": instances_path}
            sources = [name for name, path in named.items() if path]
        version = self.value(section, "schema_version")
        schema_version = SCHEMAS.newest if version is None else int(version)
        return AgentSettings(
            node=self.text(section, "node") or host_name(),
            sources=tuple(dict.fromkeys(name.strip() for name in sources if name)),
            uses_file=uses_file,
            instances_path=instances_path,
            libvirt_uri=self.text(section, "libvirt_uri"),
            compute_service=self.text(section, "compute_service"),
            hypervisors=tuple(filter(None, self.value(section, "hypervisors"))),
            report_interval_s=self.number(section, "report_interval_s"),
            touch_interval_s=self.number(section, "touch_interval_s"),
            session_timeout_s=self.number(section, "session_timeout_s"),
            kernel_naming=_naming(self.text(section, "kernel_naming"), schema_version),
            schema_version=schema_version,
            socket=self.path(section, "socket"),
        )

    def _cleaner(self) -> CleanerSettings:
        section = options.CLEANER
        return CleanerSettings(
            pass_interval_s=self.number(section, "pass_interval_s"),
            session_timeout_s=self.number(section, "session_timeout_s"),
            round_interval_s=self.number(section, "round_interval_s"),
            grace_s=self.number(section, "grace_s"),
            missing_nodes=MissingNodes(self.text(section, "missing_nodes")),
            max_share_percent=self.number(section, "max_share_percent"),
            max_share_floor=int(self.value(section, "max_share_floor")),
            max_shrink_percent=self.number(section, "max_shrink_percent"),
            max_shrink_floor=int(self.value(section, "max_shrink_floor")),
            shrink_lasts_s=self.number(section, "shrink_lasts_s"),
            batch=int(self.value(section, "batch")),
            rate_per_s=self.number(section, "rate_per_s"),
            low_water_percent=self.number(section, "low_water_percent"),
            low_water_grace_s=self.number(section, "low_water_grace_s"),
            auto_finalize=bool(self.value(section, "auto_finalize")),
            min_age_s=self._ages(),
        )

    def _ages(self) -> dict[Kind, float]:
        def age(kind: Kind, default: float) -> float:
            return self.number(options.CLEANER, f"min_age_{kind.label}_s", default)

        original_s = self.nova_number(options.NOVA_ORIGINAL_AGE, options.IMAGE_AGE_S)
        resized_s = self.nova_number(options.NOVA_RESIZED_AGE, options.RESIZED_AGE_S)
        image_s = age(Kind.IMAGE, original_s)
        return {
            Kind.IMAGE: image_s,
            Kind.RESIZED: age(Kind.RESIZED, resized_s),
            Kind.KERNEL: age(Kind.KERNEL, image_s),
            Kind.SWAP: age(Kind.SWAP, image_s),
            Kind.EPHEMERAL: age(Kind.EPHEMERAL, image_s),
            Kind.PARTIAL: age(Kind.PARTIAL, options.PARTIAL_AGE_S),
        }


def _naming(text: str, schema_version: int) -> KernelNaming:
    if text != "auto":
        return KernelNaming(text)
    row = SCHEMAS.row(schema_version) or SCHEMAS.rows[-1]
    return row.naming
