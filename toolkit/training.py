"""Parquet -> model directory: the training loop, its checkpoints, and the best weights."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.card import write_card
from toolkit.checkpoint import Progress, restore_checkpoint, save_checkpoint
from toolkit.datasets.tidy import DATASET
from toolkit.errors import InputError, OutputError
from toolkit.files import appears_whole, sha256_of
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
from toolkit.prefetch import prefetched
from toolkit.progress import Report, silent
from toolkit.recovery import plot_recovery, recovery_of
from toolkit.training_data import TrainingData, fingerprint_of, open_training_data
from toolkit.training_groups import group_training_files

if TYPE_CHECKING:
    import keras

CHECKPOINT_FOLDER = ".training"
# Adam's start, falling along a cosine to the last epoch. On a million response-time datasets 3e-3 falls faster (four
# epochs reach the loss of eight) but stays above: .0334 after nine epochs, where 1e-3 ends at .0327 after twelve.
LEARNING_RATE = 1e-3
FINAL_LEARNING_RATE = 1e-5
WARMUP_STEPS = 200  # a linear rise: the first gradients of a fresh network are its largest
LOSS = "mean over parameters of (estimate - true)^2 / variance of the true values"
PREDICT_BATCH = 512
FITTED = 4096  # datasets that softplus is fitted on, in a network that ended in something else


@dataclass(frozen=True)
class Settings:
    """What decides the trained weights, besides the datasets."""

    epochs: int = 30
    batch_size: int = 128
    seed: int = 0
    patience: int = 6  # epochs without a better validation loss before training stops
    exchangeable_rows: bool = False


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
    trainer = _Trainer(tensorflow, network, data, settings, start_from, output / CHECKPOINT_FOLDER)
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


class _Trainer:
    """The state of a training run: network, optimizer, best weights so far, history."""

    def __init__(
        self,
        tensorflow: Any,
        network: keras.Model,
        data: TrainingData,
        settings: Settings,
        start: GivenNetwork | None,
        folder: Path,
    ) -> None:
        self.network, self.data, self.settings, self.start = network, data, settings, start
        self.checkpoint = folder / "checkpoint.npz"
        self.progress = Progress()
        self.best = network.get_weights()
        self.steps_per_epoch = -(-data.training_count // settings.batch_size)
        warmup_steps = min(WARMUP_STEPS, self.steps_per_epoch)
        schedule = tensorflow.keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=LEARNING_RATE / 10,
            warmup_target=LEARNING_RATE,
            warmup_steps=warmup_steps,
            decay_steps=max(1, self.steps_per_epoch * settings.epochs - warmup_steps),
            alpha=FINAL_LEARNING_RATE / LEARNING_RATE,
        )
        self.optimizer = tensorflow.keras.optimizers.Adam(schedule)
        self.optimizer.build(network.trainable_variables)
        weights = tensorflow.constant(1.0 / data.parameter_deviations**2, tensorflow.float32)
        rows, columns = data.spec.shape
        signature = [
            tensorflow.TensorSpec((None, rows, columns), tensorflow.float32),
            tensorflow.TensorSpec((None, len(data.spec.parameters)), tensorflow.float32),
        ]

        @tensorflow.function(input_signature=signature)
        def step(batch: Any, targets: Any) -> Any:
            with tensorflow.GradientTape() as tape:
                estimates = tensorflow.cast(network(batch, training=True), tensorflow.float32)
                loss = tensorflow.reduce_mean(tensorflow.square(estimates - targets) * weights)
                for penalty in network.losses:  # of a given network's regularizers
                    loss += tensorflow.cast(penalty, tensorflow.float32)
            gradients = tape.gradient(loss, network.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
            return loss

        @tensorflow.function(input_signature=signature[:1])
        def predict(batch: Any) -> Any:
            return tensorflow.cast(network(batch, training=False), tensorflow.float32)

        self._step, self._predict = step, predict

    @property
    def finished(self) -> bool:
        done = self.progress
        return done.epoch >= self.settings.epochs or done.epoch - done.best_epoch >= self.settings.patience

    def begin_from_what_is_given(self) -> str:
        """Let the weights of before the first epoch be the best until others are better."""
        rmse, self.progress.best_loss = self.validate()
        return f"given network: validation {self.progress.best_loss:.5f}, RMSE {self._each(rmse)}"

    def run_epoch(self, report: Report) -> str:
        """Train one epoch, validate, remember the weights if they are the best, write a checkpoint."""
        begun = time.monotonic()
        epoch = self.progress.epoch + 1
        losses = []
        batches = self.data.batches(epoch, self.settings.batch_size, self.settings.exchangeable_rows)
        for index, (batch, targets) in enumerate(prefetched(batches)):
            losses.append(self._step(batch, targets))
            report(index + 1, self.steps_per_epoch)
        loss = float(np.mean([float(value) for value in losses]))
        rmse, validation_loss = self.validate()
        if not np.isfinite([loss, validation_loss]).all():
            raise InputError(f"epoch {epoch}: the loss is not finite. Look for extreme values in the datasets.")
        self.progress.epoch = epoch
        if validation_loss < self.progress.best_loss:
            self.progress.best_epoch, self.progress.best_loss = epoch, validation_loss
            self.best = self.network.get_weights()
        record = {
            "epoch": epoch,
            "seconds": time.monotonic() - begun,
            "learning_rate": float(self.optimizer.learning_rate),
            "loss": loss,
            "validation_loss": validation_loss,
        }
        record |= {
            f"validation_rmse_{name}": float(value) for name, value in zip(self.data.spec.parameters, rmse, strict=True)
        }
        self.progress.history.append(record)
        save_checkpoint(self.checkpoint, self._fingerprint(), self.progress, self.network, self.optimizer, self.best)
        best = " (best)" if self.progress.best_epoch == epoch else ""
        return (
            f"epoch {epoch} of {self.settings.epochs}: loss {loss:.5f}, validation {validation_loss:.5f}{best}, "
            f"RMSE {self._each(rmse)}, {record['seconds']:.0f} s"
        )

    def _each(self, values: NDArray[np.float64]) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(self.data.spec.parameters, values, strict=True))

    def validate(self) -> tuple[NDArray[np.float64], float]:
        """RMSE of each parameter over the validation datasets, and their loss."""
        errors = self.predict(self.data.validation_datasets) - self.data.validation_targets
        rmse = np.sqrt(np.mean(np.square(errors, dtype=np.float64), axis=0))
        return rmse, float(np.mean((rmse / self.data.parameter_deviations) ** 2))

    def predict(self, datasets: NDArray[np.float32]) -> NDArray[np.float32]:
        batches = [datasets[start : start + PREDICT_BATCH] for start in range(0, len(datasets), PREDICT_BATCH)]
        return np.concatenate([self._predict(batch).numpy() for batch in batches])

    def use_best_weights(self) -> None:
        self.network.set_weights(self.best)

    def configuration(self) -> dict[str, str | int | float | bool]:
        """What training was told, and where it ended, for manifest.json."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "seed"}
        return {
            **settings,
            "epochs_run": self.progress.epoch,
            "best_epoch": self.progress.best_epoch,
            "loss": LOSS,
            "optimizer": "Adam",
            "learning_rate": f"{LEARNING_RATE:g}, falling along a cosine to {FINAL_LEARNING_RATE:g}",
            "validation_datasets": len(self.data.validation_targets),
        }

    def _fingerprint(self) -> str:
        """Of everything that must be the same when a run is resumed."""
        start = self.start and sha256_of(self.start.path)
        facts = {**asdict(self.settings), "data": self.data.fingerprint, "start": start}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def restore(self) -> None:
        """Take up the last finished epoch; without a checkpoint there is nothing to take up."""
        restored = restore_checkpoint(self.checkpoint, self._fingerprint(), self.network, self.optimizer)
        if restored:
            self.progress, self.best = restored


def _write_model_directory(output: Path, trainer: _Trainer, calibration_count: int) -> Manifest:
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
    manifest = Manifest(
        rows=data.spec.rows,
        columns=data.spec.columns,
        column_ranges=tuple(
            Range(float(low), float(high)) for low, high in zip(data.column_minima, data.column_maxima, strict=True)
        ),
        parameters=tuple(
            Parameter(name, float(low), float(high))
            for name, low, high in zip(data.spec.parameters, data.parameter_minima, data.parameter_maxima, strict=True)
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
