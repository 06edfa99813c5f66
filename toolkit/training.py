"""Datasets with known parameters, in files or from a simulator -> model directory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.card import write_card
from toolkit.errors import OutputError
from toolkit.files import appears_whole
from toolkit.given import GivenNetwork, start_network
from toolkit.intervals import conformal_intervals
from toolkit.manifest import (
    CALIBRATION_FILE,
    KERAS_FILE,
    MANIFEST,
    Manifest,
    Parameter,
    Range,
    Training,
    read_manifest,
    write_manifest,
)
from toolkit.model import build_network, import_tensorflow, name_of_gpu
from toolkit.progress import Report, silent
from toolkit.recovery import plot_recovery, recovery_of
from toolkit.trainer import Settings, Trainer
from toolkit.training_checks import warnings_of_size
from toolkit.training_data import TrainingData
from toolkit.training_files import FilePieces
from toolkit.training_folder import CHECKPOINT_FOLDER, remove_training_folder, training_folder, writing
from toolkit.training_simulator import DATASETS_PER_EPOCH
from toolkit.training_source import open_source

FITTED = 4096  # datasets that softplus is fitted on, in a network that ended in something else


def train(
    datasets: Sequence[Path | str] = (),
    parameters: Sequence[str] = (),
    *,
    output: Path | str = Path("model"),
    validation: Path | str | None = None,
    column: str | None = None,
    group_by: str | Sequence[str] = (),
    columns: Sequence[str] = (),
    simulator: str | None = None,
    datasets_per_epoch: int = DATASETS_PER_EPOCH,
    workers: int | None = None,
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
        datasets: Parquet files with a column of datasets and one column per parameter; with a simulator there may be
            none.
        parameters: names of those columns, in the order of the network's outputs; all that the simulator names, where
            none are named here.
        output: the model directory to write; it must not hold a model yet.
        validation: a file to validate on; without it a share of `datasets` is held out.
        column: name of the column of datasets, where the files leave a choice.
        group_by: of tidy tables, whose rows are observations: the column, or columns, of the id that the rows of one
            dataset share. Its parameters stand in each of them.
        columns: of tidy tables, the columns of a dataset, in the order in which the network is to take them.
        simulator: "FILE.py:FUNCTION", see `toolkit.simulator.open_simulator`. It makes fresh datasets for every epoch,
            in processes of its own, while the network trains. What is no good (it raised, or returned what is not
            finite, not positive or not of the right shape) is left out and said; more than 5% of it ends training.
        datasets_per_epoch: how many the simulator makes for an epoch.
        workers: its processes; by default one for each usable core.
        settings: epochs, batch size, seed, and whether the order of rows in a dataset carries anything.
        start_from: a network whose layers and weights to begin with, in place of a fresh one of the usual layers. If it
            ends in softplus and no epoch makes it better, it is kept as it was.
        calibration_count: how many calibration datasets go into the model directory. They are a tenth of all, at most
            10,000, that neither train nor choose the epoch; what intervals are made of is computed from all of them.
        resume: continue after the last finished epoch of an interrupted run with the same arguments.
        report: told (steps done, steps in all) of the running epoch.
        say: told one line per epoch.
    Raises:
        InputError: datasets or targets that cannot be trained on, naming the row.
        SimulatorError: the simulator cannot be loaded, or too much of what it makes is no good, naming the block. Mend
            it, and go on with `resume`.
        ExportError: `start_from` could not be exported once it is trained, or is not of the datasets' shape.
        OutputError: `output` holds a model, or an interrupted run that differs.
    """
    output = Path(output)
    if (output / MANIFEST).exists():
        if resume and (output / CHECKPOINT_FOLDER).is_dir():  # the run ended between its last two steps
            remove_training_folder(output)
            return read_manifest(output)
        raise OutputError(f"{output}: already holds a model. Choose another --output, or move it away.")
    with (
        training_folder(output) as folder,
        open_source(
            datasets,
            parameters,
            folder=folder,
            validation=validation,
            column=column,
            group_by=[group_by] if isinstance(group_by, str) else group_by,
            columns=columns,
            simulator=simulator,
            datasets_per_epoch=datasets_per_epoch,
            workers=workers,
            seed=settings.seed,
            say=say,
        ) as data,
    ):
        trainer = _trained(data, folder, settings, start_from, resume, report, say)
        with writing(output):
            manifest = _write_model_directory(output, trainer, calibration_count)
    return manifest


