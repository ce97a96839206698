"""Protections of the shipped code that can be switched off, each by a name.

A mutant replaces functions of shipped modules for the length of a run; nothing
in the shipped code knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sharedcache.cleaner import service


class Patch:
    """Replacements that are taken back together."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def set(self, where: Any, name: str, value: object) -> Any:
        """Replace an attribute; return what it was."""
        before = vars(where)[name]
        self._before.append((where, name, before))
        setattr(where, name, value)
        return before

    def undo(self) -> None:
        """Put everything back."""
        for where, name, value in reversed(self._before):
            setattr(where, name, value)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule taken out: what it is, what it serves, how.

    ``aim`` is the story in which it is hunted, if there is one.
    """

    name: str
    rule: str
    serves: str
    aim: str
    apply: Callable[[Patch], None]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Take the rule out for the length of a block."""
        patch = Patch()
        try:
            self.apply(patch)
            yield
        finally:
            patch.undo()


MUTANTS: dict[str, Mutant] = {}


def mutant(
    rule: str, serves: str = "I1", *, aim: str = ""
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mutant, under the name of the function that applies it."""

    def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
        name = apply.__name__.replace("_", "-")
        MUTANTS[name] = Mutant(name, rule, serves, aim, apply)
        return apply

    return register


def no_checker(patch: Patch) -> None:
    """Let plans go unchecked, where the checker knows the same rule."""
    patch.set(service, "check_plan", lambda *_: None)
