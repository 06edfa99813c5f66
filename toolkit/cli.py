"""The command `toolkit`: every command parses, calls one function, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import __version__
from toolkit.errors import ToolkitError, printable
from toolkit.options import (
    Gate,
    Names,
    column_option,
    file,
    json_option,
    model_option,
    order_option,
    path,
    quiet_option,
)
from toolkit.spec import FORMATS, PRECISIONS

if TYPE_CHECKING:
    from toolkit.given import GivenNetwork

REJECTED = 3  # exit code: finished, but rows were rejected


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


@main.command("simulate", short_help="Make training datasets with your function.")
@click.argument("function", metavar="FILE.py:FUNCTION")
@click.argument("output", type=path)
@click.option("--count", type=click.IntRange(min=1), required=True, help="Datasets to simulate.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; every usable core by default.")
@quiet_option
def simulate_command(function: str, output: Path, count: int, seed: int, workers: int | None, quiet: bool) -> None:
    """Write datasets and their true parameters, made by your function, to a Parquet file.

    FUNCTION takes (count, rng) and returns float arrays (count, rows, columns) and (count, parameters).
    """
    from toolkit.progress import rows_progress
    from toolkit.simulate import simulate

    with rows_progress("simulate", quiet=quiet, unit="datasets") as report:
        simulate(function, count, output, seed=seed, workers=workers, report=report)


@main.command("train", short_help="Train the network, write a model directory.")
@click.argument("datasets", nargs=-1, required=True, type=file)
@click.option(
    "--parameters", type=Names(), required=True, help="Columns with the true values, in output order: v,a,t0."
)
@click.option("--output", type=path, default=Path("model"), show_default=True, help="Model directory to write.")
@click.option("--validation", type=file, help="Datasets to validate on, in place of a held-out share.")
@column_option
@click.option("--epochs", type=click.IntRange(min=1), default=30, show_default=True, help="At most; stops early.")
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--start-from", type=file, help="Network (.keras) to train on, in place of a fresh one.")
@click.option("--exchangeable-rows", is_flag=True, help="Shuffle rows within datasets: their order carries nothing.")
@click.option(
    "--calibration-count",
    type=click.IntRange(min=1),
    default=6000,
    show_default=True,
    help="Held-out datasets to keep.",
)
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch of an interrupted run.")
@quiet_option
def train_command(
    datasets: tuple[Path, ...],
    parameters: tuple[str, ...],
    output: Path,
    validation: Path | None,
    column: str | None,
    epochs: int,
    batch_size: int,
    seed: int,
    start_from: Path | None,
    exchangeable_rows: bool,
    calibration_count: int,
    resume: bool,
    quiet: bool,
) -> None:
    """Train the network on datasets with known parameters, and write a model directory."""
    from toolkit.progress import rows_progress
    from toolkit.tables import print_training
    from toolkit.training import Settings, train

    settings = Settings(epochs=epochs, batch_size=batch_size, seed=seed, exchangeable_rows=exchangeable_rows)
    with rows_progress("train", quiet=quiet, unit="steps") as report:
        manifest = train(
            datasets,
            parameters,
            output=output,
            validation=validation,
            column=column,
            settings=settings,
            start_from=_given(start_from) if start_from else None,
            calibration_count=calibration_count,
            resume=resume,
            report=report,
            say=(lambda line: None) if quiet else (lambda line: click.echo(line, err=True)),
        )
    if not quiet:
        print_training(output, manifest)


@main.command("adopt", short_help="Take over a network trained elsewhere.")
@click.argument("network", type=file, metavar="NET.keras")
@click.option("--parameters", type=Names(), required=True, help="Names of the outputs, in their order: v,a,t0.")
@click.option("--columns", type=Names(), help="Names of the input's columns, in their order: rt,correct.")
@click.option("--rows", type=click.IntRange(min=1), help="Rows of a dataset, where the network takes any number.")
@click.option("--calibration", type=file, help="Parquet file of datasets that the network was trained for.")
@column_option
@order_option
@click.option("--output", type=path, default=Path("model"), show_default=True, help="Model directory to write.")
@quiet_option
def adopt_command(
    network: Path,
    parameters: tuple[str, ...],
    columns: tuple[str, ...] | None,
    rows: int | None,
    calibration: Path | None,
    column: str | None,
    order: str | None,
    output: Path,
    quiet: bool,
) -> None:
    """Write a model directory around a network that was trained elsewhere."""
    from toolkit.adoption import adopt
    from toolkit.tables import print_training

    manifest = adopt(
        _given(network),
        parameters,
        columns=columns,
        rows=rows,
        calibration=calibration,
        column=column,
        order=order,
        output=output,
    )
    if not quiet:
        print_training(output, manifest)


def _given(network: Path) -> GivenNetwork:
    """A user's network, to be read as the exporter reads it."""
    from export.keras_file import load_network, translate_network
    from toolkit.given import GivenNetwork

    return GivenNetwork(network, load_network, translate_network)


