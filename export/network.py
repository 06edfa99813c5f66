"""A trained network as plain arrays: a chain of layers that ends in the logits.

Everything that comes after reading the .keras file (graph, input limit, weights.npz) sees only these nouns.
Activations are layers of their own, dropout and noise are gone, the softplus behind the last Dense is not in the list:
the graph adds its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
