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
@click.option("--keep-going", is_flag=True, help="Leave out what is no good, name it, write the rest (exit code 3).")
@quiet_option
@click.pass_context
def simulate_command(
    context: click.Context,
    function: str,
    output: Path,
    count: int,
    seed: int,
    workers: int | None,
    keep_going: bool,
    quiet: bool,
) -> None:
    """Write datasets and their true parameters, made by your function, to a Parquet file.

    FUNCTION takes (count, rng) and returns float arrays (count, rows, columns) and (count, parameters).
    """
    from toolkit.progress import rows_progress, say
    from toolkit.simulate import simulate

    with rows_progress("simulate", quiet=quiet, unit="datasets") as report:
        lost = simulate(
            function, count, output, seed=seed, workers=workers, keep_going=keep_going, report=report, say=say
        )
    if lost:
        say(f"{output}: {count - lost:,} datasets; {lost:,} of {count:,} are left out")
        context.exit(3)
