"""The command `toolkit`: its commands, and the one place where an error becomes a message."""

from __future__ import annotations

import sys

import click

from toolkit import __version__
from toolkit.commands.adopt import adopt_command
from toolkit.commands.batch_predict import batch_predict_command
from toolkit.commands.benchmark import benchmark_command
from toolkit.commands.export import export_command
from toolkit.commands.inspect import inspect_command
from toolkit.commands.simulate import simulate_command
from toolkit.commands.train import train_command
from toolkit.commands.verify import verify_command
from toolkit.errors import ToolkitError, printable


class Boundary(click.Group):
    """The one place where an error of the toolkit becomes a message and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ToolkitError as error:
            click.echo(f"Error: {printable(str(error))}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted. The same command with --resume goes on, where it has that option.", err=True)
            sys.exit(130)


@click.group(cls=Boundary, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="toolkit")
def main() -> None:
    """Estimators of strictly positive parameters: train, export, prove, score."""


for command in (
    simulate_command,
    train_command,
    adopt_command,
    export_command,
    verify_command,
    batch_predict_command,
    inspect_command,
    benchmark_command,
):
    main.add_command(command)
