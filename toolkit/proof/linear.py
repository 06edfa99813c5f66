"""Dot products and pooling: convolutions, Dense layers, means, over intervals.

Convolutions work on (batch, *spatial, channels) with kernels (*window, channels / groups, filters); the readers say
how a file lays out its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.proof import intervals
from toolkit.proof.graph import Reals, Unsupported, check_size
from toolkit.proof.intervals import Arithmetic, Bounds

Padding = Sequence[tuple[int, int]]

LANES = 80.0  # twice the roundings of products and of adding up partial sums, in as many as 2^32 chains


@dataclass(frozen=True)
class Dot:
    """Bounds of sums of products, before rounding.

    Attributes:
        exact: bounds of the sums in real arithmetic.
        size: sum of the products' absolute values, at most: no partial sum, in whatever order, is larger.
        terms: products in one sum, and the bias.
        divisor: of a mean: the sum is divided by it at the end.
    """

    exact: Bounds
    size: Reals
    terms: int
    divisor: Reals | float = 1.0

    def rounded(self, arithmetic: Arithmetic) -> Bounds:
        """What a kernel may give that adds the same products in any order, fused or not.

        Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1, with twice the unit roundoff; each
        product and each partial sum may also be flushed to 0. Where that grows beyond the sum's own size (float16, a
        thousand terms): rounding to nearest moves a + b by no more than the smaller of the two, since the larger is a
        number of the format itself, so that a chain of additions adds each term at most twice.
        """
        growth = min(float(np.expm1((self.terms + 2) * np.log1p(arithmetic.step))), 1 + LANES * arithmetic.step)
        error = growth * self.size / self.divisor + 2 * (self.terms + 1) * arithmetic.smallest_normal
        wide = intervals.rounded(Bounds(self.exact.low - error, self.exact.high + error), arithmetic, arithmetic.step)
        return intervals.forget(wide, ~(self.size + error <= arithmetic.largest))


def dot(data: Bounds, kernel: Bounds, bias: Bounds | None) -> Dot:
    """data (..., inputs) times kernel (inputs, outputs), plus bias (outputs,) or (...,  outputs).

    Source: Gowal et al. 2018, arXiv:1810.12715, interval bound propagation; a kernel that is itself an interval is
    split into its centre and a radius that may add to every product.
    """
    centre, radius = (kernel.low + kernel.high) / 2, (kernel.high - kernel.low) / 2
    positive, negative = np.maximum(centre, 0), np.minimum(centre, 0)
    spread = intervals.magnitude(data) @ radius if radius.any() else np.zeros(())
    low = data.low @ positive + data.high @ negative - spread
    high = data.high @ positive + data.low @ negative + spread
    size = intervals.magnitude(data) @ np.abs(centre) + spread
    if bias is not None:
        low, high, size = low + bias.low, high + bias.high, size + intervals.magnitude(bias)
    return Dot(Bounds(low, high), size, kernel.low.shape[0] + 1)


def convolution(data: Bounds, kernel: Bounds, bias: Bounds | None, attributes: Mapping[str, Any]) -> Dot:
    """Convolution over the middle axes of data (batch, *spatial, channels).

    `attributes`: `strides`, `dilations`, `padding` (one per spatial axis; see `padding_of`), `groups`.
    """
    window = kernel.low.shape[:-2]
    channels, filters = kernel.low.shape[-2:]
    groups = max(1, data.low.shape[-1] // channels)
    if data.low.ndim != len(window) + 2 or data.low.shape[-1] != channels * groups or filters % groups:
        raise Unsupported(f"its kernel {kernel.low.shape} does not fit its input {data.low.shape}")
    cut = Bounds(*(patches(side, window, attributes, 0.0) for side in data))  # (batch, *positions, channels, *window)
    positions = cut.low.shape[: 1 + len(window)]
    channel_axis = 1 + len(window)
    dots = []
    for group in range(groups):
        taken = slice(group * channels, (group + 1) * channels)
        given = slice(group * filters // groups, (group + 1) * filters // groups)
        part = Bounds(*(np.moveaxis(side, channel_axis, 0)[taken] for side in cut))
        part = Bounds(*(np.moveaxis(side, 0, channel_axis).reshape(*positions, -1) for side in part))
        weights = Bounds(*(np.moveaxis(side[..., given], -2, 0).reshape(-1, filters // groups) for side in kernel))
        dots.append(dot(part, weights, None if bias is None else Bounds(bias.low[..., given], bias.high[..., given])))
    exact = Bounds(*(np.concatenate(sides, axis=-1) for sides in zip(*(one.exact for one in dots), strict=True)))
    return Dot(exact, np.concatenate([one.size for one in dots], axis=-1), dots[0].terms)


def max_pool(data: Bounds, attributes: Mapping[str, Any]) -> Bounds:
    """Largest value of each window of (batch, *spatial, channels); padding never wins. Exact: it only chooses."""
    window = attributes["window"]
    axes = tuple(range(-len(window), 0))
    pooled = Bounds(*(patches(side, window, attributes, -np.inf).max(axis=axes) for side in data))
    if np.any(np.isneginf(pooled.low) & np.isneginf(pooled.high)):
        raise Unsupported("a window holds padding only")
    return pooled


def average_pool(data: Bounds, attributes: Mapping[str, Any]) -> Dot:
    """Mean of each window; padding counts only where the attribute `count_padding` says so."""
    window = attributes["window"]
    axes = tuple(range(-len(window), 0))
    inside = patches(np.ones_like(data.low), window, attributes, float(bool(attributes.get("count_padding")))).sum(
        axis=axes
    )
    if not np.all(inside > 0):
        raise Unsupported("a window holds padding only")
    sums = Bounds(*(patches(side, window, attributes, 0.0).sum(axis=axes) for side in data))
    size = patches(intervals.magnitude(data), window, attributes, 0.0).sum(axis=axes)
    return Dot(Bounds(sums.low / inside, sums.high / inside), size, int(np.prod(window)) + 1, inside)


def mean(data: Bounds, axes: tuple[int, ...], keep: bool, divide: bool = True) -> Dot:
    """Mean, or sum, over axes. The size is that of the sum: it may overflow although the mean does not."""
    count = int(np.prod([data.low.shape[axis] for axis in axes]))
    size = intervals.magnitude(data).sum(axis=axes, keepdims=keep)
    divisor = float(count if divide else 1)
    sums = Bounds(*(side.sum(axis=axes, keepdims=keep) / divisor for side in data))
    return Dot(sums, size, count + 1, divisor)


def batch_normalization(data: Bounds, operands: Sequence[Bounds], epsilon: float) -> Dot:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset over the last axis, folded into one factor or not."""
    scale, offset, centre, variance = (side for side in operands)
    deviation = Bounds(np.sqrt(np.maximum(variance.low + epsilon, 0)), np.sqrt(variance.high + epsilon))
    factor = intervals.divide(scale, deviation)
    shifted = intervals.subtract(data, centre)
    exact = intervals.add(intervals.multiply(shifted, factor), offset)
    size = (intervals.magnitude(data) + intervals.magnitude(centre)) * np.maximum(intervals.magnitude(factor), 1)
    # Eight roundings cover both forms; the size is that of all their intermediates.
    return Dot(exact, size + intervals.magnitude(offset), 8)


