"""The files beside this one, written by the tools whose layouts they show: `python write.py FOLDER`.

Each holds six datasets of 5 x 2, `DATASETS`, numbered by `id`. The tools (ray[data], datasets, pyspark with a Java,
polars, duckdb, pandas) are no dependency of the tests, which is why the files are kept.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DATASETS = np.random.default_rng(0).normal(size=(6, 5, 2)).astype(np.float32)
SMALLEST_STORED = 0.5  # in the sparse vectors, every other one: smaller numbers are left out
IDS = list(range(len(DATASETS)))


def write_ray(folder: Path) -> None:
    import ray.data._internal.tensor_extensions.arrow as tensors
    from ray.data.context import DataContext

    def write(name: str, array: pa.Array) -> None:
        pq.write_table(pa.table({"id": IDS, "x": array}), folder / f"ray_{name}.parquet")

    for name, serialization in (("v1", "JSON"), ("v2", "CLOUDPICKLE"), ("arrow_native", "JSON")):
        tensors.ARROW_EXTENSION_SERIALIZATION_FORMAT = getattr(tensors._SerializationFormat, serialization)
        DataContext.get_current().arrow_fixed_shape_tensor_format = getattr(
            tensors.FixedShapeTensorFormat, name.upper()
        )
        write(name, tensors.ArrowTensorArray.from_numpy(DATASETS))
    ragged = np.array([*DATASETS[:5], DATASETS[5][:4]], dtype=object)
    write("variable", tensors.ArrowVariableShapedTensorArray.from_numpy(ragged))


def write_hugging_face(folder: Path) -> None:
    from datasets import Array2D, Dataset, Features, List, Value

    columns = {"id": IDS, "x": list(DATASETS)}
    features = Features({"id": Value("int64"), "x": Array2D((5, 2), "float32")})
    Dataset.from_dict(columns, features=features).to_parquet(folder / "hugging_face_array2d.parquet")
    features = Features({"id": Value("int64"), "x": List(List(Value("float32"), length=2), length=5)})
    Dataset.from_dict(columns, features=features).to_parquet(folder / "hugging_face_lists.parquet")


def write_spark(folder: Path) -> None:
    from pyspark.ml.linalg import Vectors
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()

    def write(name: str, rows: list[tuple], schema: str) -> None:
        written = folder / "written"
        session.createDataFrame(rows, schema).coalesce(1).write.parquet(str(written))
        shutil.copy(next(written.glob("*.parquet")), folder / f"spark_{name}.parquet")
        shutil.rmtree(written)

    lists = DATASETS.astype(float).tolist()
    flat = [[number for observation in dataset for number in observation] for dataset in lists]
    vectors = [
        Vectors.sparse(10, {at: number for at, number in enumerate(numbers) if abs(number) > SMALLEST_STORED})
        if index % 2
        else Vectors.dense(numbers)
        for index, numbers in enumerate(flat)
    ]
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import LongType, StructField, StructType

    schema = StructType([StructField("id", LongType()), StructField("features", VectorUDT())])
    write("vectors", [*zip(IDS, vectors, strict=True), (6, None)], schema)
    structs = [[tuple(observation) for observation in dataset] for dataset in lists]
    write("structs", list(zip(IDS, structs, strict=True)), "id long, trials array<struct<rt: double, correct: double>>")
    write("arrays", list(zip(IDS, lists, strict=True)), "id long, x array<array<float>>")
    separate = [(*DATASETS[index].T.astype(float).tolist(),) for index in IDS]
    write("separate", [(index, *each) for index, each in enumerate(separate)],
          "id long, rt array<double>, correct array<double>")  # fmt: skip
    binary = [bytearray(dataset.astype("<f8").tobytes()) for dataset in DATASETS]
    write("binary", list(zip(IDS, binary, strict=True)), "id long, x binary")


def write_tables(folder: Path) -> None:
    import duckdb
    import pandas
    import polars

    array = polars.Series(DATASETS.tolist(), dtype=polars.Array(polars.Float32, (5, 2)))
    polars.DataFrame({"id": IDS, "x": array}).write_parquet(folder / "polars_array.parquet")
    structs = [[{"rt": float(rt), "correct": float(correct)} for rt, correct in dataset] for dataset in DATASETS]
    polars.DataFrame({"id": IDS, "x": structs}).write_parquet(folder / "polars_structs.parquet")
    connection = duckdb.connect()
    connection.execute("create table t(id bigint, x float[2][5])")
    for index, dataset in enumerate(DATASETS):
        connection.execute("insert into t values (?, ?)", [index, dataset.tolist()])
    connection.execute(f"copy t to '{folder}/duckdb_array.parquet' (format parquet)")
    pandas.DataFrame({"id": IDS, "x": [list(dataset) for dataset in DATASETS]}).to_parquet(
        folder / "pandas_objects.parquet"
    )


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    for write_files in (write_ray, write_hugging_face, write_spark, write_tables):
        write_files(target)
