"""What is timed, inside the process that runs the file: these functions are called in a child of `toolkit.contained`.

The file runs as `batch-predict` runs it: through `toolkit.runtime.load`, single-threaded, in batches of 32.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.runtime import BATCH, load

if TYPE_CHECKING:
    from toolkit.spec import FloatArray, Predict

MOST_BATCHES = 8  # between two looks at the clock
LOOKS = 4  # at the clock while a block lasts, if the file is fast enough


@dataclass(frozen=True)
class Block:
    """Datasets scored without a pause.

    Attributes:
        per_second: datasets a second.
        per_cpu_second: datasets a second of processor time, which other programs do not take away from.
    """

    per_second: float
    per_cpu_second: float


def start_up_seconds(path: Path, dataset: FloatArray) -> float:
    """From nothing loaded to the first estimate, of one dataset (1, rows, columns). In a fresh process the import of
    the runtime is a part of it; that of Python and NumPy is not."""
    begun = time.perf_counter()
    load(path, batch=1)(dataset)
    return time.perf_counter() - begun


def one_thread(path: Path, datasets: FloatArray, seconds: float) -> Block:
    """Score for about `seconds`, one batch at least. What other processes left in the caches is gone by then: a batch
    is scored before the clock starts."""
    return _score_until(_loaded(path, 0), datasets, seconds)


def all_cores(path: Path, datasets: FloatArray, workers: int, seconds: float) -> Block:
    """The same in `workers` threads, each with the file loaded for itself, at the same time."""
    engines = [_loaded(path, worker) for worker in range(workers)]
    blocks: list[Block] = []
    errors: list[Exception] = []
    together = threading.Barrier(workers)

    def work(predict: Predict) -> None:
        try:
            together.wait()
            blocks.append(_score_until(predict, datasets, seconds))
        except Exception as error:  # raised again by the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=work, args=(predict,)) for predict in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Block(sum(block.per_second for block in blocks), sum(block.per_cpu_second for block in blocks))


def latencies(path: Path, dataset: FloatArray, seconds: float) -> NDArray[np.float64]:
    """Seconds of single calls with one dataset (1, rows, columns), as many as there is time for; one at least."""
    predict = _loaded_for_one(path)
    predict(dataset)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while True:
        begun = time.perf_counter()
        predict(dataset)
        now = time.perf_counter()
        taken.append(now - begun)
        if now >= end:
            return np.array(taken)


def _score_until(predict: Predict, datasets: FloatArray, seconds: float) -> Block:
    begun = time.perf_counter()
    predict(datasets[:BATCH])
    batches = int(seconds / LOOKS / max(time.perf_counter() - begun, 1e-9))
    piece = datasets[: BATCH * min(max(batches, 1), MOST_BATCHES)]
    done, begun, cpu_begun = 0, time.perf_counter(), time.thread_time()
    while True:
        predict(piece)
        done += len(piece)
        now = time.perf_counter()
        if now - begun >= seconds:
            return Block(done / (now - begun), done / max(time.thread_time() - cpu_begun, 1e-9))


@cache
def _loaded(path: Path, worker: int) -> Predict:
    return load(path)


@cache
def _loaded_for_one(path: Path) -> Predict:
    return load(path, batch=1)
