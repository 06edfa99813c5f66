"""The input limit, against the same sums done in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from networks import NETWORKS, example

from export.keras_file import read_network
from export.limit import LARGEST_MAGNITUDE, input_limit
from export.network import Activation, Dense, GlobalPooling1D, Network, Normalization, Reshape
from toolkit.errors import ExportError


def dense_network(gain: float, bias: float = 0.0) -> Network:
    """One column, one row, one parameter: logits = gain * x + bias."""
    dense = Dense(np.full((1, 1), gain, np.float32), np.full(1, bias, np.float32))
    return Network((1, 1), 1, (Reshape((1,)), dense))


@pytest.mark.parametrize("gain", [1e20, 3e25])
def test_input_limit_is_the_largest_power_of_two_that_fits(gain: float) -> None:
    limit = Fraction(input_limit(dense_network(gain)))
    exact_gain = Fraction(float(np.float32(gain)))
    assert limit * exact_gain <= Fraction(LARGEST_MAGNITUDE) < 2 * limit * exact_gain


def test_input_limit_is_at_most_two_to_the_hundred() -> None:
    assert input_limit(dense_network(1e-3)) == 2.0**100


def test_input_limit_counts_the_sum_before_an_average() -> None:
    average = Network((1000, 1), 1, (Dense(np.full((1, 1), 1e20, np.float32), np.zeros(1, np.float32)),))
    pooled = Network(average.shape, 1, (*average.layers, GlobalPooling1D("average", keep_rows=False)))
    assert input_limit(average) / input_limit(pooled) in (512, 1024)


def test_input_limit_counts_a_small_deviation() -> None:
    normalization = Normalization(np.zeros(1, np.float32), np.full(1, 1e-30, np.float32), epsilon=1e-7)
    steep = Network((1, 1), 1, (normalization, *dense_network(1e15).layers))
    limit = Fraction(input_limit(steep))
    total_gain = Fraction(float(np.float32(1e15))) * 10**7  # the deviation is no smaller than epsilon
    assert limit * total_gain <= Fraction(LARGEST_MAGNITUDE) < Fraction(201, 100) * limit * total_gain


def test_input_limit_starts_afresh_behind_a_bounded_activation() -> None:
    first, second = dense_network(1e3), dense_network(1e3)
    bounded = Network((1, 1), 1, (*first.layers, Activation("tanh"), second.layers[1]))
    assert input_limit(bounded) == 2.0**100


@pytest.mark.parametrize("slope", [1e4, -1e4])
def test_input_limit_counts_a_steep_slope_below_zero(slope: float) -> None:
    flat, steep = dense_network(1e20), (Activation("leaky_relu", slope),)
    ratio = input_limit(flat) / input_limit(Network((1, 1), 1, (*flat.layers, *steep)))
    assert ratio in (2.0**13, 2.0**14)


def test_input_limit_refuses_weights_that_leave_no_room() -> None:
    with pytest.raises(ExportError, match=r"the weights are so large that inputs of 2\^30 overflow float32. Normalize"):
        input_limit(dense_network(1e29))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_input_limit_refuses_weights_that_are_not_finite(value: float) -> None:
    with pytest.raises(ExportError, match=r"bias of a Dense layer is not finite. Train the network again."):
        input_limit(dense_network(1.0, bias=value))


@pytest.mark.parametrize("name", NETWORKS)
def test_input_limit_leaves_room_for_any_real_dataset(name: str) -> None:
    network = example(name)
    assert input_limit(read_network(network.keras_file, network.spec)[1]) >= 2.0**90
