"""`toolkit batch-predict`: score Parquet files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from toolkit.completion import complete_exported_file, complete_path
from toolkit.errors import printable
from toolkit.options import Names, column_option, examples, json_option, model_option, order_option, quiet_option

REJECTED = 3  # exit code: finished, but rows were rejected


@click.command(
    "batch-predict",
    short_help="Score Parquet files and check the estimates.",
    epilog=examples(
        "toolkit batch-predict input.parquet",
        "toolkit batch-predict night/ --output estimates.parquet --check sample",
        "toolkit batch-predict input.parquet --dry-run",
    ),
)
@click.argument("inputs", nargs=-1, required=True, shell_complete=complete_path)
@model_option
@click.option(
    "--file",
    "scoring_file",
    metavar="NAME",
    shell_complete=complete_exported_file,
    help="Exported file that scores; model.float32.tflite by default.",
)
@click.option(
    "--output",
    metavar="FILE",
    shell_complete=complete_path,
    help="Output file; <input>.predictions.parquet by default.",
)
@column_option
@order_option
@click.option(
    "--group-by",
    type=Names(),
    metavar="ID",
    help="Tidy tables, one row an observation: the columns whose values name a dataset.",
)
@click.option(
    "--columns",
    type=Names(),
    metavar="A,B",
    help="With --group-by, the columns of a dataset; the model's names by default.",
)
@click.option(
    "--check",
    type=click.Choice(["all", "sample", "off"]),
    default="all",
    show_default=True,
    help="Rows on which every other exported file is run and compared as well.",
)
@click.option(
    "--runtime",
    type=click.Choice(["litert", "onnxruntime", "openvino"]),
    help="What runs the scoring file; by its ending: LiteRT or ONNX Runtime.",
)
@click.option("--strict-range", is_flag=True, help="Reject datasets outside the ranges seen in training.")
@click.option(
    "--keep-going", is_flag=True, help="Leave out and name row groups and files that cannot be read; score the rest."
)
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="LEVEL",
    help="Add both ends of an interval around each estimate, that hold the true value so often: 0.9.",
)
@click.option("--resume", is_flag=True, help="Finish an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace a finished output.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; one per usable core by default.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Threads here, or processes of a Ray cluster.",
)
@click.option("--ray-address", metavar="HOST:PORT", help="Running Ray cluster; $RAY_ADDRESS, or one started here.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print what would be done, and how long it would take.")
@json_option
@quiet_option
def batch_predict_command(
    inputs: tuple[str, ...],
    model: Path,
    output: str | None,
    scoring_file: str | None,
    check: str,
    column: str | None,
    order: str | None,
    runtime: str | None,
    group_by: tuple[str, ...] | None,
    columns: tuple[str, ...] | None,
    strict_range: bool,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    keep_going: bool,
    interval: float | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score Parquet files of datasets, and check that every exported file keeps its outputs positive.

    INPUTS are files, folders, globs or URIs (s3://, gs://). Exit code 3: finished, but rows were rejected or could not
    be read.
    """
    if ray_address and engine != "ray":
        raise click.UsageError("--ray-address goes with --engine ray.")
    options: dict[str, Any] = {  # of a run, whether it is only planned or done
        "model": model,
        "output": output,
        "file": scoring_file,
        "check": check,
        "column": column,
        "order": order,
        "group_by": group_by or (),
        "columns": columns or (),
        "strict_range": strict_range,
        "runtime": runtime,
        "keep_going": keep_going,
        "interval": interval,
    }
    if dry_run:
        from toolkit.batch.plan import plan_run
        from toolkit.batch.prepare import prepare

        prepared = prepare(inputs, **options)
        plan = plan_run(prepared, workers=workers, engine=engine, resume=resume, overwrite=overwrite)
        if as_json:
            from toolkit.tables import print_json

            print_json(plan.to_json())
        else:
            from toolkit.scoring_tables import print_plan

            print_plan(plan)
        sys.exit(1 if plan.refused else 0)
    from toolkit.batch import batch_predict
    from toolkit.progress import rows_progress, say
    from toolkit.scoring_tables import describe_outside, print_summary

    # Who asked for JSON from a terminal may still watch; a program is told nothing but the object.
    unseen = quiet or (as_json and not sys.stderr.isatty())
    with rows_progress("batch-predict", quiet=unseen) as report:
        summary = batch_predict(
            inputs,
            **options,
            workers=workers,
            engine=engine,
            ray_address=ray_address,
            resume=resume,
            overwrite=overwrite,
            report=report,
            say=(lambda line: None) if quiet else say,
        )
    if as_json:
        from toolkit.tables import print_json

        print_json(summary.to_json())
    elif not quiet:
        print_summary(summary)
    if summary.outside.rows and not strict_range:
        click.echo(f"Warning: {describe_outside(summary)} Reject them with --strict-range.", err=True)
    for lost in summary.lost:
        click.echo(f"Left out: {printable(lost.describe())}", err=True)
    sys.exit(REJECTED if summary.rows_rejected or summary.lost else 0)
