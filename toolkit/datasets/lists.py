"""Lists of any kind to float32, and which of them have another length or hold a null: no loop over rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets.numbers import as_float32, numbers_of, plain

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

Mask = NDArray[np.bool_]
Misfits = dict[str, Mask]  # reason -> bool (n,): the rows that are no datasets for it; a reason left out is no row's


def is_list(type: pa.DataType) -> bool:
    """Whether a type is a list of fixed or variable size, with 32 or 64 bit offsets, or a view of one."""
    types = pa.types
    return bool(
        types.is_fixed_size_list(type)
        or types.is_list(type)
        or types.is_large_list(type)
        or types.is_list_view(type)
        or types.is_large_list_view(type)
    )


def fixed_size(type: pa.DataType) -> int | None:
    return type.list_size if pa.types.is_fixed_size_list(type) else None


def read_lists(array: pa.Array, sizes: Sequence[int]) -> tuple[FloatArray, Misfits]:
    """Lists of lists, as deep as there are sizes.

    Args:
        array: plain.
    Returns:
        float32 (n, product of sizes), rows with a reason holding anything, a view of the array's memory where that is
        clean float32; and why rows are not lists of exactly these sizes: 'null', 'rows' for the outer, 'columns' for
        the inner lists.
    """
    misfits = misfits_of(array, sizes)
    if misfits is None:
        return _values(array, sizes), {}
    # A null list may own numbers or none, and a short one shifts all that follow: put each that fits in its place.
    fitting = np.flatnonzero(~np.logical_or.reduce(list(misfits.values())))
    numbers = np.zeros((len(array), int(np.prod(sizes))), np.float32)
    numbers[fitting] = _values(array.take(pa.array(fitting)), sizes)
    return numbers, misfits


def merged(found: Sequence[Misfits]) -> Misfits:
    """The rows that any of them names, for each reason."""
    reasons = dict.fromkeys(reason for misfits in found for reason in misfits)
    return {why: np.logical_or.reduce([misfits[why] for misfits in found if why in misfits]) for why in reasons}


def misfits_of(array: pa.Array, sizes: Sequence[int]) -> Misfits | None:
    """Why rows are not lists of exactly `sizes` items without a null; None when all are.

    One level of lists after the other, every row owning a range of each level's items. Counting by differences of
    cumulative sums needs no loop over rows, whatever the lengths.
    """
    if _is_clean(array, sizes):
        return None
    count = len(array)
    begin, end = np.arange(count), np.arange(1, count + 1)
    null = np.zeros(count, np.bool_)
    lengths: list[Mask] = []
    for size in sizes:
        ends = offsets_of(array)
        null |= any_within(null_mask(array), begin, end)
        lengths.append(any_within(np.diff(ends) != size, begin, end))
        begin, end = ends[begin] - ends[0], ends[end] - ends[0]
        array = items_of(array)
    null |= any_within(null_mask(array), begin, end)
    misfits = {"null": null, **dict(zip(("rows", "columns"), lengths, strict=False))}
    return misfits if any(mask.any() for mask in misfits.values()) else None


def offsets_of(lists: pa.Array) -> NDArray[np.int64]:
    """int64 (n + 1,): where each list begins in `lists.values`, and where the last one ends."""
    if pa.types.is_fixed_size_list(lists.type):
        return (lists.offset + np.arange(len(lists) + 1)) * lists.type.list_size
    return np.asarray(lists.offsets.to_numpy(zero_copy_only=False), np.int64)


def items_of(lists: pa.Array) -> pa.Array:
    """The items of all lists, end to end, plain. (`flatten` would leave out those that a null list owns.)"""
    if pa.types.is_fixed_size_list(lists.type):
        size = lists.type.list_size
        return plain(lists.values.slice(lists.offset * size, len(lists) * size))
    begin, end = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    return plain(lists.values.slice(begin, end - begin))


def null_mask(array: pa.Array) -> Mask:
    """bool (n,): which values are null."""
    if not array.null_count:
        return np.zeros(len(array), np.bool_)
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False))


def any_within(flags: Mask, begin: NDArray[np.int64], end: NDArray[np.int64]) -> Mask:
    """bool (n,): whether any of flags[begin[i]:end[i]] is set."""
    if not flags.any():
        return np.zeros(len(begin), np.bool_)
    before = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(before[end] > before[begin])


def _is_clean(array: pa.Array, sizes: Sequence[int]) -> bool:
    """Whether the type gives every list the right size and nothing is null: the usual case, told without a loop."""
    for size in sizes:
        if array.null_count or not pa.types.is_fixed_size_list(array.type) or array.type.list_size != size:
            return False
        array = items_of(array)
    return array.null_count == 0


def _values(array: pa.Array, sizes: Sequence[int]) -> FloatArray:
    """float32 (n, product of sizes) of an array in which every row fits."""
    count = len(array)
    for _ in sizes:
        array = items_of(array)
    return as_float32(numbers_of(array)).reshape(count, int(np.prod(sizes)))
