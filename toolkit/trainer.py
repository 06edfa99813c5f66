"""The training loop: steps, validation, the best weights so far, and a checkpoint after every epoch."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.checkpoint import Progress, restore_checkpoint, save_checkpoint
from toolkit.errors import InputError
from toolkit.files import sha256_of
from toolkit.given import GivenNetwork
from toolkit.prefetch import prefetched
from toolkit.progress import Report
from toolkit.spec import SMALLEST_NORMAL_FLOAT32
from toolkit.training_data import TrainingData

if TYPE_CHECKING:
    import keras

# Adam's start, falling along a cosine to the last epoch. On a million response-time datasets 3e-3 falls faster (four
# epochs reach the loss of eight) but stays above: .0334 after nine epochs, where 1e-3 ends at .0327 after twelve.
LEARNING_RATE = 1e-3
FINAL_LEARNING_RATE = 1e-5
WARMUP_STEPS = 200  # a linear rise: the first gradients of a fresh network are its largest
LOSS = "mean over parameters of (estimate - true)^2 / variance of the true values"
LEAST = SMALLEST_NORMAL_FLOAT32  # of an estimate whose logarithm is taken: Keras's softplus is 0 below -104
PREDICT_BATCH = 512
NOT_SHOWN = ("seed", "logarithmic")  # of the settings, in the configuration: told otherwise


@dataclass(frozen=True)
class Settings:
    """What decides the trained weights, besides the datasets."""

    epochs: int = 30
    batch_size: int = 128
    seed: int = 0
    patience: int = 6  # epochs without a better validation loss before training stops
    exchangeable_rows: bool = False  # the order of rows in a dataset carries nothing: they are sorted
    shuffled_rows: bool = False  # shuffled in training instead, for devices that cannot sort
    hidden: int = 0  # units of a Dense layer before the last; 0 for none
    logarithmic: tuple[str, ...] | None = None  # parameters compared by their logarithms; None has their spread decide

    @property
    def sorts_rows(self) -> bool:
        return self.exchangeable_rows and not self.shuffled_rows


class Trainer:
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
        self.logarithmic = self._logarithmic()
        of_logarithms = tensorflow.constant(self.logarithmic)
        weights = tensorflow.constant(1.0 / self._deviations() ** 2, tensorflow.float32)

        # Traced for each size of batch, full ones and the last: with a known size a step takes 5% less. AutoGraph would
        # read this source again while it traces.
        @tensorflow.function(autograph=False)
        def step(batch: Any, targets: Any) -> Any:
            with tensorflow.GradientTape() as tape:
                estimates = tensorflow.cast(network(batch, training=True), tensorflow.float32)
                by_logarithm = tensorflow.math.log(tensorflow.maximum(estimates, LEAST) / targets)
                errors = tensorflow.where(of_logarithms, by_logarithm, estimates - targets)
                loss = tensorflow.reduce_mean(tensorflow.square(errors) * weights)
                for penalty in network.losses:  # of a given network's regularizers
                    loss += tensorflow.cast(penalty, tensorflow.float32)
            gradients = tape.gradient(loss, network.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
            return loss

        @tensorflow.function(autograph=False)
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
        self.progress.seen = self.data.pieces.state()
        save_checkpoint(self.checkpoint, self._facts(), self.progress, self.network, self.optimizer, self.best)
        best = " (best)" if self.progress.best_epoch == epoch else ""
        return (
            f"epoch {epoch} of {self.settings.epochs}: loss {loss:.5f}, validation {validation_loss:.5f}{best}, "
            f"RMSE {self._each(rmse)}, {record['seconds']:.0f} s"
        )

    def _logarithmic(self) -> NDArray[np.bool_]:
        """bool (parameters,): whose errors are those of logarithms.

        Unless told otherwise, those whose true values are spread more evenly by their logarithms, as of a scale that
        may be .001 or .1: of squared differences the small ones would be next to nothing, however wrong. Spread evenly
        means little skewness, which is the mean cube of the standardized values.
        """
        names, true = self.data.spec.parameters, self.data.validation_targets.astype(np.float64)
        if self.settings.logarithmic is None:
            return np.asarray(abs(_skewness(np.log(true))) < abs(_skewness(true)))
        unknown = [name for name in self.settings.logarithmic if name not in names]
        if unknown:
            raise InputError(f"no parameter {unknown[0]!r} to compare by its logarithm. There are: {', '.join(names)}.")
        return np.array([name in self.settings.logarithmic for name in names])

    def _deviations(self) -> NDArray[np.float64]:
        """float64 (parameters,): of the true values, or of their logarithms, as the loss compares them."""
        logarithms = np.log(self.data.validation_targets.astype(np.float64))
        return np.where(self.logarithmic, np.maximum(logarithms.std(axis=0), 1e-6), self.data.parameter_deviations)

    def _each(self, values: NDArray[np.float64]) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(self.data.spec.parameters, values, strict=True))

    def validate(self) -> tuple[NDArray[np.float64], float]:
        """RMSE of each parameter over the validation datasets, and their loss."""
        estimates, true = self.predict(self.data.validation_datasets), self.data.validation_targets.astype(np.float64)
        rmse = np.sqrt(np.mean(np.square(estimates - true), axis=0))
        of_logarithms = np.sqrt(np.mean(np.square(np.log(np.maximum(estimates, LEAST) / true)), axis=0))
        errors = np.where(self.logarithmic, of_logarithms, rmse)
        return rmse, float(np.mean((errors / self._deviations()) ** 2))

    def predict(self, datasets: NDArray[np.float32]) -> NDArray[np.float32]:
        batches = [datasets[start : start + PREDICT_BATCH] for start in range(0, len(datasets), PREDICT_BATCH)]
        return np.concatenate([self._predict(batch).numpy() for batch in batches])

    def use_best_weights(self) -> None:
        self.network.set_weights(self.best)

    def configuration(self) -> dict[str, str | int | float | bool]:
        """What training was told, and where it ended, for manifest.json."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in NOT_SHOWN}
        return {
            **settings,
            "epochs_run": self.progress.epoch,
            "best_epoch": self.progress.best_epoch,
            "loss": self._loss_in_words(),
            "optimizer": "Adam",
            "learning_rate": f"{LEARNING_RATE:g}, falling along a cosine to {FINAL_LEARNING_RATE:g}",
            "validation_datasets": len(self.data.validation_targets),
            **self.data.pieces.configuration(),
        }

    def _loss_in_words(self) -> str:
        names = [name for name, taken in zip(self.data.spec.parameters, self.logarithmic, strict=True) if taken]
        return f"{LOSS}; for {', '.join(names)} of their logarithms" if names else LOSS

    def _facts(self) -> dict[str, Any]:
        """Everything that must be the same when a run is resumed."""
        start = self.start and sha256_of(self.start.path)
        return {**asdict(self.settings), "data": self.data.fingerprint, "start": start}

    def restore(self) -> None:
        """Take up the last finished epoch; without a checkpoint there is nothing to take up."""
        restored = restore_checkpoint(self.checkpoint, self._facts(), self.network, self.optimizer)
        if restored:
            self.progress, self.best = restored
            self.data.pieces.restore(self.progress.seen)


def _skewness(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (parameters,), of (n, parameters)."""
    centred = values - values.mean(axis=0)
    return np.asarray(np.mean((centred / np.maximum(values.std(axis=0), 1e-300)) ** 3, axis=0))
