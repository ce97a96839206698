"""Another release of this very tree: a copy with what a later one may change.

There is one release so far, so a later one is made from it: the packages are
copied, and the copy's modules get a few lines at their ends.  Its processes find
the copy by ``PYTHONPATH`` and share no file with those of this release.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sharedcache.core import records

if TYPE_CHECKING:
    from tests.support.cluster import Daemon

_TREE = Path(__file__).parents[2]

_FIELDS = '''

def _more(write):
    """Let a later release say more than this one reads."""
    return lambda *given: {**write(*given), "since_the_next_release": [1, "x"]}


for _name in (
    "report_to_record",
    "batch_to_record",
    "rollout_to_record",
    "authorisation_to_record",
):
    globals()[_name] = _more(globals()[_name])
'''

_ROW = """

SCHEMAS = SchemaTable(
    (
        *SCHEMAS.rows,
        SchemaVersion(
            3,
            "a third schema",
            reads=SCHEMAS.rows[-1].reads,
            naming=SCHEMAS.rows[-1].naming,
            cleaning=True,
        ),
    )
)
"""


class OtherRelease:
    """A release ``version`` below a directory; ``breaking`` brings new forms.

    Any of them adds fields to records.  A breaking one raises the number of its
    records, so that this release cannot read them, and knows a third schema.
    """

    def __init__(self, root: Path, version: str, *, breaking: bool = False) -> None:
        self.version, self.path = version, root / version
        for package in ("sharedcache", "agents"):
            shutil.copytree(
                _TREE / package,
                self.path / package,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        self._change("sharedcache/__init__.py", f'\n__version__ = "{version}"\n')
        self._change("sharedcache/core/codec.py", _FIELDS)
        if breaking:
            self._change("sharedcache/core/schema.py", _ROW)
            self._raise_numbers()

    def _raise_numbers(self) -> None:
        """Give every kind of record a number that this release does not know."""
        path = self.path / "sharedcache/core/records.py"
        text = path.read_text()
        for name, number in (
            ("RECORD_SCHEMA", records.RECORD_SCHEMA),
            ("CAREFUL_SCHEMA", records.CAREFUL_SCHEMA),
        ):
            line = f"\n{name} = {number}\n"
            assert text.count(line) == 1
            newer = records.CAREFUL_SCHEMA + 1
            text = text.replace(line, f"\n{name} = {newer}\n")
        path.write_text(text)

    def _change(self, module: str, more: str) -> None:
        path = self.path / module
        path.write_text(path.read_text() + more)

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to be of this release."""
        return {"PYTHONPATH": str(self.path)}

    def takes_over(self, daemon: Daemon) -> None:
        """Stop a daemon of any release, if it runs, and start it as this one's."""
        switch(daemon, self.environ)


def switch(daemon: Daemon, environ: dict[str, str]) -> None:
    """Start a daemon, again if it runs, with another environment."""
    if daemon.running:
        assert daemon.stop() == 0
    daemon.environ.clear()
    daemon.environ.update(environ)
    daemon.start()
