"""The operator's ``recover``, as the command carries it out once it was confirmed."""

from __future__ import annotations

from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.recover import Recoverer, survey
from sharedcache.core.ports import CoordinationError
from sharedcache.core.recovery import CannotRecoverError, judge
from tests.simulation.daemons import CLUSTER
from tests.simulation.desk import OPERATOR, Desk
from tests.simulation.process import EPOCH_OF_TIME_S


def recovery(at: Desk) -> None:
    """Recover as the command does once it was confirmed; again if it was refused."""
    seen = survey(at.zookeeper, at.storage)
    stamp_ms = int((EPOCH_OF_TIME_S + at.clock.wall()) * 1000)
    try:
        judged = judge(seen.standing, CLUSTER, stamp_ms)
        if judged.problems:
            Recoverer(
                at.zookeeper, at.storage, at.tokens, OPERATOR.who, OPERATOR.when
            ).run(seen, judged, lambda _: None)
    except (RefusedError, CannotRecoverError) as error:
        raise CoordinationError(str(error)) from error
