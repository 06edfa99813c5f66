"""Spark's vectors, dense and sparse: structs of type, size, indices and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from toolkit.datasets.lists import Misfits, any_within, items_of, merged, null_mask, offsets_of, read_lists
from toolkit.datasets.numbers import as_float32, numbers_of, plain

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

SPARSE, DENSE = 0, 1


def read_vectors(array: pa.StructArray, numbers: int) -> tuple[FloatArray, Misfits]:
    """float32 (n, numbers), and why other rows are no vectors of that many.

    Source: org.apache.spark.ml.linalg.VectorUDT, which stores (1, null, null, values) and (0, size, indices, values).
    """
    kind = np.where(null_mask(types := array.field("type")), -1, numbers_of(types))
    absent = null_mask(array)
    sparse = ~absent & (kind == SPARSE)
    dense = ~absent & (kind == DENSE)
    found: list[Misfits] = [{"null": absent, "type": ~(absent | sparse | dense)}]
    if dense.all():
        return read_lists(plain(array.field("values")), (numbers,))
    vectors = np.zeros((len(array), numbers), np.float32)
    for rows, read in ((np.flatnonzero(dense), _dense), (np.flatnonzero(sparse), _sparse)):
        vectors[rows], misfits = read(array.take(pa.array(rows)), numbers)
        for why, mask in misfits.items():
            whole = np.zeros(len(array), np.bool_)
            whole[rows] = mask
            found.append({why: whole})
    return vectors, merged(found)


def _dense(array: pa.StructArray, numbers: int) -> tuple[FloatArray, Misfits]:
    return read_lists(plain(array.field("values")), (numbers,))


def _sparse(array: pa.StructArray, numbers: int) -> tuple[FloatArray, Misfits]:
    """The values at their indices, zero elsewhere. Indices that are no indices make a row 'type'."""
    count = len(array)
    size, indices, values = (plain(array.field(name)) for name in ("size", "indices", "values"))
    ends, value_ends = offsets_of(indices), offsets_of(values)
    begin, end = ends[:-1] - ends[0], ends[1:] - ends[0]
    value_begin, value_end = value_ends[:-1] - value_ends[0], value_ends[1:] - value_ends[0]
    places, given = items_of(indices), items_of(values)
    null = null_mask(size) | null_mask(indices) | null_mask(values)
    null |= any_within(null_mask(places), begin, end) | any_within(null_mask(given), value_begin, value_end)
    at = numbers_of(places).astype(np.int64)
    outside = any_within((at < 0) | (at >= numbers), begin, end)
    wrong = (end - begin != value_end - value_begin) | outside
    other = numbers_of(size) != numbers
    vectors = np.zeros((count, numbers), np.float32)
    fits = ~(null | wrong | other)
    lengths = np.where(fits, end - begin, 0)
    row = np.repeat(np.arange(count), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    vectors[row, at[begin[row] + within]] = as_float32(numbers_of(given))[value_begin[row] + within]
    return vectors, {"null": null, "rows": other & ~null, "type": wrong & ~null}
