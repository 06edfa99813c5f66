"""Datasets of named columns: a list of structs, a struct of lists, or a list in each of some columns of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from toolkit.datasets.lists import (
    Misfits,
    any_within,
    items_of,
    merged,
    misfits_of,
    null_mask,
    offsets_of,
    read_lists,
)
from toolkit.datasets.numbers import as_float32, numbers_of, plain

if TYPE_CHECKING:
    from toolkit.spec import FloatArray


def read_structs(array: pa.Array, rows: int, fields: Sequence[str]) -> tuple[FloatArray, Misfits]:
    """Lists of structs, one an observation.

    Args:
        array: plain.
        fields: the columns of a dataset, in its order; the structs may have others.
    """
    ends = offsets_of(array)
    begin, end = ends[:-1] - ends[0], ends[1:] - ends[0]
    absent = [any_within(null_mask(each), begin, end) for each in _columns(items_of(array), fields)]
    found = merged([misfits_of(array, (rows,)) or {}, *({"null": mask} for mask in absent if mask.any())])
    if not found:
        return _stacked(array, rows, fields), {}
    fitting = np.flatnonzero(~np.logical_or.reduce(list(found.values())))
    datasets = np.zeros((len(array), rows, len(fields)), np.float32)
    datasets[fitting] = _stacked(array.take(pa.array(fitting)), rows, fields)
    return datasets, found


def read_struct(array: pa.StructArray, rows: int, fields: Sequence[str]) -> tuple[FloatArray, Misfits]:
    """Structs of lists, one list for each column of a dataset."""
    lists = [read_lists(column, (rows,)) for column in _columns(array, fields)]
    absent = [{"null": null_mask(array)}] if array.null_count else []
    return np.stack([values for values, _ in lists], axis=2), merged([*(misfits for _, misfits in lists), *absent])


def _columns(structs: pa.StructArray, fields: Sequence[str]) -> list[pa.Array]:
    return [plain(structs.field(name)) for name in fields]


def _stacked(array: pa.Array, rows: int, fields: Sequence[str]) -> FloatArray:
    values = [as_float32(numbers_of(column)).reshape(len(array), rows) for column in _columns(items_of(array), fields)]
    return np.stack(values, axis=2)
