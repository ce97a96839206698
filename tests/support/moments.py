"""Something else happens right before a chosen call of a port."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def before(
    port: object,
    call: str,
    act: Callable[[], object],
    *,
    after: int = 0,
    times: int = 1,
) -> list[str]:
    """Have something happen before calls of a port, after so many others of it.

    It happens ``times`` times; the list that is returned grows by one each time.
    """
    real, seen, done = getattr(port, call), [0], list[str]()

    def called(*arguments: object, **options: object) -> object:
        seen[0] += 1
        if seen[0] > after and len(done) < times:
            done.append(call)
            act()
        return real(*arguments, **options)

    setattr(port, call, called)
    return done
