"""The int8 part of a network: codes, scales and biases, the same for every file format.

Each layer is rounded in turn on what the layers before it, rounded already, give for the calibration datasets, so that
it can make up for them as far as weights can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export.forward import DATASETS_AT_ONCE, Values, run
from export.network import (
    Activation,
    Conv1D,
    Dense,
    GlobalPooling1D,
    Layer,
    Normalization,
    Pooling1D,
    Reshape,
    Shape,
    ZeroPadding1D,
    output_shape,
)
from export.region import Parts, fold_spread
from export.rounding import Moments, round_weights

LOWEST, HIGHEST = -128, 127  # int8
STEPS = 127.0  # of one int8, on either side of a column's centre
# One int8 for a number is too coarse for a dataset's raw columns: on response times it costs more accuracy than all the
# rest. What is left when a number is rounded to a step is a channel of its own, FINE times enlarged, its weights FINE
# times smaller. More helps less: int8 weights 16 times smaller than others are off by 7 %.
FINE = 16
ROUNDED_ON = 2000  # datasets; weights are as good on these as on three times as many
# Shares of the datasets whose outputs of a layer all lie within its codes, to choose from. The largest number of a few
# datasets makes the steps of all others coarse: where rows are sorted and the last are the slowest responses, codes for
# 97% of datasets halve the errors. Where the largest are those of the largest parameter, they must not be cut off.
WITHIN = (1.0, 0.99, 0.97)


@dataclass(frozen=True)
class Codes:
    """What a tensor's int8 codes stand for: scale * (code - zero_point)."""

    scale: float  # a float32
    zero_point: int

    def of(self, values: Values) -> Values:
        """The codes of real numbers, as float32."""
        scaled = np.round(values * np.float32(1 / np.float64(self.scale))) + np.float32(self.zero_point)
        return np.clip(scaled, LOWEST, HIGHEST)

    def real(self, codes: Values) -> Values:
        return (codes - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True)
class IntegerLinear:
    """A Conv1D or Dense on codes, its activation fused.

    Attributes:
        layer: the geometry; its kernel holds the real numbers that the codes stand for.
        codes: int8, the shape of the kernel. scales: float32 (filters,) of one code.
        bias: int32 (filters,), in units of the input's scale times `scales`.
        activation: none (""), relu or relu6.
    """

    layer: Conv1D | Dense
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: NDArray[np.int32]
    activation: str
    output: Codes


IntegerLayer = IntegerLinear | Pooling1D | GlobalPooling1D | ZeroPadding1D | Reshape  # all but the first keep the scale


@dataclass(frozen=True)
class Trunk:
    """The int8 part between two float ones.

    Attributes:
        before: the float layers in front, which end in what `input` makes codes of.
        fine: whether these are the datasets' columns; then each is two channels, of whole steps and of what is left.
        shape: of one dataset behind `before`.
    """

    before: tuple[Layer, ...]
    fine: bool
    shape: Shape
    input: Codes
    layers: tuple[IntegerLayer, ...]

    @property
    def output(self) -> Codes:
        linear = [layer for layer in self.layers if isinstance(layer, IntegerLinear)]
        return linear[-1].output


def quantize(parts: Parts, datasets: Values, within: float) -> Trunk:
    """The int8 part of a network, rounded on datasets.

    Args:
        parts: of an equalized network.
        datasets: float32 (datasets, rows, columns); some thousands.
        within: one of WITHIN.
    """
    before, inside, fine = _on_steps(parts, datasets)
    wanted = run(before, datasets[:, np.newaxis])
    entering = Codes(1.0, 0) if fine else _input_codes(wanted)
    given = entering.of(whole_and_rest(wanted)) if fine else entering.of(wanted)
    if fine:
        wanted = np.concatenate([wanted, np.zeros_like(wanted)], axis=-1)
    return Trunk(before, fine, parts.shape, entering, round_layers(inside, entering, given, wanted, within))


def whole_and_rest(steps: Values) -> Values:
    """Numbers as whole steps, and behind them, as channels of their own, FINE times what is left of each."""
    whole = np.round(steps)
    return np.concatenate([whole, (steps - whole) * np.float32(FINE)], axis=-1)


def features(trunk: Trunk, datasets: Values) -> Values:
    """What the trunk gives, as real numbers; runtimes differ from it where a sum lies between two codes."""
    values, codes = run(trunk.before, datasets[:, np.newaxis]), trunk.input
    given, codes = through(trunk.layers, codes, codes.of(whole_and_rest(values) if trunk.fine else values))
    return codes.real(given)