def padding_of(attributes: Mapping[str, Any], spatial: Sequence[int], window: Sequence[int]) -> Padding:
    """Padding before and after each spatial axis: given as pairs, or as the word `same`, `same_lower` or `valid`."""
    padding = attributes.get("padding", "valid")
    if padding == "valid":
        return [(0, 0)] * len(spatial)
    if not isinstance(padding, str):
        return [(int(before), int(after)) for before, after in padding]
    pairs = []
    for size, length, stride, dilation in zip(spatial, window, *_steps(attributes, len(window)), strict=True):
        covered = (-(-size // stride) - 1) * stride + (length - 1) * dilation + 1
        total = max(0, covered - size)
        pairs.append((total // 2, total - total // 2) if padding == "same" else (total - total // 2, total // 2))
    return pairs


def _steps(attributes: Mapping[str, Any], count: int) -> tuple[Sequence[int], Sequence[int]]:
    return attributes.get("strides") or [1] * count, attributes.get("dilations") or [1] * count


def patches(side: Reals, window: Sequence[int], attributes: Mapping[str, Any], fill: float) -> Reals:
    """(batch, *spatial, channels) -> (batch, *positions, channels, *window)."""
    spatial = side.shape[1:-1]
    padding = padding_of(attributes, spatial, window)
    sizes = [size + before + after for size, (before, after) in zip(spatial, padding, strict=True)]
    check_size([side.shape[0], *sizes, side.shape[-1], *window])
    padded = np.pad(side, [(0, 0), *padding, (0, 0)], constant_values=fill)
    strides, dilations = _steps(attributes, len(window))
    reach = [(length - 1) * dilation + 1 for length, dilation in zip(window, dilations, strict=True)]
    if any(size < length for size, length in zip(padded.shape[1:-1], reach, strict=True)):
        raise Unsupported(f"its window {tuple(reach)} is larger than its input {padded.shape[1:-1]}")
    axes = tuple(range(1, 1 + len(window)))
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    every = [slice(None, None, stride) for stride in strides]
    within = [slice(None, None, dilation) for dilation in dilations]
    return views[(slice(None), *every, slice(None), *within)]
