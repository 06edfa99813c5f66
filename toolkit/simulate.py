"""A user's simulator -> Parquet, over all cores: the same bytes for any number of workers, in flat memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from toolkit.cores import usable_cores
from toolkit.datasets import encode, write_schema_metadata
from toolkit.errors import OutputError, SimulatorError
from toolkit.files import appears_whole
from toolkit.progress import Report, silent
from toolkit.simulator import BLOCK, Simulator, open_simulator
from toolkit.simulator.function import DATASETS_COLUMN, Pair

ROW_GROUP = 8192  # datasets in a row group; fewer when they are large
ROW_GROUP_BYTES = 1 << 24
# Measured on 200 x 2 response times, one core: LZ4 reads 474,000 datasets/s and takes 62% of the bytes; no compression
# 578,000; Snappy 307,000 and 67%; Zstandard level 1 308,000 and 47%. On real numbers a dictionary only costs time.
COMPRESSION = "lz4"


def simulate(
    function: str,
    count: int,
    output: Path,
    *,
    seed: int = 0,
    workers: int | None = None,
    keep_going: bool = False,
    report: Report = silent,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Write `count` simulated datasets to a Parquet file, which appears whole or not at all and replaces an older one.

    The file holds `x`, one dataset a row as nested fixed-size lists of float32, then a float32 column for each
    parameter. Its bytes depend on the simulator, `count` and `seed` alone; memory does not grow with `count`.

    Args:
        function: "FILE.py:FUNCTION"; what it must be, see `open_simulator`.
        workers: processes; by default one for each core this process may use.
        keep_going: leave out datasets that are not finite, and blocks whose call raised or returned something else.
        report: called with the datasets made so far, `count`, and how many of those made were left out.
        say: told of each block of which something is left out.
    Returns:
        How many datasets were left out; without `keep_going` none ever are.
    Raises:
        SimulatorError: the simulator cannot be loaded, fails, or returns what it must not; or nothing at all is left.
        OutputError: `output` cannot be written.
    """
    if count < 1:
        raise SimulatorError(f"--count {count}: ask for at least 1 dataset.")
    _check_folder(output)
    needed = min(usable_cores() if workers is None else workers, -(-count // BLOCK))
    with (
        open_simulator(function, workers=needed) as simulator,
        _as_output_error(output),
        appears_whole(output) as partial,
    ):
        lost = 0

        def leave_out(number: int, why: str) -> None:
            nonlocal lost
            lost += number
            if lost == count:
                raise SimulatorError(f"{why}\nNothing is left of {count:,} datasets. Mend the simulator.")
            say(f"left out {number} of a block. The first: {why}")

        def report_good(good: int) -> None:
            report(good + lost, count, lost)

        blocks = (
            simulator.good_blocks(count, leave_out, seed=seed) if keep_going else simulator.blocks(count, seed=seed)
        )
        report_good(0)
        _write(partial, simulator, _row_groups(blocks, report_good))
        return lost


def _write(partial: Path, simulator: Simulator, row_groups: Iterator[Pair]) -> None:
    writer: Any = None
    try:
        for datasets, truths in row_groups:
            table = _to_table(datasets, truths, simulator)
            if writer is None:
                options = {"compression": COMPRESSION, "use_dictionary": False}
                writer = parquet.ParquetWriter(partial, table.schema, **options)
            writer.write_table(table, row_group_size=len(datasets))
    finally:
        if writer is not None:
            writer.close()


def _row_groups(blocks: Iterator[Pair], report: Callable[[int], None]) -> Iterator[Pair]:
    """The blocks, joined to row groups of whole blocks."""
    waiting: list[Pair] = []
    done = waiting_count = 0
    for block in blocks:
        fitting = max(BLOCK, min(ROW_GROUP, ROW_GROUP_BYTES // block[0][0].nbytes) // BLOCK * BLOCK)
        if waiting_count + len(block[0]) > fitting:
            yield _joined(waiting)
            waiting, waiting_count = [], 0
        waiting.append(block)
        waiting_count += len(block[0])
        done += len(block[0])
        report(done)
    if waiting:
        yield _joined(waiting)


def _joined(pairs: Sequence[Pair]) -> Pair:
    return np.concatenate([datasets for datasets, _ in pairs]), np.concatenate([truths for _, truths in pairs])


def _to_table(datasets: NDArray[np.float32], truths: NDArray[np.float32], simulator: Simulator) -> pa.Table:
    x = encode(datasets)
    columns = simulator.columns or tuple(f"column_{index}" for index in range(datasets.shape[2]))
    fields = [pa.field(DATASETS_COLUMN, x.type, nullable=False)]
    fields += [pa.field(name, pa.float32(), nullable=False) for name in simulator.parameters]
    schema = write_schema_metadata(pa.schema(fields), columns, simulator.parameters)
    return pa.Table.from_arrays([x, *(pa.array(truth) for truth in truths.T)], schema=schema)


def _check_folder(output: Path) -> None:
    """Say before the simulation, not after it, that its result has no place."""
    if output.is_dir():
        raise OutputError(f"{output}: is a folder. Name a Parquet file, for example {output / 'datasets.parquet'}.")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: there is no folder {output.parent}. Create it first.")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"{output}: the folder {output.parent} cannot be written to. Choose another one.")


@contextmanager
def _as_output_error(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = error.strerror or error
        raise OutputError(f"{output}: cannot be written ({what}). What was there before is unchanged.") from error
