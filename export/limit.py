"""Where inputs are cut off, so that no finite dataset overflows inside the network."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.network import (
    Activation,
    Affine,
    BatchNormalization,
    Conv1D,
    Dense,
    GlobalPooling1D,
    Network,
    Normalization,
    Pooling1D,
    Shape,
    output_shape,
)
from toolkit.errors import ExportError

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
                magnitude = 1.0 if layer.name in ("tanh", "sigmoid") else max(1.0, abs(layer.alpha)) * magnitude + 1.0
            case Pooling1D() if layer.reduce == "average":
                largest = max(largest, magnitude * layer.size)
            case GlobalPooling1D() if layer.reduce == "average":
                largest = max(largest, magnitude * shape[0])
        largest = max(largest, magnitude)
        shape = output_shape(layer, shape)
    return largest


def _largest(weights: NDArray[Any]) -> float:
    return float(np.max(np.abs(weights.astype(np.float64))))
