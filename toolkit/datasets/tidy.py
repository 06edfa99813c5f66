"""Tidy tables, one row an observation -> a Parquet file of datasets, one row each: the layout that all else reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.datasets.groups import COUNT, DATASET, FIRST_ROW, REASON, Tidy, group, group_runs, observations
from toolkit.datasets.ids import Hashes, codes_of, hashes_of, is_id, plain_id
from toolkit.datasets.layout import write_schema_metadata
from toolkit.datasets.numbers import is_number, numbers_of
from toolkit.datasets.parquet import iter_batches, open_parquet
from toolkit.datasets.spill import group_spilled, regrouped
from toolkit.errors import InputError
from toolkit.files import appears_whole

READ_ROWS = 65_536  # of a few columns: 1.5 MB
MEMORY_BYTES = 64 << 20
MOST_RUNS = 4_000_000  # whose hashes are kept to tell whether an id comes back: 32 MB
ROW_GROUP_BYTES = 8 << 20

SOURCE_FILE, SOURCE_ROW = "source_file", "source_row"


def check_tidy(schema: pa.Schema, tidy: Tidy, where: str) -> None:
    """Whether a table has the columns that `tidy` names, of types that can be ids and numbers.

    Raises:
        InputError: names the flag.
    """
    listed = ", ".join(f"{field.name} {field.type}" for field in schema)
    asked = (("--group-by", tidy.by), ("--columns", tidy.columns), ("--parameters", tidy.constant))
    for flag, names in asked:
        for name in names:
            if schema.names.count(name) != 1:
                raise InputError(f"{where}: no column {name!r}, or several, for {flag}. It has: {listed}.")
            type = schema.field(name).type
            if not (is_id(type) if flag == "--group-by" else is_number(type)):
                raise InputError(f"{where}: column {name!r} is {type}, which {flag} does not take.")


def group_files(names: Sequence[str], tidy: Tidy, path: Path, memory_bytes: int = MEMORY_BYTES) -> None:
    """Write every group of the files' rows as one dataset, in order of first appearance; whole or not at all.

    A group may cross files, its rows may lie anywhere. They are one dataset in the order in which they stand.

    Args:
        path: has the ids, DATASET, the constant columns, SOURCE_FILE and SOURCE_ROW of the group's first row, COUNT and
            REASON, see `group`. Its folder takes what does not fit into memory.
        memory_bytes: what grouping may hold, roughly.
    Raises:
        InputError: a file is damaged, or its columns are not those wanted.
    """
    sizes = []
    for name in names:
        with open_parquet(name) as opened:
            check_tidy(opened.schema_arrow, tidy, name)
            sizes.append(opened.metadata.num_rows)
    begins = list(accumulate(sizes, initial=0))
    tables = _observations(names, begins, tidy)
    if _follow_one_another(names, tidy):
        groups = group_runs(tables, tidy)
    else:
        groups = group_spilled(tables, tidy, begins[-1], path.parent, memory_bytes)
    counted = 0
    with appears_whole(path) as partial:
        writer = None
        try:
            for table in regrouped(_located(groups, names, begins), ROW_GROUP_BYTES):
                counted += int(numbers_of(table.column(COUNT).combine_chunks()).sum())
                if writer is None:
                    writer = _new_file(partial, table.schema, tidy)
                writer.write_table(table, row_group_size=len(table))
            if writer is None:
                nothing = next(_located([_no_groups(names[0], tidy)], names, begins))
                writer = _new_file(partial, nothing.schema, tidy)
        finally:
            if writer is not None:
                writer.close()
        if counted != begins[-1]:
            raise InputError(f"{names[0]}: {begins[-1]:,} rows are in the files, {counted:,} in their groups.")


def _observations(names: Sequence[str], begins: Sequence[int], tidy: Tidy) -> Iterator[pa.Table]:
    for name, begin in zip(names, begins, strict=False):
        row = begin
        for batch in iter_batches(name, tidy.needed, None, READ_ROWS):
            yield pa.Table.from_batches([observations(batch, tidy, row)])
            row += len(batch)


def _follow_one_another(names: Sequence[str], tidy: Tidy) -> bool:
    """Whether the rows of every group do: told by the ids alone. False also where there are too many to tell."""
    runs: list[Hashes] = []
    last = None
    for name in names:
        for batch in iter_batches(name, list(tidy.by), None, READ_ROWS):
            ids = [plain_id(column) for column in batch.columns]
            codes, first = codes_of(ids)
            if not len(codes):
                continue
            if np.count_nonzero(np.diff(codes)) >= len(first):
                return False
            hashes = hashes_of([column.take(pa.array(first)) for column in ids])
            runs.append(hashes[1:] if last == hashes[0] else hashes)
            last = hashes[-1]
            if sum(map(len, runs)) > MOST_RUNS:
                return False
    found = np.concatenate(runs) if runs else np.empty(0, np.uint64)
    return len(np.unique(found)) == len(found)  # two ids of one hash only cost time


def _located(
    groups: Iterator[pa.Table] | list[pa.Table], names: Sequence[str], begins: Sequence[int]
) -> Iterator[pa.Table]:
    """With the file and the row in it, in place of the row among all."""
    files = pa.array(names, pa.string())
    for table in groups:
        row = numbers_of(table.column(FIRST_ROW).combine_chunks())
        file = np.searchsorted(begins, row, side="right") - 1
        table = table.drop_columns([FIRST_ROW])
        table = table.append_column(pa.field(SOURCE_FILE, pa.string(), nullable=False), files.take(pa.array(file)))
        origin = pa.array(row - np.asarray(begins)[file], pa.int64())
        yield table.append_column(pa.field(SOURCE_ROW, pa.int64(), nullable=False), origin)


def _no_groups(name: str, tidy: Tidy) -> pa.Table:
    with open_parquet(name) as opened:
        fields = [opened.schema_arrow.field(column) for column in tidy.needed]
    nothing = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in fields], schema=pa.schema(fields))
    return group(pa.Table.from_batches([observations(nothing, tidy, 0)]), tidy)


def _new_file(path: Path, schema: pa.Schema, tidy: Tidy) -> pq.ParquetWriter:
    if tidy.constant:
        schema = write_schema_metadata(schema, tidy.columns, tidy.constant)
    repetitive = [name for name in (SOURCE_FILE, REASON) if name in schema.names]
    return pq.ParquetWriter(path, schema, compression="none", use_dictionary=repetitive, write_statistics=False)


__all__ = [
    "COUNT",
    "DATASET",
    "MEMORY_BYTES",
    "REASON",
    "SOURCE_FILE",
    "SOURCE_ROW",
    "Tidy",
    "check_tidy",
    "group_files",
]
