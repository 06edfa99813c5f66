"""`toolkit adopt`: take over a network trained elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.commands.starting_network import starting_network
from toolkit.options import Names, column_option, examples, file, order_option, path, quiet_option


@click.command(
    "adopt",
    short_help="Take over a network trained elsewhere.",
    epilog=examples("toolkit adopt mine.keras --parameters v,a,t0 --columns rt,correct --calibration datasets.parquet"),
)
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
        starting_network(network),
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
