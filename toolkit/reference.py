"""The truth that every exported file is compared with: the trained network in float64, in plain NumPy.

It shares no code with Keras, with the exporter or with any runtime. `weights.npz` is written by `export`; it holds the
trained float32 weights and, as JSON, the list of layers that leads from a raw dataset to the logits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError, reason_of
from toolkit.files import sha256_of
from toolkit.manifest import KERAS_FILE, WEIGHTS_FILE

Values = NDArray[np.float64]  # (datasets, rows, channels), or (datasets, features) once flat
Forward = Callable[[NDArray[np.float32]], Values]

DATASETS_AT_ONCE = 128  # holds the widest intermediate of the usual network (the second convolution's windows) at 10 MB


def load_reference(directory: Path) -> Forward:
    """The float64 forward pass of a model directory.

    Returns:
        float32 (datasets, rows, columns) -> float64 (datasets, parameters), the true softplus of the logits.
    Raises:
        ModelError: weights.npz is absent, unreadable, or made from another model.keras.
    """
    logits = load_logits(directory)
    return lambda datasets: np.logaddexp(0.0, logits(datasets))


def load_logits(directory: Path) -> Forward:
    """As `load_reference`, without the softplus."""
    path = directory / WEIGHTS_FILE
    again = "Export the model again: toolkit export --format all"
    if not path.is_file():
        raise ModelError(f"{path}: not there. {again}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            network = json.loads(str(archive["network"]))
            layers = [_with_arrays(layer, index, archive) for index, layer in enumerate(network["layers"])]
        unknown = [layer["kind"] for layer in layers if layer["kind"] not in LAYERS]
        made_from = network["keras_sha256"]
    except Exception as error:  # NumPy parses a header as Python: a damaged one is any of a dozen exceptions
        raise ModelError(f"{path}: cannot be read ({reason_of(error)}). {again}") from error
    if unknown:
        raise ModelError(f"{path}: holds a {unknown[0]} layer, which this toolkit does not know. Update the toolkit.")
    keras_file = directory / KERAS_FILE
    if keras_file.is_file() and sha256_of(keras_file) != made_from:
        raise ModelError(f"{path}: made from another {KERAS_FILE} than the one beside it. {again}")

    def forward(datasets: NDArray[np.float32]) -> Values:
        pieces = [datasets[start : start + DATASETS_AT_ONCE] for start in range(0, len(datasets), DATASETS_AT_ONCE)]
        try:
            empty = np.empty((0, network["parameters"]))
            return np.concatenate([empty, *(_run(layers, piece.astype(np.float64)) for piece in pieces)])
        except (LookupError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
            raise ModelError(f"{path}: its layers do not fit the datasets ({reason_of(error)}). {again}") from error

    return forward


def _with_arrays(layer: dict[str, Any], index: int, archive: Any) -> dict[str, Any]:
    """The layer's plain attributes and its weights, `<index>.<name>` in the archive, in float64."""
    prefix = f"{index}."
    names = [name for name in archive.files if name.startswith(prefix)]
    return {**layer, **{name.removeprefix(prefix): archive[name].astype(np.float64) for name in names}}


def _run(layers: list[dict[str, Any]], values: Values) -> Values:
    for layer in layers:
        values = LAYERS[layer["kind"]](values, layer)
    return values


def _normalization(x: Values, layer: dict[str, Any]) -> Values:
    return (x - layer["mean"]) / np.maximum(np.sqrt(layer["variance"]), layer["epsilon"])


def _affine(x: Values, layer: dict[str, Any]) -> Values:
    return x * layer["scale"] + layer["offset"]


def _batch_normalization(x: Values, layer: dict[str, Any]) -> Values:
    return layer["gamma"] * (x - layer["mean"]) / np.sqrt(layer["variance"] + layer["epsilon"]) + layer["beta"]


def _conv1d(x: Values, layer: dict[str, Any]) -> Values:
    width = len(layer["kernel"])
    padded = _pad(x, width, layer, 0.0)
    taps = _taps(padded, width, layer["strides"], layer["dilation"])
    return sum((tap @ weights for tap, weights in zip(taps, layer["kernel"], strict=True)), layer["bias"])


def _dense(x: Values, layer: dict[str, Any]) -> Values:
    return x @ layer["kernel"] + layer["bias"]


def _pooling1d(x: Values, layer: dict[str, Any]) -> Values:
    size, strides = layer["size"], layer["strides"]
    if layer["reduce"] == "max":
        return reduce(np.maximum, _taps(_pad(x, size, layer, -np.inf), size, strides))
    counted = sum(_taps(_pad(np.ones_like(x), size, layer, 0.0), size, strides))
    return np.asarray(sum(_taps(_pad(x, size, layer, 0.0), size, strides)) / counted)  # padding is not in the mean


def _global_pooling1d(x: Values, layer: dict[str, Any]) -> Values:
    over_rows = np.max if layer["reduce"] == "max" else np.mean
    return np.asarray(over_rows(x, axis=1, keepdims=layer["keep_rows"]))


def _zero_padding1d(x: Values, layer: dict[str, Any]) -> Values:
    return np.pad(x, ((0, 0), (layer["before"], layer["behind"]), (0, 0)))


def _reshape(x: Values, layer: dict[str, Any]) -> Values:
    return x.reshape(-1, *layer["shape"])


def _activation(x: Values, layer: dict[str, Any]) -> Values:
    return ACTIVATIONS[layer["name"]](x, layer["alpha"])


def _sigmoid(x: Values) -> Values:
    return np.exp(-np.logaddexp(0.0, -x))


def _taps(x: Values, width: int, strides: int, dilation: int = 1) -> list[Values]:
    """The first value of every window, the second, and so on: `width` views of shape (datasets, windows, channels)."""
    last = x.shape[1] - (width - 1) * dilation  # one past the last row in which a window may begin
    return [x[:, tap * dilation : tap * dilation + last : strides] for tap in range(width)]


def _pad(x: Values, width: int, layer: dict[str, Any], value: float) -> Values:
    """Rows of `value` before and behind: none for valid; all before for causal; for same, as many as give ceil(rows /
    strides) windows, the odd one behind."""
    reach = (width - 1) * layer.get("dilation", 1)
    match layer["padding"]:
        case "causal":
            before, behind = reach, 0
        case "same":
            rows, strides = x.shape[1], layer["strides"]
            missing = max((-(-rows // strides) - 1) * strides + reach + 1 - rows, 0)
            before, behind = missing // 2, missing - missing // 2
        case _:
            return x
    return np.pad(x, ((0, 0), (before, behind), (0, 0)), constant_values=value)


LAYERS: dict[str, Callable[[Values, dict[str, Any]], Values]] = {
    "Normalization": _normalization,
    "Affine": _affine,
    "BatchNormalization": _batch_normalization,
    "Conv1D": _conv1d,
    "Dense": _dense,
    "Pooling1D": _pooling1d,
    "GlobalPooling1D": _global_pooling1d,
    "ZeroPadding1D": _zero_padding1d,
    "Reshape": _reshape,
    "Activation": _activation,
}
ACTIVATIONS: dict[str, Callable[[Values, float], Values]] = {
    "relu": lambda x, alpha: np.maximum(x, 0.0),
    "relu6": lambda x, alpha: np.clip(x, 0.0, 6.0),
    "leaky_relu": lambda x, alpha: np.where(x > 0, x, alpha * x),
    "elu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x, alpha: x * _sigmoid(x),
    "softplus": lambda x, alpha: np.logaddexp(0.0, x),
    "tanh": lambda x, alpha: np.tanh(x),
    "sigmoid": lambda x, alpha: _sigmoid(x),
}
