"""`toolkit train`: train the network."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.commands.starting_network import starting_network
from toolkit.completion import complete_columns
from toolkit.options import Head, Names, column_option, examples, file, path, quiet_option


@click.command(
    "train",
    short_help="Train the network, write a model directory.",
    epilog=examples(
        "toolkit train datasets.parquet --parameters v,a,t0 --exchangeable-rows",
        "toolkit train datasets.parquet --parameters v,a,t0 --exchangeable-rows --resume",
        "toolkit train --simulator samples/diffusion.py:simulate --exchangeable-rows",
    ),
)
@click.argument("datasets", nargs=-1, type=file)
@click.option(
    "--parameters",
    type=Names(),
    shell_complete=complete_columns,
    help="Columns with the true values, in output order: v,a,t0. All that a simulator names, by default.",
)
@click.option(
    "--simulator", metavar="FILE.py:FUNCTION", help="Makes fresh datasets for every epoch, while the network trains."
)
@click.option("--datasets-per-epoch", type=click.IntRange(min=1), help="That the simulator makes.  [default: 100000]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes of the simulator; every usable core by default.")
@click.option("--output", type=path, default=Path("model"), show_default=True, help="Model directory to write.")
@click.option("--validation", type=file, help="Datasets to validate on, in place of a held-out share.")
@column_option
@click.option("--group-by", type=Names(), metavar="ID", help="Tidy tables, one row an observation: columns of the id.")
@click.option("--columns", type=Names(), metavar="A,B", help="With --group-by, the columns of a dataset, in order.")
@click.option("--epochs", type=click.IntRange(min=1), default=30, show_default=True, help="At most; stops early.")
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--start-from", type=file, help="Network (.keras) to train on, in place of a fresh one.")
@click.option("--exchangeable-rows", is_flag=True, help="The order of a dataset's rows says nothing: sort them.")
@click.option(
    "--shuffle-rows", is_flag=True, help="With --exchangeable-rows, shuffle them in training, never sort them."
)
@click.option(
    "--head",
    "hidden",
    type=Head(),
    default="dense",
    show_default=True,
    metavar="dense[:N]",
    help="dense:64 puts a layer of 64 units before the last.",
)
@click.option(
    "--logarithmic",
    type=Names(),
    help="Parameters whose errors count by their logarithms; by default, those spread evenly so.",
)
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
    parameters: tuple[str, ...] | None,
    simulator: str | None,
    datasets_per_epoch: int | None,
    workers: int | None,
    output: Path,
    validation: Path | None,
    column: str | None,
    group_by: tuple[str, ...] | None,
    columns: tuple[str, ...] | None,
    epochs: int,
    batch_size: int,
    seed: int,
    start_from: Path | None,
    exchangeable_rows: bool,
    shuffle_rows: bool,
    hidden: int,
    logarithmic: tuple[str, ...] | None,
    calibration_count: int,
    resume: bool,
    quiet: bool,
) -> None:
    """Train the network on datasets with known parameters, and write a model directory.

    The datasets are in files, or made by your function (see `toolkit simulate --help`), or both.
    """
    if not datasets and not simulator:
        raise click.UsageError("Name files of DATASETS, or a --simulator.")
    if not parameters and not simulator:
        raise click.UsageError("Missing option '--parameters'.")
    if not simulator and (datasets_per_epoch or workers):
        raise click.UsageError("--datasets-per-epoch and --workers are of a --simulator.")
    if not datasets and group_by:
        raise click.UsageError("--group-by is of DATASETS.")
    if shuffle_rows and not exchangeable_rows:
        raise click.UsageError("--shuffle-rows is of --exchangeable-rows.")
    if start_from and hidden:
        raise click.UsageError("--head is of a fresh network; --start-from has its own.")
    from toolkit.progress import rows_progress, say
    from toolkit.tables import print_training
    from toolkit.trainer import Settings
    from toolkit.training import train
    from toolkit.training_simulator import DATASETS_PER_EPOCH

    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        exchangeable_rows=exchangeable_rows,
        shuffled_rows=shuffle_rows,
        hidden=hidden,
        logarithmic=logarithmic,
    )
    with rows_progress("train", quiet=quiet, unit="steps") as report:
        manifest = train(
            datasets,
            parameters or (),
            output=output,
            validation=validation,
            column=column,
            group_by=group_by or (),
            columns=columns or (),
            simulator=simulator,
            datasets_per_epoch=datasets_per_epoch or DATASETS_PER_EPOCH,
            workers=workers,
            settings=settings,
            start_from=starting_network(start_from) if start_from else None,
            calibration_count=calibration_count,
            resume=resume,
            report=report,
            say=(lambda line: None) if quiet else say,
        )
    if not quiet:
        print_training(output, manifest)
