"""Tidy tables of observations as training data: grouped once, every group checked, then read like any other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from toolkit.datasets import iter_batches, open_parquet
from toolkit.datasets.ids import codes_of, plain_id
from toolkit.datasets.tidy import COUNT, DATASET, REASON, SOURCE_FILE, SOURCE_ROW, Tidy, check_tidy, group_files
from toolkit.errors import InputError
from toolkit.promise import keeps_promise

READ_ROWS = 65_536
CHECKED_ROWS = 1024


def group_training_files(
    paths: Sequence[Path | str],
    parameters: Sequence[str],
    by: Sequence[str],
    columns: Sequence[str],
    target: Path,
    rows: int | None = None,
) -> int:
    """Write the datasets of tidy tables to `target`, in the column DATASET, with their parameters.

    Args:
        by: the columns of the id.
        columns: of a dataset, in the order in which the network is to take them.
        rows: of a dataset; by default as many as the group of the first row has.
    Returns:
        rows of a dataset.
    Raises:
        InputError: a group that cannot be trained on, by the row in which it begins.
    """
    names = [str(path) for path in paths]
    for name in names:
        with open_parquet(name) as opened:
            check_tidy(opened.schema_arrow, Tidy(tuple(by), tuple(columns), 1, tuple(parameters)), name)
    told = rows is not None
    rows = rows or _rows_of_first(names, by)
    wanted = f"not {rows:,}" if told else f"the first one {rows:,}"
    tidy = Tidy(tuple(by), tuple(columns), rows, tuple(parameters))
    group_files(names, tidy, target)
    for batch in iter_batches(
        target, [REASON, DATASET, COUNT, SOURCE_FILE, SOURCE_ROW, *parameters], None, CHECKED_ROWS
    ):
        _check(batch, tidy, wanted)
    return rows


def _rows_of_first(names: Sequence[str], by: Sequence[str]) -> int:
    """How many rows share the id of the first one, wherever they lie."""
    first: list[pa.Array] | None = None
    count = 0
    for name in names:
        for batch in iter_batches(name, list(by), None, READ_ROWS):
            ids = [plain_id(column) for column in batch.columns]
            if not len(batch):
                continue
            first = first or [column.slice(0, 1) for column in ids]
            together = [pa.concat_arrays([one, column]) for one, column in zip(first, ids, strict=True)]
            count += int(np.count_nonzero(codes_of(together)[0] == 0)) - 1
    if not count:
        raise InputError(f"{names[0]}: no rows.")
    return count


def _check(batch: pa.RecordBatch, tidy: Tidy, wanted: str) -> None:
    """Whether every group is one dataset with positive, finite parameters.

    Args:
        wanted: how many rows it should have, in words that follow those of how many it has.
    """

    def refuse(index: int, why: str) -> None:
        file, row = (batch.column(name)[index].as_py() for name in (SOURCE_FILE, SOURCE_ROW))
        raise InputError(f"{file}, row {row}: the group that begins here {why}. Remove it or mend its rows.")

    lists = batch.column(DATASET)
    size = tidy.rows * len(tidy.columns)
    numbers = lists.values.values.to_numpy()[lists.offset * size : (lists.offset + len(lists)) * size]
    finite = np.isfinite(numbers.reshape(len(lists), size)).all(axis=1)
    for index, reason in enumerate(batch.column(REASON).to_pylist()):
        if reason == "rows":
            found = batch.column(COUNT)[index].as_py()
            refuse(index, f"has {found:,} rows, {wanted}")
        elif reason is not None:
            refuse(index, "holds a null")
        elif not finite[index]:
            refuse(index, "holds a number that is not finite")
    for name in tidy.constant:
        values = batch.column(name).to_numpy()
        good = keeps_promise(values)
        if not good.all():
            refuse(int(np.argmin(good)), f"has no single positive {name!r} in all its rows")
