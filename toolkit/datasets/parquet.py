"""Parquet files of datasets: opened, and streamed in flat memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.datasets.layout import Layout, find_layout, read_column_names
from toolkit.datasets.numbers import plain
from toolkit.datasets.values import decode, gather
from toolkit.errors import DamagedInput, InputError
from toolkit.places import is_uri, open_input

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Spec

# With these two settings a reader holds 4-9 MB even when one row group holds everything; with the defaults 200-470 MB.
PRE_BUFFER = False
BUFFER_BYTES = 1 << 20

BATCH_ROWS = 1024
PEEKED = 16  # values that are looked at to tell what a column of bytes holds


@contextmanager
def open_parquet(path: Path | str) -> Iterator[pq.ParquetFile]:
    """The file, opened for streaming.

    Raises:
        InputError: not there, or not Parquet.
    """
    try:
        opened = open_input(str(path)) if is_uri(path) else path
        source = pq.ParquetFile(opened, pre_buffer=PRE_BUFFER, buffer_size=BUFFER_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, pa.ArrowException) as error:
        raise DamagedInput(f"{path}: not a readable Parquet file ({_first_line(error)}).") from error
    with source:
        yield source


def iter_batches(
    path: Path | str,
    columns: Sequence[str] | None,
    row_groups: Sequence[int] | None,
    batch_rows: int,
) -> Generator[pa.RecordBatch]:
    """Record batches of at most `batch_rows` rows, in file order, in flat memory.

    Args:
        columns: top-level columns to read, in this order; None for all.
        row_groups: their indices, in ascending order; None for all.
    Raises:
        InputError: not a Parquet file, a column is absent, or the bytes are damaged.
    """
    with open_parquet(path) as source:
        names = source.schema_arrow.names
        wanted = list(names if columns is None else columns)
        absent = [name for name in wanted if name not in names]  # pyarrow would leave them out without a word
        if absent:
            raise InputError(f"{path}: no column {absent[0]!r}. It has: {', '.join(names)}.")
        read = 0
        try:
            for batch in source.iter_batches(batch_rows, row_groups=row_groups, columns=wanted):
                read += len(batch)
                yield batch.select(wanted)
        except (OSError, pa.ArrowException) as error:
            groups = _groups_at(source.metadata, row_groups, read, read + batch_rows)
            raise DamagedInput(
                f"{path}, {_name_damaged(source, groups, wanted)}: damaged ({_first_line(error)})."
            ) from error


def _groups_at(metadata: pq.FileMetaData, row_groups: Sequence[int] | None, begin: int, end: int) -> list[int]:
    """The row groups in which the rows begin..end of those that are read lie."""
    position, found = 0, []
    for group in range(metadata.num_row_groups) if row_groups is None else row_groups:
        rows = metadata.row_group(group).num_rows
        if position < end and begin < position + rows:
            found.append(group)
        position += rows
    return found


def _name_damaged(source: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str]) -> str:
    """`row group 3`: the first of these that cannot be read alone; or all, where each can."""
    for group in groups if len(groups) > 1 else ():
        try:
            for _ in source.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                pass
        except (OSError, pa.ArrowException):
            return f"row group {group}"
    return f"row group {groups[0]}" if len(groups) == 1 else f"row groups {groups[0]} to {groups[-1]}"


def layout_of_file(
    path: Path | str,
    *,
    rows: int | None = None,
    columns: Sequence[str] | int | None = None,
    column: str | None = None,
    order: str | None = None,
) -> Layout:
    """`find_layout` for a file; reads its first datasets where the types do not tell what they are."""
    with open_parquet(path) as source:
        schema = source.schema_arrow
    if columns is None:
        columns = read_column_names(schema)

    def peek(name: str) -> Iterator[object]:
        return first_values(path, name)

    return find_layout(schema, where=str(path), rows=rows, columns=columns, column=column, order=order, peek=peek)


def layout_for(spec: Spec, path: Path | str, *, column: str | None = None, order: str | None = None) -> Layout:
    """`layout_of_file` for the datasets that a model takes, as it takes them."""
    layout = layout_of_file(path, rows=spec.rows, columns=spec.columns, column=column, order=order)
    return replace(layout, sorted_rows=spec.sorted_rows)


def first_values(path: Path | str, column: str) -> Iterator[object]:
    """The first values of a column that are not null, as Python's: at most PEEKED, from as many rows as that takes."""
    left = PEEKED
    for batch in iter_batches(path, [column], None, PEEKED):
        for value in plain(batch.column(0)):
            if value.is_valid:
                yield value.as_py()
                left -= 1
            if not left:
                return


def read_datasets(path: Path | str, spec: Spec, *, column: str | None = None, order: str | None = None) -> FloatArray:
    """All datasets of a file: float32 (n, rows, columns). Meant for files that fit into memory.

    Raises:
        InputError: not readable, no fitting column, or a row that is no dataset of this model.
    """
    layout = layout_for(spec, path, column=column, order=order)
    pieces = [np.empty((0, *spec.shape), np.float32)]
    for batch in iter_batches(path, layout.table_columns, None, BATCH_ROWS):
        decoded = decode(gather(batch, layout), layout)
        for row, reason in enumerate(decoded.reasons):
            if reason is not None:
                raise InputError(
                    f"{path}, row {sum(map(len, pieces)) + row}: {layout.column!r} is no dataset of {spec.describe()} "
                    f"({reason}). Fix the row or leave it out."
                )
        pieces.append(decoded.datasets)
    return np.concatenate(pieces)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
