"""Tidy tables: grouped into datasets before a run scores them; the rows of rejected groups found in the input again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from toolkit.batch.columns import REASON, rejected_schema, user_schema
from toolkit.batch.parts import Part, read_part
from toolkit.batch.score import Job
from toolkit.batch.sources import Source, open_sources
from toolkit.batch.storage import Place, is_there, open_folder
from toolkit.datasets import iter_batches
from toolkit.datasets.ids import codes_of, hashes_of, plain_id
from toolkit.datasets.tidy import COUNT, DATASET, MEMORY_BYTES, Tidy, group_files
from toolkit.errors import OutputError
from toolkit.places import join

GROUPS_FILE = "groups.parquet"  # in the work folder
REJECTED_AT_ONCE = 1_000_000  # groups whose rows are looked for in one pass over the input: 100 MB
READ_ROWS = 8192
ROW_GROUP_ROWS = 131_072


def is_tidy(sources: Sequence[Source]) -> bool:
    return bool(sources[0].layout.by)


def grouped(job: Job, memory_bytes: int = MEMORY_BYTES) -> Job:
    """The job with the datasets of its tidy tables as its one source; any other job as it is.

    They are grouped into the work folder, or taken from there where a run that is gone on with has done so.
    """
    if not is_tidy(job.sources):
        return job
    place = job.folder / GROUPS_FILE if isinstance(job.folder, Path) else join(job.folder, GROUPS_FILE)
    if not is_there(place):
        names = [source.name for source in job.sources]
        layout = job.sources[0].layout
        tidy = Tidy(layout.by, layout.fields, layout.rows)
        if isinstance(place, Path):
            group_files(names, tidy, place, memory_bytes)
        else:
            folder = open_folder(job.folder)
            with TemporaryDirectory() as here:
                group_files(names, tidy, Path(here) / GROUPS_FILE, memory_bytes)
                with (Path(here) / GROUPS_FILE).open("rb") as local, folder.writer(GROUPS_FILE, folder) as sink:
                    shutil.copyfileobj(local, sink, 1 << 20)
    (source,) = open_sources([str(place)], job.spec, column=DATASET, order=None)
    return replace(job, sources=(replace(source, grouped=True),))


def write_rejected(sources: Sequence[Source], folder: Place, parts: Sequence[Part], sink: Any) -> int:
    """Write the rows of all rejected groups as one Parquet file: as they are in the input, where from, and why.

    Their order is that of the input; beyond a million groups, that of the input for each million.

    Args:
        sources: the tidy tables.
        parts: of the rejected groups.
        sink: a binary file to write to; it stays open.
    Returns:
        how many rows.
    Raises:
        OutputError: a part is gone or damaged, or the input does not hold as many rows as were grouped.
    """
    schema = rejected_schema(sources[0])
    flat = pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_dictionary
    repetitive = [field.name for field in schema if any(is_type(field.type) for is_type in flat)]
    written = expected = 0
    with pq.ParquetWriter(sink, schema, use_dictionary=repetitive) as writer:
        for groups in _in_turn(folder, parts):
            expected += _observations(groups)
            wanted = _Wanted.of(groups, sources[0].layout.by)
            rows = (batch for source in sources for batch in _rows_of(source, wanted, schema))
            while batches := list(islice(rows, ROW_GROUP_ROWS // READ_ROWS)):
                table = pa.Table.from_batches(batches)
                writer.write_table(table, row_group_size=max(len(table), 1))
                written += len(table)
    if written != expected:
        raise OutputError(
            f"{sources[0].name}: {expected:,} rows were in the rejected groups, {written:,} are found again. "
            "Nothing is written; please report this."
        )
    return written


def observations_of(folder: Place, parts: Sequence[Part]) -> int:
    """How many rows of the input the rejected groups have."""
    return sum(map(_observations, _in_turn(folder, parts)))


def _observations(groups: pa.Table) -> int:
    return int(np.sum(groups.column(COUNT).to_numpy()))


def _in_turn(folder: Place, parts: Sequence[Part]) -> Iterator[pa.Table]:
    """The rejected groups, a million or a few more at a time."""
    waiting: list[pa.Table] = []
    for part in parts:
        table = read_part(folder, part)
        if table is None or table.num_rows != part.rows:
            raise OutputError(f"{folder}, {part.file}: gone or damaged. Run the same command with --resume.")
        waiting.append(table)
        if sum(map(len, waiting)) >= REJECTED_AT_ONCE:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


@dataclass(frozen=True)
class _Wanted:
    """Groups whose rows are looked for.

    Attributes:
        hashes: uint64 (groups,) of their ids, ascending; `order` says whose each is.
        distinct: no two have the same hash.
    """

    by: tuple[str, ...]
    ids: list[pa.Array]
    reasons: pa.Array
    hashes: NDArray[np.uint64]
    order: NDArray[np.int64]
    distinct: bool

    @staticmethod
    def of(groups: pa.Table, by: tuple[str, ...]) -> _Wanted:
        groups = groups.combine_chunks()
        ids = [groups.column(name).combine_chunks() for name in by]
        hashes = hashes_of(ids)
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        return _Wanted(
            by, ids, groups.column(REASON).combine_chunks(), hashes, order, bool((np.diff(hashes) > 0).all())
        )

    def find(self, ids: list[pa.Array]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which rows belong to one of the groups, and to which."""
        if not self.distinct:
            together = [pa.concat_arrays([own, given]) for own, given in zip(self.ids, ids, strict=True)]
            codes = codes_of(together)[0][len(self.order) :]  # groups come first, so that their codes are their places
            rows = np.flatnonzero(codes < len(self.order))
            return rows, codes[rows]
        hashes = hashes_of(ids)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        rows = np.flatnonzero(self.hashes[place] == hashes)
        groups = self.order[place[rows]]
        # What has the same hash may still be another id.
        pairs = [
            pa.concat_arrays([own.take(pa.array(groups)), given.take(pa.array(rows))])
            for own, given in zip(self.ids, ids, strict=True)
        ]
        codes = codes_of(pairs)[0]
        same = codes[: len(rows)] == codes[len(rows) :]
        return rows[same], groups[same]


def _rows_of(source: Source, wanted: _Wanted, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The wanted rows of one file, in order. Of row groups without any, only the ids are read."""
    begins = list(accumulate(source.row_groups, initial=0))
    for group, begin in enumerate(begins[:-1]):
        found_rows, found_groups, row = [], [], 0
        for batch in iter_batches(source.name, list(wanted.by), [group], READ_ROWS):
            rows, groups = wanted.find([plain_id(column) for column in batch.columns])
            found_rows.append(rows + row)
            found_groups.append(groups)
            row += len(batch)
        rows, groups = (
            np.concatenate(found) if found else np.empty(0, np.int64) for found in (found_rows, found_groups)
        )
        if not len(rows):
            continue
        row = 0
        for batch in iter_batches(source.name, user_schema(source.schema).names, [group], READ_ROWS):
            here = slice(*np.searchsorted(rows, [row, row + len(batch)]))
            taken = batch.take(pa.array(rows[here] - row))
            row += len(batch)
            made = [
                pa.repeat(pa.scalar(source.name, pa.string()), len(taken)),
                pa.array(rows[here] + begin),
                wanted.reasons.take(pa.array(groups[here])),
            ]
            if len(taken):
                yield pa.RecordBatch.from_arrays([*taken.columns, *made], schema=schema)


__all__ = ["GROUPS_FILE", "grouped", "is_tidy", "observations_of", "write_rejected"]
