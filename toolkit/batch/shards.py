"""Shards: what is scored, written and receipted as one, the same for any number of workers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, groupby
from math import ceil

import pyarrow as pa

from toolkit.batch.sources import Source
from toolkit.datasets import iter_batches
from toolkit.datasets.chunks import Unexpected
from toolkit.datasets.pages import Pages
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
    """All rows of all files that are not lost, in order. Depends on nothing but how many and how large they are."""
    shards: list[Shard] = []
    left = sum(source.rows_kept for source in sources)
    for index, source in enumerate(sources):
        whole = shard_rows(source)
        for stretch in source.stretches:
            first_row = stretch.start
            while first_row < stretch.stop:
                part = ceil(left / (LAST_PARTS * READ_ROWS)) * READ_ROWS
                rows = min(whole, part, stretch.stop - first_row)
                shards.append(Shard(len(shards), index, first_row, rows))
                first_row += rows
                left -= rows
    return tuple(shards)


def shard_rows(source: Source) -> int:
    """Rows in a whole shard of this file: a multiple of READ_ROWS where datasets are not very large."""
    fitting = min(MAX_ROWS, MAX_BYTES // (4 * source.layout.rows * source.layout.columns))
    return fitting // READ_ROWS * READ_ROWS or max(fitting, 1)


def read_shards(sources: Sequence[Source], shards: Sequence[Shard]) -> Iterator[tuple[Shard, Iterator[pa.RecordBatch]]]:
    """The rows of each shard, in order, with all columns of the file.

    The batches of a shard may be consumed later, by another thread: where the datasets lie in the file so that any rows
    can be decoded, this is done there, and only the other columns are read here. Elsewhere row groups without a wanted
    row are not read; of the others, rows before a wanted one are read and dropped: such a reader cannot start in the
    middle of a row group.

    Raises:
        InputError: the file is damaged, or holds fewer rows than its footer says.
    """
    for index, wanted in groupby(shards, lambda shard: shard.source):
        yield from _read_source(sources[index], list(wanted))


def _read_source(source: Source, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Iterator[pa.RecordBatch]]]:
    done = 0
    if pages := _open_pages(source):
        others = [name for name in source.schema.names if name != source.layout.column]
        with closing(_Rows(source, shards, others)) as rows:
            for shard in shards:
                if pages.failed:
                    break
                yield shard, _with_pages(source, pages, shard, deque(rows.of(shard)))
                done += 1
    with closing(_Rows(source, shards[done:], None)) as rows:
        for shard in shards[done:]:
            yield shard, _drained(deque(rows.of(shard)))


def _drained(batches: deque[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches, each let go of once it is scored."""
    while batches:
        yield batches.popleft()


def _open_pages(source: Source) -> Pages | None:
    try:
        return Pages(source.name, source.layout, source.row_groups)
    except (Unexpected, OSError, pa.ArrowException):
        return None


def _with_pages(source: Source, pages: Pages, shard: Shard, others: deque[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The record batches of a shard, each put together when it is asked for."""
    row = shard.first_row
    while others:
        batch = others.popleft()
        try:
            column = pages.read(row, len(batch))
        except Unexpected:
            pages.failed = True  # the shards that are still to come are read as a whole
            break
        arrays = [column if name == source.layout.column else batch.column(name) for name in source.schema.names]
        yield pa.RecordBatch.from_arrays(arrays, schema=source.schema)
        row += len(batch)
    if left := shard.first_row + shard.rows - row:
        rest = Shard(shard.index, shard.source, row, left)
        with closing(_Rows(source, [rest], None)) as rows:
            yield from rows.of(rest)


class _Rows:
    """Record batches of the row groups that hold some shards, cut wherever one ends."""

    def __init__(self, source: Source, shards: Sequence[Shard], columns: Sequence[str] | None) -> None:
        self.name = source.name
        ends = list(accumulate(source.row_groups))
        covered = [
            range(bisect_right(ends, shard.first_row), bisect_left(ends, shard.first_row + shard.rows) + 1)
            for shard in shards
        ]
        needed = sorted({group for groups in covered for group in groups})
        sizes = [source.row_groups[group] for group in needed]
        self.begins = [ends[group] - size for group, size in zip(needed, sizes, strict=True)]  # in the file
        self.positions = list(accumulate(sizes, initial=0))  # of these among the rows that are read
        self.batches = iter_batches(source.name, columns, needed, min(READ_ROWS, shard_rows(source)))
        self.position = 0
        self.left: pa.RecordBatch | None = None

    def of(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """The rows of one of the shards; those before it that nobody asked for are dropped."""
        group = bisect_right(self.begins, shard.first_row) - 1
        position = self.positions[group] + shard.first_row - self.begins[group]
        for _ in self._take(position - self.position):
            pass
        yield from self._take(shard.rows)

    def _take(self, count: int) -> Iterator[pa.RecordBatch]:
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
