"""An engine that takes exactly one batch, as a function of any number of datasets, and what it gives held to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import InputError, ModelError, reason_of

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict

# Datasets a call of the engine. A batch must stay in cache: 16 to 128 differ by less than 5 %, 8 and 1,024 are slower.
# The size is fixed and the last batch padded: a dataset's estimates must not depend on how many others come along.
BATCH = 32

RunBatch = Callable[["FloatArray"], "FloatArray"]  # exactly one batch


def unusable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path}: not a usable {path.suffix[1:]} model ({reason_of(error)}). Export it again.")


def in_batches(path: Path, run: RunBatch, size: int, shape: tuple[int, int], parameters: int) -> Predict:
    """`run`, which takes exactly `size` datasets, for any number of them; the last batch is padded with zeros."""
    if not all(isinstance(number, int) and number > 0 for number in (size, *shape, parameters)):
        raise ValueError(f"takes datasets of shape {shape} and gives {parameters} estimates: not whole numbers above 0")

    def run_one(datasets: FloatArray) -> FloatArray:
        try:
            estimates = run(datasets)
        except Exception as error:  # as above
            raise unusable(path, error) from error
        # Assigned as it is, another shape would be broadcast: one dataset's estimates given to all.
        if estimates.shape != (size, parameters) or estimates.dtype != np.float32:
            raise ModelError(
                f"{path}: gives {estimates.dtype} estimates of shape {estimates.shape} for {size} datasets, "
                f"not float32 {(size, parameters)}. Export it again."
            )
        return estimates

    def predict(datasets: FloatArray) -> FloatArray:
        datasets = np.asarray(datasets, np.float32)
        if datasets.ndim != 3 or datasets.shape[1:] != shape:
            rows, columns = shape
            raise InputError(f"the model takes an array of shape (n, {rows}, {columns}), not {datasets.shape}.")
        estimates = np.empty((len(datasets), parameters), np.float32)
        whole = len(datasets) // size * size
        for begin in range(0, whole, size):
            estimates[begin : begin + size] = run_one(datasets[begin : begin + size])
        if left := len(datasets) - whole:
            padded = np.zeros((size, *shape), np.float32)
            padded[:left] = datasets[whole:]
            estimates[whole:] = run_one(padded)[:left]
        return estimates

    return predict
