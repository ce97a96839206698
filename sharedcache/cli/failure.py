"""Errors as an operator sees them: one line, what to do next, an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from sharedcache.adapters.settings import SettingsError
from sharedcache.cache.errors import CacheError, NoSpaceError
from sharedcache.cleaner.finalize import RefusedError
from sharedcache.cleaner.world import DeposedError, InterruptedPassError
from sharedcache.core.codec import RecordError
from sharedcache.core.policy import PolicyError
from sharedcache.core.ports import (
    CoordinationError,
    OutcomeUnknownError,
    StorageError,
)
from sharedcache.core.recovery import CannotRecoverError


class Failure(click.ClickException):
    """A command failed: exit code 1."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print the one line on standard error."""
        del file
        # Click leaves colours out of pipes, and knows nothing of NO_COLOR.
        colour = False if os.environ.get("NO_COLOR") else None
        click.secho(f"sharedcache: {self.message}", err=True, fg="red", color=colour)


class SettingsFailure(Failure):
    """The settings or options are wrong: exit code 2."""

    exit_code = 2


class RefusedFailure(Failure):
    """The gate, the election or the rollout does not allow it: exit code 3."""

    exit_code = 3


_KINDS: tuple[tuple[type[Exception], type[Failure]], ...] = (
    (SettingsError, SettingsFailure),
    (PolicyError, SettingsFailure),
    (RefusedError, RefusedFailure),
    (CannotRecoverError, RefusedFailure),
    (DeposedError, RefusedFailure),
    (InterruptedPassError, Failure),
    (NoSpaceError, RefusedFailure),
    (CacheError, Failure),
    (CoordinationError, Failure),
    (StorageError, Failure),
    (RecordError, Failure),
    (OutcomeUnknownError, Failure),
)


def debugging() -> bool:
    """Whether tracebacks are wanted (``SHAREDCACHE_DEBUG=1``)."""
    return os.environ.get("SHAREDCACHE_DEBUG", "") not in ("", "0")


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn every error within into one line and an exit code."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:
        # The reader has seen enough; click ends quietly, as other tools do.
        raise
    except KeyboardInterrupt as error:
        raise Failure("interrupted") from error
    except Exception as error:
        if debugging():
            raise
        raise _failure(error) from error


def _failure(error: Exception) -> Failure:
    text = " ".join(str(error).split())
    for kind, failure in _KINDS:
        if isinstance(error, kind):
            return failure(text)
    if isinstance(error, UnicodeEncodeError):
        # What cannot be encoded is what was typed: the rest comes decoded.
        return SettingsFailure(
            "an argument or a setting holds bytes that are no UTF-8 text: write it "
            "in UTF-8"
        )
    if isinstance(error, OSError):
        return Failure(f"{type(error).__name__}: {text}")
    return Failure(
        f"unexpected {type(error).__name__}: {text}; run it again with "
        "SHAREDCACHE_DEBUG=1 and report what it prints"
    )
