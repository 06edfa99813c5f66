"""int8 files of networks whose columns are awkward to round: constant, tiny, huge or negative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.int8 import Int8
from export.limit import input_limit
from export.network import Activation, Conv1D, Dense, Layer, Network, Normalization, Pooling1D, Reshape
from toolkit.proof import prove
from toolkit.runtime import load
from toolkit.spec import SMALLEST_NORMAL_FLOAT32

ROWS = 20
KERAS_EPSILON = 1e-7  # what Keras divides a column by that never changes
COLUMNS = {  # of two columns the offsets, and the scales
    "constant": ([5.0, 0.3], [0.0, 1.0]),
    "tiny": ([2e-6, 0.0], [1e-6, 1e-6]),
    "huge": ([3e6, -2e6], [1e6, 1e6]),
    "tiny beside huge": ([0.0, 1e6], [1e-6, 1e6]),
    "negative": ([-50.0, -9.0], [3.0, 1.0]),
}


def small_network(offsets: list[float], scales: list[float]) -> Network:
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)

    layers: tuple[Layer, ...] = (
        Normalization(np.float32([offsets]), np.float32([scales]) ** 2, KERAS_EPSILON),
        Conv1D(weights(3, 2, 8), weights(1, 8)[0] / 5, 1, "valid", 1),
        Activation("relu"),
        Pooling1D("max", 2, 2, "valid"),
        Conv1D(weights(3, 8, 16), weights(1, 16)[0] / 5, 1, "valid", 1),
        Activation("relu"),
        Reshape((7 * 16,)),
        Dense(weights(7 * 16, 2), np.float32([0.5, 0.3])),
    )
    return Network((ROWS, 2), 2, layers)


def estimates(network: Network, datasets: np.ndarray) -> np.ndarray:
    """In float64, written for this one network."""
    normal, first, _, _, second, _, _, head = network.layers
    assert isinstance(normal, Normalization) and isinstance(first, Conv1D) and isinstance(second, Conv1D)
    assert isinstance(head, Dense)

    def convolved(values: np.ndarray, layer: Conv1D) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(values, 3, axis=1)  # (datasets, rows, channels, width)
        return np.maximum(np.einsum("nrcw,wcf->nrf", windows, layer.kernel.astype(np.float64)) + layer.bias, 0)

    values = convolved((datasets.astype(np.float64) - normal.mean) / normal.deviation, first)
    values = values.reshape(len(values), -1, 2, 8).max(axis=2)
    values = convolved(values, second).reshape(len(values), -1)
    return np.logaddexp(0, values @ head.kernel.astype(np.float64) + head.bias)


@pytest.mark.parametrize("first_layer", ["int8", "float"])
@pytest.mark.parametrize("columns", COLUMNS)
def test_int8_is_accurate_whatever_the_columns_are(columns: str, first_layer: str, tmp_path: Path) -> None:
    offsets, scales = COLUMNS[columns]
    network = small_network(offsets, scales)
    numbers = np.random.default_rng(4).normal(0, 1, (600, ROWS, 2)) * scales + offsets
    datasets = numbers.astype(np.float32)
    made = Int8(network, datasets[:400], first_layer, input_limit(network))
    for format in ("tflite", "onnx"):
        path = tmp_path / f"model.int8.{format}"
        content, _ = made.write(format)
        path.write_bytes(content)
        found, true = load(path)(datasets[400:]), estimates(network, datasets[400:])
        relative = np.abs(found - true) / true
        # Measured .5 % and 2.8 %, on random weights; all columns alike.
        assert np.median(relative) <= 1e-2 and np.quantile(relative, 0.99) <= 6e-2
        proof = prove(path)
        assert proof.passed and min(proof.lower) >= SMALLEST_NORMAL_FLOAT32, proof.failures
        assert found.min() >= min(proof.lower)
