"""What a seed decides before anything happens: the cluster, and its troubles.

Every seed switches another handful of troubles on, so that some schedules are
all pauses, others all lost answers, and few are everything at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.simulation.ports import Odds

TROUBLES = (
    "kill",
    "crash",
    "reboot",
    "cut",
    "hang",
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
    cache_s: float = 0.0
    kept_s: float = 0.0
    stale: float = 0.5
    lag_s: float = 0.0
    guest_interval_s: float = 2.0
    touches: bool = True
    shared_locks: bool = True
    qemu_locks: bool = False
    events: bool = True
    drift: bool = False
    odds: Odds = field(default_factory=Odds)
    troubles: tuple[str, ...] = ()
    trouble_interval_s: float = 4.0


def draw(rng: random.Random) -> Profile:
    """Draw a profile."""

    def some(odds: float, value: float) -> float:
        return value if rng.random() < odds else 0.0

    odds = Odds(
        pause=some(0.6, rng.choice((0.002, 0.01, 0.03))),
        pause_s=rng.choice(((0.05, 2.0), (0.05, 20.0))),
        lost_answer=some(0.3, rng.choice((0.005, 0.02))),
        lost_request=some(0.2, rng.choice((0.005, 0.02))),
        late=some(0.3, rng.choice((0.005, 0.02))),
        error=some(0.1, 0.01),
        refusal=some(0.1, 0.01),
        call_s=rng.choice(((0.001, 0.01), (0.001, 0.1), (0.02, 0.4))),
    )
    troubles = tuple(rng.sample(TROUBLES, rng.choice((0, 0, 1, 1, 2, 3))))
    cache_s = rng.choice((0.0, 0.0, 0.5, 1.5))
    return Profile(
        nodes=rng.choice((1, 2, 2, 2, 3)),
        cleaners=rng.choice((1, 2, 2)),
        images=rng.choice((1, 2, 4)),
        guests=rng.choice((1, 1, 2, 4)),
        trouble_s=rng.choice((15.0, 30.0)),
        report_interval_s=rng.choice((0.7, 1.5, 3.0)),
        touch_interval_s=rng.choice((3.0, 30.0)),
        pass_interval_s=rng.choice((0.5, 2.0)),
        round_interval_s=rng.choice((0.1, 0.5)),
        grace_s=rng.choice((0.0, 0.0, 3.0)),
        min_age_s=rng.choice((0.2, 1.0, 3.0)),
        batch=rng.choice((1, 2, 10)),
        cache_s=cache_s,
        kept_s=rng.choice((cache_s, 1.0, 5.0, 30.0)),
        stale=rng.choice((0.2, 0.5, 0.9)),
        lag_s=rng.choice((0.0, 0.05, 1.0)),
        guest_interval_s=rng.choice((0.2, 0.5, 1.5)),
        touches=rng.random() < 0.6,
        shared_locks=rng.random() < 0.7,
        qemu_locks=rng.random() < 0.2,
        drift=rng.random() < 0.2,
        odds=odds,
        troubles=troubles,
        trouble_interval_s=rng.choice((2.0, 5.0)),
    )
