"""The command `toolkit`: its commands, and the one place where an error becomes a message."""

from __future__ import annotations

import sys

import click

from toolkit import __version__
from toolkit.commands.adopt import adopt_command
from toolkit.commands.batch_predict import batch_predict_command
from toolkit.commands.benchmark import benchmark_command
from toolkit.commands.completion import completion_command
from toolkit.commands.evaluate import evaluate_command
from toolkit.commands.export import export_command
from toolkit.commands.inspect import inspect_command
from toolkit.commands.probe_pack import probe_pack_command
from toolkit.commands.simulate import simulate_command
from toolkit.commands.train import train_command
from toolkit.commands.verify import verify_command
from toolkit.errors import ToolkitError, printable
from toolkit.options import examples


class Boundary(click.Group):
    """The one place where an error of the toolkit becomes a message and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are used, not by name."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ToolkitError as error:
            click.echo(f"Error: {printable(str(error))}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            command = self.commands[ctx.invoked_subcommand or ""]
            resumes = any("--resume" in parameter.opts for parameter in command.params)
            then = " Nothing that is done is lost: the same command with --resume goes on." if resumes else ""
            click.echo(f"Interrupted.{then}", err=True)
            sys.exit(130)


@click.group(
    cls=Boundary,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "toolkit batch-predict input.parquet          with the model in ./model, or in $TOOLKIT_MODEL",
        "toolkit batch-predict --help                 more on a command",
    ),
)
@click.version_option(__version__, prog_name="toolkit")
def main() -> None:
    """Estimators of strictly positive parameters: train, export, prove, score."""


for command in (
    simulate_command,
    train_command,
    adopt_command,
    export_command,
    verify_command,
    evaluate_command,
    batch_predict_command,
    inspect_command,
    benchmark_command,
    probe_pack_command,
    completion_command,
):
    main.add_command(command)
