"""Settings: INI files, environment and options, through oslo.config."""

from __future__ import annotations

from sharedcache.adapters.settings.model import (
    AgentSettings,
    Settings,
    SettingsError,
)
from sharedcache.adapters.settings.reading import parser, read

__all__ = ["AgentSettings", "Settings", "SettingsError", "parser", "read"]
