"""The rows of a dataset in ascending order, for networks to which the order in which they came says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

MAGNITUDE = np.int32(0x7FFFFFFF)  # all bits of a float but its sign
SIGN = np.int32(-0x80000000)


def sort_rows(datasets: FloatArray) -> FloatArray:
    """The same datasets, each with its rows ascending by its first column, rows alike there by the second, and so on.

    What comes out is the same, bit for bit, in whatever order the rows went in: what is made of it cannot depend
    on that order. The zero with a minus sign comes before the other.

    Args:
        datasets: float32 (n, rows, columns). Rows with a NaN end up somewhere.
    Returns:
        float32 (n, rows, columns), an array of its own.
    """
    bits = np.array(datasets, np.float32, order="C").view(np.int32)
    negative = bool(bits.size) and bits.min() < 0
    if negative:
        _order_negatives(bits)  # the bits of other floats are in the order of their values as they are
    if bits.shape[2] == 1:
        bits.sort(axis=1)
    elif bits.shape[2] == 2:
        _sort_pairs(bits)
    else:
        keys = tuple(bits[:, :, column] for column in reversed(range(bits.shape[2])))
        bits = np.take_along_axis(bits, np.lexsort(keys, axis=1)[:, :, np.newaxis], axis=1)
    if negative:
        _order_negatives(bits)
    return bits.view(np.float32)


def _order_negatives(bits: NDArray[np.int32]) -> None:
    """Turn around the bits of floats below 0, which run backwards; once more, and they are as they were."""
    bits ^= (bits >> 31) & MAGNITUDE


def _sort_pairs(bits: NDArray[np.int32]) -> None:
    """Rows of two as one number each, for which NumPy has vector instructions: five times as fast as by their index."""
    bits ^= SIGN  # as numbers without a sign, the upper half and the lower
    pairs = bits.view(np.dtype("<u8"))[:, :, 0]  # little-endian: the first column is the lower half
    _swap_halves(pairs)
    pairs.sort(axis=1)
    _swap_halves(pairs)
    bits ^= SIGN


def _swap_halves(pairs: NDArray[np.uint64]) -> None:
    lower = pairs << np.uint64(32)
    pairs >>= np.uint64(32)
    pairs |= lower
