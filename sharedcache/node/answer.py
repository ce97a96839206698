"""Answering questions about one name: which source saw what, and since when.

Nothing rests on it: an agent that cannot answer is as safe as one that can.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from sharedcache import ledger
from sharedcache.core import codec, questions
from sharedcache.core.ports import (
    ConflictError,
    CoordinationError,
    Delete,
    OutcomeUnknownError,
    Record,
    Set,
)
from sharedcache.core.referrers import Sightings
from sharedcache.node.world import World

AT_ONCE = 64
"""Questions that are answered in one step; the rest waits for the next."""

KEEP_S = 60.0
"""How long an answer stays that nobody has taken away (seconds)."""


@dataclass(slots=True)
class Answerer:
    """Answers what is asked of one node, from what its last look remembers."""

    world: World
    _session: int = 0
    _changes: int = -1
    _done: dict[str, float] = field(default_factory=dict)
    _trouble: str = ""

    def step(self, sightings: Sightings) -> None:
        """Answer what is new, and take away what nobody fetched."""
        try:
            if self._asked():
                self._answer(sightings)
            self._tidy()
        except (CoordinationError, OutcomeUnknownError) as error:
            # Whoever asks gives up after a while; the next step tries again.
            self._changes = -1
            if self._trouble != str(error):
                self._trouble = str(error)
                self.world.journal.event("questions-unanswered", error=error)
        else:
            self._trouble = ""

    def _asked(self) -> bool:
        coordination, path = self.world.coordination, self._path
        session = coordination.session_id()
        if session != self._session:
            # A tree that was lost and made anew has no such place.
            coordination.ensure(path)
            self._session, self._changes = session, -1
        changes = coordination.watch(path)
        asked, self._changes = changes != self._changes, changes
        return asked

    def _answer(self, sightings: Sightings) -> None:
        coordination = self.world.coordination
        asked = coordination.children(self._path)
        fresh = [one for one in asked if one not in self._done][:AT_ONCE]
        paths = [f"{self._path}/{one}" for one in fresh]
        now = self.world.clock.boottime()
        records = coordination.get_many(paths)
        for one, path, record in zip(fresh, paths, records, strict=True):
            if record is not None:
                self._answer_one(path, record, sightings)
            self._done[one] = now
        if len(fresh) == AT_ONCE:
            self._changes = -1

    def _answer_one(self, path: str, record: Record, sightings: Sightings) -> None:
        try:
            name = questions.question_from_record(codec.unpack(record.data))
        except codec.RecordError:
            # Some later release's, or nobody's: it goes with the others.
            return
        if name is None:
            return
        told = questions.Answer(name, sightings.of(name), self.world.clock.wall())
        data = codec.pack(questions.answer_to_record(told))
        try:
            self.world.coordination.commit([Set(path, data, record.version)])
        except ConflictError:
            # Taken back meanwhile.
            return

    def _tidy(self) -> None:
        """Delete what was answered a while ago, by this run or by one before it."""
        now = self.world.clock.boottime()
        for one, then in list(self._done.items()):
            if now - then < KEEP_S:
                continue
            # As a rule whoever asked has taken it away.
            with suppress(ConflictError):
                self.world.coordination.commit([Delete(f"{self._path}/{one}", None)])
            del self._done[one]

    @property
    def _path(self) -> str:
        return ledger.questions_path(self.world.policy.node)
