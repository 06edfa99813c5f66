"""Shards: what is scored, written and receipted as one, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from toolkit.batch.sources import Source
from toolkit.datasets import iter_batches
from toolkit.errors import InputError

MAX_ROWS = 8192
MAX_BYTES = 16 << 20  # of float32 datasets in one shard: fewer rows when each is large
READ_ROWS = 1024  # rows a record batch


@dataclass(frozen=True)
class Shard:
    """A range of rows in one row group of one file.

    Attributes:
        index: its place among all shards, which is the order of the output.
        source: index of the file.
        start, rows: the range inside the row group.
        first_row: `source_row` of its first row, counted in the whole file.
    """

    index: int
    source: int
    row_group: int
    start: int
    rows: int
    first_row: int


def plan_shards(sources: Sequence[Source]) -> tuple[Shard, ...]:
    """All rows of all files, in order. Depends on nothing but the footers and the shape of a dataset."""
    shards: list[Shard] = []
    for index, source in enumerate(sources):
        size = shard_rows(source)
        first_row = 0
        for row_group, rows in enumerate(source.row_groups):
            for start in range(0, rows, size):
                count = min(size, rows - start)
                shards.append(Shard(len(shards), index, row_group, start, count, first_row + start))
            first_row += rows
    return tuple(shards)


def shard_rows(source: Source) -> int:
    """Rows in a whole shard of this file: a multiple of READ_ROWS where datasets are not very large."""
    fitting = min(MAX_ROWS, MAX_BYTES // (4 * source.layout.rows * source.layout.columns))
    return fitting // READ_ROWS * READ_ROWS or max(fitting, 1)


def read_shards(sources: Sequence[Source], shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[pa.RecordBatch]]]:
    """The rows of each shard, in order, with all columns of the file.

    A row group is read once, from its beginning to the last shard wanted in it: a reader cannot start in its middle.

    Raises:
        InputError: the file is damaged, or holds fewer rows than its footer says.
    """
    for (index, row_group), wanted in groupby(shards, lambda shard: (shard.source, shard.row_group)):
        source = sources[index]
        batches = iter_batches(source.name, None, [row_group], min(READ_ROWS, shard_rows(source)))
        with closing(_RowGroup(batches, f"{source.name}, row group {row_group}")) as rows:
            position = 0
            for shard in wanted:
                for _ in rows.next_rows(shard.start - position):
                    pass
                yield shard, list(rows.next_rows(shard.rows))
                position = shard.start + shard.rows


class _RowGroup:
    """Record batches of one row group, cut wherever a shard ends."""

    def __init__(self, batches: Generator[pa.RecordBatch], where: str) -> None:
        self.batches, self.where = batches, where
        self.left: pa.RecordBatch | None = None

    def next_rows(self, count: int) -> Iterator[pa.RecordBatch]:
        """The next `count` rows."""
        while count > 0:
            batch = self.left if self.left is not None else next(self.batches, None)
            if batch is None:
                raise InputError(f"{self.where}: ends {count:,} rows before its footer says. The file is damaged.")
            self.left = batch.slice(count) if batch.num_rows > count else None
            count -= min(batch.num_rows, count)
            yield batch.slice(0, batch.num_rows - (self.left.num_rows if self.left is not None else 0))

    def close(self) -> None:
        self.batches.close()