def _trained(
    data: TrainingData,
    folder: Path,
    settings: Settings,
    start_from: GivenNetwork | None,
    resume: bool,
    report: Report,
    say: Callable[[str], None],
) -> Trainer:
    if settings.sorts_rows and start_from is None:  # a given network has learned on rows as they came
        data = data.with_sorted_rows()
    tensorflow = import_tensorflow()
    if gpu := name_of_gpu(tensorflow):
        say(f"training on {gpu}")
    tensorflow.config.experimental.enable_op_determinism()
    keras = tensorflow.keras
    keras.utils.set_random_seed(settings.seed)
    if start_from is None:
        network = build_network(
            data.spec,
            data.column_means,
            data.column_variances,
            data.parameter_means,
            data.parameter_deviations,
            hidden=settings.hidden,
        )
    else:
        network = start_network(start_from, data.spec, *next(data.batches(0, FITTED, exchangeable_rows=False)))
    trainer = Trainer(tensorflow, network, data, settings, start_from, folder)
    if start_from is not None:
        say(trainer.begin_from_what_is_given())
    if resume:
        trainer.restore()
        say(f"resuming after epoch {trainer.progress.epoch}")
    elif trainer.checkpoint.exists():
        say(f"{folder}: what an interrupted run has done is thrown away; --resume would have gone on")
        trainer.checkpoint.unlink()
    for warning in (*data.warnings, *_warnings_of_size(data, network), *data.pieces.warnings()):
        say(warning)
    while not trainer.finished:
        say(trainer.run_epoch(report))
        for warning in data.pieces.warnings():
            say(warning)
    trainer.use_best_weights()
    return trainer


def _warnings_of_size(data: TrainingData, network: Any) -> tuple[str, ...]:
    """A simulator's datasets are fresh in every epoch: no network learns them by heart."""
    if not isinstance(data.pieces, FilePieces):
        return ()
    return warnings_of_size(data.training_count, network.count_params(), len(data.spec.parameters))


def _write_model_directory(output: Path, trainer: Trainer, calibration_count: int) -> Manifest:
    data, progress = trainer.data, trainer.progress
    estimates = trainer.predict(data.calibration_datasets)
    recoveries = {
        name: recovery_of(data.calibration_targets[:, index], estimates[:, index])
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
    intervals = conformal_intervals(estimates, data.calibration_targets)
    plot_recovery(output / "recovery.png", data.calibration_targets, estimates, data.spec.parameters, recoveries)
    seen = data.ranges
    manifest = Manifest(
        rows=data.spec.rows,
        columns=data.spec.columns,
        sorted_rows=data.spec.sorted_rows,
        column_ranges=tuple(
            Range(float(low), float(high)) for low, high in zip(seen.column_minima, seen.column_maxima, strict=True)
        ),
        parameters=tuple(
            Parameter(name, float(low), float(high))
            for name, low, high in zip(data.spec.parameters, seen.parameter_minima, seen.parameter_maxima, strict=True)
        ),
        training=Training(
            data.pieces.different,
            trainer.settings.seed,
            {name: asdict(r) for name, r in recoveries.items()},
            f"Trained on from {trainer.start.describe()}." if trainer.start else "",
            trainer.configuration(),
        ),
        versions=versions(),
        interval=intervals.to_json(data.spec.parameters),
    )
    write_card(output, manifest)
    write_manifest(output, manifest)  # last: a directory without it is no model
    remove_training_folder(output)
    return manifest


def versions() -> dict[str, str]:
    """Versions of what made the weights."""
    import keras
    import tensorflow

    from toolkit import __version__

    return {"softplus-toolkit": __version__, "tensorflow": tensorflow.__version__, "keras": keras.__version__}
