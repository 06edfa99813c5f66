"""Running layers of a network on arrays, in float32, for whoever prepares its quantization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from export.graph import apply_layer
from export.network import Layer

Values = NDArray[np.float32]  # (datasets, 1, rows, channels), or (datasets, features) once flat

DATASETS_AT_ONCE = 256  # keeps the widest values of the usual network at 6.5 MB


def run(layers: Sequence[Layer], values: Values) -> Values:
    """What comes out behind the last of `layers`; `values` themselves where there are none."""
    if not layers:
        return values
    return np.concatenate([list(_each(layers, piece))[-1] for piece in _pieces(values)])


def largest_magnitudes(layers: Sequence[Layer], values: Values) -> list[NDArray[np.float64]]:
    """For each layer the largest |value| behind it over all datasets and rows: float64 (channels,), or (features,)."""
    largest: list[NDArray[np.float64]] = []
    for piece in _pieces(values):
        each = [np.abs(found).reshape(-1, found.shape[-1]).max(axis=0) for found in _each(layers, piece)]
        largest = [np.maximum(*pair) for pair in zip(largest, each, strict=True)] if largest else each
    return [each.astype(np.float64) for each in largest]


def _each(layers: Sequence[Layer], values: Values) -> Iterator[Values]:
    for layer in layers:
        values = np.asarray(apply_layer(layer, values))
        yield values


def _pieces(values: Values) -> Iterator[Values]:
    return (values[begin : begin + DATASETS_AT_ONCE] for begin in range(0, len(values), DATASETS_AT_ONCE))
