"""Every command's help, as a newcomer reads it on a narrow terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from sharedcache.cli import start
from sharedcache.cli.main import cli

COLUMNS = 80


def _walk(
    command: click.Command, path: tuple[str, ...], context: click.Context
) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, f"{' '.join((*path, name))} is not there"
            yield from _walk(found, (*path, name), context)


PATHS = list(_walk(cli, (), click.Context(cli)))


@pytest.mark.parametrize(
    "path", PATHS, ids=lambda path: " ".join(path) or "sharedcache"
)
def test_help_has_a_sentence_and_an_example_and_fits(path: tuple[str, ...]) -> None:
    """What it does in a sentence, a line to copy, and nothing wider than 80 columns."""
    result = CliRunner().invoke(
        cli, [*path, "--help"], terminal_width=COLUMNS, prog_name="sharedcache"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(len(line) <= COLUMNS for line in lines), max(lines, key=len)
    assert re.match(r"Usage: sharedcache", lines[0])
    body = [line for line in lines[1:] if line.strip()]
    assert re.match(r"  [A-Z].{10,}", body[0]), "a sentence comes first"
    command = " ".join(("sharedcache", *path))
    examples = [line for line in body if line.startswith("    ") and command in line]
    assert examples, f"no example of {command}"
    assert "noqa" not in result.stdout


def test_every_command_is_walked() -> None:
    """A test that walks an empty tree would find nothing wrong."""
    walked = {" ".join(path) for path in PATHS}
    assert walked >= {
        *("init", "status", "plan", "explain", "doctor", "completion", "clean"),
        *("node list", "node expunge", "quarantine restore", "hold add"),
        *(
            "rollout finalize",
            "pause",
            "resume",
            "approve",
            "recover",
            "history",
            "demo",
        ),
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    """The script names our command and asks it for what may follow."""
    result = CliRunner().invoke(cli, ["completion", shell], prog_name="sharedcache")
    assert result.exit_code == 0, result.output
    assert f"_SHAREDCACHE_COMPLETE={shell}_complete" in result.stdout


def test_completion_knows_commands_that_are_loaded_late() -> None:
    """Nouns, verbs and options are offered without settings or a cluster."""
    asked = {
        "COMP_WORDS": "sharedcache quarantine re",
        "COMP_CWORD": "2",
        "_SHAREDCACHE_COMPLETE": "bash_complete",
    }
    result = CliRunner().invoke(cli, [], env=asked, prog_name="sharedcache")
    assert "plain,restore" in result.output


def test_ctrl_c_while_loading_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loading takes a second on a busy machine, in which people change their mind."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    loading = SimpleNamespace(main=interrupted)
    monkeypatch.setitem(sys.modules, "sharedcache.cli.main", loading)
    with pytest.raises(SystemExit) as ended:
        start.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.strip() == "sharedcache: interrupted"


def test_the_first_step_loads_next_to_nothing() -> None:
    """What is loaded before Ctrl-C is heard takes a few milliseconds."""
    code = "import sys; import sharedcache.cli.start; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    loaded = set(done.stdout.split())
    assert "sharedcache.cli.start" in loaded
    assert not loaded & {"click", "rich", "kazoo", "logging", "oslo_config"}
