"""One shard from its record batches to its part and receipt: the same function wherever it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toolkit.batch.checks import Engines, FileCheck, Rows, ShardChecks, Violation
from toolkit.batch.columns import REASON, SOURCE_FILE, SOURCE_ROW, output_schema, predicted_names, rejected_schema
from toolkit.batch.guilty import decode_batch, score_accepted
from toolkit.batch.origins import Origins
from toolkit.batch.parts import Receipt, predicted_name, rejected_name, write_part, write_receipt
from toolkit.batch.ranges import OUTSIDE, RangeCount, counted, outside
from toolkit.batch.shards import Shard
from toolkit.batch.smallest import Smallest
from toolkit.batch.sources import Source
from toolkit.batch.storage import Place
from toolkit.datasets.groups import REASON as UNGROUPED
from toolkit.intervals import Limits
from toolkit.manifest import Range
from toolkit.runtime import load, runtime_for
from toolkit.spec import Spec


@dataclass(frozen=True)
class Job:
    """All that a worker has to know to score any shard of a run.

    Attributes:
        scoring: the exported file that gives the predictions.
        others: the exported files that are compared with it; none with check 'off'.
        check: 'all', 'sample' or 'off'.
        folder: where parts and receipts go.
        run: digest of the run's key.
        ranges: of each input column in training; none where nobody knows.
        strict_range: reject datasets outside them, instead of counting them.
        runtime: what runs the scoring file; None for the runtime of its ending.
        limits: of the intervals around the scoring file's estimates; None where they are not asked for.
    """

    sources: tuple[Source, ...]
    spec: Spec
    scoring: Path
    others: tuple[Path, ...]
    check: str
    folder: Place
    run: str
    ranges: tuple[Range, ...] = ()
    strict_range: bool = False
    runtime: str | None = None
    limits: Limits | None = None


def load_engines(job: Job) -> Engines:
    """The files a worker runs, single-threaded; each worker has its own."""
    scoring = load(job.scoring, runtime=job.runtime)
    return Engines(job.scoring.name, scoring, {path.name: load(path) for path in job.others})


@dataclass(frozen=True)
class Scored:
    """A shard that is scored and checked but not written: the tables of its parts, and what its receipt will say."""

    shard: Shard
    rows_in: int
    predicted: pa.Table
    rejected: pa.Table | None
    reasons: Mapping[str, int]
    outside: RangeCount
    checks: tuple[FileCheck, ...]
    smallest: Smallest


def score_shard(job: Job, shard: Shard, batches: Iterable[pa.RecordBatch], engines: Engines) -> Receipt:
    """Score the rows of a shard, check every output, write part and receipt.

    Args:
        batches: exactly the shard's rows, with all columns of the file.
    Raises:
        Violation: a file gave an output that is not finite and positive; nothing is written then.
    """
    return write_shard(job, score_rows(job, shard, batches, engines))


def write_shard(job: Job, scored: Scored) -> Receipt:
    """Write the parts of a shard, then its receipt. It waits for the disk: no work for a thread that computes."""
    shard, rejected = scored.shard, scored.rejected
    receipt = Receipt(
        shard.index,
        scored.rows_in,
        write_part(job.folder, predicted_name(shard), scored.predicted),
        None if rejected is None else write_part(job.folder, rejected_name(shard), rejected),
        scored.reasons,
        scored.outside,
        scored.checks,
        scored.smallest,
        job.run,
        runtime_for(job.scoring, job.runtime),
    )
    write_receipt(job.folder, receipt, job.spec.parameters)
    return receipt


def score_rows(job: Job, shard: Shard, batches: Iterable[pa.RecordBatch], engines: Engines) -> Scored:
    """Score the rows of a shard and check every output; its arguments and errors are those of `score_shard`."""
    source = job.sources[shard.source]
    checks = ShardChecks(engines, job.check, job.spec.parameters, source.name, shard.index)
    predictions, rejects = output_schema(source, job.spec.parameters, job.limits is not None), rejected_schema(source)
    predicted: list[pa.RecordBatch] = []
    rejected: list[pa.RecordBatch] = []
    reasons: Counter[str] = Counter()
    beyond = RangeCount()
    first_row = shard.first_row
    origins = Origins(first_row) if source.grouped else None
    for batch in batches:
        decoded = decode_batch(batch, source.layout, source.name)
        datasets, accepted, given = decoded.datasets, decoded.accepted, list(decoded.reasons)
        if origins:
            origins.add(batch)
            given = [known or found for known, found in zip(batch.column(UNGROUPED).to_pylist(), given, strict=True)]
            accepted = np.array([reason is None for reason in given], np.bool_)
        far = outside(datasets, job.ranges) & accepted[:, np.newaxis]
        beyond = beyond.merged(counted(far, job.spec.columns))
        if job.strict_range:
            for row in np.flatnonzero(far.any(axis=1)):
                given[row], accepted[row] = OUTSIDE, False
        rows = np.arange(first_row, first_row + len(batch))
        first_row += len(batch)
        try:
            estimates = score_accepted(checks, datasets, rows, accepted, given)
        except Violation as violation:
            raise origins.violation(violation) if origins else violation from None
        if not accepted.all():
            why = [reason for reason in given if reason is not None]
            reasons.update(why)
            refused = batch.filter(pa.array(~accepted))
            rejected.append(_rows(refused, rejects, source, rows[~accepted], {REASON: pa.array(why, pa.string())}))
            batch, rows = batch.filter(pa.array(accepted)), rows[accepted]
        made = np.stack([estimates, *job.limits(estimates)], axis=-1) if job.limits else estimates[:, :, np.newaxis]
        arrays = [
            _as_arrow(np.ascontiguousarray(column))
            for column in made.reshape(len(made), made.shape[1] * made.shape[2]).T
        ]
        columns = dict(zip(predicted_names(job.spec.parameters, job.limits is not None), arrays, strict=True))
        predicted.append(_rows(batch, predictions, source, rows, columns))
    return Scored(
        shard,
        first_row - shard.first_row,
        pa.Table.from_batches(predicted, predictions),
        pa.Table.from_batches(rejected, rejects) if rejected else None,
        dict(sorted(reasons.items())),
        beyond,
        checks.finish(),
        origins.renamed(checks.smallest) if origins else checks.smallest,
    )


def _as_arrow(values: NDArray[Any]) -> pa.Array:
    """The same numbers, sharing memory. (`pa.array` would import pandas, where it is installed: .3 s.)"""
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def _repeated(text: str, count: int) -> pa.Array:
    """`text`, so often; without `pa.scalar`, as above."""
    content = text.encode()
    ends = np.arange(count + 1, dtype=np.int32) * len(content)
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(content * count))


def _rows(
    batch: pa.RecordBatch, schema: pa.Schema, source: Source, rows: Rows, made: Mapping[str, pa.Array]
) -> pa.RecordBatch:
    """The columns of `schema`: those made here, where each row came from, and the rest as they are in the input."""
    origin = {SOURCE_FILE: _repeated(source.name, len(batch)), SOURCE_ROW: _as_arrow(rows)}
    made = {**made, **({} if source.grouped else origin)}
    arrays = [made[field.name] if field.name in made else batch.column(field.name) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
