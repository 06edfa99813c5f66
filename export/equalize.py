"""Cross-layer equalization: channels rescaled so that all of them use the whole range of one int8 scale.

What quantizes a tensor gives all its channels one step. A channel whose values stay small gets few codes, and small
parameters often hang on such channels. A positive factor on one output channel of a layer passes through relu, pooling
and the like, and the next linear layer takes it back: the network computes the same function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from export.forward import largest_magnitudes
from export.network import (
    Activation,
    Conv1D,
    Dense,
    GlobalPooling1D,
    Layer,
    Network,
    Pooling1D,
    Reshape,
    ZeroPadding1D,
)

LARGEST_FACTOR = (
    200.0  # a channel that is hardly ever active must not be blown up, nor divide the next kernel's weights
)

HOMOGENEOUS = ("relu", "leaky_relu")  # f(g x) = g f(x) for g > 0


def equalize(network: Network, datasets: NDArray[np.float32]) -> Network:
    """The same function, with every channel between two linear layers as large as the largest beside it.

    The factor of a channel is min(m / m_channel, LARGEST_FACTOR), m_channel being its largest magnitude over the
    datasets and m the largest of these; channels that are never active keep theirs. Between the two layers only relu,
    leaky_relu, pooling, zero padding and flattening may stand; other pairs stay as they are.

    Args:
        datasets: float32 (datasets, rows, columns), at least one.
    Returns:
        A network of the same shapes. Exact in real arithmetic; in float32 each weight is rounded once more.
    Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1, with the ranges of activations in place of weights.
    """
    layers = list(network.layers)
    largest = largest_magnitudes(layers, datasets[:, np.newaxis])
    for first, second in pairs(network):
        activated = largest[second - 1]  # what the second layer reads
        channels = len(_bias(layers[first]))
        factors = channel_factors(activated.reshape(-1, channels).max(axis=0))
        layers[first] = scale_outputs(layers[first], factors)
        layers[second] = _divide_inputs(layers[second], factors)
    return replace(network, layers=tuple(layers))


def channel_factors(largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (channels,) of factors that make all `largest` (channels,) the same, where the cap allows."""
    return np.where(largest > 0, np.minimum(largest.max() / np.where(largest > 0, largest, 1.0), LARGEST_FACTOR), 1.0)


def scale_outputs(layer: Layer, factors: NDArray[np.float64]) -> Layer:
    """A Conv1D or Dense whose output channels are multiplied by `factors`."""
    assert isinstance(layer, Conv1D | Dense)
    return replace(
        layer, kernel=(layer.kernel * factors).astype(np.float32), bias=(layer.bias * factors).astype(np.float32)
    )


def pairs(network: Network) -> Iterator[tuple[int, int]]:
    """Indices of linear layers (first, second) between which a factor on a channel passes through unchanged."""
    first: int | None = None
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Conv1D | Dense):
            if first is not None:
                yield first, index
            first = index
        elif first is not None and not _passes(layer, len(_bias(network.layers[first]))):
            first = None


def _passes(layer: Layer, channels: int) -> bool:
    """Does a positive factor on each of `channels` come out of `layer` as it went in, feature i being of channel
    i % channels?"""
    match layer:
        case Activation():
            return layer.name in HOMOGENEOUS
        case Reshape():
            return layer.shape[-1] % channels == 0  # row-major: rows are joined whole
        case Pooling1D() | GlobalPooling1D() | ZeroPadding1D():
            return True
        case _:
            return False


def _divide_inputs(layer: Layer, factors: NDArray[np.float64]) -> Layer:
    assert isinstance(layer, Conv1D | Dense)
    repeated = np.tile(factors, layer.kernel.shape[-2] // len(factors))
    return replace(layer, kernel=(layer.kernel / repeated[:, np.newaxis]).astype(np.float32))


def _bias(layer: Layer) -> NDArray[np.float32]:
    assert isinstance(layer, Conv1D | Dense)
    return layer.bias