@main.command("export", short_help="Write files for other machines, all proved.")
@model_option
@click.option("--format", "formats", type=click.Choice([*FORMATS, "all"]), multiple=True, required=True)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([*PRECISIONS, "all"]),
    multiple=True,
    default=("float32",),
    show_default=True,
)
@click.option("--calibration", type=file, help="Datasets to compare on, in place of the model directory's.")
@quiet_option
def export_command(
    model: Path, formats: tuple[str, ...], precisions: tuple[str, ...], calibration: Path | None, quiet: bool
) -> None:
    """Convert the trained network, and publish only files that prove positive and are accurate."""
    from export import convert
    from toolkit.publish import publish
    from toolkit.tables import print_files

    files = publish(
        model,
        FORMATS if "all" in formats else formats,
        PRECISIONS if "all" in precisions else precisions,
        convert,
        calibration=calibration,
        say=(lambda entry: None) if quiet else (lambda entry: click.echo(f"{model / entry.file}: published", err=True)),
    )
    if not quiet:
        print_files(files)


@main.command("verify", short_help="Prove, probe and compare the exported files.")
@model_option
@click.argument("datasets", nargs=-1, type=file)
@column_option
@click.option(
    "--gate",
    "gates",
    type=Gate(),
    multiple=True,
    metavar="PRECISION:STATISTIC=ERROR",
    help="Another largest relative error that passes: float16:max=0.01, float16:p99=0.1%. Repeatable.",
)
@click.option("--report", type=path, metavar="FILE.html", help="Write a page for people who decide about deployment.")
@json_option
def verify_command(
    model: Path,
    datasets: tuple[Path, ...],
    column: str | None,
    gates: tuple[tuple[str, str, float], ...],
    report: Path | None,
    as_json: bool,
) -> None:
    """Prove, probe and compare every exported file; exit code 1 when one fails.

    Compares on DATASETS, Parquet files, or on the model's calibration datasets.
    """
    from toolkit.tables import print_json, print_verdicts
    from toolkit.verification import changed_gates, verify

    verification = verify(model, datasets, column=column, gates=changed_gates(gates))
    if as_json:
        print_json(verification.to_json())
    else:
        print_verdicts(verification.verdicts)
    if report:
        from toolkit.report import write_report

        write_report(verification, report)
        click.echo(f"{report}: written", err=True)
    sys.exit(0 if verification.passed else 1)


@main.command("batch-predict", short_help="Score Parquet files and check the estimates.")
@click.argument("inputs", nargs=-1, required=True)
@model_option
@click.option("--output", type=path, help="Output file; <input>.predictions.parquet by default.")
@click.option(
    "--file", "scoring_file", metavar="NAME", help="Exported file that scores; model.float32.tflite by default."
)
@click.option(
    "--check",
    type=click.Choice(["all", "sample", "off"]),
    default="all",
    show_default=True,
    help="Rows on which every other exported file is run and compared as well.",
)
@column_option
@order_option
@click.option("--strict-range", is_flag=True, help="Reject datasets outside the ranges seen in training.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; one per usable core by default.")
@click.option("--resume", is_flag=True, help="Finish an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace a finished output.")
@json_option
@quiet_option
def batch_predict_command(
    inputs: tuple[str, ...],
    model: Path,
    output: Path | None,
    scoring_file: str | None,
    check: str,
    column: str | None,
    order: str | None,
    strict_range: bool,
    workers: int | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score Parquet files of datasets, and check that every exported file keeps its outputs positive.

    INPUTS are files, folders or globs. Exit code 3: finished, but rows were rejected.
    """
    from toolkit.batch import batch_predict
    from toolkit.progress import rows_progress
    from toolkit.tables import describe_outside

    with rows_progress("batch-predict", quiet=quiet or as_json) as report:
        summary = batch_predict(
            inputs,
            model=model,
            output=output,
            file=scoring_file,
            check=check,
            column=column,
            order=order,
            strict_range=strict_range,
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            report=report,
        )
    if as_json:
        from toolkit.tables import print_json

        print_json(summary.to_json())
    elif not quiet:
        from toolkit.tables import print_summary

        print_summary(summary)
    if summary.outside.rows and not strict_range:
        click.echo(f"Warning: {describe_outside(summary)} Reject them with --strict-range.", err=True)
    sys.exit(REJECTED if summary.rows_rejected else 0)


@main.command("inspect", short_help="Show a model directory or one model file.")
@click.argument("path", type=path)
@json_option
def inspect_command(path: Path, as_json: bool) -> None:
    """Show a model directory or one model file: shapes, names, evidence.

    PATH is a directory, or a .tflite, .onnx or .keras file of anyone's. Nothing in it is run.
    """
    from toolkit.inspection import inspect
    from toolkit.tables import print_inspection, print_json

    inspection = inspect(path)
    if as_json:
        print_json(inspection.to_json())
    else:
        print_inspection(inspection)
