"""`durum completion`: what a shell needs to complete our commands and options."""

from __future__ import annotations

import click
from click import shell_completion

VARIABLE = "_DURUM_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script that completes durum's commands and options.

    \b
    Examples:
      eval "$(durum completion bash)"                                   (in ~/.bashrc)
      eval "$(durum completion zsh)"                                    (in ~/.zshrc)
      durum completion fish > ~/.config/fish/completions/durum.fish
    """
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choice above
    completion = kind(ctx.find_root().command, {}, "durum", VARIABLE)
    # Not source(): it runs bash to see its version, and warns about it in the middle of the script.
    click.echo(completion.source_template % completion.source_vars())
