"""Settings as they were read, checked one by one but not yet as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sharedcache.core.model import KernelNaming
from sharedcache.core.names import Kind
from sharedcache.core.policy import AgentPolicy, CleanerPolicy, MissingNodes


class SettingsError(ValueError):
    """A setting is missing, misspelt or wrong; the message is one line."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The section ``[agent]``.  Times in seconds; paths may be empty (unset)."""

    node: str
    sources: tuple[str, ...]
    uses_file: str
    instances_path: str
    libvirt_uri: str
    compute_service: str
    hypervisors: tuple[str, ...]
    report_interval_s: float
    touch_interval_s: float
    session_timeout_s: float
    kernel_naming: KernelNaming
    schema_version: int
    socket: str = ""

    def policy(self) -> AgentPolicy:
        """Build the agent's policy; raises ``PolicyError``."""
        return AgentPolicy(
            node=self.node,
            report_interval_s=self.report_interval_s,
            touch_interval_s=self.touch_interval_s,
            session_timeout_s=self.session_timeout_s,
            kernel_naming=self.kernel_naming,
            schema_version=self.schema_version,
        )


@dataclass(frozen=True, slots=True)
class CleanerSettings:
    """The section ``[cleaner]``.  Times in seconds, shares in percent."""

    pass_interval_s: float
    session_timeout_s: float
    round_interval_s: float
    grace_s: float
    missing_nodes: MissingNodes
    max_share_percent: float
    max_share_floor: int
    max_shrink_percent: float
    max_shrink_floor: int
    shrink_lasts_s: float
    batch: int
    rate_per_s: float
    low_water_percent: float
    low_water_grace_s: float
    auto_finalize: bool
    min_age_s: Mapping[Kind, float] = field(default_factory=dict)

    def policy(self) -> CleanerPolicy:
        """Build the cleaner's policy; raises ``PolicyError``."""
        return CleanerPolicy(
            pass_interval_s=self.pass_interval_s,
            session_timeout_s=self.session_timeout_s,
            round_interval_s=self.round_interval_s,
            grace_s=self.grace_s,
            min_age_s=self.min_age_s,
            missing_nodes=self.missing_nodes,
            max_share_percent=self.max_share_percent,
            max_share_floor=self.max_share_floor,
            max_shrink_percent=self.max_shrink_percent,
            max_shrink_floor=self.max_shrink_floor,
            shrink_lasts_s=self.shrink_lasts_s,
            batch=self.batch,
            rate_per_s=self.rate_per_s,
            low_water_percent=self.low_water_percent,
            low_water_grace_s=self.low_water_grace_s,
            auto_finalize=self.auto_finalize,
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was read.

    ``base``, ``zookeeper`` and ``lock_path`` may be empty (unset); ``files``
    are the configuration files, in the order in which they were read;
    ``log_form`` is ``text`` or ``json``.
    """

    base: str
    zookeeper: str
    cluster: str
    lock_path: str
    agent: AgentSettings
    cleaner: CleanerSettings
    files: tuple[str, ...] = ()
    log_form: str = "text"

    def require_base(self) -> str:
        """Return the cache directory; raises ``SettingsError`` if none is set."""
        if not self.base:
            raise SettingsError(
                "no cache directory is set: give --base, SHAREDCACHE_BASE, "
                "[sharedcache] base, or a nova.conf with instances_path"
            )
        return self.base

    def require_zookeeper(self) -> str:
        """Return ZooKeeper's address; raises ``SettingsError`` if none is set."""
        if not self.zookeeper:
            raise SettingsError(
                "no ZooKeeper is set: give --zookeeper host:port,..., "
                "SHAREDCACHE_ZOOKEEPER, or [sharedcache] zookeeper"
            )
        return self.zookeeper
