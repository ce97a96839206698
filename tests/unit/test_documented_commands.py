"""Every command that the documentation shows is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from sharedcache.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])

_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^[ $]*(?:[A-Z_]+=\S+ )*(sharedcache .*)$", re.MULTILINE)
_INLINE = re.compile(r"`(sharedcache [^`]+)`")
_ENDS = re.compile(r" (?:\||2?>|&&|;) ")


def _words(text: str) -> list[str]:
    """Split a shown command, up to what its output goes to."""
    return shlex.split(_ENDS.split(text)[0], comments=True)[1:]


def _found(words: list[str]) -> tuple[click.Command, list[str]]:
    """Follow groups to the command that is meant; what is left are its arguments."""
    command: click.Command = cli
    context = click.Context(cli)
    left = list(words)
    while isinstance(command, click.Group):
        # Options that all commands have may stand before the name.
        while left and left[0].startswith("-"):
            left = left[1:] if "=" in left[0] or left[0] == "--help" else left[2:]
        if not left:
            return command, []
        found = command.get_command(context, left[0])
        assert found is not None, f"there is no command {left[0]}"
        command, left = found, left[1:]
    return command, left


def _shown(page: Path) -> list[str]:
    """List the commands in a page's blocks, continued lines joined."""
    blocks = "\n".join(_FENCED.findall(page.read_text()))
    return _COMMAND.findall(re.sub(r"\\\n\s*", "", blocks))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_blocks_are_whole(page: Path) -> None:
    """What is there to be copied parses, with its options and its arguments."""
    for text in _shown(page):
        command, arguments = _found(_words(text))
        try:
            command.make_context(command.name, arguments)
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {text}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_exist(page: Path) -> None:
    """What a sentence names may leave arguments out, and invents no option."""
    for text in _INLINE.findall(_FENCED.sub("", page.read_text())):
        command, arguments = _found(_words(" ".join(text.split())))
        known = {o for parameter in command.params for o in parameter.opts}
        for word in arguments:
            if word.startswith("-"):
                name = word.partition("=")[0]
                assert name in known, f"{page.name}: {text}: no option {name}"


def test_the_pages_show_commands_at_all() -> None:
    """A pattern that matches nothing would pass every page."""
    shown = {page.name: len(_shown(page)) for page in PAGES}
    assert shown["README.md"] > 3
    assert shown["operations.md"] > 5
