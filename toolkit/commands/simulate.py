"""`toolkit simulate`: make training datasets with a user's simulator."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.options import examples, path, quiet_option


@click.command(
    "simulate",
    short_help="Make training datasets with your function.",
    epilog=examples("toolkit simulate samples/diffusion.py:simulate --count 100000 datasets.parquet"),
)
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
