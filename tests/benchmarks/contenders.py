"""The contenders that `python -m tests.benchmarks` runs, each in a process of its own: bare | keras.

They share nothing with the toolkit: each is what a person would write with the library alone. Each prints one JSON
object: the seconds of the part that counts, and the datasets scored.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES = (16, 32, 64, 128)
TRIAL_DATASETS = 8192


def bare(model_file: str, array_file: str) -> tuple[float, int]:
    """Two single-threaded interpreters over datasets that are in memory already, at their best batch."""
    datasets = np.load(array_file)

    def seconds_at(batch: int, datasets: NDArray[np.float32]) -> float:
        halves = np.array_split(datasets, 2)
        engines = [_interpreter(model_file, batch) for _ in halves]
        threads = [
            threading.Thread(target=_score, args=(*engine, half, batch))
            for engine, half in zip(engines, halves, strict=True)
        ]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun

    best = min(BATCHES, key=lambda batch: min(seconds_at(batch, datasets[:TRIAL_DATASETS]) for _ in range(2)))
    return seconds_at(best, datasets), len(datasets)


def _interpreter(model_file: str, batch: int) -> tuple[Any, int, int]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_file, num_threads=1)
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], [batch, *given["shape"][1:]])
    interpreter.allocate_tensors()
    return interpreter, given["index"], result["index"]


def _score(interpreter: Any, given: int, result: int, datasets: NDArray[np.float32], batch: int) -> None:
    for begin in range(0, len(datasets) - batch + 1, batch):
        interpreter.set_tensor(given, datasets[begin : begin + batch])
        interpreter.invoke()
        interpreter.get_tensor(result)


def keras(model_file: str, parquet_file: str) -> tuple[float, int]:
    """read_table, NumPy, `predict` at its default batch, write_table; TensorFlow's own start is not counted."""
    import keras
    import pyarrow.parquet as pq

    network: Any = keras.saving.load_model(model_file)
    rows, columns = network.input_shape[1:]
    begun = time.perf_counter()
    table = pq.read_table(parquet_file)
    values = table.column("x").combine_chunks().flatten().flatten().to_numpy()
    estimates = network.predict(values.reshape(-1, rows, columns), verbose=0)
    result = table.drop_columns(["x"])
    for number, column in enumerate(estimates.T):
        result = result.append_column(f"predicted_{number}", [np.ascontiguousarray(column)])
    pq.write_table(result, parquet_file + ".keras")
    return time.perf_counter() - begun, len(estimates)


if __name__ == "__main__":
    contender, *arguments = sys.argv[1:]
    seconds, count = {"bare": bare, "keras": keras}[contender](*arguments)
    print(json.dumps({"seconds": seconds, "datasets": count}))
