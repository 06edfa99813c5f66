"""What a run would do, said before it does anything: inputs, layout, shards, where it writes, and how long it takes."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from toolkit.batch.assemble import read_evidence
from toolkit.batch.columns import SOURCE_FILE, SOURCE_ROW, output_schema, predicted_names
from toolkit.batch.lock import owner_of
from toolkit.batch.pipeline import SHARDS_AHEAD
from toolkit.batch.prepare import Prepared
from toolkit.batch.score import Scored, load_engines, score_rows
from toolkit.batch.shards import Shard, plan_shards, read_shards
from toolkit.batch.sources import Source
from toolkit.batch.storage import is_there, open_folder
from toolkit.batch.tidy import is_tidy
from toolkit.batch.work import unfinished_run
from toolkit.cores import usable_cores
from toolkit.errors import OutputError

WARM_UP_ROWS = 64
FIRST_ROWS = 512
MEASURED_SECONDS = 0.7
# For what only a whole run holds: threads, more engines, parts put together, slack of the allocators. With it estimates
# were 1.02 to 1.07 times what runs of two workers held for fixed-size lists, 1.3 to 1.5 times for variable ones.
MARGIN_BYTES = 24 << 20


@dataclass(frozen=True)
class PlannedInput:
    """One file to score, by its footer."""

    file: str
    rows: int
    row_groups: int
    bytes: int
    layout: str


@dataclass(frozen=True)
class Estimate:
    """What a run takes, measured on the first rows with the engines that it would use.

    Attributes:
        rows_measured: how many those were.
        rows_per_second: of one worker.
        seconds: of all rows on all workers; None where nobody knows how many there will be.
        memory_bytes: resident at most, on this machine.
        output_bytes: of the finished output.
        disk_bytes: at most while the output is put together, when it and the parts are both there.
    """

    rows_measured: int
    rows_per_second: float
    seconds: float | None
    memory_bytes: int
    output_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        carried: columns of the input that the output holds as well.
        predicted: columns that the run adds.
        checked: the exported files that would be run, the scoring file first.
        workers: None where a cluster's CPUs decide.
        shards_done: of an unfinished run of the same inputs, model and options.
        state: of the output and of an unfinished run, for people.
        refused: why the run would not begin; None when it would.
        estimate: None without a row to measure.
    """

    inputs: tuple[PlannedInput, ...]
    rows: int
    row_groups: int
    shards: int
    carried: tuple[str, ...]
    predicted: tuple[str, ...]
    checked: tuple[str, ...]
    check: str
    output: str
    rejected: str
    unfinished: str
    workers: int | None
    shards_done: int
    state: str
    refused: str | None
    estimate: Estimate | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_run(prepared: Prepared, *, workers: int | None, engine: str, resume: bool, overwrite: bool) -> Plan:
    """What `batch_predict` would do with the same arguments. Nothing is written; the first rows are scored."""
    job, paths = prepared.job, prepared.paths
    sources = job.sources
    # Of tidy tables nobody knows how many groups they hold: as many as if each were complete.
    shards = plan_shards([_as_groups(source) for source in sources] if is_tidy(sources) else sources)
    predicted = [*predicted_names(job.spec.parameters, job.limits is not None), SOURCE_FILE, SOURCE_ROW]
    if engine == "local":
        workers = min(workers or usable_cores(), max(len(shards), 1))
    state, refused, shards_done = _state(prepared, len(shards), resume, overwrite)
    return Plan(
        tuple(
            PlannedInput(source.name, source.rows, len(source.row_groups), source.bytes, source.layout.describe())
            for source in sources
        ),
        sum(source.rows for source in sources),
        sum(len(source.row_groups) for source in sources),
        len(shards),
        tuple(
            name
            for name in output_schema(sources[0], job.spec.parameters, job.limits is not None).names
            if name not in predicted
        ),
        tuple(predicted),
        (job.scoring.name, *(path.name for path in job.others)),
        job.check,
        str(paths.output),
        str(paths.rejected),
        str(paths.work),
        workers,
        shards_done,
        state,
        refused,
        None if is_tidy(sources) else _estimate(prepared, shards, workers),
    )


