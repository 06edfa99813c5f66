"""Where numbers are cut off in a file that is computed in float16, so that no finite dataset overflows inside it.

float16 ends at 65504: one limit on the input, as float32 files have, would have to be so low that it cuts real data.
Here what enters a layer is cut wherever its sums could overflow else. Numbers of real datasets are far below.
"""

from __future__ import annotations

import math
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
    Layer,
    Network,
    Normalization,
    Pooling1D,
    Shape,
    output_shape,
)
from toolkit.errors import ExportError

LARGEST_MAGNITUDE = 60_000.0  # what rounding may add to a sum is counted in
STEP = 2.0**-10  # relative, of one rounding; twice that of rounding to nearest
LARGEST_LIMIT = 2.0**15
SMALLEST_LIMIT = 2.0**4  # in units of the layer's input; what is cut lower is cut in real datasets


def limits_in_half(network: Network) -> tuple[float, dict[int, float]]:
    """Where the input is cut off, and what enters each layer that needs it, by the layer's index.

    Powers of two. Magnitudes are carried through the layers as one number, as in `input_limit`.

    Raises:
        ExportError: numbers as small as SMALLEST_LIMIT would overflow.
    """
    cuts: dict[int, float] = {}
    limit, magnitude = LARGEST_LIMIT, LARGEST_LIMIT
    shape: Shape = network.shape
    for index, layer in enumerate(network.layers):
        if _largest_inside(layer, magnitude, shape) > LARGEST_MAGNITUDE:
            magnitude = 2.0 ** math.floor(math.log2(magnitude))
            while _largest_inside(layer, magnitude, shape) > LARGEST_MAGNITUDE:
                magnitude /= 2
                if magnitude < SMALLEST_LIMIT:
                    raise ExportError(
                        f"float16 arithmetic ends at 65504, and {SMALLEST_LIMIT:g} times the weights of layer {index} "
                        f"({type(layer).__name__}) can reach it. Export for float32: leave --arithmetic out; or train "
                        "with weight decay, with inputs of the order of 1, or with a smaller last layer."
                    )
            if index == 0:
                limit = magnitude
            else:
                cuts[index] = magnitude
        magnitude = min(_largest_behind(layer, magnitude, shape), LARGEST_MAGNITUDE)
        shape = output_shape(layer, shape)
    return limit, cuts


def _largest_inside(layer: Layer, magnitude: float, shape: Shape) -> float:
    """The largest number that may occur while a layer is computed, whatever the order of its sums."""
    match layer:
        case Normalization():
            centred = magnitude + _largest(layer.mean)
            return max(centred, centred / float(np.min(layer.deviation))) * (1 + 4 * STEP)
        case GlobalPooling1D() if layer.reduce == "average":
            return magnitude * shape[0] * _growth(shape[0])
        case Pooling1D() if layer.reduce == "average":
            return magnitude * layer.size * _growth(layer.size)
        case _:
            return _largest_behind(layer, magnitude, shape)


def _largest_behind(layer: Layer, magnitude: float, shape: Shape) -> float:
    match layer:
        case Normalization():
            return _largest_inside(layer, magnitude, shape)
        case Affine() | BatchNormalization():
            return (magnitude * _largest(layer.scale) + _largest(layer.offset)) * (1 + 4 * STEP)
        case Conv1D() | Dense():
            weights = np.abs(layer.kernel.astype(np.float64)).reshape(-1, layer.kernel.shape[-1])
            size = magnitude * float(weights.sum(axis=0).max()) + _largest(layer.bias)
            return size * _growth(len(weights))
        case Activation():
            return 1.0 if layer.name in ("tanh", "sigmoid") else max(1.0, abs(layer.alpha)) * magnitude + 1.0
        case _:
            return magnitude


def _growth(terms: int) -> float:
    """What rounding after each of so many additions may multiply a sum by, at most.

    Rounding to nearest moves a + b by no more than the smaller of the two, since the larger is a float16 number itself:
    no term can add more than twice its size.
    """
    return float(min((1 + STEP) ** (terms + 8), 2 * (1 + 100 * STEP)))


def _largest(weights: NDArray[Any]) -> float:
    return float(np.max(np.abs(weights.astype(np.float64))))
