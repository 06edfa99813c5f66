"""Observations in memory -> one dataset for each group of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets.ids import Codes, codes_of, plain_id
from toolkit.datasets.layout import Layout
from toolkit.datasets.lists import null_mask
from toolkit.datasets.numbers import as_float32, numbers_of, plain
from toolkit.datasets.values import encode

# Columns of our own have names that no user's column has. Those of observations:
ROW, VALUES, NULL = "softplus_toolkit.row", "softplus_toolkit.values", "softplus_toolkit.null"
# and those of groups.
DATASET, FIRST_ROW, COUNT, REASON = (f"softplus_toolkit.{name}" for name in ("dataset", "first_row", "count", "reason"))


@dataclass(frozen=True)
class Tidy:
    """How a table of observations holds datasets: one row an observation, an id for each dataset.

    Attributes:
        by: columns of the id; two rows belong together where all of them are equal.
        columns: of a dataset, in its order.
        rows: observations in a dataset.
        constant: columns of numbers that do not change within a group, to be kept: true parameters.
    """

    by: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int
    constant: tuple[str, ...] = ()

    @property
    def needed(self) -> list[str]:
        """The columns of the table that have to be read, each once."""
        return list(dict.fromkeys([*self.by, *self.columns, *self.constant]))

    @property
    def layout(self) -> Layout:
        return Layout(
            ", ".join(self.columns), self.rows, len(self.columns), True, kind="tidy", fields=self.columns, by=self.by
        )


def observations(batch: pa.RecordBatch, tidy: Tidy, first_row: int) -> pa.RecordBatch:
    """Plain ids, the row's number among those of all files, the numbers as float32, and whether one of them is null."""
    columns = [plain(batch.column(name)) for name in (*tidy.columns, *tidy.constant)]
    values = np.stack([as_float32(numbers_of(column)) for column in columns], axis=1)
    null = np.logical_or.reduce([null_mask(column) for column in columns])
    arrays = [
        *(plain_id(batch.column(name)) for name in tidy.by),
        pa.array(np.arange(first_row, first_row + len(batch))),
        pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), len(columns)),
        pa.array(null.view(np.uint8)),
    ]
    return pa.RecordBatch.from_arrays(arrays, names=[*tidy.by, ROW, VALUES, NULL])


def group(table: pa.Table, tidy: Tidy) -> pa.Table:
    """Every group of some observations, in order of first appearance.

    Args:
        table: from `observations`, in ascending order of ROW; all rows of each group.
    Returns:
        The ids, DATASET (zeros where there is a reason), the constant columns as float32 (NaN where one changes),
        FIRST_ROW, COUNT of observations, REASON: 'null' for a null id or number, 'rows' for another count than
        `tidy.rows`, or null.
    """
    table = table.combine_chunks()
    ids = [_whole(table, name) for name in tidy.by]
    codes, first = codes_of(ids)
    counts = np.bincount(codes, minlength=len(first))
    order = None if (np.diff(codes) >= 0).all() else np.argsort(codes, kind="stable")
    values, null = _values(table, tidy), numbers_of(_whole(table, NULL)).astype(np.bool_)
    if order is not None:
        values, null = values[order], null[order]
    begin = np.cumsum(counts) - counts
    absent = np.logical_or.reduceat(null, begin) if len(begin) else np.empty(0, np.bool_)
    nameless = np.logical_or.reduce([null_mask(column)[first] for column in ids])
    # An id that is null names nothing: its rows belong to no dataset, however many they are.
    reasons = np.where(absent | nameless, "null", np.where(counts != tidy.rows, "rows", ""))
    accepted = reasons == ""
    width = len(tidy.columns)
    datasets = np.zeros((len(first), tidy.rows, width), np.float32)
    datasets[accepted] = values[np.repeat(accepted, counts), :width].reshape(-1, tidy.rows, width)
    arrays = {
        **{name: column.take(pa.array(first)) for name, column in zip(tidy.by, ids, strict=True)},
        DATASET: encode(datasets),
        **{name: _constant(values[:, width + i], begin, counts) for i, name in enumerate(tidy.constant)},
        FIRST_ROW: _whole(table, ROW).take(pa.array(first)),
        COUNT: pa.array(counts),
        REASON: pa.array(reasons, mask=accepted).cast(pa.string()),
    }
    return pa.table(arrays)


def group_runs(tables: Iterable[pa.Table], tidy: Tidy) -> Iterator[pa.Table]:
    """The groups of observations in which the rows of each group follow one another; holds no more than one table.

    Of a group with too many rows no more than is needed to reject it is held.
    """
    left: pa.Table | None = None
    dropped = 0
    for table in tables:
        table = table if left is None else pa.concat_tables([left, table])
        if not len(table):
            continue
        cut = _last_run(table, tidy)
        if cut:
            yield _counting(group(table.slice(0, cut), tidy), dropped)
            dropped = 0
        rest = table.slice(cut)
        left = _shortened(rest, tidy) if len(rest) > tidy.rows + 1 else rest
        dropped += len(rest) - len(left)
    if left is not None:
        yield _counting(group(left, tidy), dropped)


def _counting(groups: pa.Table, dropped: int) -> pa.Table:
    """`groups`, whose first has `dropped` observations more than were looked at."""
    if not dropped:
        return groups
    counts = numbers_of(_whole(groups, COUNT)).copy()
    counts[0] += dropped
    return groups.set_column(groups.schema.get_field_index(COUNT), COUNT, pa.array(counts))


def _last_run(table: pa.Table, tidy: Tidy) -> int:
    """Where the run of rows begins that have the ids of the last one."""
    codes, _ = codes_of([_whole(table, name) for name in tidy.by])
    other = np.flatnonzero(codes != codes[-1])
    return int(other[-1]) + 1 if len(other) else 0


def _shortened(table: pa.Table, tidy: Tidy) -> pa.Table:
    """The rows of one group without those that cannot change what becomes of it: it is too long, and why is known."""
    null = numbers_of(_whole(table, NULL)).astype(np.bool_)
    kept = np.arange(len(table)) <= tidy.rows
    kept[np.flatnonzero(null)[:1]] = True
    return table.filter(pa.array(kept))


def _constant(values: NDArray[np.float32], begin: Codes, counts: Codes) -> pa.Array:
    first = values[begin]
    changes = np.logical_or.reduceat(values != np.repeat(first, counts), begin) if len(begin) else first.astype(bool)
    return pa.array(np.where(changes, np.float32(np.nan), first))


def _values(table: pa.Table, tidy: Tidy) -> NDArray[np.float32]:
    lists = _whole(table, VALUES)
    width = len(tidy.columns) + len(tidy.constant)
    items = lists.values.slice(lists.offset * width, len(lists) * width)
    return np.asarray(numbers_of(items)).reshape(-1, width)


def _whole(table: pa.Table, name: str) -> pa.Array:
    column: pa.ChunkedArray = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