def through(layers: Sequence[IntegerLayer], codes: Codes, given: Values) -> tuple[Values, Codes]:
    """The codes that come out behind all layers, as float32, and what they stand for."""
    for layer in layers:
        if isinstance(layer, IntegerLinear):
            given, codes = compute(layer, codes, given), layer.output
        else:
            given = move(layer, given, codes.zero_point)
    return given, codes


def round_layers(
    inside: Sequence[Layer], codes: Codes, given: Values, wanted: Values, within: float
) -> tuple[IntegerLayer, ...]:
    """Layers on codes in place of real numbers, one after the other.

    Args:
        codes: what `given` stand for.
        given: codes that enter, as float32 (datasets, 1, rows, channels).
        wanted: real numbers in whose place they are, same shape.
        within: one of WITHIN.
    """
    layers: list[IntegerLayer] = []
    for layer, activation in with_activations(inside):
        wanted = run([layer], wanted)
        if isinstance(layer, Conv1D | Dense):
            integer = _round(layer, activation, codes, given, wanted, within)
            given = compute(integer, codes, given)
            wanted = run([Activation(activation)], wanted) if activation else wanted
            codes = integer.output
            layers.append(integer)
        else:
            assert isinstance(layer, Pooling1D | GlobalPooling1D | ZeroPadding1D | Reshape)
            given = move(layer, given, codes.zero_point)
            layers.append(layer)
    return tuple(layers)


def compute(integer: IntegerLinear, codes: Codes, given: Values) -> Values:
    """The codes that a layer gives for codes; a kernel of a runtime may differ by one where a sum lies between two."""
    whole = replace(integer.layer, kernel=integer.codes.astype(np.float32), bias=np.zeros_like(integer.layer.bias))
    # Sums of up to 500 products of codes are whole numbers that float32 holds exactly.
    sums = run([whole], given - np.float32(codes.zero_point)) + integer.bias.astype(np.float32)
    scaled = sums * (codes.scale * integer.scales.astype(np.float64) / integer.output.scale).astype(np.float32)
    low, high = code_range(integer)
    return np.clip(np.round(scaled) + np.float32(integer.output.zero_point), low, high)


def code_range(integer: IntegerLinear) -> tuple[int, int]:
    """Smallest and largest code that a layer gives, its activation applied."""
    low = integer.output.zero_point if integer.activation else LOWEST
    high = HIGHEST
    if integer.activation == "relu6":
        high = min(HIGHEST, integer.output.zero_point + round(6 / integer.output.scale))
    return max(low, LOWEST), high


def with_activations(inside: Sequence[Layer]) -> Iterator[tuple[Layer, str]]:
    """Each layer that is no activation, with the activation behind it."""
    for layer, following in zip(inside, (*inside[1:], None), strict=True):
        if not isinstance(layer, Activation):
            yield layer, following.name if isinstance(following, Activation) else ""


