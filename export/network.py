"""A trained network as plain arrays: a chain of layers that ends in the logits.

Everything that comes after reading the .keras file (graph, input limit, weights.npz) sees only these nouns.
Activations are layers of their own, dropout and noise are gone, the softplus behind the last Dense is not in the list:
the graph adds its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ExportError

Weights = NDArray[np.float32]
Shape = tuple[int, ...]  # of one dataset: (rows, channels), or (features,) once flat


@dataclass(frozen=True)
class Normalization:
    """(x - mean) / max(sqrt(variance), epsilon); mean and variance broadcast against (rows, channels)."""

    mean: Weights
    variance: Weights
    epsilon: float

    @property
    def deviation(self) -> NDArray[np.float64]:
        return np.maximum(np.sqrt(self.variance.astype(np.float64)), self.epsilon)


@dataclass(frozen=True)
class Affine:
    """x * scale + offset, per channel: Rescaling."""

    scale: Weights
    offset: Weights


@dataclass(frozen=True)
class BatchNormalization:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, all of shape (channels,)."""

    gamma: Weights
    beta: Weights
    mean: Weights
    variance: Weights
    epsilon: float

    @property
    def scale(self) -> NDArray[np.float64]:
        return self.gamma.astype(np.float64) / np.sqrt(self.variance.astype(np.float64) + self.epsilon)

    @property
    def offset(self) -> NDArray[np.float64]:
        return self.beta.astype(np.float64) - self.mean.astype(np.float64) * self.scale


@dataclass(frozen=True)
class Conv1D:
    """Cross-correlation over the rows. kernel (width, channels, filters), bias (filters,)."""

    kernel: Weights
    bias: Weights
    strides: int
    padding: str  # valid, same or causal
    dilation: int


@dataclass(frozen=True)
class Dense:
    """x @ kernel + bias over the last axis. kernel (channels, units), bias (units,)."""

    kernel: Weights
    bias: Weights


@dataclass(frozen=True)
class Activation:
    """name: relu, relu6, leaky_relu, elu, silu, softplus, tanh, sigmoid. alpha: slope or scale below 0, for two."""

    name: str
    alpha: float = 0.0


@dataclass(frozen=True)
class Pooling1D:
    """reduce: max or average (which leaves padding out of the mean)."""

    reduce: str
    size: int
    strides: int
    padding: str  # valid or same


@dataclass(frozen=True)
class GlobalPooling1D:
    """reduce: max or average, over all rows. keep_rows leaves (1, channels) instead of (channels,)."""

    reduce: str
    keep_rows: bool


@dataclass(frozen=True)
class ZeroPadding1D:
    """Rows of zeros before and behind."""

    before: int
    behind: int


@dataclass(frozen=True)
class Reshape:
    """Row-major; shape is (rows, channels) or (features,). Flatten is the second."""

    shape: Shape


Layer = (
    Normalization
    | Affine
    | BatchNormalization
    | Conv1D
    | Dense
    | Activation
    | Pooling1D
    | GlobalPooling1D
    | ZeroPadding1D
    | Reshape
)


@dataclass(frozen=True)
class Network:
    """shape: (rows, columns) of a dataset. layers: from the raw dataset to the logits, (parameters,)."""

    shape: tuple[int, int]
    parameters: int
    layers: tuple[Layer, ...]


def output_shape(layer: Layer, shape: Shape) -> Shape:
    """Shape of one dataset behind `layer`."""
    match layer:
        case Conv1D():
            width = layer.dilation * (len(layer.kernel) - 1) + 1
            return _windows(shape[0], width, layer.strides, layer.padding), layer.kernel.shape[-1]
        case Pooling1D():
            return _windows(shape[0], layer.size, layer.strides, layer.padding), shape[1]
        case Dense():
            return *shape[:-1], layer.kernel.shape[-1]
        case GlobalPooling1D():
            return (1, shape[1]) if layer.keep_rows else (shape[1],)
        case ZeroPadding1D():
            return layer.before + shape[0] + layer.behind, shape[1]
        case Reshape():
            return layer.shape
        case _:
            return shape


