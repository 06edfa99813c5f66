"""A column of datasets to float32 (datasets, rows, columns), and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets.layout import Layout

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

# Why a row is no dataset. The first that holds, in this order, is the one reported.
REASONS = ("null", "rows", "columns", "type", "nan", "infinite")

Reasons = list[str | None]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Decoded:
    """The datasets of some rows of a table.

    Attributes:
        datasets: float32 (n, rows, columns), C-contiguous, possibly a read-only view of the Arrow memory. Rows with a
            reason hold anything.
        reasons: for each row None, or why it is no dataset, one of REASONS.
    """

    datasets: FloatArray
    reasons: Sequence[str | None]

    @property
    def accepted(self) -> Mask:
        """bool (n,): the rows that hold a dataset."""
        return np.fromiter((reason is None for reason in self.reasons), np.bool_, len(self.reasons))


def encode(datasets: FloatArray) -> pa.FixedSizeListArray:
    """float32 (n, rows, columns) as a nested fixed-size list array, without nulls, sharing memory where it can."""
    rows, columns = datasets.shape[1:]
    values = pa.array(np.ascontiguousarray(datasets, np.float32).reshape(-1))
    of_float = pa.list_(pa.field("element", pa.float32(), nullable=False), columns)
    of_lists = pa.list_(pa.field("element", of_float, nullable=False), rows)
    return pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(values, type=of_float), type=of_lists)


def decode(array: pa.Array | pa.ChunkedArray, layout: Layout) -> Decoded:
    """The datasets in a column, converted to float32, and why the other rows are none.

    Other numbers are rounded to float32; one beyond its range counts as infinite. A null anywhere in a row
    makes the row 'null'. A clean array of float32 is not copied.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    sizes = (layout.rows, layout.columns) if layout.nested else (layout.rows * layout.columns,)
    reasons = _misfits(array, sizes)
    if reasons is None:
        datasets = _numbers(array, layout)
        reasons = [None] * len(array)
    else:
        # A null list may own numbers or none, and a short one shifts all that follow: put each that fits in its place.
        fitting = np.flatnonzero([reason is None for reason in reasons])
        datasets = np.zeros((len(array), layout.rows, layout.columns), np.float32)
        datasets[fitting] = _numbers(array.take(pa.array(fitting)), layout)
    finite = np.isfinite(datasets)
    if not finite.all():
        for row in np.flatnonzero(~finite.all(axis=(1, 2))):
            reasons[row] = "nan" if np.isnan(datasets[row]).any() else "infinite"
    return Decoded(datasets, reasons)


def _misfits(array: pa.Array, sizes: tuple[int, ...]) -> Reasons | None:
    """Why rows are not lists of exactly `sizes` numbers; None when all are.

    One level of lists after the other, every row owning a range of each level's items. Counting by differences of
    cumulative sums needs no loop over rows, whatever the lengths.
    """
    if _is_clean(array, sizes):
        return None
    count = len(array)
    begin, end = np.arange(count), np.arange(1, count + 1)
    null = np.zeros(count, np.bool_)
    misfits: list[Mask] = []
    for size in sizes:
        ends = _offsets(array)
        null |= _any_within(_is_null(array), begin, end)
        misfits.append(_any_within(np.diff(ends) != size, begin, end))
        begin, end = ends[begin] - ends[0], ends[end] - ends[0]
        array = _items(array)
    null |= _any_within(_is_null(array), begin, end)
    reasons: Reasons = [None] * count
    for why, rows in reversed([("null", null), *zip(("rows", "columns"), misfits, strict=False)]):
        for row in np.flatnonzero(rows):
            reasons[row] = why
    return reasons if any(reasons) else None


def _is_clean(array: pa.Array, sizes: tuple[int, ...]) -> bool:
    """Whether the type gives every list the right size and nothing is null: the usual case, told without a loop."""
    for size in sizes:
        if array.null_count or not pa.types.is_fixed_size_list(array.type) or array.type.list_size != size:
            return False
        array = _items(array)
    return array.null_count == 0


def _offsets(lists: pa.Array) -> NDArray[np.int64]:
    """int64 (n + 1,): where each list begins in `lists.values`, and where the last one ends."""
    if pa.types.is_fixed_size_list(lists.type):
        return (lists.offset + np.arange(len(lists) + 1)) * lists.type.list_size
    return np.asarray(lists.offsets.to_numpy(zero_copy_only=False), np.int64)


def _items(lists: pa.Array) -> pa.Array:
    """The items of all lists, end to end. (`flatten` would leave out those that a null list owns.)"""
    if pa.types.is_fixed_size_list(lists.type):
        size = lists.type.list_size
        return lists.values.slice(lists.offset * size, len(lists) * size)
    begin, end = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    return lists.values.slice(begin, end - begin)


def _is_null(array: pa.Array) -> Mask | None:
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False)) if array.null_count else None


def _any_within(flags: Mask | None, begin: NDArray[np.int64], end: NDArray[np.int64]) -> Mask:
    """bool (n,): whether any of flags[begin[i]:end[i]] is set."""
    if flags is None or not flags.any():
        return np.zeros(len(begin), np.bool_)
    before = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(before[end] > before[begin])


def _numbers(array: pa.Array, layout: Layout) -> FloatArray:
    """float32 (n, rows, columns) of an array in which every row fits."""
    count = len(array)
    for _ in range(2 if layout.nested else 1):
        array = _items(array)
    dtype = np.dtype(array.type.to_pandas_dtype())
    buffer = array.buffers()[1]
    if buffer is None:  # no numbers at all
        numbers = np.empty(0, dtype)
    else:
        numbers = np.frombuffer(buffer, dtype, len(array), array.offset * dtype.itemsize)
    with np.errstate(over="ignore", invalid="ignore"):
        values = numbers.astype(np.float32, copy=False)
    if layout.by_column:
        return np.ascontiguousarray(values.reshape(count, layout.columns, layout.rows).transpose(0, 2, 1))
    return values.reshape(count, layout.rows, layout.columns)
