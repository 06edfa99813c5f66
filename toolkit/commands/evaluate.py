"""`toolkit evaluate`: how good the estimates are."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from toolkit.options import Names, column_option, examples, file, json_option, model_option, path, quiet_option


@click.command(
    "evaluate",
    short_help="Compare estimates with true values.",
    epilog=examples("toolkit evaluate unseen.parquet", "toolkit evaluate unseen.parquet --report evaluation.html"),
)
@click.argument("datasets", nargs=-1, required=True, type=file)
@model_option
@column_option
@click.option("--group-by", type=Names(), metavar="ID", help="Tidy tables, one row an observation: columns of the id.")
@click.option("--columns", type=Names(), metavar="A,B", help="With --group-by, the columns of a dataset, in order.")
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="LEVEL",
    default=0.9,
    show_default=True,
    help="Measure how often intervals of this level hold the true value.",
)
@click.option("--report", type=path, metavar="FILE.html", help="Write a page with plots of every parameter and file.")
@json_option
@quiet_option
def evaluate_command(
    datasets: tuple[Path, ...],
    model: Path,
    column: str | None,
    group_by: tuple[str, ...] | None,
    columns: tuple[str, ...] | None,
    interval: float,
    report: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare the estimates of the network and of every exported file with true values.

    DATASETS are Parquet files with a column for each parameter, that holds its true values: simulated ones that the
    network was not trained on. Exit code 1: a file could not be run, or gave an estimate that is not positive.
    """
    from toolkit.evaluation import evaluate, print_evaluation, write_evaluation_report
    from toolkit.progress import rows_progress
    from toolkit.tables import print_json

    with rows_progress("evaluate", quiet=quiet or as_json, unit="datasets") as progress:
        evaluation = evaluate(
            model,
            datasets,
            column=column,
            group_by=group_by or (),
            columns=columns or (),
            interval=interval,
            report=progress,
        )
    if as_json:
        print_json(evaluation.to_json())
    elif not quiet:
        print_evaluation(evaluation)
    if report:
        write_evaluation_report(evaluation, report)
        if not quiet:
            click.echo(f"{report}: written", err=True)
    sys.exit(0 if evaluation.passed else 1)
