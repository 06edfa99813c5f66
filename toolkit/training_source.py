"""The training data that a command or a call names: files, tidy tables, a simulator, or files and a simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from toolkit.datasets.tidy import DATASET
from toolkit.errors import InputError
from toolkit.simulator import open_simulator
from toolkit.training_data import TrainingData
from toolkit.training_files import fingerprint_of, open_training_data
from toolkit.training_groups import group_training_files
from toolkit.training_simulator import DATASETS_PER_EPOCH, simulated_data, with_simulated

# The network's steps come first: where cores are few, a simulator that is as urgent as they are delays each of them.
NICE = 10


@contextmanager
def open_source(
    datasets: Sequence[Path | str],
    parameters: Sequence[str],
    *,
    folder: Path,
    validation: Path | str | None = None,
    column: str | None = None,
    group_by: Sequence[str] = (),
    columns: Sequence[str] = (),
    simulator: str | None = None,
    datasets_per_epoch: int = DATASETS_PER_EPOCH,
    workers: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[TrainingData]:
    """Training data for as long as the context lasts, in which a simulator's processes run.

    Args:
        folder: where tidy tables are grouped.
        say: told of what takes a while.
    Raises:
        InputError, SimulatorError: as in `open_training_data`, `simulated_data` and `with_simulated`.
    """

    def of_files(names: Sequence[str]) -> TrainingData:
        if group_by:
            return _grouped_data(datasets, names, validation, group_by, columns, folder, seed)
        return open_training_data(datasets, names, validation=validation, column=column, seed=seed)

    if simulator is None:
        if not parameters:
            raise InputError("No parameters to estimate: name the columns of their true values, --parameters a,b.")
        yield of_files(parameters)
        return
    with open_simulator(simulator, workers=workers, nice=NICE) as opened:
        say(f"{simulator}: simulating the datasets to begin with")
        if datasets:
            data = of_files(parameters or opened.parameters)
            yield with_simulated(data, opened, count=datasets_per_epoch)
        else:
            yield simulated_data(
                opened, parameters, count=datasets_per_epoch, seed=seed, validation=validation, column=column
            )


def _grouped_data(
    datasets: Sequence[Path | str],
    parameters: Sequence[str],
    validation: Path | str | None,
    by: Sequence[str],
    columns: Sequence[str],
    folder: Path,
    seed: int,
) -> TrainingData:
    """The training data of tidy tables. They are grouped into `folder`, which is removed with the checkpoints."""
    if not columns:
        raise InputError("--group-by needs the columns of a dataset as well, in their order: --columns a,b")
    folder.mkdir(parents=True, exist_ok=True)
    grouped, other = folder / "datasets.parquet", folder / "validation.parquet"
    try:
        rows = group_training_files(datasets, parameters, by, columns, grouped)
        if validation is not None:
            group_training_files([validation], parameters, by, columns, other, rows)
    except InputError:
        grouped.unlink(missing_ok=True)
        other.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: an interrupted run is there
            folder.rmdir()
            folder.parent.rmdir()
        raise
    words = [*parameters, *by, *columns, "" if validation is None else "validated"]
    of = fingerprint_of([Path(path) for path in (*datasets, validation) if path], words)
    return open_training_data(
        [grouped], parameters, validation=other if validation else None, column=DATASET, seed=seed, fingerprint=of
    )
