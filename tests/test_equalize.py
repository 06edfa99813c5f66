"""Equalization: the same function, and channels that use one range."""

from __future__ import annotations

import numpy as np
import pytest
from networks import NETWORKS, example

from export.equalize import LARGEST_FACTOR, equalize, pairs
from export.forward import largest_magnitudes, run
from export.keras_file import read_network
from export.network import Activation, BatchNormalization, Conv1D, Dense, Network, Pooling1D, Reshape


def network_of(name: str) -> Network:
    made = example(name)
    return read_network(made.keras_file, made.spec)[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_equalize_keeps_the_function(name: str) -> None:
    network, datasets = network_of(name), example(name).datasets
    before = run(network.layers, datasets[:, None])
    after = run(equalize(network, datasets).layers, datasets[:, None])
    # Measured 5e-7 of the largest logit: one more rounding of each weight.
    np.testing.assert_allclose(after, before, atol=1e-6 * np.abs(before).max())


def test_equalize_makes_every_channel_as_large_as_the_largest() -> None:
    network, datasets = network_of("standard"), example("standard").datasets
    equalized = equalize(network, datasets)
    convolutions = [index for index, layer in enumerate(network.layers) if isinstance(layer, Conv1D)]
    before = largest_magnitudes(network.layers, datasets[:, None])
    after = largest_magnitudes(equalized.layers, datasets[:, None])
    for index in convolutions:
        relu = before[index + 1]
        active = relu > relu.max() / LARGEST_FACTOR
        assert relu[active].min() < relu.max() / 1.5, "nothing to equalize: the test would show nothing"
        np.testing.assert_allclose(after[index + 1][active], after[index + 1].max(), rtol=1e-5)


def test_equalize_caps_factors_and_leaves_dead_channels() -> None:
    kernel = np.float32([[[1.0, 1e-4, 0.0]]])
    layers = (
        Conv1D(kernel, np.zeros(3, np.float32), 1, "valid", 1),
        Activation("relu"),
        Reshape((12,)),
        Dense(np.ones((12, 1), np.float32), np.zeros(1, np.float32)),
    )
    datasets = np.random.default_rng(0).uniform(0, 1, (5, 4, 1)).astype(np.float32)
    first, *_, last = equalize(Network((4, 1), 1, layers), datasets).layers
    assert isinstance(first, Conv1D) and isinstance(last, Dense)
    np.testing.assert_allclose(first.kernel.ravel(), [1, 1e-4 * LARGEST_FACTOR, 0], rtol=1e-6)
    np.testing.assert_allclose(last.kernel.reshape(4, 3), np.tile([1, 1 / LARGEST_FACTOR, 1], (4, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ((Activation("relu"), Pooling1D("max", 2, 2, "valid")), True),
        ((Activation("leaky_relu", 0.1),), True),
        ((Activation("relu6"),), False),
        ((Activation("elu", 1.0),), False),
        ((Activation("leaky_relu", -0.1),), True),
        ((Reshape((4, 3)),), False),
        ((Reshape((2, 6)),), True),
        ((BatchNormalization(*(np.ones(2, np.float32) for _ in range(4)), 1e-3),), False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_pairs_are_layers_that_a_factor_passes_between(between: tuple, found: bool) -> None:
    first = Conv1D(np.ones((1, 1, 2), np.float32), np.zeros(2, np.float32), 1, "valid", 1)
    last = Dense(np.ones((2, 1), np.float32), np.zeros(1, np.float32))
    layers = (first, *between, last)
    assert list(pairs(Network((6, 1), 1, layers))) == ([(0, len(layers) - 1)] if found else [])
