"""What programs of ours need that this program starts: settings, environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

Sections = Mapping[str, Mapping[str, object]]


def ini(sections: Sections) -> str:
    """Write settings as an INI file."""
    lines: list[str] = []
    for section, settings in sections.items():
        lines.append(f"[{section}]")
        for key, value in settings.items():
            # A dollar begins a reference to another setting, two are a dollar.
            lines.append(f"{key} = {str(value).replace('$', '$$')}")
    return "\n".join([*lines, ""])


def environment(**more: str) -> dict[str, str]:
    """Return the environment for daemons and commands that are started here.

    The operator's own settings of this program must not lead them to another
    cluster, and what systemd is told is for this process to say.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SHAREDCACHE_") and name != "NOTIFY_SOCKET"
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **more}