def _windows(rows: int, width: int, strides: int, padding: str) -> int:
    return (rows - width) // strides + 1 if padding == "valid" else -(-rows // strides)


def save_weights(network: Network, path: Path, **facts: Any) -> None:
    """Write weights.npz for the float64 forward pass.

    It holds one array per weight, named `<layer>.<field>`, and `network`, a JSON text: shape, parameters, layers (each
    its kind and its plain attributes), and `facts`.
    """
    arrays: dict[str, NDArray[Any]] = {}
    layers = []
    for index, layer in enumerate(network.layers):
        plain: dict[str, Any] = {"kind": type(layer).__name__}
        for field in fields(layer):
            value = getattr(layer, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"{index}.{field.name}"] = value
            else:
                plain[field.name] = value
        layers.append(plain)
    description = {"shape": network.shape, "parameters": network.parameters, "layers": layers, **facts}
    np.savez(path, network=np.array(json.dumps(description)), **arrays)  # type: ignore[arg-type]


LARGEST_MAGNITUDE = 1e37  # no value inside the network may exceed it: 34 times below the largest float32
LARGEST_LIMIT_EXPONENT = 100
SMALLEST_LIMIT_EXPONENT = (
    30  # inputs of 1e9 must pass as they are; weights that forbid it are those of a broken network
)


def input_limit(network: Network) -> float:
    """The largest power of two that inputs can be cut off at so that nothing overflows behind it.

    Magnitudes are carried through the layers as one number: a layer multiplies it by at most the largest sum of
    |weights| of an output, and adds the largest |bias|.

    Raises:
        ExportError: a weight is not finite, or even inputs of 2^30 overflow.
    """
    for layer in network.layers:
        for field in fields(layer):
            value = getattr(layer, field.name)
            if isinstance(value, np.ndarray) and not np.all(np.isfinite(value)):
                raise ExportError(
                    f"{field.name} of a {type(layer).__name__} layer is not finite. Train the network again."
                )
    for exponent in range(LARGEST_LIMIT_EXPONENT, SMALLEST_LIMIT_EXPONENT - 1, -1):
        if _largest_magnitude(network, 2.0**exponent) <= LARGEST_MAGNITUDE:
            return 2.0**exponent
    raise ExportError(
        f"the weights are so large that inputs of 2^{SMALLEST_LIMIT_EXPONENT} overflow float32. "
        "Normalize the inputs, or train with weight decay."
    )


def _largest_magnitude(network: Network, magnitude: float) -> float:
    largest = magnitude
    shape: Shape = network.shape
    for layer in network.layers:
        match layer:
            case Normalization():
                centred = magnitude + _largest(layer.mean)
                largest = max(largest, centred)
                magnitude = centred / float(np.min(layer.deviation))
            case Affine():
                magnitude = magnitude * _largest(layer.scale) + _largest(layer.offset)
            case BatchNormalization():
                magnitude = magnitude * _largest(layer.scale) + _largest(layer.offset)
            case Conv1D() | Dense():
                axes = tuple(range(layer.kernel.ndim - 1))
                gain = np.abs(layer.kernel.astype(np.float64)).sum(axis=axes).max()
                magnitude = magnitude * float(gain) + _largest(layer.bias)
            case Activation():
                magnitude = 1.0 if layer.name in ("tanh", "sigmoid") else max(1.0, layer.alpha) * magnitude + 1.0
            case Pooling1D() if layer.reduce == "average":
                largest = max(largest, magnitude * layer.size)
            case GlobalPooling1D() if layer.reduce == "average":
                largest = max(largest, magnitude * shape[0])
        largest = max(largest, magnitude)
        shape = output_shape(layer, shape)
    return largest


def _largest(weights: NDArray[Any]) -> float:
    return float(np.max(np.abs(weights.astype(np.float64))))
