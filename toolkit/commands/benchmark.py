"""`toolkit benchmark`: the exported files beside each other."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from toolkit.options import column_option, examples, file, json_option, model_option, path, quiet_option


@click.command(
    "benchmark",
    short_help="Measure size, speed and error of every file.",
    epilog=examples("toolkit benchmark", "toolkit benchmark datasets.parquet --vs --plot benchmark.png"),
)
@model_option
@click.argument("datasets", nargs=-1, type=file)
@column_option
@click.option("--vs", is_flag=True, help="Measure plain conversions of the same network as well.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="Timed scoring for each file.",
)
@click.option("--plot", type=path, metavar="FILE.png", help="Draw error against speed.")
@json_option
@quiet_option
def benchmark_command(
    model: Path,
    datasets: tuple[Path, ...],
    column: str | None,
    vs: bool,
    seconds: float,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure every exported file on this machine: size, speed, error, proved bound.

    Errors are those on DATASETS, Parquet files, or on the model's calibration datasets. Exit code 1: a file of the
    model could not be run, gave an estimate that is not positive, or is not proved. Plain conversions do not count.
    """
    from toolkit.benchmark import benchmark, check_plot, plot_benchmark, print_benchmark
    from toolkit.progress import rows_progress
    from toolkit.tables import print_json

    if plot:
        check_plot(plot)
    if vs:
        from export import convert_plainly
    with rows_progress("benchmark", quiet=quiet or as_json, unit="turns") as report:
        result = benchmark(
            model,
            datasets,
            column=column,
            seconds=seconds,
            convert_plainly=convert_plainly if vs else None,
            report=report,
            say=(lambda line: None) if quiet or as_json else (lambda line: click.echo(line, err=True)),
        )
    if as_json:
        print_json(result.to_json())
    elif not quiet:
        print_benchmark(result)
    if plot:
        plot_benchmark(result, plot)
    sys.exit(0 if result.passed else 1)
