"""Inputs that no dataset looks like, to try a model file where it is most likely to fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError, reason_of
from toolkit.files import sha256_of
from toolkit.manifest import ADVERSARIAL_FILE, KERAS_FILE
from toolkit.spec import Spec

LARGEST = float(np.finfo(np.float32).max)  # 3.4028235e38
LEVELS = (0.0, 1e-45, 1e-38, 1e-3, 1.0, 1e3, 1e10, 1e20, 1e30, 3e38, LARGEST)  # 1e-45: the smallest float32

EXTREME = "extreme inputs"
ADVERSARIAL = "adversarial inputs"
WITHIN_RANGES = "adversarial inputs within the ranges of real ones"


@dataclass(frozen=True)
class Probes:
    """Inputs of one kind. datasets: float32 (probes, rows, columns). names: what each is, in words for people."""

    kind: str
    datasets: NDArray[np.float32]
    names: tuple[str, ...]


def extreme_inputs(spec: Spec, real: NDArray[np.float32]) -> Probes:
    """Finite float32 datasets from the ends of what can be typed, and real ones pushed there.

    Args:
        real: float32 (datasets, rows, columns), at least one; the first few are scaled, and given spikes.
    Returns:
        Constants of either sign, one column against the others, signs alternating over rows and over columns, single
        spikes in the first, middle and last row, real datasets times powers of ten.
    """
    names, datasets = zip(*_extremes(spec, real[:3].astype(np.float64)), strict=True)
    return Probes(EXTREME, np.clip(np.stack(datasets), -LARGEST, LARGEST).astype(np.float32), names)


def _extremes(spec: Spec, real: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    rows, columns = spec.shape
    everywhere = np.ones((rows, columns))
    row_signs = np.where(np.arange(rows) % 2, -1.0, 1.0)[:, None] * everywhere
    column_signs = np.where(np.arange(columns) % 2, -1.0, 1.0) * everywhere
    patterns = {
        "every value": everywhere,
        "signs alternating over rows, values": row_signs,
        "signs alternating over columns, values": column_signs,
        "a chessboard of signs, values": row_signs * column_signs,
    }
    for index, name in enumerate(spec.columns):
        patterns[f"column {name} alone"] = np.eye(columns)[index] * everywhere
    for level in LEVELS:
        for sign in (1, -1):
            for what, pattern in patterns.items():
                yield f"{what} {sign * level:g}", sign * level * pattern
    for index, dataset in enumerate(real):
        for factor in (1e-30, 1e-3, 1e3, 1e10, 1e30):
            for sign in (1, -1):
                yield f"dataset {index} times {sign * factor:g}", sign * factor * dataset
        for row in (0, rows // 2, rows - 1):
            for spike in (LARGEST, -LARGEST, 1e6, -1e6):
                spiked = dataset.copy()
                spiked[row] = spike
                yield f"dataset {index} with {spike:g} in row {row}", spiked


def stored_adversarial(directory: Path, spec: Spec) -> tuple[Probes, Probes]:
    """The datasets that `export` has found by gradient descent on the Keras network towards small estimates.

    Returns:
        Those without limits, and those within the ranges of the real datasets they were made from.
    Raises:
        ModelError: adversarial.npz is absent, unreadable, or made from another model.keras.
    """
    path = directory / ADVERSARIAL_FILE
    again = "Export the model again: toolkit export --format all"
    if not path.is_file():
        raise ModelError(f"{path}: not there, so the files cannot be probed. {again}")
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as archive:
            members = (archive[name] for name in ("datasets", "parameters", "inside"))
            datasets, towards, inside = map(np.asarray, members)  # a member that is no array is given as bytes
            made_from = str(archive["keras_sha256"])
            names = np.array([f"an input made for a small {spec.parameters[index]}" for index in towards])
    except Exception as error:  # NumPy parses a header as Python: a damaged one is any of a dozen exceptions
        raise ModelError(f"{path}: cannot be read ({reason_of(error)}). {again}") from error
    fits = datasets.dtype == np.float32 and datasets.shape[1:] == spec.shape and np.isfinite(datasets).all()
    if not fits or inside.dtype != bool or not towards.shape == inside.shape == (len(datasets),):
        raise ModelError(f"{path}: holds no finite float32 datasets of {spec.describe()}. {again}")
    keras_file = directory / KERAS_FILE
    if keras_file.is_file() and sha256_of(keras_file) != made_from:
        raise ModelError(f"{path}: made from another {KERAS_FILE} than the one beside it. {again}")
    return (
        Probes(ADVERSARIAL, datasets[~inside], tuple(names[~inside])),
        Probes(WITHIN_RANGES, datasets[inside], tuple(f"{name} within the ranges" for name in names[inside])),
    )
