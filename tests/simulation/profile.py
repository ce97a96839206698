"""What a seed decides before anything happens: the cluster, and its troubles.

Every seed switches another handful of troubles on, so that some schedules are
all pauses, others all lost answers, and few are everything at once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.ports import Odds

TROUBLES = (
    "kill",
    "crash",
    "reboot",
    "cut",
    "hang",
    "full",
    "broken",
    "expire",
    "stall",
    "source",
    "operator",
    "newcomer",
    "old-node",
)
"""Things that happen to the cluster, beside what happens to single calls."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One cluster and its troubles.  Times in seconds.

    ``cache_s`` is how long clients keep names and listings, as they report it;
    ``kept_s`` how long they really keep cache names, which may be longer: only
    the judgement of nodes that do not look may rest on the reported time.
    ``cleaner_cache_s`` is the former for cleaners' mounts, ``None`` where it is the
    same.
    ``share_percent`` is above which share of the files a pass is braked.  ``torn``
    is the chance that time passes between two answers to requests that
    were sent together.
    """

    nodes: int = 2
    cleaners: int = 2
    images: int = 3
    guests: int = 2
    trouble_s: float = 40.0
    report_interval_s: float = 1.0
    touch_interval_s: float = 5.0
    pass_interval_s: float = 2.0
    round_interval_s: float = 0.3
    session_timeout_s: float = 4.0
    grace_s: float = 0.0
    min_age_s: float = 2.0
    batch: int = 10
    share_percent: float = 100.0
    cache_s: float = 0.0
    kept_s: float = 0.0
    cleaner_cache_s: float | None = None
    stale: float = 0.5
    lag_s: float = 0.0
    guest_interval_s: float = 2.0
    touches: bool = True
    shared_locks: bool = True
    qemu_locks: bool = False
    events: bool = True
    drift: bool = False
    uneven: bool = False
    torn: float = 0.0
    hunted: bool = False
    odds: Odds = field(default_factory=Odds)
    troubles: tuple[str, ...] = ()
    trouble_interval_s: float = 4.0
    story: str = ""
    founding_schema: int | None = None

    @property
    def longest_cache_s(self) -> float:
        """How long any client keeps names and listings, as it reports it."""
        return max(self.cache_s, self.cleaner_cache_s or 0.0)


STORIES = 0.3
"""Share of schedules that tell one of the stories, each as likely as the others."""

CROWDED = 0.6
"""Share of the others in which guests crowd around few files and looks are slow."""


TORN = 0.5
"""Share of schedules in which reads that are sent together are torn."""


def draw(rng: random.Random, stories: Sequence[str]) -> Profile:
    """Draw a profile: a story, a crowd around few files, or any troubled cluster."""
    if rng.random() < STORIES:
        return told(rng.choice(stories), rng)
    return _crowded(rng) if rng.random() < CROWDED else _troubled(rng)


def told(story: str, rng: random.Random) -> Profile:
    """Draw the cluster in which a story is told: calm but for the story's own doing.

    Sessions last, so that a call may take long and cost nobody the office.
    """
    call_s = rng.choice(((0.001, 0.01), (0.001, 0.03), (0.005, 0.03)))
    return Profile(
        nodes=2,
        cleaners=2,
        images=rng.choice((4, 6)),
        guest_interval_s=1e9,
        trouble_s=30.0,
        report_interval_s=rng.choice((0.2, 0.4)),
        touch_interval_s=30.0,
        pass_interval_s=0.3,
        round_interval_s=rng.choice((0.1, 0.3)),
        session_timeout_s=12.0,
        min_age_s=0.1,
        batch=rng.choice((1, 10)),
        kept_s=30.0,
        stale=rng.choice((0.0, 0.2)),
        lag_s=rng.choice((0.0, 0.05)),
        touches=False,
        events=rng.random() < 0.5,
        torn=_some(rng, TORN, 0.3),
        odds=Odds(late_s=(4.0, 8.0), call_s=call_s),
        story=story,
    )


def _some(rng: random.Random, odds: float, *values: float) -> float:
    return rng.choice(values) if rng.random() < odds else 0.0


def _crowded(rng: random.Random) -> Profile:
    """Draw a small cluster whose guests come, go and move all the time.

    What is looked for here is a use that slips between looks, rounds and reads.
    Where calls take longer, so does everything else.
    """
    pace, call_s = rng.choice(
        ((1.0, (0.001, 0.02)), (2.0, (0.005, 0.1)), (4.0, (0.02, 0.3)))
    )
    odds = Odds(
        pause=_some(rng, 0.7, 0.005, 0.02, 0.05),
        pause_s=(0.05, rng.choice((2.0, 10.0))),
        lost_answer=_some(rng, 0.2, 0.01),
        late=_some(rng, 0.2, 0.01),
        late_s=(0.05, 4.0),
        stuck=_some(rng, 0.3, 0.2),
        call_s=call_s,
    )
    return Profile(
        nodes=rng.choice((2, 2, 3)),
        cleaners=rng.choice((1, 2, 2)),
        session_timeout_s=rng.choice((1.0, 4.0)),
        images=rng.choice((3, 6, 9)),
        guests=rng.choice((1, 1, 2)),
        trouble_s=15.0 * pace,
        hunted=True,
        report_interval_s=rng.choice((0.3, 0.7, 1.5)),
        touch_interval_s=rng.choice((1.0, 30.0)),
        pass_interval_s=0.3,
        round_interval_s=rng.choice((0.05, 0.3)),
        min_age_s=rng.choice((0.1, 0.5)),
        batch=rng.choice((1, 10)),
        cache_s=rng.choice((0.0, 0.0, 0.3)),
        kept_s=rng.choice((1.0, 5.0, 30.0)),
        stale=rng.choice((0.1, 0.5, 0.8)),
        lag_s=rng.choice((0.0, 0.3)),
        guest_interval_s=pace * rng.choice((0.3, 1.0, 3.0)),
        touches=rng.random() < 0.3,
        shared_locks=rng.random() < 0.7,
        events=rng.random() < 0.4,
        uneven=rng.random() < 0.7,
        torn=_some(rng, TORN, 0.3),
        odds=odds,
        troubles=rng.choice(
            ((), ("source",), ("kill", "source"), (rng.choice(TROUBLES),))
        ),
        trouble_interval_s=pace * rng.choice((3.0, 8.0)),
        cleaner_cache_s=rng.choice((None, None, 0.0, 0.5)),
    )


def _troubled(rng: random.Random) -> Profile:
    """Draw a cluster of any kind, with a handful of troubles of any kind."""
    odds = Odds(
        pause=_some(rng, 0.6, 0.002, 0.01, 0.03),
        pause_s=rng.choice(((0.05, 2.0), (0.05, 20.0))),
        lost_answer=_some(rng, 0.3, 0.005, 0.02),
        lost_request=_some(rng, 0.2, 0.005, 0.02),
        late=_some(rng, 0.3, 0.005, 0.02),
        error=_some(rng, 0.1, 0.01),
        refusal=_some(rng, 0.2, 0.01, 0.03),
        call_s=rng.choice(((0.001, 0.01), (0.001, 0.1), (0.02, 0.4))),
    )
    troubles = tuple(rng.sample(TROUBLES, rng.choice((0, 0, 1, 1, 2, 3))))
    cache_s = rng.choice((0.0, 0.0, 0.5, 1.5))
    return Profile(
        nodes=rng.choice((1, 2, 2, 2, 3)),
        cleaners=rng.choice((1, 2, 2)),
        images=rng.choice((1, 2, 4)),
        guests=rng.choice((1, 1, 2, 4)),
        trouble_s=rng.choice((20.0, 40.0)),
        report_interval_s=rng.choice((0.7, 1.5, 3.0)),
        touch_interval_s=rng.choice((3.0, 30.0)),
        session_timeout_s=rng.choice((1.5, 4.0)),
        pass_interval_s=rng.choice((0.5, 2.0)),
        round_interval_s=rng.choice((0.1, 0.5)),
        grace_s=rng.choice((0.0, 0.0, 3.0)),
        min_age_s=rng.choice((0.2, 1.0, 3.0)),
        batch=rng.choice((1, 2, 10)),
        cache_s=cache_s,
        kept_s=max(cache_s, rng.choice((0.0, 1.0, 5.0, 30.0))),
        stale=rng.choice((0.2, 0.5, 0.9)),
        lag_s=rng.choice((0.0, 0.05, 1.0)),
        guest_interval_s=rng.choice((0.2, 0.5, 1.5)),
        touches=rng.random() < 0.6,
        shared_locks=rng.random() < 0.7,
        qemu_locks=rng.random() < 0.2,
        events=rng.random() < 0.5,
        drift=rng.random() < 0.2,
        uneven=rng.random() < 0.4,
        torn=_some(rng, TORN, 0.3),
        odds=odds,
        troubles=troubles,
        trouble_interval_s=rng.choice((2.0, 5.0)),
        cleaner_cache_s=rng.choice((None, None, 0.0, 1.5)),
    )
