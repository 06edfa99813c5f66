"""Grouping more observations than fit into memory: spread over files by a hash of their ids, grouped file by file."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.datasets.groups import DATASET, FIRST_ROW, Tidy, group, group_runs
from toolkit.datasets.ids import codes_of, hashes_of
from toolkit.datasets.lists import fixed_size
from toolkit.datasets.numbers import numbers_of

MOST_FILES = 128  # written, or merged, at once
WORKING_COPIES = 4  # of some observations exist while they are grouped


def group_spilled(
    tables: Iterable[pa.Table], tidy: Tidy, total_rows: int, folder: Path, memory_bytes: int
) -> Iterator[pa.Table]:
    """The groups of observations in any order, in order of first appearance.

    Args:
        tables: in ascending order of ROW.
        total_rows: in all of them.
        folder: for files of what does not fit into memory; they end in '.partial' and are removed.
        memory_bytes: what grouping may hold, roughly.
    """
    limit = memory_bytes // WORKING_COPIES
    waiting: list[pa.Table] = []
    source = iter(tables)
    held = 0
    for table in source:
        waiting.append(table)
        held += table.nbytes
        if held > limit:
            break
    else:
        yield from _sorted([group(pa.concat_tables(waiting), tidy)] if waiting else [])
        return
    seen = sum(map(len, waiting))
    expected = held * total_rows // seen
    spill = _Spill(tidy, folder, limit)
    parts = spill.spread(_chained(waiting, source), "0", expected, salt=0)
    runs = [run for part in parts for run in spill.runs(part, salt=1)]
    yield from spill.merged(runs)


def _chained(waiting: list[pa.Table], rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    while waiting:
        yield waiting.pop(0)
    yield from rest


class _Spill:
    def __init__(self, tidy: Tidy, folder: Path, limit: int) -> None:
        self.tidy, self.folder, self.limit = tidy, folder, limit
        self.runs_written = 0

    def spread(self, tables: Iterable[pa.Table], name: str, expected_bytes: int, salt: int) -> list[Path]:
        """Observations over files, all rows of a group into one, in the order they come."""
        count = int(min(MOST_FILES, 2 + 3 * expected_bytes // (2 * self.limit)))  # half as many again: hashes vary
        paths = [self.folder / f"spill-{name}-{index}.partial" for index in range(count)]
        with ExitStack() as opened:
            writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
            for table in regrouped(tables, self.limit):
                part = (hashes_of(self._ids(table), salt) % np.uint64(count)).astype(np.int64)
                order = np.argsort(part, kind="stable")
                ends = np.searchsorted(part[order], np.arange(count), side="right")
                table = table.take(pa.array(order))
                for index, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                    if begin < end:
                        if index not in writers:
                            writers[index] = opened.enter_context(_new_file(paths[index], table.schema))
                        writers[index].write_table(table.slice(begin, end - begin).combine_chunks())
        return [path for index, path in enumerate(paths) if index in writers]

    def runs(self, part: Path, salt: int) -> Iterator[Path]:
        """Files of groups, each in ascending order of FIRST_ROW, of a file of observations, which is removed."""
        size = part.stat().st_size
        if size <= self.limit or not (smaller := self._split(part, size, salt)):
            yield self._write(_sorted([group(_whole_file(part), self.tidy)]))
        elif len(smaller) == 1 and self._is_one_group(smaller[0]):
            yield self._write(group_runs(_batches_of(smaller[0]), self.tidy))
            smaller[0].unlink()
        else:
            for each in smaller:
                yield from self.runs(each, salt + 1)
        part.unlink(missing_ok=True)

    def merged(self, runs: list[Path]) -> Iterator[pa.Table]:
        """All groups in ascending order of FIRST_ROW; the files are removed."""
        while len(runs) > MOST_FILES:
            runs = [*runs[MOST_FILES:], self._write(self._merged_once(runs[:MOST_FILES]))]
        yield from self._merged_once(runs)

    def _split(self, part: Path, size: int, salt: int) -> list[Path]:
        """A file of observations over several; nothing when ids have the same hash, however salted."""
        if salt > 8:
            return []
        smaller = self.spread(_batches_of(part), part.name.removesuffix(".partial")[6:], size, salt)
        part.unlink()
        return smaller

    def _is_one_group(self, path: Path) -> bool:
        first: list[pa.Array] | None = None
        for table in _batches_of(path):
            ids = self._ids(table)
            first = first or [column.slice(0, 1) for column in ids]
            together = [pa.concat_arrays([one, column]) for one, column in zip(first, ids, strict=True)]
            if len(codes_of(together)[1]) > 1:
                return False
        return True

    def _ids(self, table: pa.Table) -> list[pa.Array]:
        return [table.column(name).combine_chunks() for name in self.tidy.by]

    def _write(self, tables: Iterable[pa.Table]) -> Path:
        path = self.folder / f"groups-{self.runs_written}.partial"
        self.runs_written += 1
        with ExitStack() as opened:
            writer = None
            for table in tables:
                writer = writer or opened.enter_context(_new_file(path, table.schema))
                dataset = table.schema.field(DATASET).type
                numbers = (fixed_size(dataset) or 1) * (fixed_size(dataset.value_type) or 1)
                # Each of the files that are merged holds one batch in memory.
                writer.write_table(table, max_chunksize=max(1, self.limit // MOST_FILES // (4 * numbers)))
        return path

    def _merged_once(self, runs: list[Path]) -> Iterator[pa.Table]:
        with ExitStack() as opened:
            rests = [opened.enter_context(closing(_batches_of(run))) for run in runs]
            heads = [_Head(head, _keys(head), rest) for rest in rests if (head := next(rest, None)) is not None]
            while heads:
                # What comes before the end of every head comes before all that is still in the files.
                bound = min(head.keys[-1] for head in heads)
                taken = [piece for head in heads if len(piece := head.take(bound))]
                heads = [head for head in heads if len(head.keys)]
                yield from _sorted(taken)
        for run in runs:
            run.unlink()


@dataclass
class _Head:
    """The next groups of one run."""

    groups: pa.Table
    keys: NDArray[np.int64]
    rest: Iterator[pa.Table]
    begin: int = 0

    def take(self, bound: int) -> pa.Table:
        """Those up to `bound`; the last of them brings in the following ones."""
        cut = int(np.searchsorted(self.keys, bound, side="right"))
        if cut == 0:
            return _NOTHING
        taken = self.groups.slice(self.begin, cut)
        self.keys, self.begin = self.keys[cut:], self.begin + cut
        if not len(self.keys) and (following := next(self.rest, None)) is not None:
            self.groups, self.keys, self.begin = following, _keys(following), 0
        return taken


_NOTHING = pa.table({})


def _keys(groups: pa.Table) -> NDArray[np.int64]:
    return np.asarray(numbers_of(groups.column(FIRST_ROW).combine_chunks()))


def _sorted(tables: list[pa.Table]) -> Iterator[pa.Table]:
    """The groups as one table in ascending order of FIRST_ROW; nothing of nothing."""
    if tables:
        table = pa.concat_tables(tables).combine_chunks()
        keys = _keys(table)
        yield table if (np.diff(keys) > 0).all() else table.take(pa.array(np.argsort(keys)))


def regrouped(tables: Iterable[pa.Table], bytes: int) -> Iterator[pa.Table]:
    """The same rows in tables of about `bytes`: few large pieces a file are faster than many small ones."""
    waiting: list[pa.Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.nbytes
        if held > bytes:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, held = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _new_file(path: Path, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
    return pa.ipc.new_stream(pa.OSFile(str(path), "wb"), schema)


def _whole_file(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all()


def _batches_of(path: Path) -> Generator[pa.Table]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield pa.Table.from_batches([batch])
