"""Whether `make coverage` counts what the processes that tests start run."""

from __future__ import annotations

import os


def counted() -> bool:
    """Whether they should end in order, so that they report.

    Coverage sets it for the processes that it is to count too; one that is killed
    reports nothing.
    """
    return "COVERAGE_PROCESS_CONFIG" in os.environ
