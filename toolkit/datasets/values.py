"""A column of datasets to float32 (datasets, rows, columns), and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets.blobs import BARE, read_bare, read_npy
from toolkit.datasets.layout import Layout
from toolkit.datasets.lists import Misfits, read_lists
from toolkit.datasets.numbers import plain
from toolkit.datasets.order import sort_rows
from toolkit.datasets.structs import read_struct, read_structs
from toolkit.datasets.tensors import read_tensors
from toolkit.datasets.vectors import read_vectors

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

# Why a row is no dataset. The first that holds, in this order, is the one reported.
REASONS = ("null", "rows", "columns", "type", "nan", "infinite")

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
        if not any(self.reasons):  # nearly always, and told a hundred times as fast
            return np.ones(len(self.reasons), np.bool_)
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
    makes the row 'null'. A clean array of float32 is not copied, unless the layout has its rows sorted.

    Args:
        array: of one list per column, a struct of them, see `gather`.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    datasets, misfits = _read(plain(array), layout)
    reasons: list[str | None] = [None] * len(array)
    for why in reversed(REASONS):
        if why in misfits:
            for row in np.flatnonzero(misfits[why]):
                reasons[row] = why
    finite = np.isfinite(datasets)
    if not finite.all():
        for row in np.flatnonzero(~finite.all(axis=(1, 2))):
            if reasons[row] is None:
                reasons[row] = "nan" if np.isnan(datasets[row]).any() else "infinite"
    return Decoded(sort_rows(datasets) if layout.sorted_rows else datasets, reasons)


def gather(batch: pa.RecordBatch, layout: Layout) -> pa.Array:
    """The column of `batch` that `decode` takes; a struct of them where each column of a dataset has one."""
    if layout.kind != "separate":
        return batch.column(layout.column)
    return pa.StructArray.from_arrays([batch.column(name) for name in layout.fields], layout.fields)


def _read(array: pa.Array, layout: Layout) -> tuple[FloatArray, Misfits]:
    """float32 (n, rows, columns) of a plain array, and why rows are none; their values have not been looked at."""
    rows, columns = layout.rows, layout.columns
    if layout.kind == "structs":
        return read_structs(array, rows, layout.fields)
    if layout.kind in ("struct", "separate"):
        return read_struct(array, rows, layout.fields)
    if layout.kind == "tensors":
        return read_tensors(array, rows, columns)
    if layout.kind == "npy":
        return read_npy(array, rows, columns, flat=not layout.nested, by_column=layout.by_column)
    if layout.kind in BARE:
        numbers, misfits = read_bare(array, BARE[layout.kind], rows * columns)
    elif layout.kind == "vectors":
        numbers, misfits = read_vectors(array, rows * columns)
    else:
        numbers, misfits = read_lists(array, (rows, columns) if layout.nested else (rows * columns,))
    if layout.by_column:
        return np.ascontiguousarray(numbers.reshape(-1, columns, rows).transpose(0, 2, 1)), misfits
    return numbers.reshape(len(array), rows, columns), misfits
