"""A node of a release that does not know that a schema is finalized for good.

Today's agent refuses to be at a schema below the finalized one.  A release from
before that rule joins all the same, and what it writes is what this one writes
when it is told schema 1 and not asked whether it may.

    python -m tests.support.old_release --config-file agent.conf
"""

from __future__ import annotations

from agents import node
from sharedcache.core.model import KernelNaming
from sharedcache.core.schema import SCHEMAS, SchemaTable


class HeedlessTable(SchemaTable):
    """The table of a release that starts under any finalized schema."""

    __slots__ = ()

    def refusal(self, finalized: int, version: int, naming: KernelNaming) -> None:
        """Refuse nobody."""


HEEDLESS = HeedlessTable(SCHEMAS.rows)


if __name__ == "__main__":
    SchemaTable.refusal = HeedlessTable.refusal  # type: ignore[method-assign]
    node.main()
