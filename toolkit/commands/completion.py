"""`toolkit completion`: let the shell complete commands, options and their values."""

from __future__ import annotations

import click

from toolkit.options import examples

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_TOOLKIT_COMPLETE"  # the name that click makes of the command's


@click.command(
    "completion",
    short_help="Let the shell complete what you type.",
    epilog=examples(
        'eval "$(toolkit completion bash)"            in ~/.bashrc',
        'eval "$(toolkit completion zsh)"             in ~/.zshrc',
        "toolkit completion fish | source             in ~/.config/fish/config.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the lines that let SHELL complete commands, options, model directories, exported files and columns."""
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None, shell
    click.echo(complete(ctx.find_root().command, {}, "toolkit", VARIABLE).source())
