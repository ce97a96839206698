"""The in-memory adapters' contract runs with the simulation that they are for."""

from __future__ import annotations

import os

collect_ignore_glob = (
    [] if os.environ.get("SHAREDCACHE_SIMULATION") else ["test_*_memory.py"]
)
