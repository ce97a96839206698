"""What a report speaks against, and whether that must be heard at once.

A report that speaks against the purge of an entry makes an authorisation under way
fail, by the veto counter.  What the report before it spoke against already needs no
counter: the leader has read that report, or one after it, since it read the counter
(``docs/protocol.md``, Two counters).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharedcache.core.model import ManifestBatch, Report, UseIndex


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one report says against purging.

    ``against`` are the entries that it uses by name, sees or saw, or intends to
    restore; ``intends`` those of the last kind; ``complete`` is ``False`` for the
    report of a node that has a failed source.
    """

    against: frozenset[str] = frozenset()
    intends: frozenset[str] = frozenset()
    complete: bool = True

    @staticmethod
    def of(report: Report, manifest: Sequence[ManifestBatch]) -> Spoken:
        """Judge a report by the manifest that was read before its looks."""
        used = UseIndex.over((report.now, report.since))
        named = {e.entry for b in manifest for e in b.entries if used.covers(e.name)}
        return Spoken(
            report.sees | report.saw | report.intents | named,
            report.intents,
            report.complete,
        )

    def must_be_heard(self, told: Spoken | None) -> bool:
        """Whether authorisations under way must fail.

        ``told`` is what the report before spoke against, ``None`` unless it came
        through whole, in this session, and was the last word since.
        """
        before = Spoken() if told is None else told
        return bool(
            self.against - before.against
            or self.intends - before.intends
            or (before.complete and not self.complete)
        )
