"""Paths as strings, exactly as images spell them.

``pathlib`` drops the parts of a path that it holds to be needless, and an
object for every file of every look would cost more than the look itself.
"""

# ruff: noqa: PTH100, PTH115, PTH116, PTH118, PTH119, PTH120

from __future__ import annotations

import os


def absolute(path: str) -> str:
    """Make a path absolute; links stay as they are."""
    return os.path.abspath(path)


def join(directory: str, name: str) -> str:
    """Put a name below a directory; an absolute name stands alone."""
    return os.path.join(directory, name)


def parent_of(path: str) -> str:
    """Return all but the last part, as the path spells it."""
    return os.path.dirname(path)


def last_of(path: str) -> str:
    """Return the last part."""
    return os.path.basename(path)


def target_of(path: str) -> str:
    """Read a symbolic link, or raise ``OSError``."""
    return os.readlink(path)


def status_of(path: str) -> os.stat_result:
    """Look at what a path leads to, through links, or raise ``OSError``."""
    return os.stat(path)
