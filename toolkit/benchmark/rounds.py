"""Speeds of several files: each in a process of its own, taking turns, so that what disturbs the machine for a while
disturbs them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.benchmark.stopwatch import Block, all_cores, latencies, one_thread, start_up_seconds
from toolkit.contained import MEMORY_BYTES, TIMEOUT_SECONDS, Child, open_child
from toolkit.errors import ToolkitError
from toolkit.runtime import BATCH

if TYPE_CHECKING:
    from toolkit.spec import FloatArray

ROUNDS = 10
STARTS = 3  # fresh processes
MEASURED = 3  # blocks of a file in a round: one thread, all cores, single datasets
TIMED_DATASETS = 8 * BATCH  # in memory while the clock runs: they stay in the cache, as record batches do


@dataclass(frozen=True)
class Speed:
    """Of one file. Medians over the rounds; the latencies of all rounds together.

    Attributes:
        one_thread: datasets a second of processor time of a single thread: what a quiet machine gives in a second.
        all_cores: datasets a second in one thread for each usable core.
        slowed: how much longer the clock ran than the processor, 1 on a quiet machine.
        p50_seconds, p99_seconds: of a call with one dataset.
    """

    start_up_seconds: float
    one_thread: float
    all_cores: float
    slowed: float
    p50_seconds: float
    p99_seconds: float


@dataclass
class _Turns:
    """What one file has taken so far."""

    starts: list[float] = field(default_factory=list)
    one_thread: list[Block] = field(default_factory=list)
    all_cores: list[Block] = field(default_factory=list)
    latencies: list[NDArray[np.float64]] = field(default_factory=list)

    def speed(self) -> Speed:
        together = np.concatenate(self.latencies)
        return Speed(
            start_up_seconds=median(self.starts),
            one_thread=median(block.per_cpu_second for block in self.one_thread),
            all_cores=median(block.per_second for block in self.all_cores),
            slowed=median(block.per_cpu_second / block.per_second for block in self.one_thread),
            p50_seconds=float(np.quantile(together, 0.5)),
            p99_seconds=float(np.quantile(together, 0.99)),
        )


def measure_speeds(
    paths: list[Path], datasets: FloatArray, workers: int, seconds: float, step: Callable[[], None]
) -> Mapping[Path, Speed | ToolkitError]:
    """Speed of every file, or the error that ended its measuring; the others go on.

    Args:
        datasets: float32 (datasets, rows, columns), at least one; repeated, or cut, to TIMED_DATASETS.
        workers: threads that stand for all cores.
        seconds: of timed scoring for each file, start-ups not counted. A slow file takes longer: a block is at least
            one batch.
        step: called after each file's turn: STARTS + ROUNDS times for each.
    """
    timed = np.ascontiguousarray(np.resize(datasets, (TIMED_DATASETS, *datasets.shape[1:])))
    one = timed[:1]
    block_seconds = seconds / ROUNDS / MEASURED
    children = {path: Child(TIMEOUT_SECONDS, MEMORY_BYTES) for path in paths}
    turns = {path: _Turns() for path in paths}
    failed: dict[Path, ToolkitError] = {}

    def start(path: Path, child: Child) -> None:
        with open_child() as fresh:
            turns[path].starts.append(fresh.call(start_up_seconds, path, one, where=path.name))

    def score(path: Path, child: Child) -> None:
        mine = turns[path]
        mine.one_thread.append(child.call(one_thread, path, timed, block_seconds, where=path.name))
        mine.all_cores.append(child.call(all_cores, path, timed, workers, block_seconds, where=path.name))
        mine.latencies.append(child.call(latencies, path, one, block_seconds, where=path.name))

    try:
        for number, turn in enumerate([start] * STARTS + [score] * ROUNDS):
            first = number % max(len(paths), 1)  # nobody always comes after the same other one
            for path in paths[first:] + paths[:first]:
                if path not in failed:
                    try:
                        turn(path, children[path])
                    except ToolkitError as error:
                        failed[path] = error
                step()
    finally:
        for child in children.values():
            child.stop()
    return {path: failed.get(path) or turns[path].speed() for path in paths}
