"""Shards: what is scored, written and receipted as one, the same for any number of workers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, groupby
from math import ceil

import pyarrow as pa

from toolkit.batch.sources import Source
from toolkit.datasets import iter_batches
from toolkit.errors import InputError

MAX_ROWS = 8192
MAX_BYTES = 16 << 20  # of float32 datasets in one shard: fewer rows when each is large
READ_ROWS = 1024  # rows a record batch
# A shard is at most this part of what is left: the last ones are small, so that workers finish at about the same time.
LAST_PARTS = 8


@dataclass(frozen=True)
class Shard:
    """A range of rows in one file, wherever its row groups end: some files have groups of a hundred rows.

    Attributes:
        index: its place among all shards, which is the order of the output.
        source: index of the file.
        first_row: `source_row` of its first row.
    """

    index: int
    source: int
    first_row: int
    rows: int


def plan_shards(sources: Sequence[Source]) -> tuple[Shard, ...]:
    """All rows of all files, in order. Depends on nothing but how many they are and the shape of a dataset."""
    shards: list[Shard] = []
    left = sum(source.rows for source in sources)
    for index, source in enumerate(sources):
        whole, first_row = shard_rows(source), 0
        while first_row < source.rows:
            part = ceil(left / (LAST_PARTS * READ_ROWS)) * READ_ROWS
            rows = min(whole, part, source.rows - first_row)
            shards.append(Shard(len(shards), index, first_row, rows))
            first_row += rows
            left -= rows
    return tuple(shards)


def shard_rows(source: Source) -> int:
    """Rows in a whole shard of this file: a multiple of READ_ROWS where datasets are not very large."""
    fitting = min(MAX_ROWS, MAX_BYTES // (4 * source.layout.rows * source.layout.columns))
    return fitting // READ_ROWS * READ_ROWS or max(fitting, 1)


def read_shards(sources: Sequence[Source], shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[pa.RecordBatch]]]:
    """The rows of each shard, in order, with all columns of the file.

    Row groups without a wanted row are not read. Of the others, rows before a wanted one are read and dropped: a reader
    cannot start in the middle of a row group.

    Raises:
        InputError: the file is damaged, or holds fewer rows than its footer says.
    """
    for index, wanted in groupby(shards, lambda shard: shard.source):
        yield from _read_source(sources[index], list(wanted))


def _read_source(source: Source, shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[pa.RecordBatch]]]:
    ends = list(accumulate(source.row_groups))
    groups = [
        range(bisect_right(ends, shard.first_row), bisect_left(ends, shard.first_row + shard.rows) + 1)
        for shard in shards
    ]
    needed = sorted({group for covered in groups for group in covered})
    sizes = [source.row_groups[group] for group in needed]
    begins = dict(zip(needed, accumulate(sizes, initial=0), strict=False))  # among the rows of those needed
    batches = iter_batches(source.name, None, needed, min(READ_ROWS, shard_rows(source)))
    with closing(_Rows(source.name, batches)) as rows:
        for shard, (group, *_) in zip(shards, groups, strict=True):
            rows_before = shard.first_row - (ends[group] - source.row_groups[group])
            rows.skip_to(begins[group] + rows_before)
            yield shard, list(rows.take(shard.rows))


class _Rows:
    """Record batches, cut wherever a shard ends."""

    def __init__(self, name: str, batches: Generator[pa.RecordBatch]) -> None:
        self.name, self.batches = name, batches
        self.position = 0
        self.left: pa.RecordBatch | None = None

    def skip_to(self, position: int) -> None:
        for _ in self.take(position - self.position):
            pass

    def take(self, count: int) -> Iterator[pa.RecordBatch]:
        """The next `count` rows."""
        while count > 0:
            batch = self.left if self.left is not None else next(self.batches, None)
            if batch is None:
                raise InputError(f"{self.name}: ends {count:,} rows before its footer says. The file is damaged.")
            taken = batch.slice(0, count)
            self.left = batch.slice(count) if batch.num_rows > count else None
            self.position += taken.num_rows
            count -= taken.num_rows
            yield taken

    def close(self) -> None:
        self.batches.close()