def _as_groups(source: Source) -> Source:
    return replace(source, row_groups=(-(-source.rows // source.layout.rows),))


def _state(prepared: Prepared, shards: int, resume: bool, overwrite: bool) -> tuple[str, str | None, int]:
    """What is there already, why the run would not begin because of it, and how many shards are done."""
    paths = prepared.paths
    if owner := owner_of(paths.work):
        reason = f"{paths.work}: another batch-predict (process {owner}) is writing this output."
        return "another batch-predict is writing it", reason, 0
    earlier = unfinished_run(paths.work)
    difference = prepared.key.difference(earlier) if earlier else None
    done = 0
    if earlier is None:
        state = "nothing to resume"
    elif difference:
        state = f"an unfinished run of something else ({difference}); without --resume it is dropped"
    else:
        done = sum(1 for name in open_folder(paths.work).names() if re.fullmatch(r"\d+\.json", name))
        then = "goes on from there" if resume else "--resume keeps them, without it they are dropped"
        state = f"{done:,} of {shards:,} shards are done; {then}"
    evidence = read_evidence(paths.output) if resume and is_there(paths.output) else None
    if evidence and evidence.get("run") == prepared.key.digest:
        return "this very run is finished", None, shards
    try:
        if resume and difference:
            raise OutputError(f"{paths.work}: cannot resume, {difference}.")
        paths.check_free(overwrite, unpublished=resume and earlier is not None)
    except OutputError as error:
        return state, str(error), done
    return state, None, done


def _estimate(prepared: Prepared, shards: Sequence[Shard], workers: int | None) -> Estimate | None:
    job = prepared.job
    rows = sum(shard.rows for shard in shards)
    if not rows:
        return None
    first = shards[0]
    engines = load_engines(job)
    loaded_bytes = _resident_bytes()
    waiting_bytes = 0.0  # of one row that is read and not scored yet

    def measure(count: int) -> tuple[float, Scored]:
        nonlocal waiting_bytes
        shard = replace(first, rows=min(count, first.rows))
        begun, held = time.perf_counter(), pa.total_allocated_bytes()
        ((_, batches),) = read_shards(job.sources, [shard])
        waiting_bytes = max(pa.total_allocated_bytes() - held, 0) / shard.rows
        scored = score_rows(job, shard, batches, engines)
        return (time.perf_counter() - begun) / shard.rows, scored

    measure(WARM_UP_ROWS)
    seconds_a_row, scored = measure(FIRST_ROWS)
    if first.rows > FIRST_ROWS:
        # As many rows as fit into the time: the check of a sample costs a small shard more than a large one.
        seconds_a_row, scored = measure(max(int(MEASURED_SECONDS / seconds_a_row), FIRST_ROWS))
    measured = scored.predicted.num_rows + (scored.rejected.num_rows if scored.rejected else 0)
    threads = workers or 1
    working_bytes = _resident_bytes() - loaded_bytes
    waiting = min(threads + SHARDS_AHEAD, len(shards)) * max(shard.rows for shard in shards)
    part_bytes = scored.predicted.nbytes + (scored.rejected.nbytes if scored.rejected else 0)
    output_bytes = int(_parquet_bytes(scored.predicted) / measured * rows)
    return Estimate(
        measured,
        1 / seconds_a_row,
        rows * seconds_a_row / min(workers, usable_cores()) if workers else None,
        int(loaded_bytes + working_bytes * threads + waiting_bytes * waiting + MARGIN_BYTES),
        output_bytes,
        int(part_bytes / measured * rows) + output_bytes,
    )


def _parquet_bytes(table: pa.Table) -> int:
    """Bytes of a table as Parquet, tried in memory."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return int(sink.getvalue().size)


def _resident_bytes() -> int:
    """The most that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
