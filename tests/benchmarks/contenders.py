"""The contenders that `python -m tests.benchmarks` runs, each in a process of its own.

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


def onnx(model_file: str, parquet_file: str) -> tuple[float, int]:
    """A loop over `iter_batches` with a session on all cores, then write_table; everything at its default."""
    import onnxruntime
    import pyarrow as pa
    import pyarrow.parquet as pq

    session = onnxruntime.InferenceSession(model_file)
    (given,) = session.get_inputs()
    rows, columns = given.shape[1:]
    begun = time.perf_counter()
    tables = []
    source = pq.ParquetFile(parquet_file)
    for batch in source.iter_batches():
        values = batch.column("x").flatten().flatten().to_numpy()
        (estimates,) = session.run(None, {given.name: values.reshape(-1, rows, columns)})
        tables.append((batch.drop_columns(["x"]), estimates))
    result = pa.Table.from_batches([batch for batch, _ in tables])
    for number, column in enumerate(np.concatenate([estimates for _, estimates in tables]).T):
        result = result.append_column(f"predicted_{number}", [np.ascontiguousarray(column)])
    pq.write_table(result, parquet_file + ".onnx")
    return time.perf_counter() - begun, len(result)


def ray(model_file: str, parquet_file: str) -> tuple[float, int]:
    """read_parquet().map_batches().write_parquet() with a class that holds a session; Ray's start is not counted."""
    import os
    import shutil

    import ray

    class Estimate:
        def __init__(self) -> None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(model_file, options)
            (self.given,) = self.session.get_inputs()

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            datasets = np.stack([np.stack(dataset) for dataset in batch.pop("x")]).astype(np.float32)
            (estimates,) = self.session.run(None, {self.given.name: datasets})
            return {**batch, **{f"predicted_{number}": column for number, column in enumerate(estimates.T)}}

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cores = len(os.sched_getaffinity(0))
    ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    folder = parquet_file + ".ray"
    shutil.rmtree(folder, ignore_errors=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    begun = time.perf_counter()
    found = ray.data.read_parquet(parquet_file)
    # Half a CPU for each estimator: with a whole one nothing is left that could read, and all wait for ever.
    actors = ray.data.ActorPoolStrategy(size=cores)
    found.map_batches(Estimate, batch_size=1024, compute=actors, num_cpus=0.5).write_parquet(folder)
    seconds = time.perf_counter() - begun
    count = _rows_in(folder)
    ray.shutdown()
    return seconds, count


def spark(model_file: str, parquet_file: str) -> tuple[float, int]:
    """predict_batch_udf on the flattened column, on all cores; the virtual machine's start is not counted."""
    import os

    import onnxruntime
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import flatten
    from pyspark.sql.types import ArrayType, FloatType

    rows, columns = onnxruntime.InferenceSession(model_file).get_inputs()[0].shape[1:]

    def make_predict() -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model_file, options)
        (given,) = session.get_inputs()
        return lambda datasets: session.run(None, {given.name: datasets})[0]

    os.environ["PYSPARK_PYTHON"] = sys.executable
    cores = len(os.sched_getaffinity(0))
    session = SparkSession.builder.master(f"local[{cores}]").config("spark.driver.memory", "4g").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    estimate = predict_batch_udf(
        make_predict,
        return_type=ArrayType(FloatType()),
        batch_size=1024,
        input_tensor_shapes=[[rows, columns]],
    )
    folder = parquet_file + ".spark"
    begun = time.perf_counter()
    table = session.read.parquet(parquet_file)
    table.withColumn("predicted", estimate(flatten("x"))).drop("x").write.mode("overwrite").parquet(folder)
    seconds = time.perf_counter() - begun
    session.stop()
    return seconds, _rows_in(folder)


def _rows_in(folder: str) -> int:
    from pathlib import Path

    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in Path(folder).glob("*.parquet"))


if __name__ == "__main__":
    contender, *arguments = sys.argv[1:]
    run = {"bare": bare, "keras": keras, "onnx": onnx, "ray": ray, "spark": spark}[contender]
    seconds, count = run(*arguments)
    print(json.dumps({"seconds": seconds, "datasets": count}))
