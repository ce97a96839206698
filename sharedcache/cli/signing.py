"""Who speaks on the command line, and what is on record of what was refused."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from sharedcache import audit, ledger
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cli.failure import RefusedFailure
from sharedcache.core.acts import Act, Deed, Signature, Subject, as_written
from sharedcache.core.ports import CoordinationError

if TYPE_CHECKING:
    from sharedcache.core.ports import Coordination

REPEAT_S = 3600.0
"""A refusal that says the same is on record once in this time, in seconds."""

_LATELY = 20


def signature() -> Signature:
    """Sign as the user of this process, now."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A user id without a name, as containers have them.
        user = "unknown"
    return Signature(f"{user}@{socket.gethostname()}", time.time())


@contextmanager
def refusals_on_record(
    coordination: Coordination, asked: str, name: str | None = None
) -> Iterator[None]:
    """Have on record what an operator asked for and was refused.

    A script that asks again and again is on record once in ``REPEAT_S``, as
    long as little else happens.
    """
    try:
        yield
    except (RefusedError, RefusedFailure) as error:
        by = signature()
        act = as_written(
            Act(
                Deed.REFUSED,
                by.doer,
                by.when,
                str(error),
                () if name is None else (Subject(name),),
                asked=asked,
            )
        )
        if not _told_lately(coordination, act):
            audit.record(coordination, [act])
        raise


def _told_lately(coordination: Coordination, act: Act) -> bool:
    try:
        coordination.sync()
        if coordination.get(ledger.IDENTITY) is None:
            # No cluster: nothing is to be left in a tree that is not ours.
            return True
        newest = audit.backward(coordination, audit.read_mark(coordination))
        return any(_same(told.act, act) for told in islice(newest, _LATELY))
    except CoordinationError:
        # The command's own error is what counts.
        return True


def _same(told: object, act: Act) -> bool:
    return (
        isinstance(told, Act)
        and replace(told, when=act.when) == act
        and abs(told.when - act.when) < REPEAT_S
    )
