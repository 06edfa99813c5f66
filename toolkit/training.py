"""Parquet -> model directory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from toolkit.card import write_card
from toolkit.datasets.tidy import DATASET
from toolkit.errors import InputError, OutputError
from toolkit.files import appears_whole
from toolkit.given import GivenNetwork, start_network
from toolkit.manifest import (
    CALIBRATION_FILE,
    KERAS_FILE,
    MANIFEST,
    Manifest,
    Parameter,
    Range,
    Training,
    write_manifest,
)
from toolkit.model import build_network, import_tensorflow
from toolkit.progress import Report, silent
from toolkit.recovery import plot_recovery, recovery_of
from toolkit.trainer import Settings, Trainer
from toolkit.training_data import TrainingData
from toolkit.training_files import fingerprint_of, open_training_data
from toolkit.training_groups import group_training_files

CHECKPOINT_FOLDER = ".training"
FITTED = 4096  # datasets that softplus is fitted on, in a network that ended in something else


def train(
    datasets: Sequence[Path | str],
    parameters: Sequence[str],
    *,
    output: Path | str = Path("model"),
    validation: Path | str | None = None,
    column: str | None = None,
    group_by: str | Sequence[str] = (),
    columns: Sequence[str] = (),
    settings: Settings = Settings(),  # noqa: B008  a frozen dataclass
    start_from: GivenNetwork | None = None,
    calibration_count: int = 6000,
    resume: bool = False,
    report: Report = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Train the network on datasets with known parameters, and write a model directory.

    The loss is the mean over parameters of (estimate - true)^2 / variance of the true values, so that a small
    parameter counts as much as a large one. The weights kept are those of the epoch with the least validation loss.
    The same datasets, settings and machine give the same weights, resumed or not.

    Args:
        datasets: Parquet files with a column of datasets and one column per parameter.
        parameters: names of those columns, in the order of the network's outputs.
        output: the model directory to write; it must not hold a model yet.
        validation: a file to validate on; without it a share of `datasets` is held out.
        column: name of the column of datasets, where the files leave a choice.
        group_by: of tidy tables, whose rows are observations: the column, or columns, of the id that the rows of one
            dataset share. Its parameters stand in each of them.
        columns: of tidy tables, the columns of a dataset, in the order in which the network is to take them.
        settings: epochs, batch size, seed, and whether the order of rows in a dataset carries anything.
        start_from: a network whose layers and weights to begin with, in place of a fresh one of the usual layers. If it
            ends in softplus and no epoch makes it better, it is kept as it was.
        calibration_count: how many of the held-out datasets go into the model directory.
        resume: continue after the last finished epoch of an interrupted run with the same arguments.
        report: told (steps done, steps in all) of the running epoch.
        say: told one line per epoch.
    Raises:
        InputError: datasets or targets that cannot be trained on, naming the row.
        ExportError: `start_from` could not be exported once it is trained, or is not of the datasets' shape.
        OutputError: `output` holds a model, or an interrupted run that differs.
    """
    output = Path(output)
    if (output / MANIFEST).exists():
        raise OutputError(f"{output}: already holds a model. Choose another --output, or move it away.")
    if group_by:
        by = [group_by] if isinstance(group_by, str) else group_by
        data = _open_groups(datasets, parameters, validation, by, columns, output / CHECKPOINT_FOLDER, settings.seed)
    else:
        data = open_training_data(datasets, parameters, validation=validation, column=column, seed=settings.seed)
    tensorflow = import_tensorflow()
    tensorflow.config.experimental.enable_op_determinism()
    keras = tensorflow.keras
    keras.utils.set_random_seed(settings.seed)
    if start_from is None:
        network = build_network(
            data.spec, data.column_means, data.column_variances, data.parameter_means, data.parameter_deviations
        )
    else:
        network = start_network(start_from, data.spec, *next(data.batches(0, FITTED, exchangeable_rows=False)))
    output.mkdir(parents=True, exist_ok=True)
    (output / CHECKPOINT_FOLDER).mkdir(exist_ok=True)
    trainer = Trainer(tensorflow, network, data, settings, start_from, output / CHECKPOINT_FOLDER)
    if start_from is not None:
        say(trainer.begin_from_what_is_given())
    if resume:
        trainer.restore()
        say(f"resuming after epoch {trainer.progress.epoch}")
    while not trainer.finished:
        say(trainer.run_epoch(report))
    trainer.use_best_weights()
    return _write_model_directory(output, trainer, calibration_count)


def _open_groups(
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
    of = fingerprint_of([Path(path) for path in (*datasets, validation) if path], [*parameters, *by, *columns])
    return open_training_data(
        [grouped], parameters, validation=other if validation else None, column=DATASET, seed=seed, fingerprint=of
    )


def _write_model_directory(output: Path, trainer: Trainer, calibration_count: int) -> Manifest:
    data, progress = trainer.data, trainer.progress
    estimates = trainer.predict(data.validation_datasets)
    recoveries = {
        name: recovery_of(data.validation_targets[:, index], estimates[:, index])
        for index, name in enumerate(data.spec.parameters)
    }
    with appears_whole(output / KERAS_FILE) as partial:
        beside = partial.with_suffix(".keras")  # Keras insists on the ending
        trainer.network.save(beside)
        beside.replace(partial)
    data.write_calibration(output / CALIBRATION_FILE, calibration_count)
    with appears_whole(output / "training.csv") as partial, partial.open("w", newline="") as target:
        writer = csv.DictWriter(target, fieldnames=list(progress.history[0]))
        writer.writeheader()
        writer.writerows(progress.history)
    plot_recovery(output / "recovery.png", data.validation_targets, estimates, data.spec.parameters, recoveries)
    seen = data.ranges
    manifest = Manifest(
        rows=data.spec.rows,
        columns=data.spec.columns,
        column_ranges=tuple(
            Range(float(low), float(high)) for low, high in zip(seen.column_minima, seen.column_maxima, strict=True)
        ),
        parameters=tuple(
            Parameter(name, float(low), float(high))
            for name, low, high in zip(data.spec.parameters, seen.parameter_minima, seen.parameter_maxima, strict=True)
        ),
        training=Training(
            data.training_count,
            trainer.settings.seed,
            {name: asdict(r) for name, r in recoveries.items()},
            f"Trained on from {trainer.start.describe()}." if trainer.start else "",
            trainer.configuration(),
        ),
        versions=versions(),
    )
    write_card(output, manifest)
    write_manifest(output, manifest)  # last: a directory without it is no model
    for leftover in (output / CHECKPOINT_FOLDER).iterdir():
        leftover.unlink()
    (output / CHECKPOINT_FOLDER).rmdir()
    return manifest


def versions() -> dict[str, str]:
    """Versions of what made the weights."""
    import keras
    import tensorflow

    from toolkit import __version__

    return {"softplus-toolkit": __version__, "tensorflow": tensorflow.__version__, "keras": keras.__version__}
