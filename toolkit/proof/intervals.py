"""Interval arithmetic with outward rounding: what a float32 (or float16) kernel may give, however it rounds.

Bounds are kept in float64. Finite bounds say that the value is a finite number between them; infinite bounds say
nothing at all: the value may be infinite or NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from toolkit.proof.graph import Reals


class Bounds(NamedTuple):
    """low <= value <= high, elementwise; two float64 arrays of one shape."""

    low: Reals
    high: Reals


@dataclass(frozen=True)
class Arithmetic:
    """A floating-point format, as far as bounds need it.

    Attributes:
        step: relative error granted to one operation; twice what rounding to nearest makes.
        smallest_normal: results closer to 0 may be flushed to 0.
        smallest: distance between two subnormal numbers.
        largest: the last finite number.
    """

    name: str
    step: float
    smallest_normal: float
    smallest: float
    largest: float


FLOAT32 = Arithmetic("float32", 2.0**-23, 2.0**-126, 2.0**-149, float(np.finfo(np.float32).max))
FLOAT16 = Arithmetic("float16", 2.0**-10, 2.0**-14, 2.0**-24, 65504.0)
ARITHMETICS = {"float32": FLOAT32, "float16": FLOAT16}


def point(value: Reals | float) -> Bounds:
    """Bounds of a number that is known."""
    array = np.asarray(value, dtype=np.float64)
    return Bounds(array, array)


def is_known(bounds: Bounds) -> np.ndarray:
    """Elementwise: is the value proved finite?"""
    return np.isfinite(bounds.low) & np.isfinite(bounds.high)


def unknown(shape: tuple[int, ...]) -> Bounds:
    return Bounds(np.full(shape, -np.inf), np.full(shape, np.inf))


def forget(bounds: Bounds, where: np.ndarray) -> Bounds:
    """The bounds, with nothing known at the marked elements."""
    return Bounds(np.where(where, -np.inf, bounds.low), np.where(where, np.inf, bounds.high))


def magnitude(bounds: Bounds) -> Reals:
    """Largest absolute value."""
    return np.maximum(np.abs(bounds.low), np.abs(bounds.high))


def hull(bounds: Bounds, axis: int = 0) -> Bounds:
    """The smallest interval around all those along an axis."""
    return Bounds(bounds.low.min(axis=axis), bounds.high.max(axis=axis))


def add(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(a.low + b.low, a.high + b.high)


def subtract(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(a.low - b.high, a.high - b.low)


def multiply(a: Bounds, b: Bounds) -> Bounds:
    return _corners(np.multiply, a, b)


def square(a: Bounds) -> Bounds:
    size = absolute(a)
    return Bounds(size.low**2, size.high**2)


def divide(a: Bounds, b: Bounds) -> Bounds:
    """Nothing is known where the divisor may be 0."""
    return forget(_corners(np.divide, a, b), (b.low <= 0) & (b.high >= 0))


def minimum(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(np.minimum(a.low, b.low), np.minimum(a.high, b.high))


def maximum(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(np.maximum(a.low, b.low), np.maximum(a.high, b.high))


def absolute(a: Bounds) -> Bounds:
    return Bounds(np.maximum(0.0, np.maximum(a.low, -a.high)), magnitude(a))


def negate(a: Bounds) -> Bounds:
    return Bounds(-a.high, -a.low)


def power(base: Bounds, exponent: Bounds) -> Bounds:
    """Known for a positive base, where x**y is monotone in x and in y, and for the exponent 2."""
    positive = (base.low > 0) | ((base.low >= 0) & (exponent.low > 0))
    general = forget(_corners(np.power, base, exponent), ~positive)
    squared = (exponent.low == 2) & (exponent.high == 2)
    return Bounds(np.where(squared, square(base).low, general.low), np.where(squared, square(base).high, general.high))


def increasing(function: Callable[[Reals], Reals]) -> Callable[[Bounds], Bounds]:
    """The interval form of a function that never decreases."""
    return lambda a: Bounds(function(a.low), function(a.high))


def rounded(exact: Bounds, arithmetic: Arithmetic, relative: float, absolute: float = 0.0) -> Bounds:
    """What a kernel may give for a result that lies in `exact` in real arithmetic.

    Args:
        relative, absolute: error granted to the kernel, beside the last bit of a subnormal result.
    Returns:
        Wider bounds: 0 included where the result may be subnormal, nothing known where it may overflow.
    """
    low, high = (
        _with_error(side, sign, arithmetic, relative, absolute) for side, sign in zip(exact, (-1, 1), strict=True)
    )
    low = np.where((low > 0) & (low < arithmetic.smallest_normal), 0.0, low)
    high = np.where((high < 0) & (high > -arithmetic.smallest_normal), 0.0, high)
    wide = Bounds(low, high)
    if relative <= arithmetic.step and not absolute:
        # One sum or product rounds to nearest: it is infinite only half a step behind the largest number.
        inside = magnitude(exact) < arithmetic.largest * (1 + arithmetic.step / 4)
        wide = Bounds(
            *(np.where(inside, np.clip(side, -arithmetic.largest, arithmetic.largest), side) for side in wide)
        )
    return forget(wide, ~(magnitude(wide) <= arithmetic.largest))  # `not <=`: NaN is forgotten too


def flushed(bounds: Bounds, arithmetic: Arithmetic) -> Bounds:
    """Bounds of a value that is read, not computed: a subnormal number may be taken for 0."""
    tiny = arithmetic.smallest_normal
    low = np.where((bounds.low > 0) & (bounds.low < tiny), 0.0, bounds.low)
    return Bounds(low, np.where((bounds.high < 0) & (bounds.high > -tiny), 0.0, bounds.high))


def _with_error(side: Reals, sign: int, arithmetic: Arithmetic, relative: float, absolute: float) -> Reals:
    size = np.abs(side)
    last_bit = np.where((size > 0) & (size < arithmetic.smallest_normal), arithmetic.smallest, 0.0)
    return side + sign * (size * relative + last_bit + absolute)


def _corners(function: Callable[[Reals, Reals], Reals], a: Bounds, b: Bounds) -> Bounds:
    """Extremes of a function that is monotone in each argument."""
    values = [function(x, y) for x in a for y in b]
    low = np.minimum(np.minimum(values[0], values[1]), np.minimum(values[2], values[3]))
    return Bounds(low, np.maximum(np.maximum(values[0], values[1]), np.maximum(values[2], values[3])))
