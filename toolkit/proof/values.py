"""A bounded tensor: real numbers with rounding, or integer codes with scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from toolkit.proof import intervals
from toolkit.proof.graph import FLOATS, INTEGER_RANGE, Quantization, Reals, Tensor
from toolkit.proof.intervals import ARITHMETICS, Bounds

LARGEST_16, LARGEST_32 = 2.0**15, 2.0**31


@dataclass(frozen=True)
class Value:
    """Bounds of every element of a tensor, for all finite inputs.

    Attributes:
        bounds: of the numbers the tensor holds: of codes where it is quantized.
        dtype: NumPy's word.
        batched: depends on the datasets; axis 0 is then the batch.
        quantization: TFLite's scales; None in ONNX, where operations make codes and take them back.
        sizes: made from a tensor's shape; -1 stands for the batch, whose size is open.
    """

    bounds: Bounds
    dtype: str
    batched: bool = False
    quantization: Quantization | None = None
    sizes: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bounds.low.shape

    @property
    def known(self) -> bool:
        """Is every element proved finite?"""
        return bool(intervals.is_known(self.bounds).all())

    @property
    def exact(self) -> Reals | None:
        """The numbers themselves, where they are known."""
        return self.bounds.low if np.array_equal(self.bounds.low, self.bounds.high) else None

    def with_bounds(self, bounds: Bounds) -> Value:
        return replace(self, bounds=bounds)


def constant_value(tensor: Tensor) -> Value:
    """A tensor stored in the file. Numbers that are not finite are unknown, so that whatever reads them is."""
    assert tensor.constant is not None
    numbers = tensor.constant.astype(np.float64)
    bounds = Bounds(numbers, numbers)
    if tensor.dtype in FLOATS:
        bounds = intervals.flushed(intervals.forget(bounds, ~np.isfinite(numbers)), ARITHMETICS[tensor.dtype])
    return Value(bounds, tensor.dtype, quantization=tensor.quantization)


def any_value(shape: tuple[int, ...], dtype: str, quantization: Quantization | None) -> Value:
    """Whatever a tensor of this type can hold: the code range, or nothing known."""
    if dtype in FLOATS or dtype not in INTEGER_RANGE:
        return Value(intervals.unknown(shape), dtype or "float32", batched=True, quantization=quantization)
    low, high = INTEGER_RANGE[dtype]
    return Value(Bounds(np.full(shape, float(low)), np.full(shape, float(high))), dtype, True, quantization)


def reals(value: Value) -> Bounds:
    """The real numbers that codes stand for; the bounds themselves where there are no codes."""
    if value.quantization is None:
        return value.bounds
    return dequantized(value.bounds, value.quantization)


def dequantized(codes: Bounds, quantization: Quantization) -> Bounds:
    """scale * (code - zero_point), in real arithmetic."""
    scale, zero_point = _along_axis(codes, quantization)
    return Bounds(scale * (codes.low - zero_point), scale * (codes.high - zero_point))


def quantized(exact: Bounds, quantization: Quantization, dtype: str, step: float = 1.0) -> Bounds:
    """Codes a kernel may give for a real result: rounding and requantization move it by less than one step.

    Args:
        step: in codes; 0 where the kernel only chooses among codes of the same scale.
    """
    scale, zero_point = _along_axis(exact, quantization)
    first, last = INTEGER_RANGE[dtype]
    slack = step + 1e-6  # of float64's own rounding
    low = np.ceil(np.where(np.isfinite(exact.low), exact.low, -np.inf) / scale + zero_point - slack)
    high = np.floor(np.where(np.isfinite(exact.high), exact.high, np.inf) / scale + zero_point + slack)
    return Bounds(np.clip(low, first, last), np.clip(high, first, last))


def narrowed(exact: Bounds, quantization: Quantization, largest: float) -> Bounds:
    """Bounds of a result whose kernel narrows it to 16 or 32 bits before it clips it to its own.

    LiteRT's own MUL narrows to 16: 46,000 became -128. Where the code does not fit, any may result.
    """
    scale, zero_point = _along_axis(exact, quantization)
    reach = intervals.magnitude(exact) / scale + np.abs(zero_point)
    return intervals.forget(exact, ~(reach < largest))


def hybrid(value: Value) -> Bounds:
    """Bounds of float activations that a kernel quantizes to int8 on the way into a dot product with int8 weights.

    Its scale comes from the largest activation, so that none moves by more than one step, 1/127 of the largest bound.
    """
    step = float(intervals.magnitude(value.bounds).max(initial=0.0)) / 127
    return Bounds(value.bounds.low - step, value.bounds.high + step)


def _along_axis(bounds: Bounds, quantization: Quantization) -> tuple[Reals, Reals]:
    if quantization.scale.size == 1:
        return quantization.scale.reshape(()), quantization.zero_point.reshape(())
    shape = [1] * bounds.low.ndim
    shape[quantization.axis] = quantization.scale.size
    return quantization.scale.reshape(shape), quantization.zero_point.reshape(shape)