def _round(
    layer: Conv1D | Dense, activation: str, codes: Codes, given: Values, wanted: Values, within: float
) -> IntegerLinear:
    """`wanted` are the float layer's outputs, before its activation."""
    inputs, filters = int(np.prod(layer.kernel.shape[:-1])), layer.kernel.shape[-1]
    moments = Moments.empty(inputs, filters)
    every = -(-len(given) // ROUNDED_ON)
    for begin in range(0, len(given[::every]), DATASETS_AT_ONCE):
        piece = slice(begin, begin + DATASETS_AT_ONCE)
        windows = _windows(layer, codes.real(given[::every][piece]))
        moments.add(windows.reshape(-1, inputs), wanted[::every][piece].reshape(-1, filters))
    rounded = round_weights(layer.kernel.reshape(inputs, filters).astype(np.float64), moments)
    kernel = rounded.codes.reshape(layer.kernel.shape)
    output = _output_codes(wanted, activation, within)
    bias = np.round(rounded.bias / (codes.scale * rounded.scales.astype(np.float64)))
    real = (rounded.codes * rounded.scales).astype(np.float32).reshape(layer.kernel.shape)
    return IntegerLinear(
        layer=replace(layer, kernel=real, bias=rounded.bias.astype(np.float32)),
        codes=kernel,
        scales=rounded.scales,
        bias=np.clip(bias, -(2**30), 2**30).astype(np.int32),
        activation=activation,
        output=output,
    )


def _windows(layer: Conv1D | Dense, values: Values) -> Values:
    """What each output reads, in the order of the kernel's own axes: (datasets, rows, width * channels)."""
    if isinstance(layer, Dense):
        return values
    rows = output_shape(layer, values.shape[2:])[0]
    before, behind = padding_of(layer, values.shape[2])
    padded = np.pad(values[:, 0], ((0, 0), (before, behind), (0, 0)))
    last = (rows - 1) * layer.strides + 1
    taps = [padded[:, tap * layer.dilation :][:, : last : layer.strides] for tap in range(len(layer.kernel))]
    return np.concatenate(taps, axis=2)


def padding_of(layer: Conv1D | Dense, rows: int) -> tuple[int, int]:
    """Rows of zeros before and behind that a layer reads."""
    if isinstance(layer, Dense) or layer.padding == "valid":
        return 0, 0
    reach = (len(layer.kernel) - 1) * layer.dilation
    if layer.padding == "causal":
        return reach, 0
    missing = max((output_shape(layer, (rows, 1))[0] - 1) * layer.strides + reach + 1 - rows, 0)
    return missing // 2, missing - missing // 2


def move(layer: Layer, given: Values, zero_point: int) -> Values:
    """A layer that only chooses among codes, or puts code 0's number in."""
    return run([layer], given - np.float32(zero_point)) + np.float32(zero_point)


def _on_steps(parts: Parts, datasets: Values) -> tuple[tuple[Layer, ...], tuple[Layer, ...], bool]:
    """Columns counted in steps from their centre, STEPS on either side, where the codes begin with them.

    The first kernel takes that back, as float32 holds it, and has the channels of `whole_and_rest`.
    """
    first = parts.inside[0]
    if any(isinstance(layer, Conv1D | Dense) for layer in parts.before) or not isinstance(first, Conv1D | Dense):
        return fold_spread(parts.before), parts.inside, False
    if len(parts.shape) != 2:
        return parts.before, parts.inside, False
    values = run(parts.before, datasets[:, np.newaxis])
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    low, high = flat.min(axis=0), flat.max(axis=0)
    centre, half = (low + high) / 2, (high - low) / 2
    if isinstance(first, Conv1D) and first.padding != "valid":  # rows of zeros must stay zeros
        centre, half = np.zeros_like(low), np.maximum(np.abs(low), np.abs(high))
    step = np.where(half > 0, half, 1.0) / STEPS  # 1 for a column that never changes
    *others, last = parts.before or (None,)
    if isinstance(last, Normalization) and last.mean.size == last.variance.size == len(step):  # one op less each
        mean, deviation = last.mean.reshape(-1).astype(np.float64), last.deviation.reshape(-1)
        merged = _normalization(mean + centre * deviation, deviation * step)
        centre, step = (merged.mean - mean) / deviation, merged.deviation / deviation  # as float32 holds them
        before = (*others, merged)
    else:
        added = _normalization(centre, step)
        centre, step = added.mean.astype(np.float64), added.deviation
        before = (*parts.before, added)
    kernel = first.kernel * step[:, np.newaxis]
    kernel = np.concatenate([kernel, kernel / FINE], axis=-2)
    moved = np.tensordot(first.kernel.astype(np.float64), centre, axes=([-2], [0]))
    bias = first.bias + moved.reshape(-1, len(first.bias)).sum(axis=0)
    changed = replace(first, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))
    return before, (changed, *parts.inside[1:]), True


def _normalization(mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> Normalization:
    return Normalization(mean.astype(np.float32), (deviation**2).astype(np.float32), 0.0)


def _input_codes(values: Values) -> Codes:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return _between(low, high)


def _output_codes(wanted: Values, activation: str, within: float) -> Codes:
    of_each = wanted.reshape(len(wanted), -1)
    low, high = float(np.quantile(of_each.min(axis=1), 1 - within)), float(np.quantile(of_each.max(axis=1), within))
    if activation:
        low = 0.0
    if activation == "relu6":
        high = min(high, 6.0)
    return _between(min(low, 0.0), max(high, 0.0))


def _between(low: float, high: float) -> Codes:
    """Codes for low..high, which holds 0."""
    scale = float(np.float32((high - low) / (HIGHEST - LOWEST))) or 1.0
    return Codes(scale, int(np.clip(np.round(LOWEST - low / scale), LOWEST, HIGHEST)))
