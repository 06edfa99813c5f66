"""Parquet files of datasets: opened, streamed in flat memory, and the names their metadata holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.datasets.layout import Layout, find_layout
from toolkit.errors import InputError
from toolkit.spec import METADATA_NAME

# With these two settings a reader holds 4-9 MB even when one row group holds everything; with the defaults 200-470 MB.
PRE_BUFFER = False
BUFFER_BYTES = 1 << 20


@contextmanager
def open_parquet(path: Path | str) -> Iterator[pq.ParquetFile]:
    """The file, opened for streaming.

    Raises:
        InputError: not there, or not Parquet.
    """
    try:
        source = pq.ParquetFile(path, pre_buffer=PRE_BUFFER, buffer_size=BUFFER_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable Parquet file ({_first_line(error)}).") from error
    with source:
        yield source


def iter_batches(
    path: Path | str,
    columns: Sequence[str] | None,
    row_groups: Sequence[int] | None,
    batch_rows: int,
) -> Iterator[pa.RecordBatch]:
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
        try:
            for batch in source.iter_batches(batch_rows, row_groups=row_groups, columns=wanted):
                yield batch.select(wanted)
        except (OSError, pa.ArrowException) as error:
            groups = "" if row_groups is None else f", row groups {list(row_groups)}"
            raise InputError(f"{path}{groups}: damaged ({_first_line(error)}).") from error


def layout_of_file(
    path: Path | str,
    *,
    rows: int | None = None,
    columns: Sequence[str] | int | None = None,
    column: str | None = None,
    order: str | None = None,
) -> Layout:
    """`find_layout` for a file; reads the first dataset where the types do not tell its rows and columns."""

    def first(name: str) -> object:
        for batch in iter_batches(path, [name], None, 64):
            for value in batch.column(0):
                if value.is_valid:
                    return value.as_py()
        return None

    with open_parquet(path) as source:
        schema = source.schema_arrow
    if columns is None:
        columns = read_column_names(schema)
    return find_layout(schema, where=str(path), rows=rows, columns=columns, column=column, order=order, first=first)


def write_schema_metadata(schema: pa.Schema, columns: Sequence[str], parameters: Sequence[str]) -> pa.Schema:
    """`schema` with the names of a dataset's columns and of its parameters in its metadata."""
    names = json.dumps({"columns": list(columns), "parameters": list(parameters)})
    return schema.with_metadata({**(schema.metadata or {}), METADATA_NAME.encode(): names.encode()})


def read_column_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """The names of a dataset's columns that `write_schema_metadata` left; None when there are none."""
    try:
        content = json.loads((schema.metadata or {})[METADATA_NAME.encode()])
        return tuple(str(name) for name in content["columns"])
    except (KeyError, TypeError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
