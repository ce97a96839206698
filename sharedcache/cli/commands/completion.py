"""``sharedcache completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sharedcache.cli.failure import Failure

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes bash, zsh or fish complete commands and options.

    \b
      sharedcache completion bash > /etc/bash_completion.d/sharedcache
      sharedcache completion zsh > "${fpath[1]}/_sharedcache"
      sharedcache completion fish > ~/.config/fish/completions/sharedcache.fish
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    kind = get_completion_class(shell)
    if kind is None:
        raise Failure(f"this click knows no completion for {shell}: upgrade click")
    command = context.find_root().command
    script = kind(command, {}, "sharedcache", "_SHAREDCACHE_COMPLETE").source()
    click.echo(script)
